"""Start point of a fit: baselines, flux and pointing estimated from the maps."""

import math
from collections.abc import Sequence

import numpy as np
import scipy.spatial
import torch
from numpy.typing import NDArray

from ooftorch.observation import BeamMap, Observation
from ooftorch.optics.model import BeamModel

__all__ = [
    "MedianFilter",
    "build_filters",
    "choose_start",
    "find_excess",
    "predict_perfect_beams",
]

Array = NDArray[np.float64]

# Relative difference of two distances that is due to the rounding of coordinates in a file.
_TIE = 1e-3


class MedianFilter:
    """Median filter: each sample of a map becomes the median of itself and its four nearest neighbours.

    Samples as near as the fourth are neighbours too, at the edge of a raster for example: to choose among
    them would be to choose others in the mirrored map. Removes single glitches, which can be brighter than a
    defocused beam.

    Parameters
    ----------
    m : BeamMap
        Its valid samples are filtered; the neighbours are found once.
    """

    def __init__(self, m: BeamMap) -> None:
        self._x, self._y, self._valid = m.x, m.y, m.valid
        positions = np.stack([m.x[m.valid], m.y[m.valid]], 1)
        tree, left = scipy.spatial.KDTree(positions), np.arange(len(positions))
        # Numbers of some samples, their neighbours (n, k), the nearest first, and which of these are chosen.
        self._chosen = []
        for k in (6, 12, 48):
            distances, nearest = tree.query(positions[left], k=min(k, len(positions)))
            tied = distances <= (1 + _TIE) * distances[:, [4]]
            self._chosen.append((left, nearest, tied))
            # Where even the last is as near there may be more.
            left = left[tied[:, -1]]
            if not len(left):
                break

    def fits(self, m: BeamMap) -> bool:
        """Whether a map has the same samples."""
        pairs = ((self._x, m.x), (self._y, m.y), (self._valid, m.valid))
        return all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)

    def __call__(self, values: Array) -> Array:
        """Filter values (n,); zero for samples that are not valid."""
        observed = values[self._valid]
        medians = np.empty(len(observed))
        for some, nearest, tied in self._chosen:
            medians[some] = _take_median(observed[nearest], tied)
        found = np.zeros(values.shape)
        found[self._valid] = medians
        return found


def build_filters(observations: Sequence[Observation]) -> list[list[MedianFilter]]:
    """Build the filter of each map of each observation; maps of the same samples share one."""
    first = [MedianFilter(m) for m in observations[0].maps]
    return [
        [f if f.fits(m) else MedianFilter(m) for f, m in zip(first, o.maps, strict=True)]
        for o in observations
    ]


def _take_median(values: Array, chosen: NDArray[np.bool_]) -> Array:
    """Median of the chosen values of each row (n, k), the first five or more: (n,)."""
    medians = np.median(values[:, :5], axis=1)
    more = chosen[:, 5:].any(1)
    medians[more] = np.nanmedian(np.where(chosen[more], values[more], np.nan), axis=1)
    return medians


def find_excess(m: BeamMap, filter_median: MedianFilter) -> tuple[float, Array]:
    """Estimate the baseline of a map, the median of the outermost quarter, and the power above it, (n,).

    Glitches are removed from it by a median filter. Zero for samples that are not valid.
    """
    x, y, power = m.x[m.valid], m.y[m.valid], m.power[m.valid]
    r = np.hypot(x - np.median(x), y - np.median(y))
    baseline = float(np.median(power[r >= np.quantile(r, 0.75)]))
    return baseline, np.where(m.valid, filter_median(m.power) - baseline, 0.0)


def predict_perfect_beams(model: BeamModel) -> list[Array]:
    """Predict the maps of the perfect dish, each (n,), normalised to its peak in focus."""
    offsets = {p.name: 0.0 for p in model.parts.offsets.parameters}
    perfect = model.coordinates.new_tensor(model.layout.coordinates(offsets))
    with torch.no_grad():
        beams = model.split(model(perfect).cpu().numpy())
    return [beam / gain.start for beam, gain in zip(beams, model.parts.gains.parameters, strict=True)]


def choose_start(
    model: BeamModel,
    observation: Observation,
    found: Sequence[tuple[float, Array]],
    beams: Sequence[Array],
    filters: Sequence[MedianFilter],
) -> Array:
    """Choose the start point: the perfect dish with the flux and pointing of the maps, in coordinates.

    Flux and centroid can be estimated before the aberrations are known: the total power in a map does not
    depend on the phase, and the centroid of the power is the mean gradient of the wavefront.

    Parameters
    ----------
    model : BeamModel
    observation : Observation
    found : sequence of (float, ndarray)
        Baseline and excess of each map: see `find_excess`.
    beams : sequence of ndarray
        Maps of the perfect dish: see `predict_perfect_beams`.
    filters : sequence of MedianFilter
        One for each map.

    Returns
    -------
    ndarray, (n_parameters,)
    """
    maps, layout, basis = observation.maps, model.layout, model.instrument.basis
    flux = expected = 0.0
    baselines, excesses = zip(*found, strict=True)
    for filter_median, excess, beam in zip(filters, excesses, beams, strict=True):
        bright = np.abs(excess) > 0.05 * np.abs(excess).max()
        flux += float(np.sum(np.abs(excess), where=bright))
        expected += float(np.sum(np.abs(filter_median(beam))))
    centroids = [_find_centroid(m, excess, observation) for m, excess in zip(maps, excesses, strict=True)]
    shift = np.mean(centroids, axis=0)
    tilt = 2 * math.pi * model.telescope.radius / model.wavelength * shift
    guess = {f"gain_{i}": flux / expected for i in range(len(maps))}
    guess |= {f"offset_{i}": baseline for i, baseline in enumerate(baselines)}
    tilts = {basis.x_tilt: float(tilt[0]), basis.y_tilt: float(tilt[1])}
    guess |= {name: value for name, value in tilts.items() if name is not None}
    return layout.coordinates({name: value for name, value in guess.items() if layout[name].free})


def _find_centroid(m: BeamMap, excess: Array, observation: Observation) -> Array:
    """Direction of the beam, (x, y) rad: centroid of the excess; for a chopped pair the mean of the two."""
    receiver = observation.receiver
    found = []
    for sign in (1, -1) if receiver.chopped else (1,):
        weight = np.clip(sign * excess, 0, None)
        weight = np.where(weight > 0.15 * weight.max(), weight, 0)
        expected = 0.5 * sign * np.array([receiver.chop_x, receiver.chop_y])
        where = np.stack([np.where(m.valid, m.x, 0.0), np.where(m.valid, m.y, 0.0)])
        if weight.sum() > 0:
            found.append((where @ weight) / weight.sum() - expected)
    return np.mean(found, axis=0) if found else np.zeros(2)
