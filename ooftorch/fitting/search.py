"""Search for the lowest minimum from several starts, on cheap models first, for a batch of fits.

Each row of a batch is an independent fit. `search` finds candidates, `settle` and `polish` minimise.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ooftorch.fitting.absorption import Absorption
from ooftorch.fitting.finiteness import Watch
from ooftorch.fitting.likelihood import Student
from ooftorch.fitting.resolution import Level, Resolutions
from ooftorch.optics.parameters import Layout
from ooftorch.optim.bfgs import bfgs

__all__ = [
    "SAME_PLACE",
    "Minima",
    "Silence",
    "approach",
    "estimate_noise",
    "find_close",
    "find_distinct",
    "polish",
    "search",
    "settle",
    "sort_lowest_first",
    "widen",
]

# Distance to the minimum, in standard deviations, at which a descent stops: at orders below the highest, at
# the search level, with a wide noise, at the coarse level, near the exact minimum, and at it.
_PASSING, _SEARCH, _WIDE, _COARSE, _NEAR, _FINE = 8.0, 2.0, 1e-4, 0.1, 0.1, 1e-3
# Degrees of freedom of Student's t below which residuals make several minima of a robust likelihood, side by
# side; and descents with a wide noise, each with the scale that the last one leaves.
_FEW_DEGREES, _WIDE_ROUNDS = 5.0, 5
# Distance, in standard deviations, above which the exact descent is continued with a new metric.
_STOP_DISTANCE = 5e-3
# The metric of the start, in which a descent measures its distance, is wrong after a long exact one:
# evaluations until the descent is continued with that of its end, and the largest number of such rounds.
_ROUND_EVALUATIONS, _MAX_ROUNDS = 60, 6
# Minima whose objectives differ by less than this (natural units) are taken as the same.
_SAME_MINIMUM = 0.5
# Minima nearer to each other than this, in standard deviations, are the same.
SAME_PLACE = 1.0
# Largest number of pairs of random restarts, and the standard deviation of their coefficients, radians.
_RESTARTS, _RESTART_SIZE = 8, 0.8


class Progress(Protocol):
    """What is told of every evaluation."""

    def __call__(self, members: int, objective: float) -> None:
        """Take the number of fits evaluated, and the objective of the first of them."""

    def blame(self, row: int, name: str) -> None:
        """Take the number of an observation whose objective was not finite, and the parameter responsible."""


class Silence:
    """A `Progress` that tells nobody."""

    def __call__(self, members: int, objective: float) -> None:
        """Do nothing."""

    def blame(self, row: int, name: str) -> None:
        """Do nothing."""


class Minima(NamedTuple):
    """Points at which descents stopped, one row each.

    Attributes
    ----------
    coordinates : Tensor, (b, n_parameters)
    objective : Tensor, (b,)
        Negative log-posterior, natural units.
    distance : Tensor, (b,)
        Estimated distance to the minimum, in standard deviations.
    n_eval : int Tensor, (b,)
        Evaluations.
    """

    coordinates: Tensor
    objective: Tensor
    distance: Tensor
    n_eval: Tensor


def approach(
    levels: Resolutions,
    layout: Layout,
    rows: Tensor,
    start: Tensor,
    progress: Progress,
    gtol: float = _PASSING,
    fit_noise: bool = False,
    max_eval: int = 2000,
) -> Minima:
    """Descend from each start (b, n_parameters) to the neighbourhood of a minimum, on the search level.

    Degrees of freedom of the likelihood stay at one, where outliers matter least.
    If the scale of the noise is free, it is first held at the estimate from the residuals of the start:
    otherwise the curvature would change by orders of magnitude during the descent. For a robust likelihood
    the held scale is wider by `initial_widening`, so that no sample is an outlier: with the true scale there
    are minima that fit some of the samples and treat the rest as outliers (graduated non-convexity, Blake &
    Zisserman 1987, Visual Reconstruction). Then it is held at the estimate from there, or fitted where
    `fit_noise` asks for it: minima compare only so.
    """
    n_eval, metric = torch.zeros_like(rows), None
    start = _hold_shape(levels, layout, start)
    layout = layout.with_held(levels.likelihood.search_values)
    if layout["noise"].free:
        held = layout.with_held(["noise"])
        wide = _set_noise(levels, layout, rows, start, levels.likelihood.initial_widening)
        minimum, end = _descend(levels, levels.search, held, rows, wide, progress, gtol, max_eval)
        start, n_eval = _set_noise(levels, layout, rows, minimum.coordinates), minimum.n_eval
        if not fit_noise:
            layout, metric = held, _narrow(levels, layout, end, wide, start)
    minimum, _ = _descend(levels, levels.search, layout, rows, start, progress, gtol, max_eval, metric=metric)
    return minimum._replace(n_eval=minimum.n_eval + n_eval)


def _narrow(levels: Resolutions, layout: Layout, metric: Tensor, wide: Tensor, start: Tensor) -> Tensor:
    """Rescale the metric of a wide noise, where residuals are small, for the noise of the start.

    Near enough where a descent stops early; the part of the priors is rescaled with it.
    """
    law, values = levels.likelihood, levels.search.model.parts.units.values
    scales = (values(u)[:, layout.index("noise")] for u in (wide, start))
    ratio = torch.div(*scales).square() * law.mean_information / law.curvature(wide.new_zeros(()))
    return metric * ratio[:, None, None]


def widen(
    levels: Resolutions, layout: Layout, rows: Tensor, minima: Minima, numbers: Tensor, progress: Progress
) -> tuple[Minima, Tensor, list[bool]]:
    """Move the minima of a `search` to the minima of a wide noise, at the coarse level.

    A robust likelihood has many minima side by side where residuals have long tails, and which of them a long
    descent meets is a matter of its last steps, down to rounding; nor is the lowest the best, for parts of
    the beam can be left out as outliers. So each candidate goes to the minimum of a wide noise, where there
    are few, and so near that it does not matter where it came from; from there the way is short.

    Returns
    -------
    starts : Minima
        Where to descend from; `n_eval` are the evaluations made here.
    numbers : int Tensor
        The fit that each belongs to.
    widened : list of bool
        Whether each is at a minimum of a wide noise; the others are left where they were.
    """
    likelihood, starts = levels.likelihood, minima._replace(n_eval=torch.zeros_like(minima.n_eval))
    if not layout["noise"].free or not likelihood.robust:
        return starts, numbers, [False] * len(numbers)
    of_each = _find_residuals(levels, levels.coarse, rows[numbers], minima.coordinates)
    tails = [1 + Student().estimate(r)[1][0] < _FEW_DEGREES for r in of_each]
    long = {number for number, tail in zip(numbers.tolist(), tails, strict=True) if tail}
    kept = [i for i, number in enumerate(numbers.tolist()) if number not in long]
    moved = [i for i, number in enumerate(numbers.tolist()) if number in long]
    if not moved:
        return starts, numbers, [False] * len(kept)
    of = numbers[moved]
    held = layout.with_held(["noise", *likelihood.search_values])
    wide, n_eval = _hold_shape(levels, layout, minima.coordinates[moved]), torch.zeros_like(rows)
    for _ in range(_WIDE_ROUNDS):
        wide = _set_noise(levels, layout, rows[of], wide, likelihood.initial_widening)
        found, _ = _descend(levels, levels.coarse, held, rows[of], wide, progress, _WIDE)
        n_eval = n_eval.index_add(0, of, found.n_eval)
        # Each has its own scale of the noise, so that their objectives do not compare: they keep their order.
        in_order = found._replace(objective=torch.arange(len(of), dtype=torch.float64, device=of.device))
        distinct = find_distinct(levels, held, rows, in_order, of, math.inf)
        found, of = Minima(*(t[distinct] for t in found)), of[distinct]
        wide = found.coordinates
    parts = [Minima(*(t[kept] for t in starts)), found]
    joined = Minima(*(torch.cat(both) for both in zip(*parts, strict=True)))
    for j, number in enumerate(of.tolist()):
        # The first of each fit has the evaluations of those that were dropped, too.
        joined.n_eval[len(kept) + j] = 0 if number in of[:j].tolist() else n_eval[number]
    return joined, torch.cat([numbers[kept], of]), [False] * len(kept) + [True] * len(of)


def find_close(
    levels: Resolutions, layout: Layout, rows: Tensor, minima: Minima, numbers: Tensor
) -> list[int]:
    """Find the lowest minimum of each fit at the coarse level, and those that may be lower after all."""
    return find_distinct(levels, layout, rows, minima, numbers, _find_open(levels.coarse))


def settle(
    levels: Resolutions,
    layout: Layout,
    rows: Tensor,
    minima: Minima,
    progress: Progress,
    absorption: Absorption | None = None,
    metric: Tensor | None = None,
) -> tuple[Minima, Tensor]:
    """Descend to the minimum of the coarse level from one point for each fit: as `polish`."""
    found, metric = _descend(
        levels,
        levels.coarse,
        layout,
        rows,
        minima.coordinates,
        progress,
        _COARSE,
        absorption=absorption,
        metric=metric,
    )
    return found._replace(n_eval=minima.n_eval + found.n_eval), metric


def polish(
    levels: Resolutions,
    layout: Layout,
    rows: Tensor,
    minima: Minima,
    progress: Progress,
    absorption: Absorption | None = None,
    metric: Tensor | None = None,
    nearly: bool = False,
) -> tuple[Minima, Tensor]:
    """Descend to the minimum of the exact model from one point for each fit.

    Parameters
    ----------
    levels, layout, rows, minima, progress
        As in `search`.
    absorption : Absorption, optional
        Takes the terms of scan lines out of the samples.
    metric : Tensor, (b, n_free, n_free), optional
        Estimate of the Hessian at the start; by default from the cheapest level.
    nearly : bool
        Stop in the neighbourhood of the minimum.

    Returns
    -------
    Minima
        `n_eval` counts on.
    metric : Tensor, (b, n_free, n_free)
        Estimate of the Hessian there, to continue with.
    """
    found = minima
    if metric is None:
        metric = levels.metric(layout, rows, minima.coordinates, absorption)
    left = torch.arange(len(rows), device=rows.device)
    for _ in range(1 if nearly else _MAX_ROUNDS):
        start = found.coordinates[left]
        minimum, end = _descend(
            levels,
            levels.exact,
            layout,
            rows[left],
            start,
            progress,
            _NEAR if nearly else _FINE,
            _ROUND_EVALUATIONS,
            None if absorption is None else absorption.select(left),
            metric[left],
        )
        metric = metric.index_copy(0, left, end)
        minimum = minimum._replace(n_eval=found.n_eval[left] + minimum.n_eval)
        found = Minima(*(old.index_copy(0, left, new) for old, new in zip(found, minimum, strict=True)))
        left = left[minimum.distance >= _STOP_DISTANCE]
        if not len(left):
            break
    return found, metric


def find_distinct(
    levels: Resolutions, layout: Layout, rows: Tensor, minima: Minima, numbers: Tensor, gap: float
) -> list[int]:
    """Find the lowest minimum of each fit, and those less than `gap` above it that are elsewhere."""
    distinct = []
    for i in sorted(set(numbers.tolist())):
        lowest, *others = sort_lowest_first(minima, numbers, i)
        chosen = [lowest]
        rivals = [j for j in others if minima.objective[j] - minima.objective[lowest] < gap]
        if rivals:
            metric = levels.metric(layout, rows[[i]], minima.coordinates[[lowest]])[0]
            free = minima.coordinates[:, layout.free]
            for j in rivals:
                away = free[chosen] - free[j]
                if (torch.linalg.vecdot(away @ metric, away) > SAME_PLACE**2).all():
                    chosen.append(j)
        distinct += chosen
    return distinct


def sort_lowest_first(minima: Minima, numbers: Tensor, number: int) -> list[int]:
    """Positions of the minima of one fit, the lowest first."""
    mine = torch.nonzero(numbers == number).flatten()
    return mine[minima.objective[mine].argsort(stable=True)].tolist()


def _find_open(level: Level) -> float:
    """Difference of two objectives at a level below which the order may be another with all samples.

    A difference d of two log-likelihoods has standard deviation sqrt(2 d); it is not significant while zero
    is within three of these, d < 18. Counting each sample `multiplicity` times raises the limit by that.
    """
    return 18 * level.multiplicity


def search(
    levels: Resolutions, layout: Layout, rows: Tensor, starts: Sequence[Tensor], progress: Progress
) -> tuple[Minima, Tensor, Tensor]:
    """Find the lowest minimum of each fit from several starts.

    A minimum is accepted if two starts lead to the lowest, or if the second lowest is so close that the
    samples left out at the search level could reverse the order. Otherwise the fit is restarted.

    Parameters
    ----------
    levels : Resolutions
    layout : Layout
    rows : int Tensor, (b,)
        Numbers of the observations.
    starts : sequence of Tensor, (b, n_parameters)
        Restarts are drawn around the last of them.
    progress : callable

    Returns
    -------
    minima : Minima
        Candidates: the lowest minimum of each fit, and all that may be the lowest with all
        samples.
    numbers : int Tensor
        The fit, 0 to b - 1, that each candidate belongs to.
    n_eval : Tensor, (b,)
        Evaluations of each fit.
    """
    all_rows = torch.arange(len(rows), device=rows.device)
    numbers = all_rows.repeat(len(starts))
    minima = approach(levels, layout, rows[numbers], torch.cat(list(starts)), progress, _SEARCH, True)
    open_ = _find_open(levels.search)
    span = levels.search.model.parts.surface.span
    surface = [i for i in layout.free if span.start <= i < span.stop]
    random = np.random.default_rng(0)
    for _ in range(_RESTARTS):
        lost = [i for i in all_rows.tolist() if _find_gap(minima.objective[numbers == i]) > open_]
        if not lost:
            break
        shifts = _draw_restarts(surface, starts[-1], random)
        tried = all_rows[lost].repeat_interleave(len(shifts))
        start = starts[-1][tried] + shifts.repeat(len(lost), 1)
        more = approach(levels, layout, rows[tried], start, progress, _SEARCH, True)
        minima = Minima(*(torch.cat(parts) for parts in zip(minima, more, strict=True)))
        numbers = torch.cat([numbers, tried])
    kept = []
    for number in all_rows.tolist():
        mine = sort_lowest_first(minima, numbers, number)
        last = -math.inf
        for i in mine:
            value = float(minima.objective[i])
            if value - last >= _SAME_MINIMUM and value < float(minima.objective[mine[0]]) + open_:
                kept.append(i)
                last = value
    n_eval = torch.zeros_like(rows).index_add(0, numbers, minima.n_eval)
    return Minima(*(t[kept] for t in minima)), numbers[kept], n_eval


def _find_gap(objectives: Tensor) -> float:
    """Difference between the second lowest and the lowest of several values."""
    lowest = objectives.sort().values[:2]
    return float(lowest[-1] - lowest[0])


def _draw_restarts(numbers: list[int], like: Tensor, random: np.random.Generator) -> Tensor:
    """Draw a random surface and its negative, as shifts (2, n_parameters) of the coordinates of a start.

    A pair, so that the mirrored observation (CONVENTIONS 8) is restarted from the mirrored surfaces.
    """
    shift = like.new_zeros(like.shape[-1])
    shift[numbers] = like.new_tensor(random.normal(scale=_RESTART_SIZE, size=len(numbers)))
    return torch.stack([shift, -shift])


def _hold_shape(levels: Resolutions, layout: Layout, u: Tensor) -> Tensor:
    """Return the coordinates with the likelihood's own parameters, where free, as a search has them."""
    u = u.clone()
    for name, value in levels.likelihood.search_values.items():
        if layout[name].free:
            u[:, layout.index(name)] = layout[name].coordinate(value)
    return u


def _set_noise(levels: Resolutions, layout: Layout, rows: Tensor, u: Tensor, factor: float = 1.0) -> Tensor:
    """Return the coordinates with the scale of the noise estimated from the residuals, times `factor`."""
    noise, i = layout["noise"], layout.index("noise")
    u = u.clone()
    if noise.free:
        for j, residuals in enumerate(_find_residuals(levels, levels.search, rows, u)):
            scale = max(levels.likelihood.estimate_scale(residuals), 1e-9 * noise.scale)
            u[j, i] = noise.coordinate(factor * scale)
    return u


def estimate_noise(levels: Resolutions, level: Level, layout: Layout, rows: Tensor, u: Tensor) -> Tensor:
    """Return the coordinates (b, n_parameters) with the noise estimated from the residuals at a level.

    Its scale and the likelihood's own parameters, where they are free.
    """
    if not layout["noise"].free:
        return u
    u = u.clone()
    own = [p.name for p in levels.likelihood.declare()]
    for j, residuals in enumerate(_find_residuals(levels, level, rows, u)):
        scale, values = levels.likelihood.estimate(residuals)
        scale = max(scale, 1e-9 * layout["noise"].scale)
        for name, value in zip(("noise", *own), (scale, *values), strict=True):
            if layout[name].free:
                u[j, layout.index(name)] = layout[name].coordinate(value)
    return u


def _find_residuals(levels: Resolutions, level: Level, rows: Tensor, u: Tensor) -> Iterator[Tensor]:
    """Whitened residuals (n_valid,) of each fit at one level, for a scale of the noise of one."""
    samples = level.samples.select_observations(rows)
    with torch.no_grad():
        r = levels.noise.whitening(samples).whiten(samples.power - level.model(u))
    return (residuals[valid] for residuals, valid in zip(r, samples.valid, strict=True))


def _descend(
    levels: Resolutions,
    level: Level,
    layout: Layout,
    rows: Tensor,
    start: Tensor,
    progress: Progress,
    gtol: float,
    max_eval: int = 2000,
    absorption: Absorption | None = None,
    metric: Tensor | None = None,
) -> tuple[Minima, Tensor]:
    """Minimise at one level by BFGS, in the metric of the start, until `gtol` standard deviations.

    Returns the metric of the end, too.
    """
    posterior = levels.posterior(level, layout, rows, start, absorption)
    x = start[:, posterior.free]
    if metric is None:
        metric = levels.metric(layout, rows, start, absorption)

    watch = Watch(posterior.value_and_gradient, x)

    def fun(x: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = posterior.value_and_gradient(x, members)
        progress(len(members), float(value[0]))
        for member, i in watch.check(x, members, value, gradient):
            progress.blame(int(rows[member]), layout.parameters[layout.free[i]].name)
        return value, gradient

    found = bfgs(fun, x, metric, gtol=gtol, max_eval=max_eval)
    return Minima(posterior.complete(found.x), found.value, found.distance, found.n_eval), found.metric
