"""Search for the lowest minimum from several starts, on cheap models first, for a batch of fits.

Each row of a batch is an independent fit. `search` finds candidates, `finish` minimises on the exact model.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ooftorch.fitting.resolution import Level, Resolutions
from ooftorch.optics.parameters import Layout
from ooftorch.optim.bfgs import bfgs

__all__ = ["Minima", "approach", "finish", "search"]

# Distance to the minimum, in standard deviations, at which a descent stops: at orders below the highest, at
# the search level, with a wide noise, at the coarse level, and at the exact level.
_PASSING, _SEARCH, _WIDE, _COARSE, _FINE = 8.0, 2.0, 1e-3, 0.1, 1e-3
# Distance, in standard deviations, above which the exact descent is continued with a new metric.
_STOP_DISTANCE = 5e-3
# The metric of the start is wrong after a long exact descent: evaluations until it is computed again, and
# the largest number of such rounds.
_ROUND_EVALUATIONS, _MAX_ROUNDS = 60, 6
# The scale of the wide noise is estimated again at its minimum, so that it does not depend on where the
# candidate was: number of such rounds.
_WIDE_ROUNDS = 2
# Minima whose objectives differ by less than this (natural units) are taken as the same.
_SAME_MINIMUM = 0.5
# Minima nearer to each other than this, in standard deviations, are the same.
_SAME_PLACE = 1.0
# Largest number of pairs of random restarts, and the standard deviation of their coefficients, radians.
_RESTARTS, _RESTART_SIZE = 8, 0.8

Progress = Callable[[int, float], None]
"""Called at every evaluation with the number of fits evaluated, and the objective of the first of them."""


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
) -> Minima:
    """Descend from each start (b, n_parameters) to the neighbourhood of a minimum, on the search level.

    If the scale of the noise is free, it is first held at the estimate from the residuals of the start:
    otherwise the curvature would change by orders of magnitude during the descent. For a robust likelihood
    the held scale is wider by `initial_widening`, so that no sample is an outlier: with the true scale there
    are minima that fit some of the samples and treat the rest as outliers (graduated non-convexity, Blake &
    Zisserman 1987, Visual Reconstruction).
    """
    n_eval = torch.zeros_like(rows)
    if layout["noise"].free:
        held = layout.with_held(["noise"])
        start = _set_noise(levels, layout, rows, start, levels.likelihood.initial_widening)
        minimum = _descend(levels, levels.search, held, rows, start, progress, gtol)
        start, n_eval = _set_noise(levels, layout, rows, minimum.coordinates), minimum.n_eval
    minimum = _descend(levels, levels.search, layout, rows, start, progress, gtol)
    return minimum._replace(n_eval=minimum.n_eval + n_eval)


def finish(
    levels: Resolutions, layout: Layout, rows: Tensor, minima: Minima, numbers: Tensor, progress: Progress
) -> Minima:
    """Descend from the minima of a `search` to the minimum of the exact model, one for each fit.

    Candidates of one fit that the objective at the coarse level cannot order all descend on the exact model,
    and the lowest wins.

    Parameters
    ----------
    levels, layout, rows
        As in `search`.
    minima : Minima
        Candidates.
    numbers : int Tensor
        The fit, 0 to b - 1, that each candidate belongs to.
    progress : callable

    Returns
    -------
    Minima
        One row per fit; `n_eval` includes the descents of all its candidates.
    """
    coarse, numbers = _settle(levels, layout, rows, minima, numbers, progress)
    n_eval = torch.zeros_like(rows).index_add(0, numbers, coarse.n_eval)
    close = _find_distinct(levels, layout, rows, coarse, numbers, _find_open(levels.coarse))
    numbers = numbers[close]
    found = Minima(*(t[close] for t in coarse))._replace(n_eval=torch.zeros_like(numbers))
    left = torch.arange(len(numbers), device=rows.device)
    for _ in range(_MAX_ROUNDS):
        minimum = _descend(
            levels,
            levels.exact,
            layout,
            rows[numbers[left]],
            found.coordinates[left],
            progress,
            _FINE,
            _ROUND_EVALUATIONS,
        )
        minimum = minimum._replace(n_eval=found.n_eval[left] + minimum.n_eval)
        found = Minima(*(old.index_copy(0, left, new) for old, new in zip(found, minimum, strict=True)))
        left = left[minimum.distance >= _STOP_DISTANCE]
        if not len(left):
            break
    n_eval = n_eval.index_add(0, numbers, found.n_eval)
    lowest = [_sort_lowest_first(found, numbers, i)[0] for i in range(len(rows))]
    return Minima(*(t[lowest] for t in found))._replace(n_eval=n_eval)


def _settle(
    levels: Resolutions, layout: Layout, rows: Tensor, minima: Minima, numbers: Tensor, progress: Progress
) -> tuple[Minima, Tensor]:
    """Descend from the minima of a `search` to minima of the coarse level.

    A robust likelihood has many minima side by side, and which of them a long descent meets is a matter of
    its last steps, down to rounding. So each candidate first goes to the minimum of a wide noise, where there
    are few, and so near that it does not matter where it came from; from there the way is short.

    Returns
    -------
    minima : Minima
        `n_eval` are the evaluations made here.
    numbers : int Tensor
        The fit that each belongs to.
    """
    widening, level, start = levels.likelihood.initial_widening, levels.coarse, minima.coordinates
    if not layout["noise"].free or widening == 1:
        return _descend(levels, level, layout, rows[numbers], start, progress, _COARSE), numbers
    # With no step taken: what the candidates are worth at this level.
    before = _descend(levels, level, layout, rows[numbers], start, progress, math.inf)
    held = layout.with_held(["noise"])
    wide, evaluated = start, before.n_eval
    for _ in range(_WIDE_ROUNDS):
        wide = _set_noise(levels, layout, rows[numbers], wide, widening)
        wide_minima = _descend(levels, level, held, rows[numbers], wide, progress, _WIDE)
        wide, evaluated = wide_minima.coordinates, evaluated + wide_minima.n_eval
    n_eval = torch.zeros_like(rows).index_add(0, numbers, evaluated)
    # Each has its own scale of the noise, so that their objectives do not compare.
    distinct = _find_distinct(levels, held, rows, wide_minima, numbers, math.inf)
    of = numbers[distinct]
    start = _set_noise(levels, layout, rows[of], wide_minima.coordinates[distinct])
    settled = _descend(levels, level, layout, rows[of], start, progress, _COARSE)
    for i in range(len(rows)):
        first, lowest = _sort_lowest_first(settled, of, i)[0], _sort_lowest_first(before, numbers, i)[0]
        settled.n_eval[first] += n_eval[i]
        if before.objective[lowest] < settled.objective[first]:
            # The wide noise led astray.
            one = Minima(*(t[[lowest]] for t in before))._replace(n_eval=n_eval.new_zeros(1))
            settled = Minima(*(torch.cat(both) for both in zip(settled, one, strict=True)))
            of = torch.cat([of, numbers[[lowest]]])
    return settled, of


def _find_distinct(
    levels: Resolutions, layout: Layout, rows: Tensor, minima: Minima, numbers: Tensor, gap: float
) -> list[int]:
    """Find the lowest minimum of each fit, and those less than `gap` above it that are elsewhere."""
    distinct = []
    for i in range(len(rows)):
        lowest, *others = _sort_lowest_first(minima, numbers, i)
        chosen = [lowest]
        rivals = [j for j in others if minima.objective[j] - minima.objective[lowest] < gap]
        if rivals:
            metric = levels.metric(layout, rows[[i]], minima.coordinates[[lowest]])[0]
            free = minima.coordinates[:, layout.free]
            for j in rivals:
                away = free[chosen] - free[j]
                if (torch.linalg.vecdot(away @ metric, away) > _SAME_PLACE**2).all():
                    chosen.append(j)
        distinct += chosen
    return distinct


def _sort_lowest_first(minima: Minima, numbers: Tensor, number: int) -> list[int]:
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
        Candidates for `finish`: the lowest minimum of each fit, and all that may be the lowest with all
        samples.
    numbers : int Tensor
        The fit, 0 to b - 1, that each candidate belongs to.
    n_eval : Tensor, (b,)
        Evaluations of each fit.
    """
    all_rows = torch.arange(len(rows), device=rows.device)
    numbers = all_rows.repeat(len(starts))
    minima = approach(levels, layout, rows[numbers], torch.cat(list(starts)), progress, _SEARCH)
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
        more = approach(levels, layout, rows[tried], start, progress, _SEARCH)
        minima = Minima(*(torch.cat(parts) for parts in zip(minima, more, strict=True)))
        numbers = torch.cat([numbers, tried])
    kept = []
    for number in all_rows.tolist():
        mine = _sort_lowest_first(minima, numbers, number)
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


def _set_noise(levels: Resolutions, layout: Layout, rows: Tensor, u: Tensor, factor: float = 1.0) -> Tensor:
    """Return the coordinates with the scale of the noise estimated from the residuals, times `factor`."""
    noise, i = layout["noise"], layout.index("noise")
    if not noise.free:
        return u
    samples = levels.search.samples.select_observations(rows)
    with torch.no_grad():
        r = levels.noise.whitening(samples).whiten(samples.power - levels.search.model(u))
    u = u.clone()
    for j, (residuals, valid) in enumerate(zip(r, samples.valid, strict=True)):
        scale = max(levels.likelihood.estimate_scale(residuals[valid]), 1e-9 * noise.scale)
        u[j, i] = noise.coordinate(factor * scale)
    return u


def _descend(
    levels: Resolutions,
    level: Level,
    layout: Layout,
    rows: Tensor,
    start: Tensor,
    progress: Progress,
    gtol: float,
    max_eval: int = 2000,
) -> Minima:
    """Minimise at one level by BFGS, in the metric of the start, until `gtol` standard deviations."""
    posterior = levels.posterior(level, layout, rows, start)

    def fun(x: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = posterior.value_and_gradient(x, members)
        progress(len(members), float(value[0]))
        return value, gradient

    x = start[:, posterior.free]
    metric = levels.metric(layout, rows, start)
    found = bfgs(fun, x, metric, gtol=gtol, max_eval=max_eval)
    return Minima(posterior.complete(found.x), found.value, found.distance, found.n_eval)
