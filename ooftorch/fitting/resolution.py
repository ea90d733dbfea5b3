"""Resolution levels: the same problem with coarser models, to save time far from the minimum.

`Resolutions` has three levels: coarse pixels and a subset of the samples, to find the lowest minimum; coarse
pixels and all samples near the beam, to come close to it; the full problem, to finish.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ooftorch.fitting.absorption import Absorption
from ooftorch.fitting.likelihood import Likelihood
from ooftorch.fitting.noise_model import NoiseModel
from ooftorch.fitting.posterior import Posterior
from ooftorch.fitting.samples import Samples
from ooftorch.optics.instrument import MapGeometry
from ooftorch.optics.model import BeamModel
from ooftorch.optics.parameters import Layout

__all__ = ["Level", "Resolutions", "build_resolutions", "choose_coarse_raster", "select_sparse"]

# Coarse pixels: number across the dish over the Nyquist number for the farthest sample, and least number.
_MARGIN, _MIN_ACROSS = 2.0, 32
# Half width of the window of the two coarse levels, in units of the beam width (diffraction plus defocus).
_WINDOW = 2.5
# A window with fewer samples than this is widened to the whole map.
_MIN_IN_WINDOW = 100
# Side of the sky cells with one sample each at the search level, in units of wavelength over diameter: a
# power pattern is determined by samples half a beam apart.
_CELL = 0.5


class Level(NamedTuple):
    """The problem at one resolution; each sample represents `multiplicity` samples of the observation.

    `numbers` says which samples of the observation these are; None: all of them.
    """

    model: BeamModel
    samples: Samples
    multiplicity: float = 1.0
    numbers: Tensor | None = None


class Resolutions(NamedTuple):
    """The problem of several observations of the same shape at three resolutions, cheapest first.

    Attributes
    ----------
    search : Level
        Coarse pixels, one sample per sky cell.
    coarse : Level
        Coarse pixels, all samples in a window around the beam.
    exact : Level
        The pixels asked for, all samples.
    likelihood : Likelihood
    noise : NoiseModel
    """

    search: Level
    coarse: Level
    exact: Level
    likelihood: Likelihood
    noise: NoiseModel

    def posterior(
        self,
        level: Level,
        layout: Layout,
        rows: Tensor | int,
        anchor: Tensor,
        absorption: Absorption | None = None,
    ) -> Posterior:
        """Posterior of the observations `rows` (b,), or of one, at one level.

        The anchor is (b, n_parameters), or (n_parameters,) for one observation.
        """
        return Posterior(
            level.model,
            layout,
            level.samples.select_observations(rows),
            self.likelihood,
            self.noise,
            anchor,
            level.multiplicity,
            absorption,
        )

    def metric(self, layout: Layout, rows: Tensor, u: Tensor, absorption: Absorption | None = None) -> Tensor:
        """Estimate of the Hessian (b, n_free, n_free) at the coordinates u, from the cheapest level.

        That is the coarse one where terms of scan lines are taken out, for the search level has no lines.
        """
        level = self.search if absorption is None else self.coarse
        posterior = self.posterior(level, layout, rows, u, absorption)
        return posterior.metric(u[:, posterior.free])


def build_resolutions(
    build_model: Callable[[Sequence[MapGeometry], int], BeamModel],
    maps: Sequence[MapGeometry],
    samples: Samples,
    likelihood: Likelihood,
    noise: NoiseModel,
    n: int,
    oversample: float,
) -> Resolutions:
    """Build the three resolution levels of a problem; levels that would save nothing are merged.

    Parameters
    ----------
    build_model : callable
        Builds the model for given maps and number of pixels a side.
    maps : sequence of MapGeometry
    samples : Samples
        With a dimension that counts observations.
    likelihood : Likelihood
    noise : NoiseModel
    n, oversample : int, float
        Raster of the exact model; the other levels have the same `oversample`.
    """
    exact = Level(build_model(maps, n), samples)
    beam, receiver = exact.model.instrument.beam, exact.model.receiver
    chop = 0.5 * math.hypot(receiver.chop_x, receiver.chop_y)
    spread = exact.model.telescope.steepness() * max(abs(m.dz) for m in maps)
    window = _WINDOW * (beam + spread) + chop
    inside = [_find_inside(m, window) for m in maps]
    reach = max(np.max(np.abs((m.x, m.y))[:, i]) for m, i in zip(maps, inside, strict=True)) + chop
    coarse_n = choose_coarse_raster(reach / beam, oversample)
    if coarse_n >= n:
        return Resolutions(exact, exact, exact, likelihood, noise)

    def build_level(cell: float) -> Level:
        """Level with coarse pixels and one sample per sky cell (rad) of the window; 0: all samples."""
        valid = np.split(samples.valid.all(0).cpu().numpy(), np.cumsum([len(m.x) for m in maps])[:-1])
        chosen = [select_sparse(m, i, v, cell) for m, i, v in zip(maps, inside, valid, strict=True)]
        first = np.cumsum([0] + [len(m.x) for m in maps[:-1]])
        numbers = torch.as_tensor(np.concatenate([c + f for c, f in zip(chosen, first, strict=True)]))
        geometry = [m.select(c) for m, c in zip(maps, chosen, strict=True)]
        numbers = numbers.to(samples.power.device)
        return Level(build_model(geometry, coarse_n), samples.select_samples(numbers), numbers=numbers)

    coarse = build_level(0.0)
    search = build_level(_CELL * beam)
    multiplicity = int(coarse.samples.valid.sum()) / int(search.samples.valid.sum())
    if multiplicity < 2:
        return Resolutions(coarse, coarse, exact, likelihood, noise)
    return Resolutions(search._replace(multiplicity=multiplicity), coarse, exact, likelihood, noise)


def choose_coarse_raster(reach: float, oversample: float) -> int:
    """Choose the number of coarse pixels a side for samples this far out, in wavelengths over diameter."""
    return 2 * math.ceil(max(_MIN_ACROSS, math.ceil(2 * _MARGIN * reach)) * oversample / 2)


def _find_inside(m: MapGeometry, window: float) -> np.ndarray:
    """Numbers of the samples within `window` (rad) of the middle of the map; all if these are too few."""
    middle_x, middle_y = (0.5 * (a.min() + a.max()) for a in (m.x, m.y))
    near = np.maximum(np.abs(m.x - middle_x), np.abs(m.y - middle_y)) <= window
    return np.flatnonzero(near) if near.sum() >= _MIN_IN_WINDOW else np.arange(len(m.x))


def select_sparse(m: MapGeometry, inside: np.ndarray, valid: np.ndarray, cell: float) -> np.ndarray:
    """Select one of the samples `inside` from each square sky cell (side in rad; 0: select all).

    A valid sample is preferred. The result is sorted row by row, so that the far-field operator recognises a
    regular map.
    """
    chosen = inside
    if cell > 0:
        positions = np.stack([m.x, m.y])[:, chosen] / cell
        cells = np.round(positions)
        # The sample nearest to the centre of its cell; among equals the one nearest to the axes. A mirrored
        # map then gives the mirrored samples and a regular map a regular one, in any order of the samples.
        off = np.round(1e6 * np.abs(positions - cells)).sum(0)
        x, y = np.round(1e6 * np.abs(positions))
        best_first = np.lexsort((y, x, off, ~valid[chosen]))
        columns, rows = (cells - cells.min(1, keepdims=True)).astype(int)
        numbers = rows * (columns.max() + 1) + columns
        chosen = chosen[best_first][np.unique(numbers[best_first], return_index=True)[1]]
    # Rounded, so that rounding errors of the coordinates do not split a row.
    rounded = np.round(np.stack([m.x, m.y])[:, chosen] / (1e-9 * np.max(np.abs((m.x, m.y)))))
    return chosen[np.lexsort(rounded)]
