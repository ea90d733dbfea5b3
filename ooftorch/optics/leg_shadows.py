"""What the legs and their shadows cover of each pixel, as a smooth function of their widths.

A fit needs the derivative with respect to the width, and counting points, as `Telescope.coverage` does, has
none. So the change of the covered fraction since the nominal width comes from a table, at a few widths, of
fractions that are linear where an edge crosses a small square, and between these from cubics.
"""

import math
from typing import NamedTuple

import numpy as np
import scipy.interpolate
from numpy.typing import NDArray

from ooftorch.optics.blockage import Legs
from ooftorch.optics.telescope import Telescope

__all__ = ["FACTORS", "Shadow", "tabulate_shadows"]

Array = NDArray[np.float64]

FACTORS = np.array(
    [0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.35, 1.5, 1.7, 1.9, 2.1, 2.4, 2.7, 3, 3.3]
)
"""Widths over the nominal one in the table. Beyond the second and the last but one nothing changes."""

_NOMINAL = int(np.flatnonzero(FACTORS == 1)[0])
# Squares a side into which a pixel is divided.
_SQUARES = 4


class Shadow(NamedTuple):
    """How the covered fraction of the pixels changes with one width.

    Attributes
    ----------
    pixels : ndarray of int, (k,)
        Numbers of those that change.
    cubics : ndarray, (4, n_factors - 1, k)
        Of the covered fraction less that at the nominal width: in each interval between two factors the
        polynomial coefficients, highest power first, in the distance from the lower factor. Its slope is
        continuous, and zero at both ends.
    """

    pixels: NDArray[np.intp]
    cubics: Array

    def least(self) -> Array:
        """Return the change (k,) at the smallest width: minus what can become open."""
        return self.cubics[-1, 0]

    def select(self, kept: NDArray[np.bool_]) -> "Shadow":
        """Return the same for some of the pixels, renumbered; those left out must be none that change."""
        return Shadow((np.cumsum(kept) - 1)[self.pixels], self.cubics)


def tabulate_shadows(telescope: Telescope, x: Array, y: Array, pitch: float) -> dict[str, Shadow]:
    """Tabulate what the legs of a telescope, and their shadows, cover of pixels.

    Parameters
    ----------
    telescope : Telescope
    x, y : ndarray, (n,)
        Centres of the pixels, metres.
    pitch : float
        Side of a pixel, metres.

    Returns
    -------
    dict of str to Shadow
        By the names of the widths (`Legs.widths`); empty without legs.
    """
    legs = telescope.blockage.legs
    if legs is None:
        return {}
    near = _find_near(legs, telescope.radius, x, y, pitch)
    x, y = x[near], y[near]
    covered = {name: np.zeros((len(FACTORS), len(x))) for name in legs.widths}
    side = pitch / _SQUARES
    offsets = ((np.arange(_SQUARES) + 0.5) / _SQUARES - 0.5) * pitch
    factors = FACTORS[1:-1, np.newaxis]
    find_share = _find_share_of_diamond if legs.shape == "x" else _find_share_of_square
    for dy in offsets:
        for dx in offsets:
            open_otherwise = telescope.open_at(x + dx, y + dy, without_legs=True)
            edge = legs.nearest_edge(x + dx, y + dy, telescope.radius)
            for name, own in edge.of.items():
                chosen = np.flatnonzero(own & open_otherwise)
                width, across = edge.width[chosen], edge.across[chosen]
                covered[name][1:-1, chosen] += find_share(factors * width - across, side)
                if legs.shape == "x":  # squares on the axis of a leg
                    covered[name][1:-1, chosen] -= find_share(-factors * width - across, side)
    shadows = {}
    for name, fraction in covered.items():
        fraction[0], fraction[-1] = fraction[1], fraction[-2]  # the slope is then zero at both ends
        changes = np.flatnonzero(np.ptp(fraction, 0) > 0)
        change = (fraction - fraction[_NOMINAL])[:, changes] / _SQUARES**2
        cubics = scipy.interpolate.PchipInterpolator(FACTORS, change, axis=0).c
        shadows[name] = Shadow(near[changes], np.ascontiguousarray(cubics))
    return shadows


def _find_share_of_square(inside: Array, side: float) -> Array:
    """Covered share of a square along the edge of the shadow, its centre this far inside (m)."""
    return np.clip(inside / side + 0.5, 0, 1)


def _find_share_of_diamond(inside: Array, side: float) -> Array:
    """As `_find_share_of_square`, of a square with a diagonal along the edge."""
    t = np.clip(inside / (side / math.sqrt(2)), -1, 1)
    return 0.5 + t - 0.5 * t * np.abs(t)


def _find_near(legs: Legs, dish_radius: float, x: Array, y: Array, pitch: float) -> NDArray[np.intp]:
    """Numbers of the pixels that are covered in part at some width in the table, and a few more."""
    edge = legs.nearest_edge(x, y, dish_radius)
    margin = 2 * pitch
    inside = edge.across - margin < FACTORS[-2] * edge.width
    return np.flatnonzero(inside & (np.hypot(x, y) < dish_radius + pitch))
