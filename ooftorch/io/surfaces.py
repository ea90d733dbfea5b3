"""Reader of surfaces: coefficients by name, and images of the phase across the aperture."""

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from ooftorch.errors import InputError, shorten
from ooftorch.inputs import LENGTH, PHASE, Range, parsing
from ooftorch.io.fits_tools import is_fits, open_fits, read_header_number, read_header_text
from ooftorch.io.image import find_image_hdus
from ooftorch.io.result_file import read_fit
from ooftorch.io.text import read_text
from ooftorch.optics import zernike
from ooftorch.simulation.surfaces import PhaseMap

__all__ = ["read_coefficients", "read_phase_map"]

# A parameter in its unit: a phase in radians, or another that the model will check.
_COEFFICIENT = Range(-1e9, 1e9)
# Metres in each unit of length.
_METRES = {"m": 1.0, "cm": 1e-2, "mm": 1e-3, "um": 1e-6}


def read_coefficients(path: str | os.PathLike[str]) -> dict[str, float]:
    """Read the parameters of a surface by name.

    Parameters
    ----------
    path : str or Path
        JSON of names and numbers (``{"z5": 1.1}``), lines of a name and a number (``z5 1.1``; ``#`` starts a
        comment), or the result of a fit (`summary.json` or `fit.fits`), from which the Zernike coefficients
        are taken.

    Returns
    -------
    dict of str to float
        Zernike coefficients in radians; other parameters of the model in their units.

    Raises
    ------
    InputError
        If the file cannot be read or is none of these, or a value is not a finite number.
    """
    path = Path(path)
    if is_fits(path):
        fitted = {name: p.value for name, p in read_fit(path).parameters.items()}
        return {name: value for name, value in fitted.items() if zernike.number(name) is not None}
    text = read_text(path)
    values = _parse_json(text, path) if text.lstrip().startswith("{") else _parse_lines(text, path)
    for name, value in values.items():
        _COEFFICIENT.check(value, f"{path}: {shorten(name)}")
    if not values:
        raise InputError(f"{path}: no coefficients in it; expected lines such as `z5 1.1`, or JSON")
    return {name: float(value) for name, value in values.items()}


def _parse_json(text: str, path: Path) -> dict[str, Any]:
    with parsing(f"{path}: not valid JSON", "correct it"):
        found = json.loads(text)
    parameters = found.get("parameters")
    if not isinstance(parameters, dict):
        return found
    return {
        k: p.get("value") if isinstance(p, dict) else p
        for k, p in parameters.items()
        if zernike.number(k) is not None
    }


def _parse_lines(text: str, path: Path) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].replace(",", " ").replace("=", " ").split()
        if not words:
            continue
        try:
            name, value = words
            values[name] = float(value)
        except ValueError:
            raise InputError(
                f"{path}: line {number} is {shorten(line)!r}; expected a name and a number, such as `z5 1.1`"
            ) from None
    return values


def read_phase_map(path: str | os.PathLike[str], wavelength: float) -> PhaseMap:
    """Read the phase across the aperture from a FITS image with linear coordinates in metres.

    Parameters
    ----------
    path : str or Path
        A FITS file with one image, or several of which one has PHASE in its EXTNAME, such as the `fit.fits`
        of a fit. BUNIT is "rad" (or missing), or a length (m, mm, um): half-path error, positive towards the
        source. NaN marks unknown pixels.
    wavelength : float
        Metres; converts a length to a phase (CONVENTIONS 4).

    Returns
    -------
    PhaseMap

    Raises
    ------
    InputError
        If the file cannot be read, has no such image, or its coordinates are not lengths along its axes.
    """
    path = Path(path)
    if not is_fits(path):
        raise InputError(f"{path}: not a FITS file; expected an image of the phase across the aperture")
    images = find_image_hdus(open_fits(path))
    if len(images) > 1:
        images = [(number, hdu) for number, hdu in images if "PHASE" in hdu.name.upper()]
    if len(images) != 1:
        raise InputError(
            f"{path}: {len(images)} images that may be the phase; expected one, or one with PHASE in EXTNAME"
        )
    ((number, hdu),) = images
    where = f"{path}: HDU {number}"
    header, phase = hdu.header, np.asarray(hdu.data, dtype=np.float64)
    if phase.ndim != 2:
        raise InputError(f"{where}: image of {phase.ndim} axes, {phase.shape}; expected two, y and x")
    if any(key in header for key in ("CD1_2", "CD2_1", "PC1_2", "PC2_1", "CROTA2")):
        raise InputError(f"{where}: turned coordinates; expected x along axis 1 and y along axis 2")
    (x0, step_x), (y0, step_y) = (_read_axis(header, i, where) for i in (1, 2))
    unit = read_header_text(header, "BUNIT") or "rad"
    if unit not in ("rad", *_METRES):
        raise InputError(f"{where}: BUNIT is {unit!r}; expected rad, or a half-path error in m, mm or um")
    scale = 1.0 if unit == "rad" else 4 * math.pi * _METRES[unit] / wavelength
    phase = scale * phase
    largest = np.max(np.abs(phase), where=np.isfinite(phase), initial=0.0)
    PHASE.check(float(largest), f"{where}: the largest phase")
    return PhaseMap(x0, y0, step_x, step_y, phase, source=where)


def _read_axis(header: Any, i: int, where: str) -> tuple[float, float]:
    """Read the position of the first pixel and the step along an axis, metres."""
    unit = read_header_text(header, f"CUNIT{i}") or "m"
    if unit not in _METRES:
        raise InputError(f"{where}: CUNIT{i} is {unit!r}; expected metres across the aperture")
    reference, step = (read_header_number(header, f"{key}{i}", where) for key in ("CRPIX", "CDELT"))
    if reference is None or not step:
        raise InputError(f"{where}: no CRPIX{i} or CDELT{i}; the image needs coordinates in metres")
    value = read_header_number(header, f"CRVAL{i}", where) or 0.0
    # FITS counts pixels from 1.
    first, step = _METRES[unit] * (value + step * (1 - reference)), _METRES[unit] * step
    if not (abs(first) <= LENGTH.largest and LENGTH.holds(abs(step))):
        raise InputError(f"{where}: pixels from {first:g} m in steps of {step:g} m; expected those of a dish")
    return first, step
