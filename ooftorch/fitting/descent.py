"""The way down: cheap models to search with, the exact one to finish on, many fits side by side.

A fit spends most of its evaluations far from the end, where a coarser model is as good a guide. A `Ladder`
holds the same problem three times: with coarse pixels and few samples to find the right valley, with coarse
pixels and all samples to come close, and as it is to finish. Every row of a batch is a fit of its own.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ooftorch.fitting.likelihood import Likelihood
from ooftorch.fitting.posterior import Data, Posterior
from ooftorch.optics.model import BeamModel, MapGeometry
from ooftorch.optics.parameters import Layout
from ooftorch.optim.bfgs import bfgs

__all__ = ["End", "Ladder", "approach", "build", "finish", "search"]

# Distance to the minimum, in standard deviations, at which a descent stops: at an order that is only passed
# through, in search of the right valley, on coarse pixels, and at the end.
_PASSING, _SEARCH, _COARSE, _FINE = 8.0, 2.0, 1.0, 1e-3
# ... and below which the end is not worth another round.
_CLOSE = 5e-3
# A long descent leaves the metric of its start behind: the last one renews it after so many
# evaluations, so many times.
_ROUND, _ROUNDS = 60, 6
# Coarse pixels are this much finer than the farthest sample asks for, and this many across the dish at least.
_MARGIN, _ACROSS = 2.0, 32
# Samples farther out than so many beams, each as wide as diffraction and defocus make it, hold little.
_WINDOW = 2.5
# ... unless fewer than this are left of a map.
_FEW = 100
# Samples closer than this, in units of wavelength over diameter, tell much the same: a power pattern is
# known from samples half a beam apart.
_CELL = 0.5
# Two ends of a search whose objectives differ by less are one and the same.
_SAME = 0.5

# Pairs of further starts at the most, and the size of their coefficients, rad.
_DETOURS, _DETOUR = 8, 0.8

# Is told of every evaluation: members evaluated, and the value of the first of them.
Tell = Callable[[int, float], None]


class Rung(NamedTuple):
    """One model of the problem and its data; each sample stands for `multiplicity` of them."""

    model: BeamModel
    data: Data
    multiplicity: float

    def posterior(self, layout: Layout, judge: Likelihood, rows: Tensor, anchor: Tensor) -> Posterior:
        """Posterior of these rows of the data, one for each row of the anchor."""
        data = Data(*(t[rows] for t in self.data))
        return Posterior(self.model, layout, data, judge, anchor, multiplicity=self.multiplicity)


class Ladder(NamedTuple):
    """A problem for several observations of the same shape, from its cheapest form to its exact one."""

    search: Rung
    coarse: Rung
    exact: Rung
    judge: Likelihood

    def posterior(self, rung: Rung, layout: Layout, rows: Tensor, anchor: Tensor) -> Posterior:
        """Posterior of these rows on one rung."""
        return rung.posterior(layout, self.judge, rows, anchor)

    def metric(self, layout: Layout, rows: Tensor, u: Tensor) -> Tensor:
        """Estimate of the Hessian at the coordinates u, from the cheapest model: it need not be exact."""
        posterior = self.posterior(self.search, layout, rows, u)
        return posterior.metric(u[:, posterior.free])

    def adopt(self, layout: Layout) -> None:
        """Describe the parameters of every model by `layout`."""
        for rung in (self.search, self.coarse, self.exact):
            rung.model.adopt(layout)


class End(NamedTuple):
    """Where descents ended, a row for each: see `Minimum`."""

    coordinates: Tensor
    objective: Tensor
    distance: Tensor
    n_eval: Tensor


def build(
    make: Callable[[list[MapGeometry], int], BeamModel],
    maps: list[MapGeometry],
    data: Data,
    judge: Likelihood,
    n: int,
    oversample: float,
    beam: float,
) -> Ladder:
    """Build the models of a problem.

    Parameters
    ----------
    make : callable
        Returns the model for some maps on n pixels a side.
    maps : list of MapGeometry
    data : Data
        (b, n_samples) each.
    judge : Likelihood
    n, oversample : int, float
        Raster of the exact model; `oversample` is also that of the others.
    beam : float
        Wavelength over diameter, radians.
    """
    exact = Rung(make(maps, n), data, 1.0)
    chop = 0.5 * math.hypot(exact.model.receiver.chop_x, exact.model.receiver.chop_y)
    spread = exact.model.telescope.steepness() * max(abs(m.dz) for m in maps)
    window = _WINDOW * (beam + spread) + chop
    inside = [_inside(m, window) for m in maps]
    reach = max(np.max(np.abs((m.x, m.y))[:, i]) for m, i in zip(maps, inside, strict=True)) + chop
    across = max(_ACROSS, math.ceil(2 * _MARGIN * reach / beam))
    coarse_n = 2 * math.ceil(across * oversample / 2)
    if coarse_n >= n:
        return Ladder(exact, exact, exact, judge)

    def rung(cell: float) -> Rung:
        """Coarse model of one sample in every cell of the window."""
        valid = np.split(data.valid.all(0).cpu().numpy(), np.cumsum([len(m.x) for m in maps])[:-1])
        chosen = [_thinned(m, i, v, cell) for m, i, v in zip(maps, inside, valid, strict=True)]
        first = np.cumsum([0] + [len(m.x) for m in maps[:-1]])
        index = torch.as_tensor(np.concatenate([c + f for c, f in zip(chosen, first, strict=True)]))
        some = Data(*(t[:, index.to(t.device)] for t in data))
        geometry = [MapGeometry(m.dz, m.x[c], m.y[c]) for m, c in zip(maps, chosen, strict=True)]
        return Rung(make(geometry, coarse_n), some, 1.0)

    coarse = rung(0.0)
    search = rung(_CELL * beam)
    multiplicity = int(coarse.data.valid.sum()) / int(search.data.valid.sum())
    if multiplicity < 2:
        return Ladder(coarse, coarse, exact, judge)
    return Ladder(search._replace(multiplicity=multiplicity), coarse, exact, judge)


def _inside(m: MapGeometry, window: float) -> np.ndarray:
    """Numbers of the samples in a window about the middle of the map; all where it holds but a few."""
    middle_x, middle_y = (0.5 * (a.min() + a.max()) for a in (m.x, m.y))
    near = np.maximum(np.abs(m.x - middle_x), np.abs(m.y - middle_y)) <= window
    return np.flatnonzero(near) if near.sum() >= _FEW else np.arange(len(m.x))


def _thinned(m: MapGeometry, inside: np.ndarray, valid: np.ndarray, cell: float) -> np.ndarray:
    """Numbers of one sample from each square cell of the sky, a valid one where there is any; all for none.

    Row by row, as a transform to a regular map has them.
    """
    chosen = inside
    if cell > 0:
        places = np.stack([m.x, m.y])[:, chosen] / cell
        cells = np.round(places)
        # The one nearest to the middle of its cell, of several that nearest to the axes: the mirrored map is
        # thinned to the mirrored samples, and a regular map to a regular one, in whatever order they come.
        off = np.round(1e6 * np.abs(places - cells)).sum(0)
        x, y = np.round(1e6 * np.abs(places))
        best_first = np.lexsort((y, x, off, ~valid[chosen]))
        columns, rows = (cells - cells.min(1, keepdims=True)).astype(int)
        numbers = rows * (columns.max() + 1) + columns
        chosen = chosen[best_first][np.unique(numbers[best_first], return_index=True)[1]]
    # To the rounding of coordinates, which would tear a row apart.
    rounded = np.round(np.stack([m.x, m.y])[:, chosen] / (1e-9 * np.max(np.abs((m.x, m.y)))))
    return chosen[np.lexsort(rounded)]


def approach(
    ladder: Ladder, layout: Layout, rows: Tensor, start: Tensor, tell: Tell, gtol: float = _PASSING
) -> End:
    """Go down from each start (b, n_parameters) to somewhere near a minimum, on the cheapest model.

    Where the noise is fitted it is first held at what the start's residuals ask for: with it free from the
    beginning, the curvature would change by orders of magnitude on the way. A likelihood that forgives
    outliers sees it wider still, so that no sample is one: it also forgives a wrong model, and has minima
    that explain part of the samples and give up the rest (graduated non-convexity, Blake & Zisserman 1987).
    """
    n_eval = torch.zeros_like(rows)
    if layout.parameters[layout.index("noise")].free:
        held = layout.held("noise")
        start = _with_noise(ladder, layout, rows, start, ladder.judge.widening)
        end = _descend(ladder, ladder.search, held, rows, start, tell, gtol)
        start, n_eval = _with_noise(ladder, layout, rows, end.coordinates), end.n_eval
    end = _descend(ladder, ladder.search, layout, rows, start, tell, gtol)
    return end._replace(n_eval=end.n_eval + n_eval)


def finish(ladder: Ladder, layout: Layout, rows: Tensor, ends: End, numbers: Tensor, tell: Tell) -> End:
    """Go down from the ends of a `search` to the minimum of the exact model, one for each fit.

    Where a fit has several ends all samples decide between them, on coarse pixels still.
    """
    coarse = _descend(ladder, ladder.coarse, layout, rows[numbers], ends.coordinates, tell, _COARSE)
    n_eval = torch.zeros_like(rows).index_add(0, numbers, coarse.n_eval)
    chosen = [
        min(torch.nonzero(numbers == i).flatten().tolist(), key=lambda j: float(coarse.objective[j]))
        for i in range(len(rows))
    ]
    found = End(*(t[chosen] for t in coarse))._replace(n_eval=n_eval)
    left = torch.arange(len(rows), device=rows.device)
    for _ in range(_ROUNDS):
        end = _descend(ladder, ladder.exact, layout, rows[left], found.coordinates[left], tell, _FINE, _ROUND)
        end = end._replace(n_eval=found.n_eval[left] + end.n_eval)
        found = End(*(old.index_copy(0, left, new) for old, new in zip(found, end, strict=True)))
        left = left[end.distance >= _CLOSE]
        if not len(left):
            break
    return found


def search(
    ladder: Ladder, layout: Layout, rows: Tensor, starts: Sequence[Tensor], tell: Tell
) -> tuple[End, Tensor, Tensor]:
    """Find the valley of each fit from several starts (b, n_parameters) each.

    Where the two lowest ends are one, two roads to one place, that is it. Where nothing confirms the lowest,
    because the next is too high for the samples left out to change the order, more starts are tried.

    Returns
    -------
    ends : End
        What is worth finishing: of each fit the lowest end, and the next one where all samples may turn the
        order round.
    numbers : Tensor
        The fit, 0 to b - 1, that each of these belongs to.
    n_eval : Tensor, (b,)
    """
    everyone = torch.arange(len(rows), device=rows.device)
    numbers = everyone.repeat(len(starts))
    ends = approach(ladder, layout, rows[numbers], torch.cat(list(starts)), tell, _SEARCH)
    # A difference d of two log-likelihoods scatters by sqrt(2 d) from draw to draw; it counts as open while
    # zero is within three such scatters.
    open_ = 18 * ladder.search.multiplicity
    surface = [i for i in layout.free if i in ladder.search.model.places.zernike]
    random = np.random.default_rng(0)
    for _ in range(_DETOURS):
        lost = [i for i in everyone.tolist() if _gap(ends.objective[numbers == i]) > open_]
        if not lost:
            break
        shifts = _detours(surface, starts[-1], random)
        tried = everyone[lost].repeat_interleave(len(shifts))
        start = starts[-1][tried] + shifts.repeat(len(lost), 1)
        more = approach(ladder, layout, rows[tried], start, tell, _SEARCH)
        ends = End(*(torch.cat(parts) for parts in zip(ends, more, strict=True)))
        numbers = torch.cat([numbers, tried])
    kept = []
    for number in everyone.tolist():
        mine = torch.nonzero(numbers == number).flatten()
        above = ends.objective[mine] - ends.objective[mine].min()
        lowest_first = above.argsort(stable=True)
        rivals = [i for i in lowest_first.tolist() if _SAME <= above[i] < open_]
        kept += mine[[int(lowest_first[0]), *rivals[:1]]].tolist()
    n_eval = torch.zeros_like(rows).index_add(0, numbers, ends.n_eval)
    return End(*(t[kept] for t in ends)), numbers[kept], n_eval


def _gap(objectives: Tensor) -> float:
    """How far the second lowest of several values lies above the lowest."""
    lowest = objectives.sort().values[:2]
    return float(lowest[-1] - lowest[0])


def _detours(numbers: list[int], like: Tensor, random: np.random.Generator) -> Tensor:
    """A surface at random and its negative, to start from where the perfect dish has misled.

    As a pair, so that the mirrored observation (CONVENTIONS 3) is started from the mirrored surfaces.
    """
    shift = like.new_zeros(like.shape[-1])
    shift[numbers] = like.new_tensor(random.normal(scale=_DETOUR, size=len(numbers)))
    return torch.stack([shift, -shift])


def _with_noise(ladder: Ladder, layout: Layout, rows: Tensor, u: Tensor, factor: float = 1.0) -> Tensor:
    """The same coordinates with the noise that the residuals ask for, times a factor."""
    i = layout.index("noise")
    p = layout.parameters[i]
    if not p.free:
        return u
    data = Data(*(t[rows] for t in ladder.search.data))
    with torch.no_grad():
        r = (data.power - ladder.search.model(u)) / data.errors
    u = u.clone()
    for j, (residuals, valid) in enumerate(zip(r, data.valid, strict=True)):
        u[j, i] = p.coordinate(factor * max(ladder.judge.scale(residuals[valid]), 1e-9 * p.scale))
    return u


def _descend(
    ladder: Ladder,
    rung: Rung,
    layout: Layout,
    rows: Tensor,
    start: Tensor,
    tell: Tell,
    gtol: float,
    max_eval: int = 2000,
) -> End:
    """Go down on one rung in the metric of the start."""
    posterior = ladder.posterior(rung, layout, rows, start)

    def fun(x: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = posterior.value_and_gradient(x, members)
        tell(len(members), float(value[0]))
        return value, gradient

    x = start[:, posterior.free]
    metric = ladder.metric(layout, rows, start)
    found = bfgs(fun, x, metric, gtol=gtol, max_eval=max_eval)
    return End(posterior.complete(found.x), found.value, found.distance, found.n_eval)
