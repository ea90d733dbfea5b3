"""From observations to surfaces: Zernike orders one after the other, then the error bars.

Each order starts from the result of the one below. The last one starts once more from the perfect dish, and
from other surfaces until two starts lead to the lowest end: the objective has several optima.
Observations of the same shape are fitted side by side, a single one as a batch of one. `descent` has the way
down, `prepare` what precedes it.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from ooftorch.device import OO
from ooftorch.errors import InputError
from ooftorch.fitting import descent, prepare
from ooftorch.fitting import likelihood as likelihoods
from ooftorch.fitting.descent import Ladder
from ooftorch.fitting.posterior import Data, Posterior
from ooftorch.optics import telescope as telescopes
from ooftorch.optics import zernike
from ooftorch.optics.model import BeamModel, MapGeometry
from ooftorch.optics.parameters import Layout
from ooftorch.optics.pixels import raster
from ooftorch.optics.telescope import Telescope
from ooftorch.result import Aperture, Estimate, FitResult, MapFit, OrderFit

if TYPE_CHECKING:
    from ooftorch.observation import Observation

__all__ = ["Progress", "fit", "fit_many"]

# Distance to the minimum, in standard deviations, at which the end counts as converged.
_CONVERGED = 0.01
# Memory for the observations fitted side by side, with one start each; a search has two at once.
_BATCH_BYTES = 2.5e8


class Progress(NamedTuple):
    """What a fit tells its watcher: where it is, and an order when one is finished.

    `n_eval` counts the evaluations of all observations fitted side by side; the objective, and the order that
    is finished, are those of one of them.
    """

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
    (result,) = fit_many(
        [observation],
        telescope,
        order=order,
        likelihood=likelihood,
        illumination=illumination,
        device=device,
        free=free,
        fixed=fixed,
        n=n,
        oversample=oversample,
        progress=progress,
    )
    return result


def fit_many(
    observations: "Sequence[Observation]",
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
) -> list[FitResult]:
    """Fit many observations of the same shape side by side: a night's archive, simulations, resamples.

    Each result is what `fit` would give, to within the tolerance of the minimum; the work of many is shared
    out better over the cores or the GPU. Parameters are those of `fit`.

    Parameters
    ----------
    observations : sequence of Observation
        The same directions, defocuses, wavelength and receiver; power, errors and missing samples may differ.

    Returns
    -------
    list of FitResult
        In the order of the observations.

    Raises
    ------
    InputError
        As `fit`, or if the observations are not of the same shape; the first that differs is named.
    """
    begin = time.perf_counter()
    observations = list(observations)
    if not observations:
        return []
    _check_shape(observations)
    one = observations[0]
    scope = _telescope(one, telescope)
    judge = likelihoods.likelihood(likelihood)
    if illumination is None:
        illumination = one.illumination or scope.illumination.model
    n_data = min(sum(m.n_valid for m in o.maps) for o in observations)
    if zernike.n_terms(max(order, 1)) > n_data:
        raise InputError(
            f"order {order} has {zernike.n_terms(order) - 1} coefficients, but the maps have only {n_data} "
            "valid samples; choose a lower order"
        )
    peaks, baselines = zip(*(prepare.levels(o.maps) for o in observations), strict=True)
    samples = [prepare.samples(o.maps) for o in observations]
    known_errors = prepare.errors_known(one.maps)
    oo = OO(device)
    peak = float(np.exp(np.mean(np.log(peaks))))
    if n is None:
        places = [prepare.directions(m) for m in one.maps]
        n = raster(scope, one.wavelength, one.receiver, places, oversample)

    def make(maps: list[MapGeometry], n: int) -> BeamModel:
        return BeamModel(
            scope,
            one.wavelength,
            maps,
            order=order,
            illumination=illumination,
            receiver=one.receiver,
            scale=peak,
            n=n,
            oversample=oversample,
            oo=oo,
        )

    ladder = descent.build(
        make,
        [MapGeometry(m.dz, *prepare.directions(m)) for m in one.maps],
        Data(*(oo(np.stack(columns)) for columns in zip(*(s[:3] for s in samples), strict=True))),
        judge,
        n,
        oversample,
        one.wavelength / (2 * scope.radius),
    )
    noise = prepare.noise_parameter(known_errors, judge, peak)
    layout = ladder.exact.model.layout.added(noise).freed(free).fixed(fixed or {})
    if not layout.free:
        raise InputError("every parameter is held; leave at least one free")
    if len(layout.free) >= n_data:
        raise InputError(
            f"{len(layout.free)} free parameters at order {order}, but only {n_data} valid samples; "
            "choose a lower order"
        )
    ladder.adopt(layout)
    beams = prepare.perfect_beams(ladder.exact.model, layout)
    starts = [
        prepare.start(ladder.exact.model, layout, observation, levels, beams)
        for observation, levels in zip(observations, baselines, strict=True)
    ]
    start = oo(np.stack(starts))
    # Jacobians of the search, and fields and samples of the exact model, some twenty of each.
    each = 24 * len(layout.free) * sum(ladder.search.model.sizes) + 320 * sum(ladder.exact.model.sizes)
    at_once = max(1, int(_BATCH_BYTES / each))
    found = [
        fitted
        for rows in torch.arange(len(observations), device=oo.device).split(at_once)
        for fitted in _fit_orders(
            ladder, layout, order, rows, start[rows], observations, known_errors, progress
        )
    ]
    results = [
        _result(ladder, layout, observation, row, fitted, likelihood, (*observation.notes, *sample.notes))
        for row, (observation, fitted, sample) in enumerate(zip(observations, found, samples, strict=True))
    ]
    return [replace(result, seconds=(time.perf_counter() - begin) / len(results)) for result in results]


def _check_shape(observations: "list[Observation]") -> None:
    """Refuse observations that cannot be fitted at all, or not side by side."""
    one = observations[0]
    for i, other in enumerate(observations, 1):
        other.check()
        differs = [
            name
            for name, same in (
                ("telescope", other.telescope == one.telescope),
                ("wavelength", other.wavelength == one.wavelength),
                ("receiver", other.receiver == one.receiver),
                ("illumination", other.illumination == one.illumination),
                ("focus offsets", [m.dz for m in other.maps] == [m.dz for m in one.maps]),
                ("directions", _same_directions(one, other)),
                ("errors (given or not)", prepare.errors_known(other.maps) == prepare.errors_known(one.maps)),
            )
            if not same
        ]
        if differs:
            raise InputError(
                f"observation {i} of {len(observations)} is not of the first one's shape: another "
                f"{differs[0]}; fit it by itself"
            )


def _same_directions(a: "Observation", b: "Observation") -> bool:
    pairs = zip(a.maps, b.maps, strict=False)
    return all(np.array_equal(prepare.directions(m), prepare.directions(n)) for m, n in pairs)


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


# ----------------------------------------------------------------------------------------- orders


class _Fitted(NamedTuple):
    """One observation's end: coordinates, model samples, noise of each map, and how it came there."""

    coordinates: torch.Tensor
    samples: np.ndarray
    noises: list[float]
    distance: float
    orders: tuple[OrderFit, ...]


def _fit_orders(
    ladder: Ladder,
    layout: Layout,
    order: int,
    rows: torch.Tensor,
    start: torch.Tensor,
    observations: "list[Observation]",
    known_errors: bool,
    progress: Callable[[Progress], None] | None,
) -> list[_Fitted]:
    """Fit these rows of the ladder's data, order by order."""
    u = start
    history: list[list[OrderFit]] = [[] for _ in rows]
    for step in range(1, order + 1):
        began = time.perf_counter()
        counter = _Counter(step, progress)
        stage = layout.up_to_order(step)
        if step < order:
            end = descent.approach(ladder, stage, rows, u, counter)
            n_eval = end.n_eval
        else:
            starts = [u, start] if order > 1 else [start]
            end, numbers, n_eval = descent.search(ladder, stage, rows, starts, counter)
            end = descent.finish(ladder, stage, rows, end, numbers, counter)
            n_eval = n_eval + end.n_eval
        u = end.coordinates
        exact = ladder.posterior(ladder.exact, stage, rows, u)
        with torch.no_grad():
            samples = exact.model(u)
            objective = exact.value(u, samples).tolist()
        seconds = (time.perf_counter() - began) / len(rows)
        residuals = torch.where(exact.data.valid, exact.data.power - samples, 0.0).cpu().numpy()
        noises = []
        for i, row in enumerate(rows.tolist()):
            maps = observations[row].maps
            per_map = zip(maps, exact.model.split(residuals[i]), strict=True)
            noises.append([prepare.map_noise(m, r, known_errors) for m, r in per_map])
            chi2 = prepare.chi2(maps, residuals[i], noises[i], known_errors)
            dof = int(exact.data.valid[i].sum()) - len(stage.free)
            history[i].append(
                OrderFit(step, objective[i], chi2 / dof, len(stage.free), int(n_eval[i]), seconds)
            )
        if progress is not None:
            progress(Progress(step, counter.n_eval, objective[0], history[0][-1]))
    power = samples.cpu().numpy()
    return [
        _Fitted(u[i], power[i], noises[i], float(end.distance[i]), tuple(orders))
        for i, orders in enumerate(history)
    ]


class _Counter:
    """Evaluations of one order, over all its starts, told to the watcher."""

    def __init__(self, order: int, progress: Callable[[Progress], None] | None) -> None:
        self.order, self.progress, self.n_eval = order, progress, 0

    def __call__(self, members: int, objective: float) -> None:
        self.n_eval += members
        if self.progress is not None:
            self.progress(Progress(self.order, self.n_eval, objective, None))


# ----------------------------------------------------------------------------------------- result


def _result(
    ladder: Ladder,
    layout: Layout,
    observation: "Observation",
    row: int,
    fitted: _Fitted,
    likelihood: str,
    notes: tuple[str, ...],
) -> FitResult:
    """Everything about one fit; `seconds` is still to come."""
    model = ladder.exact.model
    data = Data(*(t[row] for t in ladder.exact.data))
    u = fitted.coordinates
    posterior = Posterior(model, layout, data, ladder.judge, u)
    slopes = layout.slopes(u.cpu().numpy())[layout.free]
    covariance = posterior.covariance(u[posterior.free]) * np.outer(slopes, slopes)
    estimates = _estimates(layout, u.cpu().numpy(), covariance)
    maps = [
        MapFit(
            m.dz,
            m.x,
            m.y,
            m.power,
            np.where(prepare.placed(m), beam, np.nan),
            noise,
            estimates[f"offset_{i}"].value,
        )
        for i, (m, beam, noise) in enumerate(
            zip(observation.maps, model.split(fitted.samples), fitted.noises, strict=True)
        )
    ]
    converged = fitted.distance < _CONVERGED
    if converged:
        message = f"at a minimum to within {fitted.distance:.1g} standard deviations"
    else:
        message = (
            f"stopped {fitted.distance:.1g} standard deviations from a minimum: nothing lower found in the "
            "evaluations allowed"
        )
    last = fitted.orders[-1]
    return FitResult(
        input=observation.source,
        telescope=model.telescope.name,
        likelihood=likelihood,
        illumination=model.illumination.name,
        object=observation.object,
        date_obs=observation.date_obs,
        wavelength=observation.wavelength,
        order=model.order,
        converged=converged,
        message=message,
        objective=last.objective,
        chi2_reduced=last.chi2_reduced,
        n_data=int(data.valid.sum()),
        n_missing=sum(m.n_missing for m in observation.maps),
        n_free=len(layout.free),
        n_eval=sum(o.n_eval for o in fitted.orders),
        parameters=estimates,
        covariance=covariance,
        maps=tuple(maps),
        orders=fitted.orders,
        aperture=_aperture(model, u),
        notes=notes,
        seconds=0.0,
        truth=observation.truth,
    )


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
