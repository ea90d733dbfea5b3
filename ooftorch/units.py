"""Constants and conversions of units."""

import math
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ARCSEC", "SPEED_OF_LIGHT", "half_path"]

Number = TypeVar("Number", float, "NDArray[np.float64]")

SPEED_OF_LIGHT = 299792458.0
"""Metres per second, exact."""

ARCSEC = math.radians(1 / 3600)
"""Radians in one arcsecond."""


def half_path(phase: Number, wavelength: float) -> Number:
    """Convert a phase across the aperture to the half-path error of the surface, lambda phase/(4 pi).

    Parameters
    ----------
    phase : float or ndarray
        Radians.
    wavelength : float
        Metres.

    Returns
    -------
    float or ndarray
        Metres, in the shape of `phase`.
    """
    return phase * (wavelength / (4 * math.pi))
