"""Search for the lowest minimum from several starts, on cheap models first, for a batch of fits.

Each row of a batch is an independent fit. `search` finds candidates, `finish` minimises on the exact model.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ooftorch.fitting.absorption import Absorption
from ooftorch.fitting.resolution import Level, Resolutions
from ooftorch.optics.parameters import Layout
from ooftorch.optim.bfgs import bfgs

__all__ = ["Minima", "approach", "estimate_noise", "finish", "polish", "search", "settle"]

# Distance to the minimum, in standard deviations, at which a descent stops: at orders below the highest, at
# the search level, at the coarse level, near the exact minimum, and at it.
_PASSING, _SEARCH, _COARSE, _NEAR, _FINE = 8.0, 2.0, 1.0, 0.1, 1e-3
# Distance, in standard deviations, above which the exact descent is continued with a new metric.
_STOP_DISTANCE = 5e-3
# The metric of the start is wrong after a long exact descent: evaluations until it is computed again, and
# the largest number of such rounds.
_ROUND_EVALUATIONS, _MAX_ROUNDS = 60, 6
# Minima whose objectives differ by less than this (natural units) are taken as the same.
_SAME_MINIMUM = 0.5
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

    Degrees of freedom of the likelihood stay at one, where outliers matter least.
    If the scale of the noise is free, it is first held at the estimate from the residuals of the start:
    otherwise the curvature would change by orders of magnitude during the descent. For a robust likelihood
    the held scale is wider by `initial_widening`, so that no sample is an outlier: with the true scale there
    are minima that fit some of the samples and treat the rest as outliers (graduated non-convexity, Blake &
    Zisserman 1987, Visual Reconstruction).
    """
    n_eval = torch.zeros_like(rows)
    layout = layout.with_held(p.name for p in levels.likelihood.declare())
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

    If a fit has several candidates, the objective at the coarse level decides between them.

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
        One row per fit; `n_eval` includes the coarse descents of all its candidates.
    """
    start = estimate_noise(levels, levels.coarse, layout, rows[numbers], minima.coordinates)
    coarse = _descend(levels, levels.coarse, layout, rows[numbers], start, progress, _COARSE)
    n_eval = torch.zeros_like(rows).index_add(0, numbers, coarse.n_eval)
    chosen = [
        min(torch.nonzero(numbers == i).flatten().tolist(), key=lambda j: float(coarse.objective[j]))
        for i in range(len(rows))
    ]
    return Minima(*(t[chosen] for t in coarse))._replace(n_eval=n_eval)


def settle(
    levels: Resolutions,
    layout: Layout,
    rows: Tensor,
    minima: Minima,
    progress: Progress,
    absorption: Absorption | None = None,
    metric: Tensor | None = None,
) -> Minima:
    """Descend to the minimum of the coarse level from one point for each fit; `n_eval` counts on."""
    found = _descend(
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
    return found._replace(n_eval=minima.n_eval + found.n_eval)


def polish(
    levels: Resolutions,
    layout: Layout,
    rows: Tensor,
    minima: Minima,
    progress: Progress,
    absorption: Absorption | None = None,
    metric: Tensor | None = None,
    nearly: bool = False,
) -> Minima:
    """Descend to the minimum of the exact model from one point for each fit; `n_eval` counts on.

    Parameters
    ----------
    levels, layout, rows, minima, progress
        As in `finish`.
    absorption : Absorption, optional
        Takes the terms of scan lines out of the samples.
    metric : Tensor, (b, n_free, n_free), optional
        Estimate of the Hessian; by default from the cheapest level, anew after every round.
    nearly : bool
        Stop in the neighbourhood of the minimum.
    """
    found = minima
    left = torch.arange(len(rows), device=rows.device)
    for _ in range(1 if nearly else _MAX_ROUNDS):
        start = found.coordinates[left]
        minimum = _descend(
            levels,
            levels.exact,
            layout,
            rows[left],
            start,
            progress,
            _NEAR if nearly else _FINE,
            _ROUND_EVALUATIONS,
            None if absorption is None else absorption.select(left),
            None if metric is None else metric[left],
        )
        minimum = minimum._replace(n_eval=found.n_eval[left] + minimum.n_eval)
        found = Minima(*(old.index_copy(0, left, new) for old, new in zip(found, minimum, strict=True)))
        left = left[minimum.distance >= _STOP_DISTANCE]
        if not len(left):
            break
    return found


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
        Candidates for `finish`: the lowest minimum of each fit, and the next one if it may be the lowest with
        all samples.
    numbers : int Tensor
        The fit, 0 to b - 1, that each candidate belongs to.
    n_eval : Tensor, (b,)
        Evaluations of each fit.
    """
    all_rows = torch.arange(len(rows), device=rows.device)
    numbers = all_rows.repeat(len(starts))
    minima = approach(levels, layout, rows[numbers], torch.cat(list(starts)), progress, _SEARCH)
    # A difference d of two log-likelihoods has standard deviation sqrt(2 d); it is not significant while zero
    # is within three of these, d < 18. Counting each sample `multiplicity` times raises the limit by that.
    open_ = 18 * levels.search.multiplicity
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
        mine = torch.nonzero(numbers == number).flatten()
        above = minima.objective[mine] - minima.objective[mine].min()
        lowest_first = above.argsort(stable=True)
        rivals = [i for i in lowest_first.tolist() if _SAME_MINIMUM <= above[i] < open_]
        kept += mine[[int(lowest_first[0]), *rivals[:1]]].tolist()
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
    """Return the coordinates with the scale of the noise estimated from the residuals, times `factor`.

    The likelihood's own parameters are set to those of a search.
    """
    noise, i = layout["noise"], layout.index("noise")
    u = u.clone()
    for name, value in levels.likelihood.search_values.items():
        u[:, layout.index(name)] = layout[name].coordinate(value)
    if noise.free:
        for j, residuals in enumerate(_find_residuals(levels, levels.search, rows, u)):
            scale = max(levels.likelihood.estimate_scale(residuals), 1e-9 * noise.scale)
            u[j, i] = noise.coordinate(factor * scale)
    return u


def estimate_noise(levels: Resolutions, level: Level, layout: Layout, rows: Tensor, u: Tensor) -> Tensor:
    """Return the coordinates (b, n_parameters) with the likelihood's own parameters estimated from the residuals.

    With the scale of the noise, where both are free; without such parameters the coordinates are unchanged.
    """
    own = [p.name for p in levels.likelihood.declare()]
    if not own or not all(layout[name].free for name in (*own, "noise")):
        return u
    u = u.clone()
    for j, residuals in enumerate(_find_residuals(levels, level, rows, u)):
        scale, values = levels.likelihood.estimate(residuals)
        scale = max(scale, 1e-9 * layout["noise"].scale)
        for name, value in zip(("noise", *own), (scale, *values), strict=True):
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
) -> Minima:
    """Minimise at one level by BFGS, in the metric of the start, until `gtol` standard deviations."""
    posterior = levels.posterior(level, layout, rows, start, absorption)
    x = start[:, posterior.free]
    if metric is None:
        metric = levels.metric(layout, rows, start, absorption)

    def fun(x: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = posterior.value_and_gradient(x, members)
        progress(len(members), float(value[0]))
        return value, gradient

    found = bfgs(fun, x, metric, gtol=gtol, max_eval=max_eval)
    return Minima(posterior.complete(found.x), found.value, found.distance, found.n_eval)
