"""Numbers computed from a result that the checks, the summary and the report share."""

import math
from typing import TYPE_CHECKING, Any

from ooftorch.optics import zernike
from ooftorch.units import ARCSEC, half_path

if TYPE_CHECKING:
    from ooftorch.result import Estimate, FitResult

__all__ = ["compare_with_truth", "pointing_offset", "zernike_estimates"]


def pointing_offset(result: "FitResult") -> "tuple[tuple[float, float], tuple[float, float]]":
    """Return where the tilts z2 and z1 alone put the beam, telescope minus source (CONVENTIONS 2).

    Parameters
    ----------
    result : FitResult

    Returns
    -------
    dx, dy : (value, standard error)
        Arcseconds.
    """
    per_rad = result.wavelength / (2 * math.pi * result.aperture.radius) / ARCSEC
    x, y = result.parameters["z2"], result.parameters["z1"]
    return (x.value * per_rad, x.sigma * per_rad), (y.value * per_rad, y.sigma * per_rad)


def compare_with_truth(result: "FitResult") -> dict[str, Any] | None:
    """Return how far a fit of simulated maps is from the truth; None if the truth is not known.

    Parameters
    ----------
    result : FitResult

    Returns
    -------
    dict or None
        actual_phase_error_rad : float
            Rms over the dish of the fitted phase minus the true one, piston and tilt removed.
        surface_error_um : float
            The same as half-path error.
        predicted_rad : float
            The error that the covariance predicts.
        pulls : dict of str to float
            Error over standard error of every free coefficient from z3 on that the truth has.
        parameters : dict of str to float
            True values.
    """
    truth = result.truth
    if truth is None:
        return None
    error = truth.rms_error(result.zernikes, result.aperture.radius)
    return {
        "actual_phase_error_rad": error,
        "surface_error_um": 1e6 * half_path(error, result.wavelength),
        "predicted_rad": result.phase_error,
        "pulls": truth.pulls(result),
        "parameters": {name: p.value for name, p in truth.parameters.items()},
    }


def zernike_estimates(result: "FitResult") -> "dict[str, Estimate]":
    """Return the coefficients z0, z1, ... by name, held ones too, radians."""
    names = [zernike.name(k) for k in range(zernike.n_terms(result.order))]
    return {name: result.parameters[name] for name in names}
