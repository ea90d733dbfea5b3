"""Numbers computed from a result that the checks, the summary and the report share."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ooftorch.optics import zernike
from ooftorch.optics.basis import RecordedBasis
from ooftorch.units import ARCSEC, half_path

if TYPE_CHECKING:
    from ooftorch.result import Aperture, Estimate, FitResult

__all__ = [
    "compare_with_truth",
    "describe_illumination",
    "estimate_coefficients",
    "find_bend",
    "find_illumination",
    "find_pointing",
    "measure_bend",
]


def find_pointing(result: "FitResult") -> "tuple[tuple[float, float], tuple[float, float]]":
    """Return where the tilts (z2 and z1) alone put the beam, telescope minus source (CONVENTIONS 2).

    Parameters
    ----------
    result : FitResult

    Returns
    -------
    dx, dy : (value, standard error)
        Arcseconds; NaN where the basis of the surface has no tilts.
    """
    per_rad = result.wavelength / (2 * math.pi * result.aperture.radius) / ARCSEC
    basis = result.basis
    if basis.x_tilt is None or basis.y_tilt is None:
        return (math.nan, math.nan), (math.nan, math.nan)
    x, y = result.parameters[basis.x_tilt], result.parameters[basis.y_tilt]
    return (x.value * per_rad, x.sigma * per_rad), (y.value * per_rad, y.sigma * per_rad)


def compare_with_truth(result: "FitResult") -> dict[str, Any] | None:
    """Return how far a fit of simulated maps is from the truth.

    None if the truth is not known, or the surface is in a basis of which a file has the coefficients alone.

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
            Error over standard error of every free coefficient that the truth has, tilts aside.
        parameters : dict of str to float
            True values.
    """
    truth = result.truth
    if truth is None or isinstance(result.basis, RecordedBasis):
        return None
    error = truth.rms_error(result.coefficients, basis=result.basis, radius=result.aperture.radius)
    return {
        "actual_phase_error_rad": error,
        "surface_error_um": 1e6 * half_path(error, result.wavelength),
        "predicted_rad": result.phase_error,
        "pulls": truth.pulls(result),
        "parameters": {name: p.value for name, p in truth.parameters.items()},
    }


def estimate_coefficients(result: "FitResult") -> "dict[str, Estimate]":
    """Return the coefficients of the surface by name, held ones too, radians."""
    return {name: result.parameters[name] for name in result.basis.names}


def describe_illumination(result: "FitResult") -> str:
    """Return the model of the illumination, and the order to which Zernikes bend it, in words."""
    bend = f" bent by Zernikes to order {result.amplitude_order}" if result.amplitude_order else ""
    return f"{result.illumination} illumination{bend}"


def find_illumination(a: "Aperture") -> np.ndarray:
    """Return the amplitude without the blockage, over its peak, (n, n); NaN where nothing is open."""
    illumination = np.divide(a.amplitude, a.open, where=a.open > 0, out=np.full_like(a.open, np.nan))
    return illumination / np.nanmax(illumination)


def find_bend(result: "FitResult") -> dict[str, "Estimate"]:
    """Return the coefficients a3, a4, ... of the Zernikes that bend the illumination, by name."""
    names = (f"a{k}" for k in range(3, zernike.n_terms(result.amplitude_order)))
    return {name: result.parameters[name] for name in names if name in result.parameters}


def measure_bend(result: "FitResult") -> float:
    """Return how far the illumination departs from its model, rms over the whole dish, decibels."""
    mean_square = zernike.mean_square(result.amplitude_order)
    squares = [p.value**2 * mean_square[int(name[1:])] for name, p in find_bend(result).items()]
    return 20 / math.log(10) * math.sqrt(sum(squares))
