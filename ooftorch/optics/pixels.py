"""The raster of aperture pixels that carries the field."""

import math

import numpy as np

from ooftorch.errors import InputError
from ooftorch.optics.receiver import Receiver
from ooftorch.optics.telescope import Telescope

__all__ = ["raster"]

# Aperture pixels a side beyond which a map is taken for a mistake.
_MAX_RASTER = 2048


def raster(
    telescope: Telescope,
    wavelength: float,
    receiver: Receiver,
    places: list[tuple[np.ndarray, np.ndarray]],
    oversample: float,
    least: int = 256,
) -> int:
    """Pixels a side: `least`, or as many as the farthest of the places needs, with a quarter to spare."""
    widest = max(float(np.max(np.abs(place))) for place in places)
    widest += 0.5 * max(abs(receiver.chop_x), abs(receiver.chop_y))
    needed = 1.25 * 4 * oversample * telescope.radius * widest / wavelength
    if not needed <= _MAX_RASTER:
        beams = widest * 2 * telescope.radius / wavelength
        raise InputError(
            f"a sample lies {widest:.3g} rad from the source, {beams:.0f} beams of {telescope.name}; check "
            "the map's units, the frequency and the telescope"
        )
    return max(least, 2 * math.ceil(needed / 2))
