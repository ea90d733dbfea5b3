"""Constants of nature and of the trade."""

import math

__all__ = ["ARCSEC", "SPEED_OF_LIGHT"]

SPEED_OF_LIGHT = 299792458.0
"""Metres per second, exact."""

ARCSEC = math.radians(1 / 3600)
"""Radians in one second of arc."""
