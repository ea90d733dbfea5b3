"""Constants and conversions, against numbers worked out elsewhere."""

import numpy as np
import pytest

from ooftorch.units import ARCSEC, SPEED_OF_LIGHT, half_path


def test_constants():
    assert pytest.approx(4.84813681e-6, rel=1e-9) == ARCSEC
    assert SPEED_OF_LIGHT == 299792458


def test_half_path_of_a_phase():
    # A surface high by a quarter of a wavelength shortens the path by half of one: pi.
    assert half_path(np.pi, 3e-3) == pytest.approx(0.75e-3, rel=1e-12)
    phases = np.array([[0.0, np.nan], [-1.0, 2.0]])
    assert half_path(phases, 3e-3) == pytest.approx(phases * 238.7324146e-6, nan_ok=True)
