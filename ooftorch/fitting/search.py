"""The search for the lowest minimum: from several starts, on cheap models first, many fits side by side.

Every row of a batch is a fit of its own.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ooftorch.fitting.resolution import Level, Resolutions
from ooftorch.optics.parameters import Layout
from ooftorch.optim.bfgs import bfgs

__all__ = ["End", "approach", "finish", "search"]

# Distance to the minimum, in standard deviations, at which a descent stops: at an order that is only passed
# through, in search of the right minimum, on coarse pixels, and at the end.
_PASSING, _SEARCH, _COARSE, _FINE = 8.0, 2.0, 1.0, 1e-3
# ... and below which the end is not worth another round.
_CLOSE = 5e-3
# A long descent leaves the metric of its start behind: the last one renews it after so many
# evaluations, so many times.
_ROUND, _ROUNDS = 60, 6
# Two ends of a search whose objectives differ by less are one and the same.
_SAME = 0.5
# Pairs of random restarts at the most, and the standard deviation of their coefficients, rad.
_RESTARTS, _RESTART_SIZE = 8, 0.8

Progress = Callable[[int, float], None]
"""Called at every evaluation with the number of members evaluated, and the value of the first of them."""


class End(NamedTuple):
    """Where descents ended, a row for each: see `Minimum`."""

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
) -> End:
    """Go down from each start (b, n_parameters) to somewhere near a minimum, on the cheapest model.

    Where the noise is fitted it is first held at what the start's residuals ask for: with it free from the
    beginning, the curvature would change by orders of magnitude on the way. A likelihood that forgives
    outliers sees it wider still, so that no sample is one: it also forgives a wrong model, and has minima
    that explain part of the samples and give up the rest (graduated non-convexity, Blake & Zisserman 1987).
    """
    n_eval = torch.zeros_like(rows)
    if layout["noise"].free:
        held = layout.with_held(["noise"])
        start = _set_noise(levels, layout, rows, start, levels.likelihood.initial_widening)
        end = _descend(levels, levels.search, held, rows, start, progress, gtol)
        start, n_eval = _set_noise(levels, layout, rows, end.coordinates), end.n_eval
    end = _descend(levels, levels.search, layout, rows, start, progress, gtol)
    return end._replace(n_eval=end.n_eval + n_eval)


def finish(
    levels: Resolutions, layout: Layout, rows: Tensor, ends: End, numbers: Tensor, progress: Progress
) -> End:
    """Go down from the ends of a `search` to the minimum of the exact model, one for each fit.

    Where a fit has several ends all samples decide between them, on coarse pixels still.
    """
    coarse = _descend(levels, levels.coarse, layout, rows[numbers], ends.coordinates, progress, _COARSE)
    n_eval = torch.zeros_like(rows).index_add(0, numbers, coarse.n_eval)
    chosen = [
        min(torch.nonzero(numbers == i).flatten().tolist(), key=lambda j: float(coarse.objective[j]))
        for i in range(len(rows))
    ]
    found = End(*(t[chosen] for t in coarse))._replace(n_eval=n_eval)
    left = torch.arange(len(rows), device=rows.device)
    for _ in range(_ROUNDS):
        end = _descend(
            levels, levels.exact, layout, rows[left], found.coordinates[left], progress, _FINE, _ROUND
        )
        end = end._replace(n_eval=found.n_eval[left] + end.n_eval)
        found = End(*(old.index_copy(0, left, new) for old, new in zip(found, end, strict=True)))
        left = left[end.distance >= _CLOSE]
        if not len(left):
            break
    return found


def search(
    levels: Resolutions, layout: Layout, rows: Tensor, starts: Sequence[Tensor], progress: Progress
) -> tuple[End, Tensor, Tensor]:
    """Find the lowest minimum of each fit from several starts (b, n_parameters) each.

    Where two starts lead to the lowest end, that is it. Where nothing confirms the lowest, because the next
    is too high for the samples left out to change the order, more starts are tried.

    Returns
    -------
    ends : End
        What is worth finishing: of each fit the lowest end, and the next one where all samples together may
        put that lower.
    numbers : Tensor
        The fit, 0 to b - 1, that each of these belongs to.
    n_eval : Tensor, (b,)
    """
    all_rows = torch.arange(len(rows), device=rows.device)
    numbers = all_rows.repeat(len(starts))
    ends = approach(levels, layout, rows[numbers], torch.cat(list(starts)), progress, _SEARCH)
    # A difference d of two log-likelihoods scatters by sqrt(2 d) from draw to draw; it counts as open while
    # zero is within three such scatters.
    open_ = 18 * levels.search.multiplicity
    span = levels.search.model.surface.span
    surface = [i for i in layout.free if span.start <= i < span.stop]
    random = np.random.default_rng(0)
    for _ in range(_RESTARTS):
        lost = [i for i in all_rows.tolist() if _find_gap(ends.objective[numbers == i]) > open_]
        if not lost:
            break
        shifts = _draw_restarts(surface, starts[-1], random)
        tried = all_rows[lost].repeat_interleave(len(shifts))
        start = starts[-1][tried] + shifts.repeat(len(lost), 1)
        more = approach(levels, layout, rows[tried], start, progress, _SEARCH)
        ends = End(*(torch.cat(parts) for parts in zip(ends, more, strict=True)))
        numbers = torch.cat([numbers, tried])
    kept = []
    for number in all_rows.tolist():
        mine = torch.nonzero(numbers == number).flatten()
        above = ends.objective[mine] - ends.objective[mine].min()
        lowest_first = above.argsort(stable=True)
        rivals = [i for i in lowest_first.tolist() if _SAME <= above[i] < open_]
        kept += mine[[int(lowest_first[0]), *rivals[:1]]].tolist()
    n_eval = torch.zeros_like(rows).index_add(0, numbers, ends.n_eval)
    return End(*(t[kept] for t in ends)), numbers[kept], n_eval


def _find_gap(objectives: Tensor) -> float:
    """How far the second lowest of several values lies above the lowest."""
    lowest = objectives.sort().values[:2]
    return float(lowest[-1] - lowest[0])


def _draw_restarts(numbers: list[int], like: Tensor, random: np.random.Generator) -> Tensor:
    """A surface at random and its negative, to start from where the perfect dish has misled.

    As a pair, so that the mirrored observation (CONVENTIONS 3) is started from the mirrored surfaces.
    """
    shift = like.new_zeros(like.shape[-1])
    shift[numbers] = like.new_tensor(random.normal(scale=_RESTART_SIZE, size=len(numbers)))
    return torch.stack([shift, -shift])


def _set_noise(levels: Resolutions, layout: Layout, rows: Tensor, u: Tensor, factor: float = 1.0) -> Tensor:
    """The same coordinates with the scale of the noise that the residuals ask for, times a factor."""
    noise, i = layout["noise"], layout.index("noise")
    if not noise.free:
        return u
    samples = levels.search.samples.of(rows)
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
) -> End:
    """Go down at one level, in the metric of the start."""
    posterior = levels.posterior(level, layout, rows, start)

    def fun(x: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = posterior.value_and_gradient(x, members)
        progress(len(members), float(value[0]))
        return value, gradient

    x = start[:, posterior.free]
    metric = levels.metric(layout, rows, start)
    found = bfgs(fun, x, metric, gtol=gtol, max_eval=max_eval)
    return End(posterior.complete(found.x), found.value, found.distance, found.n_eval)
