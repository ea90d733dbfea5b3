"""Surfaces to simulate: random Zernike coefficients, and shapes that few Zernikes cannot describe.

Coefficients are mappings of names to radians of phase ("z5": 1.1). Shapes are functions of the aperture
coordinates x, y (metres) that return phase in radians; any such function will do.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from ooftorch.errors import InputError, shorten
from ooftorch.inputs import LENGTH, PHASE, SEED, Range
from ooftorch.optics import zernike
from ooftorch.optics.basis import MAX_ORDER
from ooftorch.optics.pixels import Shape

# The azimuthal index is called l throughout, as in the field.
# ruff: noqa: E741

__all__ = ["PhaseMap", "bump", "gravity", "random"]

Array = NDArray[np.float64]

# Numbers of the random streams of `random` and `gravity`, distinct from those of the noise (`noise.Streams`).
_RANDOM, _GRAVITY = 101, 102

# Highest order of the deformation of a dish by gravity, which is smooth.
_GRAVITY_ORDER = 4
# Negative power of the order with which its amplitudes fall.
_GRAVITY_SPECTRUM = 2.0
# Powers of the order with which amplitudes may fall; a rising one overflows sooner.
_SPECTRUM = Range(-100.0, 1e6)

# Distance up to which a point takes the value of the nearest known pixel: in pixels, or as a fraction of the
# width of the map, whichever is larger. The centres of pixels at the rim can lie a little off the dish.
_BESIDE_PIXELS, _BESIDE = 2.0, 0.02


def random(order: int, rms: float, *, spectrum: float = 0.0, seed: int = 0) -> dict[str, float]:
    """Draw a surface of a given rms.

    Parameters
    ----------
    order : int
        Highest Zernike order, 2 or more.
    rms : float
        Of the phase over the dish, radians. Piston and tilt are zero.
    spectrum : float
        The typical coefficient of order n goes as n**-spectrum.
    seed : int

    Returns
    -------
    dict of str to float
        z0, z1, ... in radians.

    Raises
    ------
    InputError
        If the order is below 2, the rms or the seed negative, or a number not finite.
    """
    return _draw_surface(order, rms, spectrum, (seed, _RANDOM), lambda n, l: True)


def gravity(rms: float, *, seed: int = 0) -> dict[str, float]:
    """Draw a surface as deformed by gravity: smooth, and symmetric left and right.

    Orders 2 to 4, mainly astigmatism, defocus, coma and trefoil; only terms even in x, since gravity acts
    along y. Parameters, return value and errors as in `random`.
    """

    def even_in_x(n: int, l: int) -> bool:
        return l % 2 == 0 if l >= 0 else l % 2 == 1

    return _draw_surface(_GRAVITY_ORDER, rms, _GRAVITY_SPECTRUM, (seed, _GRAVITY), even_in_x)


def _draw_surface(
    order: int,
    rms: float,
    spectrum: float,
    seed: tuple[int, int],
    wanted: Callable[[int, int], bool],
) -> dict[str, float]:
    if order < 2:
        raise InputError(
            f"a random surface of order {shorten(order)}; piston and tilt are no surface: give 2 or more"
        )
    if order > MAX_ORDER:
        raise InputError(f"a random surface of order {shorten(order)}; the highest is {MAX_ORDER}")
    if not 0 <= rms <= PHASE.largest:
        raise InputError(
            f"a surface rms of {rms} rad; expected a number from 0 up, at most {PHASE.largest:g}"
        )
    if not _SPECTRUM.holds(spectrum):
        raise InputError(f"a spectrum of {spectrum}; expected {_SPECTRUM}")
    if not SEED.holds(seed[0]):
        raise InputError(f"seed {shorten(seed[0])}; expected a whole number from 0 up, at most 2**63")
    modes = [zernike.nl(k) for k in range(zernike.n_terms(order))]
    size = np.array([0.0 if n < 2 or not wanted(n, l) else (n / 2) ** -spectrum for n, l in modes])
    z = size * np.random.default_rng(seed).normal(size=len(modes))
    z *= rms / math.sqrt(np.sum(z**2 * zernike.mean_square(order)))
    return {zernike.name(k): float(value) + 0.0 for k, value in enumerate(z)}


def bump(x: float, y: float, width: float, height: float, wavelength: float) -> Shape:
    """Round Gaussian bump.

    Parameters
    ----------
    x, y : float
        Position of its maximum, metres.
    width : float
        Full width at half maximum, metres.
    height : float
        Metres of half-path error; positive towards the source (CONVENTIONS 4).
    wavelength : float
        Metres.

    Returns
    -------
    callable
        Phase (rad) as a function of x, y (m).

    Raises
    ------
    InputError
        If a number is not finite, or the width not positive.
    """
    peak = 4 * math.pi * height / wavelength
    if not (PHASE.holds(peak) and LENGTH.holds(width) and abs(x) <= LENGTH.largest >= abs(y)):
        raise InputError(
            f"a bump at ({x}, {y}) m, {width} m wide, {height} m high; the width must be positive, {LENGTH}"
        )
    return lambda u, v: peak * np.exp2(-((u - x) ** 2 + (v - y) ** 2) / (0.5 * width) ** 2)


@dataclass(frozen=True, eq=False)
class PhaseMap:
    """Phase on a regular raster, interpolated linearly; callable with x, y (m).

    Attributes
    ----------
    x0, y0 : float
        Centre of the first pixel, metres.
    step_x, step_y : float
        Metres; either sign.
    phase : ndarray, (ny, nx)
        Radians, indexed [y, x]; NaN where it is not known. A point near a known pixel takes its value.
    source : str
        Origin of the map, for messages.
    """

    x0: float
    y0: float
    step_x: float
    step_y: float
    phase: Array
    source: str = "the phase map"

    def __call__(self, x: Array, y: Array) -> Array:
        """Phase (rad) at the points x, y (m).

        Raises
        ------
        InputError
            If a point is off the map and not near a known pixel.
        """
        known = np.isfinite(self.phase)
        if not known.any():
            raise InputError(f"{self.source}: no pixel of it is a number")
        # Blockage leaves holes in a measured map: they are filled from the nearest pixel, up to a distance.
        gap, nearest = scipy.ndimage.distance_transform_edt(~known, return_indices=True)
        column, row = (x - self.x0) / self.step_x, (y - self.y0) / self.step_y
        ny, nx = self.phase.shape
        beyond = np.maximum.reduce([-column, column - (nx - 1), -row, row - (ny - 1)])
        here = [np.clip(row, 0, ny - 1), np.clip(column, 0, nx - 1)]
        beside = max(_BESIDE_PIXELS, _BESIDE * max(nx, ny))
        far = scipy.ndimage.map_coordinates(gap, here, order=1) + np.maximum(beyond, 0) > beside
        if far.any():
            raise InputError(
                f"{self.source}: {np.mean(far):.0%} of the dish is off this map; it must cover all that "
                "light reaches, with coordinates in metres from the centre of the dish"
            )
        return scipy.ndimage.map_coordinates(self.phase[tuple(nearest)], here, order=1)
