"""The aperture raster: the pixels that are at least partly open, or become so with narrower legs."""

import math
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from ooftorch.errors import InputError
from ooftorch.optics.leg_shadows import tabulate_shadows
from ooftorch.optics.receiver import Receiver
from ooftorch.optics.telescope import Telescope

__all__ = ["Pixels", "Shape", "choose_raster"]

Array = NDArray[np.float64]

Shape = Callable[[Array, Array], Array]
"""Phase (rad) as a function of the aperture coordinates x, y (m)."""

# Largest raster, pixels a side; a map that needs more is assumed to have wrong units.
_MAX_RASTER = 2048


class Pixels:
    """The open pixels of an aperture raster, and those that narrower legs would leave open.

    Pixel p of an axis is at (p - n/2) pitch, so that the centre of the dish is the centre of a pixel. Only
    the square that just encloses the dish is kept.

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
        Pixel centres along x and along y of the square that encloses the dish, metres.
    index : ndarray of int, (n_pixels,)
        Position of each of these pixels in that square, row by row.
    x, y : ndarray, (n_pixels,)
        Their centres, metres.
    coverage : ndarray, (n_pixels,)
        Their open fraction, from 0 to 1.
    shadows : dict of str to Shadow
        What legs and their shadows cover of them as these become wider: see `tabulate_shadows`.
    """

    def __init__(self, telescope: Telescope, n: int, oversample: float) -> None:
        self.pitch = 2 * oversample * telescope.radius / n
        edge = math.ceil(telescope.radius / self.pitch + 0.5)
        self.axis = np.arange(-edge, edge + 1) * self.pitch
        x, y = np.meshgrid(self.axis, self.axis)
        coverage = telescope.coverage(x, y, self.pitch)
        shadows = tabulate_shadows(telescope, x.ravel(), y.ravel(), self.pitch)
        kept = coverage.ravel() > 0
        for shadow in shadows.values():
            kept[shadow.pixels[shadow.least() < 0]] = True
        self.index = np.flatnonzero(kept)
        self.x, self.y, self.coverage = (a.ravel()[kept] for a in (x, y, coverage))
        self.shadows = {name: shadow.select(kept) for name, shadow in shadows.items()}

    def fill_square(self, values: Array, outside: float) -> Array:
        """Put values of the pixels (n_pixels,) into a square (side, side), [y, x]; else `outside`."""
        side = len(self.axis)
        square = np.full(side * side, outside)
        square[self.index] = values
        return square.reshape(side, side)

    def check_reach(self, directions: Iterable[tuple[Array, Array]], wavelength: float, n: int) -> None:
        """Raise InputError for directions (rad) beyond wavelength/(2 pitch), where the far field aliases."""
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
    """Choose the number of pixels a side: `least`, or 1.25 times what the farthest direction needs.

    Parameters
    ----------
    telescope : Telescope
    wavelength : float
        Metres.
    receiver : Receiver
        Its chop widens the directions.
    directions : iterable of (x, y)
        Of each map, radians.
    oversample : float
        Half side of the raster over the dish radius.
    least : int

    Returns
    -------
    int
        Even.

    Raises
    ------
    InputError
        If that is more than 2048.
    """
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
