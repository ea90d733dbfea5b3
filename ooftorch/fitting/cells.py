"""Maps sampled far more densely than the beam: samples averaged into cells along the scan lines.

A cell is at the mean of the directions of its samples, and its error is that of the mean. The model is
averaged over the same length, as that of a sample taken on the move: the spread of the directions in a cell
is that of a way sqrt(12) times their standard deviation. So nothing is lost but what varies within a cell.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ooftorch.fitting.samples import find_directions, has_errors
from ooftorch.observation import BeamMap, Observation
from ooftorch.scans import ScanLines, find_lines, find_smear

__all__ = ["Dense", "average_dense"]

# Samples of an observation above which they are averaged, and the share of them that there may be cells.
_MANY, _SHARE = 200_000, 0.5
# Length of a cell, and its width where there are no scan lines, over wavelength/diameter.
_LENGTH, _WIDTH = 1 / 6, 1 / 24


class Dense(NamedTuple):
    """Observations of the same shape, with cells in place of samples.

    Attributes
    ----------
    observations : tuple of Observation
    errors : tuple of ndarray, (n,)
        Relative error of each cell of each map, for observations without errors.
    lines : tuple of ScanLines or None
        Of each map.
    smears : tuple of ndarray (2, n) or None
        Of each map: see `ooftorch.scans.find_smear`.
    """

    observations: tuple[Observation, ...]
    errors: tuple[NDArray, ...]
    lines: tuple[ScanLines | None, ...]
    smears: tuple[NDArray | None, ...]


class _Cells(NamedTuple):
    """Cells of one map: the samples in them, cell after cell, the first of each, and the weights."""

    samples: NDArray[np.int64]
    first: NDArray[np.int64]
    weights: NDArray

    def average(self, values: NDArray) -> NDArray:
        """Weighted mean (..., n_cells) of values (..., n_samples) of the map."""
        sums = np.add.reduceat(self.weights * values[..., self.samples], self.first, axis=-1)
        return sums / np.add.reduceat(self.weights, self.first)

    def find_error(self, sigma: NDArray) -> NDArray:
        """Standard error (n_cells,) of the mean of samples with these errors (n_samples,)."""
        variances = np.add.reduceat((self.weights * sigma[self.samples]) ** 2, self.first)
        return np.sqrt(variances) / np.add.reduceat(self.weights, self.first)


def average_dense(observations: Sequence[Observation], beam: float) -> Dense | None:
    """Average the samples of observations of the same shape into cells, where that leaves far fewer.

    Parameters
    ----------
    observations : sequence of Observation
    beam : float
        Wavelength over diameter, radians.

    Returns
    -------
    Dense or None
        None if the observations can be fitted as they are.
    """
    first = observations[0]
    n = sum(m.power.size for m in first.maps)
    if n <= _MANY:
        return None
    known = has_errors(first.maps)
    lines = [find_lines(m) for m in first.maps]
    cells = [
        _find_cells(of_one, line, beam, known)
        for of_one, line in zip(zip(*(o.maps for o in observations), strict=True), lines, strict=True)
    ]
    n_cells = sum(len(c.first) for c in cells)
    if n_cells > _SHARE * n:
        return None
    errors = [c.find_error(np.ones(m.power.size)) for c, m in zip(cells, first.maps, strict=True)]
    typical = np.median(np.concatenate(errors))
    averaged = [
        replace(
            o,
            maps=tuple(_average(m, c, known) for m, c in zip(o.maps, cells, strict=True)),
            notes=(*o.notes, _describe(o, n_cells)),
        )
        for o in observations
    ]
    return Dense(
        tuple(averaged),
        tuple(e / typical for e in errors),
        tuple(_find_cell_lines(line, c) for line, c in zip(lines, cells, strict=True)),
        tuple(_find_spread(m, c) for m, c in zip(first.maps, cells, strict=True)),
    )


def _describe(observation: Observation, n_cells: int) -> str:
    n_valid, n_missing = (sum(getattr(m, a) for m in observation.maps) for a in ("n_valid", "n_missing"))
    missing = f" ({n_missing} more are missing)" if n_missing else ""
    return (
        f"{n_valid} samples{missing}, far denser than the beam, are averaged into {n_cells} cells of "
        f"{_LENGTH:.2g} lambda/D along the scan lines; so is the model"
    )


def _find_cells(maps: Sequence[BeamMap], lines: ScanLines | None, beam: float, known: bool) -> _Cells:
    """Cells of one map of all observations: of the samples that are valid in each of them."""
    m = maps[0]
    valid = np.logical_and.reduce([other.valid for other in maps])
    if lines is None:
        number, way = np.round(m.y / (_WIDTH * beam)), m.x
        order = np.lexsort((way, number))[: m.power.size]
    else:
        # Samples of no line are each a line of their own.
        number, way = lines.number.astype(float), np.zeros(m.power.size)
        alone = number < 0
        number[alone] = lines.n + np.arange(np.count_nonzero(alone))
        order = np.lexsort((lines.phase, number))
    order = order[valid[order]]
    group = number[order]
    begins = np.append(True, np.diff(group) != 0)
    if lines is not None:
        steps = np.hypot(*np.diff(np.stack(find_directions(m))[:, order], axis=1))
        way = np.append(0.0, steps).cumsum()
    else:
        way = way[order]
    line = np.cumsum(begins) - 1
    since = way - way[begins][line]
    ends = np.append(np.flatnonzero(begins)[1:], order.size) - 1
    # As many cells as it takes, all of one length.
    count = np.maximum(np.ceil(since[ends] / (_LENGTH * beam) - 1e-6), 1)
    length = np.where(since[ends] > 0, since[ends], 1.0) / count
    cell = np.minimum(np.floor(since / length[line] + 1e-6), count[line] - 1)
    first = np.flatnonzero(begins | (np.append(0.0, np.diff(cell)) != 0))
    weights = m.sigma[order] ** -2.0 if known and m.sigma is not None else np.ones(order.size)
    return _Cells(order, first, weights)


def _average(m: BeamMap, cells: _Cells, known: bool) -> BeamMap:
    """Return a map with cells in place of samples."""
    sigma = m.sigma
    if sigma is not None:
        sigma = cells.find_error(sigma) if known else np.ones(len(cells.first))
    x, y = (cells.average(axis) for axis in find_directions(m))
    return BeamMap(
        m.dz,
        x,
        y,
        cells.average(np.where(m.valid, m.power, 0.0)),
        sigma,
        None if m.time is None else cells.average(m.time),
        scans="none",
    )


def _find_cell_lines(lines: ScanLines | None, cells: _Cells) -> ScanLines | None:
    if lines is None:
        return None
    return ScanLines(lines.number[cells.samples[cells.first]], cells.average(lines.phase))


def _find_spread(m: BeamMap, cells: _Cells) -> NDArray:
    """Way (2, n) on the sky over which each cell is averaged, that of its samples included."""
    position = np.stack(find_directions(m))
    mean, smear = cells.average(position), find_smear(m)
    xx, yy, xy = (
        cells.average(position[i] * position[j]) - mean[i] * mean[j] for i, j in ((0, 0), (1, 1), (0, 1))
    )
    if smear is not None:
        xx, yy, xy = (
            v + cells.average(smear[i] * smear[j]) / 12 for v, i, j in ((xx, 0, 0), (yy, 1, 1), (xy, 0, 1))
        )
    angle = 0.5 * np.arctan2(2 * xy, xx - yy)
    along = 0.5 * (xx + yy) + np.hypot(0.5 * (xx - yy), xy)
    return np.sqrt(12 * np.clip(along, 0, None)) * np.stack([np.cos(angle), np.sin(angle)])
