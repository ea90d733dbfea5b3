"""The same problem at several resolutions: cheap models to search with, the exact one to finish on.

A fit spends most of its evaluations far from the end, where a coarser model is as good a guide. `Resolutions`
holds a problem three times: with coarse pixels and few samples to find the right minimum, with coarse pixels
and all samples to come close to it, and as it is to finish.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ooftorch.fitting.likelihood import Likelihood
from ooftorch.fitting.noise_model import NoiseModel
from ooftorch.fitting.posterior import Posterior
from ooftorch.fitting.samples import Samples
from ooftorch.optics.instrument import MapGeometry
from ooftorch.optics.model import BeamModel
from ooftorch.optics.parameters import Layout

__all__ = ["Level", "Resolutions", "build_resolutions"]

# Coarse pixels are this much finer than the farthest sample asks for, and this many across the dish at least.
_MARGIN, _ACROSS = 2.0, 32
# Samples farther out than so many beams, each as wide as diffraction and defocus make it, hold little.
_WINDOW = 2.5
# ... unless fewer than this are left of a map.
_FEW = 100
# Samples closer than this, in units of wavelength over diameter, tell much the same: a power pattern is
# known from samples half a beam apart.
_CELL = 0.5


class Level(NamedTuple):
    """The problem at one resolution; each sample stands for `multiplicity` samples of the observation."""

    model: BeamModel
    samples: Samples
    multiplicity: float = 1.0


class Resolutions(NamedTuple):
    """A problem for several observations of the same shape, from its cheapest form to its exact one."""

    search: Level
    coarse: Level
    exact: Level
    likelihood: Likelihood
    noise: NoiseModel

    def posterior(self, level: Level, layout: Layout, rows: Tensor, anchor: Tensor) -> Posterior:
        """Posterior of these observations at one level, a row of the anchor for each."""
        return Posterior(
            level.model,
            layout,
            level.samples.of(rows),
            self.likelihood,
            self.noise,
            anchor,
            level.multiplicity,
        )

    def metric(self, layout: Layout, rows: Tensor, u: Tensor) -> Tensor:
        """Estimate of the Hessian at the coordinates u, from the cheapest model: it need not be exact."""
        posterior = self.posterior(self.search, layout, rows, u)
        return posterior.metric(u[:, posterior.free])


def build_resolutions(
    make: Callable[[Sequence[MapGeometry], int], BeamModel],
    maps: Sequence[MapGeometry],
    samples: Samples,
    likelihood: Likelihood,
    noise: NoiseModel,
    n: int,
    oversample: float,
) -> Resolutions:
    """Build the models of a problem.

    Parameters
    ----------
    make : callable
        Returns the model for some maps on n pixels a side.
    maps : sequence of MapGeometry
    samples : Samples
        With a dimension that counts observations.
    likelihood : Likelihood
    noise : NoiseModel
    n, oversample : int, float
        Raster of the exact model; `oversample` is also that of the others.
    """
    exact = Level(make(maps, n), samples)
    beam, receiver = exact.model.instrument.beam, exact.model.receiver
    chop = 0.5 * math.hypot(receiver.chop_x, receiver.chop_y)
    spread = exact.model.telescope.steepness() * max(abs(m.dz) for m in maps)
    window = _WINDOW * (beam + spread) + chop
    inside = [_find_inside(m, window) for m in maps]
    reach = max(np.max(np.abs((m.x, m.y))[:, i]) for m, i in zip(maps, inside, strict=True)) + chop
    across = max(_ACROSS, math.ceil(2 * _MARGIN * reach / beam))
    coarse_n = 2 * math.ceil(across * oversample / 2)
    if coarse_n >= n:
        return Resolutions(exact, exact, exact, likelihood, noise)

    def build_level(cell: float) -> Level:
        """Coarse model of one sample in every cell of the window."""
        valid = np.split(samples.valid.all(0).cpu().numpy(), np.cumsum([len(m.x) for m in maps])[:-1])
        chosen = [_thin(m, i, v, cell) for m, i, v in zip(maps, inside, valid, strict=True)]
        first = np.cumsum([0] + [len(m.x) for m in maps[:-1]])
        numbers = torch.as_tensor(np.concatenate([c + f for c, f in zip(chosen, first, strict=True)]))
        geometry = [MapGeometry(m.dz, m.x[c], m.y[c]) for m, c in zip(maps, chosen, strict=True)]
        return Level(make(geometry, coarse_n), samples.take(numbers.to(samples.power.device)))

    coarse = build_level(0.0)
    search = build_level(_CELL * beam)
    multiplicity = int(coarse.samples.valid.sum()) / int(search.samples.valid.sum())
    if multiplicity < 2:
        return Resolutions(coarse, coarse, exact, likelihood, noise)
    return Resolutions(search._replace(multiplicity=multiplicity), coarse, exact, likelihood, noise)


def _find_inside(m: MapGeometry, window: float) -> np.ndarray:
    """Numbers of the samples in a window about the middle of the map; all where it holds but a few."""
    middle_x, middle_y = (0.5 * (a.min() + a.max()) for a in (m.x, m.y))
    near = np.maximum(np.abs(m.x - middle_x), np.abs(m.y - middle_y)) <= window
    return np.flatnonzero(near) if near.sum() >= _FEW else np.arange(len(m.x))


def _thin(m: MapGeometry, inside: np.ndarray, valid: np.ndarray, cell: float) -> np.ndarray:
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
