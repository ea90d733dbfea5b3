"""The aperture raster: pixels of the dish that carry the field."""

import math
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from ooftorch.errors import InputError
from ooftorch.optics.receiver import Receiver
from ooftorch.optics.telescope import Telescope

__all__ = ["Pixels", "Shape", "choose_raster"]

Array = NDArray[np.float64]

Shape = Callable[[Array, Array], Array]
"""Phase (rad) as a function of the aperture coordinates x, y (m)."""

# Aperture pixels a side beyond which a map is taken for a mistake.
_MAX_RASTER = 2048


class Pixels:
    """The pixels of an aperture raster that light reaches.

    Pixel p of an axis is at (p - n/2) pitch, so that the centre of the dish is the centre of a pixel. Only
    the square that just holds the dish is kept.

    Parameters
    ----------
    telescope : Telescope
    n, oversample : int, float
        n x n pixels over a square of half side `oversample` dish radii, as in the original software.

    Attributes
    ----------
    pitch : float
        Side of a pixel, metres.
    axis : ndarray, (side,)
        Pixel centres along x and along y of the square that holds the dish, metres.
    index : ndarray of int, (n_pixels,)
        Number in that square, row by row, of each pixel that light reaches.
    x, y : ndarray, (n_pixels,)
        Their centres, metres.
    coverage : ndarray, (n_pixels,)
        The part of each that light reaches.
    """

    def __init__(self, telescope: Telescope, n: int, oversample: float) -> None:
        self.pitch = 2 * oversample * telescope.radius / n
        edge = math.ceil(telescope.radius / self.pitch + 0.5)
        self.axis = np.arange(-edge, edge + 1) * self.pitch
        x, y = np.meshgrid(self.axis, self.axis)
        coverage = telescope.coverage(x, y, self.pitch)
        lit = coverage > 0
        self.index = np.flatnonzero(lit)
        self.x, self.y, self.coverage = x[lit], y[lit], coverage[lit]

    def fill_square(self, values: Array, outside: float) -> Array:
        """Put values of the pixels (n_pixels,) on the whole square (side, side), indexed [y, x]."""
        side = len(self.axis)
        square = np.full(side * side, outside)
        square[self.index] = values
        return square.reshape(side, side)

    def check_reach(self, directions: Iterable[tuple[Array, Array]], wavelength: float, n: int) -> None:
        """Refuse directions (x, y), radians, beyond what n pixels a side of this size can represent."""
        widest = max(float(np.max(np.abs(xy), initial=0.0)) for xy in directions)
        reach = 0.5 * wavelength / self.pitch
        if widest > reach:
            needed = 2 * math.ceil(n * widest / reach / 2) + 2
            raise InputError(
                f"a sample lies {widest:.3g} rad from the source, beyond the {reach:.3g} rad "
                f"that {n} aperture pixels can represent; check the units of the map, or use n >= {needed}"
            )


def choose_raster(
    telescope: Telescope,
    wavelength: float,
    receiver: Receiver,
    directions: Iterable[tuple[Array, Array]],
    oversample: float,
    least: int = 256,
) -> int:
    """Pixels a side: `least`, or as many as the farthest direction needs, with a quarter to spare."""
    widest = max(float(np.max(np.abs(xy))) for xy in directions)
    widest += 0.5 * max(abs(receiver.chop_x), abs(receiver.chop_y))
    needed = 1.25 * 4 * oversample * telescope.radius * widest / wavelength
    if not needed <= _MAX_RASTER:
        beams = widest * 2 * telescope.radius / wavelength
        raise InputError(
            f"a sample lies {widest:.3g} rad from the source, {beams:.0f} beams of {telescope.name}; check "
            "the map's units, the frequency and the telescope"
        )
    return max(least, 2 * math.ceil(needed / 2))
