"""From an observation to the surface: Zernike orders one after the other, then the error bars.

Each order starts from the result of the one below. The last one starts once more from the perfect dish:
the objective has several optima, and the two starts fail on different surfaces; the better end is kept.
Each descent is BFGS in the coordinates that the information matrix makes round; see `minimize`.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from ooftorch import likelihood as likelihoods
from ooftorch import telescope as telescopes
from ooftorch import zernike
from ooftorch.device import OO
from ooftorch.errors import InputError
from ooftorch.likelihood import Likelihood
from ooftorch.minimize import Objective, bfgs, newton_decrement
from ooftorch.model import BeamModel, Layout, MapGeometry, Parameter
from ooftorch.posterior import Data, Posterior
from ooftorch.result import Aperture, Estimate, FitResult, MapFit, OrderFit
from ooftorch.telescope import Telescope

if TYPE_CHECKING:
    from ooftorch.observation import BeamMap, Observation

__all__ = ["Progress", "fit"]

# Distance to the minimum, in standard deviations, at which a descent stops: on the way, and at the end.
_COARSE, _FINE = 0.1, 1e-4
# ... and at which the end counts as converged.
_CONVERGED = 0.01
# A long descent leaves the information matrix of its start behind; the last order renews it this often.
_ROUNDS = 6
_MAX_RASTER = 2048


class Progress(NamedTuple):
    """What a fit tells its watcher: where it is, and an order when one is finished."""

    order: int
    n_eval: int
    objective: float
    finished: OrderFit | None


def fit(
    observation: "Observation",
    telescope: Telescope | str | Path | None = None,
    *,
    order: int = 5,
    likelihood: str = "gaussian",
    illumination: str | None = None,
    device: str = "auto",
    free: Iterable[str] = (),
    fixed: Mapping[str, float] | None = None,
    n: int | None = None,
    oversample: float = 2.0,
    progress: Callable[[Progress], None] | None = None,
) -> FitResult:
    """Fit the surface of a telescope to beam maps taken in and out of focus.

    Parameters
    ----------
    observation : Observation
        From `ooftorch.read`, or built from arrays.
    telescope : Telescope, str or Path, optional
        A telescope, a name the package knows, or a TOML file; the observation's own when not given.
    order : int
        Highest Zernike order; orders 1 to this one are fitted in turn.
    likelihood : {"gaussian", "cauchy"}
    illumination : str, optional
        "gaussian", "pedestal", "squashed" or "tophat"; by default what the receiver asks for, else the
        telescope's usual one.
    device : {"auto", "cpu", "cuda"}
    free : iterable of str
        Parameters to free beyond the default ones: "x0", "y0", "q", "dz", "dx" (one per map), ...
    fixed : mapping of str to float, optional
        Parameters to hold, with their values, in their units.
    n, oversample : int, float, optional
        Aperture raster (see `BeamModel`); n by default 256, or more for maps that reach farther out.
    progress : callable, optional
        Gets a `Progress` after every evaluation and every order.

    Returns
    -------
    FitResult

    Raises
    ------
    InputError
        If the observation cannot be fitted, the telescope is not known or not given, a name is not
        known, or there are more parameters than samples.
    """
    begin = time.perf_counter()
    observation.check()
    scope = _telescope(observation, telescope)
    judge = likelihoods.likelihood(likelihood)
    if illumination is None:
        illumination = observation.illumination or scope.illumination.model
    oo = OO(device)
    n_data = sum(m.n_valid for m in observation.maps)
    if zernike.n_terms(max(order, 1)) > n_data:
        raise InputError(
            f"order {order} has {zernike.n_terms(order) - 1} coefficients, but the maps have only {n_data} "
            "valid samples; choose a lower order"
        )
    peak, baselines = _levels(observation.maps)
    model = BeamModel(
        scope,
        observation.wavelength,
        [MapGeometry(m.dz, *_directions(m)) for m in observation.maps],
        order=order,
        illumination=illumination,
        receiver=observation.receiver,
        scale=peak,
        n=_raster(observation, scope, oversample) if n is None else n,
        oversample=oversample,
        oo=oo,
    )
    data, known_errors, doubts = _data(observation.maps, oo)
    layout = model.layout.added(_noise(known_errors, judge, peak)).freed(free).fixed(fixed or {})
    if not layout.free:
        raise InputError("every parameter is held; leave at least one free")
    if len(layout.free) >= n_data:
        raise InputError(
            f"{len(layout.free)} free parameters at order {order}, but only {n_data} valid samples; "
            "choose a lower order"
        )
    model.adopt(layout)

    problem = _Problem(model, data, judge)
    start = _start(problem, layout, observation, baselines)
    u = start
    orders: list[OrderFit] = []
    for step in range(1, order + 1):
        began = time.perf_counter()
        counter = _Counter(step, progress)
        stage = layout.up_to_order(step)
        starts = [u, start] if 1 < step == order else [u]
        ends = [_approach(problem, stage, s, counter) for s in starts]
        best = min(ends, key=lambda end: end.objective)
        if step == order:
            best = _descend(problem, stage, best.coordinates, counter, _FINE, _ROUNDS)
        u = best.coordinates
        residual = problem.posterior(layout, u).residuals(u).cpu().numpy()
        noises = [
            _map_noise(m, r, known_errors)
            for m, r in zip(observation.maps, model.split(residual), strict=True)
        ]
        done = OrderFit(
            step,
            best.objective,
            _chi2(observation.maps, residual, noises, known_errors) / (n_data - len(stage.free)),
            len(stage.free),
            counter.n_eval,
            time.perf_counter() - began,
        )
        orders.append(done)
        if progress is not None:
            progress(Progress(step, counter.n_eval, best.objective, done))

    posterior = problem.posterior(layout, u)
    x = u[posterior.free]
    slopes = layout.slopes(u.cpu().numpy())[layout.free]
    covariance = posterior.covariance(x) * np.outer(slopes, slopes)
    estimates = _estimates(layout, u.cpu().numpy(), covariance)
    with torch.no_grad():
        samples = model.split(model(u).cpu().numpy())
    offsets = [estimates[f"offset_{i}"].value for i in range(len(observation.maps))]
    maps = [
        MapFit(m.dz, m.x, m.y, m.power, np.where(_placed(m), beam, np.nan), noise, offset)
        for m, beam, noise, offset in zip(observation.maps, samples, noises, offsets, strict=True)
    ]
    return FitResult(
        input=observation.source,
        telescope=scope.name,
        likelihood=likelihood,
        illumination=illumination,
        object=observation.object,
        date_obs=observation.date_obs,
        wavelength=observation.wavelength,
        order=order,
        converged=best.distance < _CONVERGED,
        message=_message(best),
        objective=best.objective,
        chi2_reduced=orders[-1].chi2_reduced,
        n_data=n_data,
        n_missing=sum(m.n_missing for m in observation.maps),
        n_free=len(layout.free),
        n_eval=sum(o.n_eval for o in orders),
        parameters=estimates,
        covariance=covariance,
        maps=tuple(maps),
        orders=tuple(orders),
        aperture=_aperture(model, u),
        notes=(*observation.notes, *doubts),
        seconds=time.perf_counter() - begin,
    )


# ------------------------------------------------------------------------------------------- data


def _telescope(observation: "Observation", given: Telescope | str | Path | None) -> Telescope:
    if isinstance(given, Telescope):
        return given
    name = given or observation.telescope
    if name is None:
        raise InputError(
            f"{observation.source or 'the observation'} does not name its telescope; give one of "
            f"{', '.join(telescopes.names())}, or a TOML file"
        )
    return telescopes.load(name)


def _placed(m: "BeamMap") -> np.ndarray:
    """Samples whose position can be used: a sample that was never observed may have none, or nonsense."""
    reach = np.max(np.abs((m.x[m.valid], m.y[m.valid])))
    return m.valid | ((np.abs(m.x) <= reach) & (np.abs(m.y) <= reach))


def _directions(m: "BeamMap") -> tuple[np.ndarray, np.ndarray]:
    placed = _placed(m)
    return np.where(placed, m.x, 0.0), np.where(placed, m.y, 0.0)


def _raster(observation: "Observation", scope: Telescope, oversample: float) -> int:
    """Pixels a side: 256, or as many as the farthest sample needs, with a quarter to spare."""
    widest = max(float(np.max(np.abs(_directions(m)))) for m in observation.maps)
    widest += 0.5 * max(abs(observation.receiver.chop_x), abs(observation.receiver.chop_y))
    needed = 1.25 * 4 * oversample * scope.radius * widest / observation.wavelength
    if needed > _MAX_RASTER:
        beams = widest * 2 * scope.radius / observation.wavelength
        raise InputError(
            f"a sample lies {widest:.3g} rad from the source, {beams:.0f} beams of {scope.name}; check the "
            "map's units, the frequency and the telescope"
        )
    return max(256, 2 * math.ceil(needed / 2))


def _data(maps: "tuple[BeamMap, ...]", oo: OO) -> tuple[Data, bool, list[str]]:
    """Samples as tensors, whether their errors are known, and what there is to say about that."""
    valid = np.concatenate([m.valid for m in maps])
    power = np.concatenate([np.where(m.valid, m.power, 0.0) for m in maps])
    given = [np.where(m.valid, m.sigma, 1.0) for m in maps if m.sigma is not None]
    notes = []
    if given and all((sigma == 1).all() for sigma in given):
        notes.append("errors of 1 throughout are a writer's placeholder: noise estimated from the data")
    elif 0 < len(given) < len(maps):
        notes.append(f"errors given for only {len(given)} of {len(maps)} maps: noise estimated for all")
    known = len(given) == len(maps) and not notes
    errors = np.concatenate(given) if known else np.ones_like(power)
    return Data(oo(power), oo(errors), oo(valid)), known, notes


def _noise(known_errors: bool, judge: Likelihood, peak: float) -> Parameter:
    """The noise scale: times the file's errors, or, where it has none, in the data's units.

    A standard error is taken at its word. A Cauchy half width is not one, and is fitted always.
    """
    if known_errors:
        return Parameter("noise", "errors", 1.0, free=judge.name != "gaussian", log=True)
    return Parameter("noise", "data", 0.1 * peak, peak, free=True, log=True)


def _levels(maps: "tuple[BeamMap, ...]") -> tuple[float, list[float]]:
    """Largest excursion from the baseline in any map, and each map's baseline (median of its border)."""
    baselines, peak = [], 0.0
    for m in maps:
        x, y, power = m.x[m.valid], m.y[m.valid], m.power[m.valid]
        r = np.hypot(x - np.median(x), y - np.median(y))
        baselines.append(float(np.median(power[r >= np.quantile(r, 0.75)])))
        peak = max(peak, float(np.max(np.abs(power - baselines[-1]))))
    return peak, baselines


def _map_noise(m: "BeamMap", residual: np.ndarray, known_errors: bool) -> float:
    """Standard error of a sample: the file's, or the scatter from sample to sample away from the beam.

    Fourth differences along the scan: a beam sampled a few times over its width hardly shows in them. Where
    neighbours in the file are none on the sky they do show it, and the residuals scatter less.
    """
    if known_errors and m.sigma is not None:
        return float(np.median(m.sigma[m.valid]))
    x, y, power = m.x[m.valid], m.y[m.valid], m.power[m.valid]
    r = np.hypot(x - np.median(x), y - np.median(y))[2:-2]
    differences = np.convolve(power, (1, -4, 6, -4, 1), mode="valid")[r >= np.median(r)]
    scatter = np.median(np.abs(differences)) / math.sqrt(70)
    return float(1.4826 * min(scatter, np.median(np.abs(residual[m.valid]))))


def _chi2(
    maps: "tuple[BeamMap, ...]", residual: np.ndarray, noises: list[float], known_errors: bool
) -> float:
    """Sum of the squared residuals over the noise; NaN without noise."""
    sigma = np.concatenate(
        [
            np.where(m.valid, m.sigma, 1.0)
            if known_errors and m.sigma is not None
            else np.full(m.valid.size, noise)
            for m, noise in zip(maps, noises, strict=True)
        ]
    )
    return float(np.sum((residual / sigma) ** 2)) if (sigma > 0).all() else math.nan


# ------------------------------------------------------------------------------------------ start


class _Problem(NamedTuple):
    """What stays the same from the first start to the last step."""

    model: BeamModel
    data: Data
    judge: Likelihood

    def posterior(self, layout: Layout, anchor: torch.Tensor) -> Posterior:
        """The posterior of what `layout` leaves free, the rest held at `anchor`."""
        return Posterior(self.model, layout, self.data, self.judge, anchor)


def _start(
    problem: _Problem, layout: Layout, observation: "Observation", baselines: list[float]
) -> torch.Tensor:
    """Coordinates to start from: a perfect dish of the right flux, pointing and noise.

    Flux and centroid are what aberrations leave alone: the power in a map does not depend on the phase,
    and the centroid of the power is the mean slope of the wavefront.
    """
    model = problem.model
    maps = observation.maps
    perfect = model.oo(layout.coordinates({f"offset_{i}": 0.0 for i in range(len(maps))}))
    with torch.no_grad():
        beams = model.split(model(perfect).cpu().numpy())
    unit = layout.parameters[layout.index("gain_0")].start
    flux = expected = 0.0
    for m, level, beam in zip(maps, baselines, beams, strict=True):
        flux += float(np.sum(np.abs(m.power - level), where=_bright(m, level)))
        expected += float(np.sum(np.abs(beam) / unit, where=m.valid))
    centroids = [_centroid(m, level, observation) for m, level in zip(maps, baselines, strict=True)]
    shift = np.mean(centroids, axis=0)
    tilt = 2 * math.pi * model.telescope.radius / model.wavelength * shift
    guess = {f"gain_{i}": flux / expected for i in range(len(maps))}
    guess |= {f"offset_{i}": level for i, level in enumerate(baselines)}
    guess |= {"z2": float(tilt[0]), "z1": float(tilt[1])}
    guess = {k: v for k, v in guess.items() if layout.parameters[layout.index(k)].free}
    return _with_noise(problem, layout, model.oo(layout.coordinates(guess)))


def _with_noise(problem: _Problem, layout: Layout, u: torch.Tensor, factor: float = 1.0) -> torch.Tensor:
    """The same coordinates with the noise that the residuals ask for, times a factor."""
    i = layout.index("noise")
    p = layout.parameters[i]
    if not p.free:
        return u
    r = problem.posterior(layout, u).residuals(u) / problem.data.errors
    scale = max(problem.judge.scale(r[problem.data.valid]), 1e-9 * p.scale)
    u = u.clone()
    u[i] = p.coordinate(factor * scale)
    return u


def _bright(m: "BeamMap", level: float) -> np.ndarray:
    """Samples well above the noise of the border."""
    excess = np.abs(np.where(m.valid, m.power - level, 0.0))
    return m.valid & (excess > 0.05 * excess.max())


def _centroid(m: "BeamMap", level: float, observation: "Observation") -> np.ndarray:
    """Where the beam points, (x, y) rad: its centroid, or the mean over a chopped pair's two."""
    receiver = observation.receiver
    excess = np.where(m.valid, m.power - level, 0.0)
    found = []
    for sign in (1, -1) if receiver.chopped else (1,):
        weight = np.clip(sign * excess, 0, None)
        weight = np.where(weight > 0.15 * weight.max(), weight, 0)
        expected = 0.5 * sign * np.array([receiver.chop_x, receiver.chop_y])
        where = np.stack([np.where(m.valid, m.x, 0.0), np.where(m.valid, m.y, 0.0)])
        if weight.sum() > 0:
            found.append((where @ weight) / weight.sum() - expected)
    return np.mean(found, axis=0) if found else np.zeros(2)


# ---------------------------------------------------------------------------------------- descent


class _End(NamedTuple):
    """Where a descent ended; `distance` is to the minimum, in standard deviations."""

    coordinates: torch.Tensor
    objective: float
    distance: float
    message: str


class _Counter:
    """Evaluations of one order, over all its starts, told to the watcher."""

    def __init__(self, order: int, progress: Callable[[Progress], None] | None) -> None:
        self.order, self.progress, self.n_eval = order, progress, 0

    def __call__(self, _: int, objective: float) -> None:
        self.n_eval += 1
        if self.progress is not None:
            self.progress(Progress(self.order, self.n_eval, objective, None))


def _approach(problem: _Problem, layout: Layout, start: torch.Tensor, counter: _Counter) -> _End:
    """Go down from `start` to somewhere near a minimum.

    Where the noise is fitted it is first held at what the start's residuals ask for: with it free from the
    beginning, the curvature would change by orders of magnitude on the way. A likelihood that forgives
    outliers sees it wider still, so that no sample is one: it also forgives a wrong model, and has minima
    that explain part of the samples and give up the rest (graduated non-convexity, Blake & Zisserman 1987).
    """
    if layout.parameters[layout.index("noise")].free:
        held = layout.held("noise")
        start = _with_noise(problem, layout, start, problem.judge.widening)
        start = _descend(problem, held, start, counter, _COARSE, 1).coordinates
        start = _with_noise(problem, layout, start)
    return _descend(problem, layout, start, counter, _COARSE, 1)


def _descend(
    problem: _Problem, layout: Layout, start: torch.Tensor, counter: _Counter, gtol: float, rounds: int
) -> _End:
    """Go down from `start`, each round with the information matrix of where the last one ended."""
    oo = problem.model.oo
    posterior = problem.posterior(layout, start)
    objective = Objective(posterior, start, counter)
    x = start[posterior.free].cpu().numpy()
    for _ in range(rounds):
        information = posterior.information(oo(x))
        found = bfgs(objective, x, information, gtol=gtol)
        x = found.x
        distance = math.sqrt(newton_decrement(found.jac, information))
        if distance < gtol:
            break
    return _End(posterior.complete(oo(x)), float(found.fun), distance, found.message)


# ----------------------------------------------------------------------------------------- result


def _message(end: _End) -> str:
    if end.distance < _CONVERGED:
        return f"at a minimum to within {end.distance:.1g} standard deviations"
    return f"stopped {end.distance:.1g} standard deviations from a minimum: {end.message}"


def _estimates(layout: Layout, u: np.ndarray, covariance: np.ndarray) -> dict[str, Estimate]:
    sigma = np.zeros(len(u))
    sigma[layout.free] = np.sqrt(np.clip(np.diag(covariance), 0, None))
    values = layout.values(u)
    return {
        p.name: Estimate(values[p.name], float(s), p.unit, p.free)
        for p, s in zip(layout.parameters, sigma, strict=True)
    }


def _aperture(model: BeamModel, u: torch.Tensor) -> Aperture:
    """Field on the model's own raster, piston and tilt removed."""
    flat = u.clone()
    for name in ("z0", "z1", "z2"):
        flat[model.layout.index(name)] = 0.0
    with torch.no_grad():
        amplitude, phase = (t.cpu().numpy() for t in model.aperture(flat))
    dark = amplitude <= 1e-9 * amplitude.max()
    phase[dark] = math.nan
    coverage = np.where(dark, 0.0, model.coverage.cpu().numpy())
    side = len(model.axis)
    pixel = model.pixel.cpu().numpy()

    def square(values: np.ndarray, outside: float) -> np.ndarray:
        full = np.full(side * side, outside)
        full[pixel] = values
        return full.reshape(side, side)

    x, y = np.meshgrid(model.axis, model.axis)
    return Aperture(
        axis=model.axis,
        phase=square(phase, math.nan),
        amplitude=square(amplitude / amplitude.max(), 0.0),
        open=square(coverage, 0.0),
        radius=model.telescope.radius,
        normal_factor=model.telescope.surface_normal_factor(x, y),
    )
