"""The chance that a telescope is better with the result of a fit applied than without."""

import math
from typing import TYPE_CHECKING

from ooftorch.reporting.checks import STOP, verdict
from ooftorch.units import half_path

if TYPE_CHECKING:
    from ooftorch.result import FitResult

__all__ = ["estimate_chance"]

# Logistic regression over the tuning set of scripts/verdicts.py (205 observations, most with one mistake): of
# the logarithm of the odds that the error of the surface is smaller than the surface, at a verdict other than
# "do not apply", what that verdict takes from it, and what a cause takes that moves the surface by its rms.
_ODDS, _STOPPED, _MOVED = 5.0, -3.9, -1.5
# Relative uncertainty of an error bar.
_UNCERTAIN = 0.5


def estimate_chance(result: "FitResult") -> float:
    """Estimate the chance that the telescope is better with the result applied.

    That is the chance that the error of the fitted surface, rms, is smaller than the surface: as far as the
    error bars tell, times what was found on simulated observations with mistakes.

    Parameters
    ----------
    result : FitResult

    Returns
    -------
    float
        0 to 1; NaN where there is no surface.
    """
    phase, wavelength = result.phase_rms, result.wavelength
    if not math.isfinite(phase):
        return math.nan
    model = result.phase_error_model
    error = math.hypot(result.phase_error, 0.0 if math.isnan(model) else model)
    size, uncertainty = (value / half_path(1.0, wavelength) for value in result.surface_rms_estimate)
    spread = math.hypot(uncertainty, _UNCERTAIN * error)
    by_errors = 0.5 * (1 + math.erf((size - error) / spread / math.sqrt(2))) if spread > 0 else 1.0
    moved = max((cause.change for cause in result.causes if cause.change > 0), default=0.0)
    odds = _ODDS + _STOPPED * (verdict(result)[0] == STOP)
    odds += _MOVED * min(moved / phase, 10.0) if phase > 0 else 0.0
    return by_errors / (1 + math.exp(-odds))
