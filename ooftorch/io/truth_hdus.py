"""The truth of simulated maps in a FITS file, every number exactly.

TRUTH
    NAME, VALUE, UNIT; a row per parameter. RADIUS (m, of the dish) in the header.
TRUTH_PHASE
    Image, rad, with a linear WCS in metres from the centre of the dish; NaN where no light reaches.
TRUTH_AXIS
    X (m): the pixel centres, which the WCS gives to rounding.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from ooftorch.errors import InputError
from ooftorch.io.fits_tools import (
    aperture_axis,
    aperture_image,
    column_names,
    escaped,
    exact_card,
    native,
    plain,
    table,
    text_column,
)
from ooftorch.truth import TrueValue, Truth

__all__ = ["PHASE", "read_truth", "truth_hdus", "truth_history"]

PHASE = "TRUTH_PHASE"
"""Name of the one image here, which is no map."""

_COLUMNS = ("NAME", "VALUE", "UNIT")


def truth_hdus(truth: Truth) -> list[Any]:
    """HDUs that hold a truth, to stand last in a file.

    Parameters
    ----------
    truth : Truth

    Returns
    -------
    list of astropy HDU
    """
    parameters = truth.parameters
    values = table(
        "TRUTH",
        [
            text_column("NAME", [escaped(name) for name in parameters]),
            fits.Column("VALUE", "D", array=np.array([p.value for p in parameters.values()])),
            text_column("UNIT", [escaped(p.unit) for p in parameters.values()]),
        ],
    )
    values.header.append(exact_card("RADIUS", truth.radius, "[m] of the dish"))
    phase = aperture_image(PHASE, truth.phase, truth.axis, "rad", "true phase, all of it")
    return [values, phase, aperture_axis("TRUTH_AXIS", truth.axis)]


def read_truth(hdus: Sequence[Any], path: Path) -> Truth | None:
    """Truth that `truth_hdus` wrote; None where there is none.

    Parameters
    ----------
    hdus : sequence of astropy HDU, the whole file.
    path : Path

    Returns
    -------
    Truth or None

    Raises
    ------
    InputError
        If a part of it is missing.
    """
    named = {hdu.name: hdu for hdu in hdus}
    rows = named.get("TRUTH")
    if rows is None or not set(_COLUMNS) <= set(column_names(rows)):  # others may call something so
        return None
    columns = (rows.data[name].tolist() for name in _COLUMNS)
    try:
        return Truth(
            {plain(name): TrueValue(value, plain(unit)) for name, value, unit in zip(*columns, strict=True)},
            native(named["TRUTH_AXIS"].data["X"]),
            native(named[PHASE].data),
            float(rows.header["RADIUS"]),
        )
    except KeyError as error:
        raise InputError(
            f"{path}: incomplete truth ({error.args[0]}); simulate again, or remove the HDU TRUTH"
        ) from None


def truth_history(truth: Truth) -> list[str]:
    """Lines for HISTORY, a parameter each: they outlive the HDUs in programs that copy only headers."""
    return [
        f"truth: {escaped(name)} = {p.value:.10g} {escaped(p.unit)}".rstrip()
        for name, p in truth.parameters.items()
    ]
