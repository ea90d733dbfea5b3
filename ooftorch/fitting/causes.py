"""Name what is wrong with an observation that is fitted badly: put it right, and see whether the maps fit.

Each alternative of the table (`alternatives.KINDS`) is fitted from a perfect dish on coarse pixels and a few
samples, without the freedoms that a fit may take up, and so is the observation as it is.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from ooftorch.errors import InputError
from ooftorch.fitting import search
from ooftorch.fitting.alternatives import KINDS, Alternative, Kind
from ooftorch.fitting.resolution import choose_coarse_raster, select_sparse
from ooftorch.fitting.samples import find_directions
from ooftorch.fitting.setup import FitOptions, Setup, set_up
from ooftorch.fitting.symptoms import find_spikes, find_symptoms
from ooftorch.observation import MIN_SAMPLES, BeamMap, Observation
from ooftorch.optics import zernike
from ooftorch.optics.instrument import MapGeometry
from ooftorch.result import Cause, FitResult
from ooftorch.scans import name_scans

__all__ = ["find_causes"]

# Chi-square per degree of freedom of a bad fit; errors of scan lines that belong to the beam, in the units of
# `ScanTerm`, by which a fit may hide something else; and chi-square of a fit without them that shows it.
_BAD, _HIDING, _SUSPICIOUS = 4.0, {"gain": 0.05, "pointing": 0.05, "pointing_drift": 0.05}, 1.25
# How many times less the maps must miss a model for a cause to be named, also where that is almost the noise;
# and how many times more than the fit with all that it has taken up they may still miss it.
_LEAST_FACTOR, _LEAST_FACTOR_AT_NOISE, _AT_NOISE, _MOST_MISSED = 2.0, 1.25, 1.15, 1.5
# An alternative that does so much better, and comes as near to the noise, ends the search.
_CLEAR_FACTOR = 1.5
# Highest order of the surface in a trial.
_ORDER = 6
# Factors on the size of the best alternative of a kind that are tried next, round after round.
_STEPS = (2**0.25, 2**0.125)
# Coefficients of the bend of the illumination, together, from which on it may hide something else.
_MUCH_BENT = 0.4
# Logarithm of a scale of the focus offsets from which on it is one.
_SCALED = math.log(1.1)
# Noise over the peak where there is none, and that of samples that say nothing.
_PIXELS, _NOTHING = 3e-4, 1e3
# Kinds of which other sizes of the best are tried, and how much better it must be than what the file has.
_REFINED, _PROMISING = 2, 1.3
# Parameters of each map.
_PER_MAP = ("gain", "offset", "dx", "dy")
# Side of the sky cells with one sample each, wavelengths over diameter.
_CELL = 0.53
# Distance to the minimum, in standard deviations, at which a trial stops, and most evaluations.
_NEAR, _MAX_EVAL = 3.0, 30
# Symptoms that come from the parameters of a fit, and are wrong where it hides something else.
_FROM_PARAMETERS = ("displaced", "dz_scale")

Array = NDArray[np.float64]


def find_causes(setup: Setup, row: int, result: FitResult, options: FitOptions) -> tuple[Cause, ...]:
    """Find what may be wrong with an observation, or has disturbed it.

    What shows in the samples is always looked for (`symptoms`). Alternatives are tried where the fit is bad,
    or would be without much that it has taken up.

    Parameters
    ----------
    setup : Setup
    row : int
        Number of the observation in the setup.
    result : FitResult
    options : FitOptions
        Of the fit.

    Returns
    -------
    tuple of Cause
        First the alternative that fits best, if it fits much better.
    """
    seen = find_symptoms(setup.observations[row], result)
    hiding = any(max(term.rms) > _HIDING.get(term.name, math.inf) for term in result.scan_terms)
    suspicious = hiding or _is_bent(result) or any(c.name in _FROM_PARAMETERS for c in seen)
    # Without noise there is no chi-square (NaN), and nothing to compare with.
    if not (options.trying and (result.chi2_reduced >= _BAD or suspicious)):
        return seen
    if any(cause.name == "stripes" for cause in seen):
        return seen
    trials = _Trials(setup, row, result, options)
    if trials.fitted.missed < _BAD and not suspicious:
        # It was glitches alone.
        return seen
    found = trials.find_cause()
    if found is not None:
        return (found, *_leave_out(seen, (found.name, *_FROM_PARAMETERS, "wander")))
    if hiding:
        return _leave_out(seen, _FROM_PARAMETERS if trials.is_bad else (*_FROM_PARAMETERS, "wander"))
    return seen


def _leave_out(causes: tuple[Cause, ...], names: Collection[str]) -> tuple[Cause, ...]:
    return tuple(cause for cause in causes if cause.name not in names)


def _is_bent(result: FitResult) -> bool:
    """Whether the illumination departs from its model so far that it may be due to something else."""
    bend = [p.value for name, p in result.parameters.items() if zernike.number(name, "a") is not None]
    return math.hypot(*bend) > _MUCH_BENT


@dataclass(frozen=True, eq=False)
class _Trial:
    """A cheap fit: squared residuals over the noise, summed over each map, their numbers, and parameters."""

    squares: Array
    n: Array
    values: Mapping[str, float]

    @property
    def missed(self) -> float:
        """Mean square of the residuals over the noise."""
        return float(self.squares.sum() / self.n.sum())


@dataclass(frozen=True, eq=False)
class _Found:
    """An alternative, what it misses the maps by, and how many times less than the observation as it is."""

    missed: float
    factor: float
    words: str
    kind: Kind
    alternative: Alternative | None
    values: Mapping[str, float]


class _Trials:
    """Cheap fits of one observation and of its alternatives, and how they compare.

    Attributes
    ----------
    fitted : _Trial
        The fit itself, with all that it has taken up.
    is_bad : bool
        Whether the observation as it is fits badly without what the fit has taken up.
    """

    def __init__(self, setup: Setup, row: int, result: FitResult, options: FitOptions) -> None:
        model = setup.levels.exact.model
        self._telescope, self._symmetries, self._result = model.telescope, setup.symmetries, result
        self.is_bad = False
        self._unscaled: _Trial | None = None
        self._has_taken_up = bool(result.scan_terms or result.amplitude_order)
        own = {p.name for p in setup.levels.likelihood.declare()}
        self._options = replace(
            options,
            likelihood="gaussian",
            nuisance="none",
            order=min(result.order, _ORDER),
            free=tuple(name for name in options.free if name not in own),
            fixed={name: v for name, v in (options.fixed or {}).items() if name not in own},
        )
        numbers = setup.levels.search.numbers
        cell = _CELL * model.instrument.beam
        self._observation, self.fitted = _thin(setup.observations[row], result, numbers, cell)

    def find_cause(self) -> Cause | None:
        """Find the alternative that fits best, if it fits much better than the observation as it is."""
        as_it_is = self._fit(self._observation)
        if as_it_is is None or as_it_is.missed < _SUSPICIOUS:
            return None
        self.is_bad = as_it_is.missed > _BAD
        if not self._has_taken_up and self.fitted.missed < as_it_is.missed:
            # The fit has come lower with the same model: that is what an alternative has to beat.
            as_it_is = self.fitted
        found = self._try_all(as_it_is)
        refined = [self._refine(as_it_is, each) for each in found[:_REFINED]]
        best = min(refined, key=lambda f: f.missed, default=None)
        if best is None or not self._is_convincing(best.factor, best.missed):
            return self._try_alone(as_it_is)
        change = self._find_change(best.values)
        return Cause(
            best.kind.name,
            best.factor,
            f"The maps fit {_count(best.factor)} times better with {best.words}, and the surface moves by "
            f"{change:.2f} rad rms: {best.kind.advice}.",
            change,
        )

    def _find_change(self, values: Mapping[str, float]) -> float:
        """Rms difference (rad) of the surface of a trial from that of the fit."""
        names = self._result.basis.names
        found = np.array([values.get(name, 0.0) for name in names])
        difference = found - self._result.coefficients
        return math.sqrt(max(difference @ self._result.gram @ difference, 0.0))

    def _is_convincing(self, factor: float, missed: float) -> bool:
        """Whether an alternative is so much better, and as good as the fit with all that it has taken up."""
        least = _LEAST_FACTOR_AT_NOISE if missed < _AT_NOISE else _LEAST_FACTOR
        return factor > least and missed < _MOST_MISSED * self.fitted.missed

    def _try_all(self, as_it_is: _Trial) -> list[_Found]:
        """Try the alternatives of all kinds: the best of each, the best first."""
        best_of_each: list[_Found] = []
        for kind in KINDS:
            proposed = kind.propose(self._observation, self._telescope, self._symmetries)
            tried = [f for a in proposed if (f := self._try(as_it_is, kind, a)) is not None]
            if kind.name == "dz_scale" and abs(math.log(as_it_is.values["dz_scale"])) > _SCALED:
                tried.append(self._judge_scale(as_it_is, kind, None))
            if tried:
                best = min(tried, key=lambda f: f.missed)
                best_of_each.append(best)
                if best.missed < _AT_NOISE and best.factor > _CLEAR_FACTOR:
                    break
        return sorted(best_of_each, key=lambda f: f.missed)

    def _try(self, as_it_is: _Trial, kind: Kind, alternative: Alternative) -> _Found | None:
        """Fit an alternative; None if it cannot be fitted."""
        try:
            changed = alternative.change(self._observation)
        except InputError:
            return None
        trial = self._fit(changed)
        if trial is None:
            return None
        if kind.name == "dz_scale":
            return self._judge_scale(trial, kind, alternative)
        factor = as_it_is.missed / trial.missed
        return _Found(trial.missed, factor, alternative.words, kind, alternative, trial.values)

    def _judge_scale(self, trial: _Trial, kind: Kind, alternative: Alternative | None) -> _Found:
        """Compare a fit in which the focus offsets are scaled with one in which they are not."""
        if self._unscaled is None:
            self._unscaled = self._fit(self._observation, dz_scale=1.0)
        unscaled = math.inf if self._unscaled is None else self._unscaled.missed
        scale = trial.values["dz_scale"] * (1.0 if alternative is None else alternative.size)
        words = f"all dz {scale:.3g} times as large"
        return _Found(trial.missed, unscaled / trial.missed, words, kind, alternative, trial.values)

    def _refine(self, as_it_is: _Trial, found: _Found) -> _Found:
        """Try other sizes of an alternative that has one."""
        for step in _STEPS:
            best = found.alternative
            if best is None or best.resize is None or found.factor < _PROMISING:
                break
            others = [best.resize(best.size * by) for by in (step, 1 / step)]
            tried = [self._try(as_it_is, found.kind, a) for a in others]
            found = min([found, *(f for f in tried if f is not None)], key=lambda f: f.missed)
        return found

    def _try_alone(self, as_it_is: _Trial) -> Cause | None:
        """Fit each map by itself: do they agree with the model, and not with each other?"""
        # From the surface of all: in focus a perfect dish is a saddle point.
        alone = [
            self._fit(_isolate(self._observation, i), _select_map(as_it_is.values, i))
            for i in range(len(self._observation.maps))
        ]
        trials = [trial for trial in alone if trial is not None]
        if len(trials) < len(alone):
            return None
        # The second map of each says nothing.
        missed = sum(trial.squares.max() for trial in trials) / as_it_is.n.sum()
        factor = float(as_it_is.missed / missed)
        if not self._is_convincing(factor, missed):
            return None
        return Cause(
            "changed",
            factor,
            f"The maps fit {_count(factor)} times better each by itself than all together: the surface, or "
            "something else, changed between them.",
        )

    def _fit(
        self, observation: Observation, start: Mapping[str, float] | None = None, **fixed: float
    ) -> _Trial | None:
        """Fit an observation, from a perfect dish or these values; None if it cannot be fitted."""
        reach = max(float(np.max(np.abs((m.x, m.y)))) for m in observation.maps)
        reach += 0.5 * math.hypot(observation.receiver.chop_x, observation.receiver.chop_y)
        beam = observation.wavelength / (2 * self._telescope.radius)
        n = choose_coarse_raster(reach / beam, self._options.oversample)
        options = replace(self._options, n=n, fixed={**fixed, **(self._options.fixed or {})})
        try:
            setup = set_up([observation], self._telescope, options)
        except InputError:
            return None
        level, rows = setup.levels.exact, torch.arange(1, device=setup.starts.device)
        levels = setup.levels._replace(search=level)
        u = setup.starts
        if start is not None:
            known = {name: v for name, v in start.items() if name in setup.layout.names and name != "noise"}
            u = u.new_tensor(setup.layout.coordinates(known))[None]
        found = search.approach(levels, setup.layout, rows, u, search.Silence(), _NEAR, max_eval=_MAX_EVAL)
        u = found.coordinates
        with torch.no_grad():
            predicted = level.model.split(level.model(u)[0].cpu().numpy())
        pairs = zip(observation.maps, predicted, strict=True)
        squares = [float(np.sum(((m.power - p) / m.sigma) ** 2)) for m, p in pairs]
        n_of_each = np.array([m.n_valid for m in observation.maps])
        return _Trial(np.array(squares), n_of_each, setup.layout.values(u[0].cpu().numpy()))


def _select_map(values: Mapping[str, float], number: int) -> dict[str, float]:
    """Parameters of the observation that `_isolate` makes, from those of all maps."""
    own = {name for name in values if name.rpartition("_")[0] in _PER_MAP}
    shared = {name: value for name, value in values.items() if name not in own}
    return shared | {f"{kind}_{i}": values[f"{kind}_{number}"] for kind in _PER_MAP for i in range(2)}


def _isolate(observation: Observation, number: int) -> Observation:
    """Return an observation of one map: a second one, for it takes two, says nothing."""
    one = observation.maps[number]
    some = np.arange(MIN_SAMPLES) * ((one.power.size - 1) // (MIN_SAMPLES - 1))
    other = BeamMap(
        one.dz + max(abs(m.dz) for m in observation.maps),
        one.x[some],
        one.y[some],
        one.power[some],
        sigma=np.full(MIN_SAMPLES, _NOTHING * float(np.ptp(one.power))),
    )
    return replace(observation, maps=(one, other))


def _count(factor: float) -> str:
    """A factor in words: not more digits than it deserves."""
    return f"{factor:.2g}" if factor < 100 else f"{round(factor, 1 - len(str(int(factor)))):.0f}"


def _thin(
    observation: Observation, result: FitResult, numbers: torch.Tensor | None, cell: float
) -> tuple[Observation, _Trial]:
    """Return the observation at some of its samples, without glitches, and what the fit misses them by.

    One for each sky cell (side in rad), of those with these numbers.
    All maps have errors: those of the file, or the noise that the fit has found.
    """
    maps, squares, first = [], [], 0
    chosen = None if numbers is None else numbers.cpu().numpy()
    spikes = find_spikes(observation.maps, result)
    for m, fit, spike in zip(observation.maps, result.maps, spikes, strict=True):
        n = m.power.size
        some = np.arange(n) if chosen is None else chosen[(chosen >= first) & (chosen < first + n)] - first
        first += n
        good = m.valid & ~spike
        some = select_sparse(MapGeometry(m.dz, *find_directions(m)), some, good, cell)
        kept = some[good[some]]
        noise = fit.noise if fit.noise > 0 else _PIXELS * fit.peak
        sigma = np.full(kept.size, noise) if m.sigma is None else m.sigma[kept]
        scans = name_scans(m)
        maps.append(
            BeamMap(
                m.dz,
                m.x[kept],
                m.y[kept],
                m.power[kept],
                sigma,
                scans=scans if scans in ("rows", "columns") else "none",
                smear=m.smear,
            )
        )
        squares.append(float(np.sum((fit.residual[kept] / sigma) ** 2)))
    thinned = replace(observation, maps=tuple(maps), truth=None)
    return thinned, _Trial(
        np.array(squares),
        np.array([m.n_valid for m in maps]),
        {name: p.value for name, p in result.parameters.items()},
    )
