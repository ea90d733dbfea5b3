"""Reader and writer of the truth of simulated maps in a FITS file, every number exactly.

TRUTH
    NAME, VALUE, UNIT; a row per parameter. RADIUS (m, of the dish) in the header.
TRUTH_PHASE
    Image, rad, with a linear WCS in metres from the centre of the dish; NaN where no light reaches.
TRUTH_AXIS
    X (m): the pixel centres exactly; the WCS gives them to rounding.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from ooftorch.errors import InputError
from ooftorch.inputs import POWER, RADIUS, parsing
from ooftorch.io.fits_tools import (
    check_aperture,
    copy_native,
    escape,
    list_columns,
    make_aperture_axis,
    make_aperture_image,
    make_card,
    make_table,
    make_text_column,
    unescape,
)
from ooftorch.truth import TrueValue, Truth

__all__ = ["PHASE", "format_truth", "make_truth_hdus", "read_truth"]

PHASE = "TRUTH_PHASE"
"""Name of the image HDU of a truth, which is not a beam map."""

_COLUMNS = ("NAME", "VALUE", "UNIT")


def make_truth_hdus(truth: Truth) -> list[Any]:
    """Make the HDUs of a truth, to be the last of a file.

    Parameters
    ----------
    truth : Truth

    Returns
    -------
    list of astropy HDU
    """
    parameters = truth.parameters
    values = make_table(
        "TRUTH",
        [
            make_text_column("NAME", [escape(name) for name in parameters]),
            fits.Column("VALUE", "D", array=np.array([p.value for p in parameters.values()])),
            make_text_column("UNIT", [escape(p.unit) for p in parameters.values()]),
        ],
    )
    values.header.append(make_card("RADIUS", truth.radius, "[m] of the dish"))
    phase = make_aperture_image(PHASE, truth.phase, truth.axis, "rad", "true phase, all of it")
    return [values, phase, make_aperture_axis("TRUTH_AXIS", truth.axis)]


def read_truth(hdus: Sequence[Any], path: Path) -> Truth | None:
    """Read the truth written by `make_truth_hdus`; None if there is none.

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
    # A table of another program may have this name.
    if rows is None or not set(_COLUMNS) <= set(list_columns(rows)):
        return None
    advice = "simulate again, or remove the HDU TRUTH"
    with parsing(f"{path}: damaged truth", advice):
        try:
            columns = (rows.data[name].tolist() for name in _COLUMNS)
            truth = Truth(
                {
                    unescape(name): TrueValue(float(value), unescape(unit))
                    for name, value, unit in zip(*columns, strict=True)
                },
                copy_native(named["TRUTH_AXIS"].data["X"]),
                copy_native(named[PHASE].data),
                float(rows.header["RADIUS"]),
            )
        except KeyError as error:
            raise InputError(f"{path}: incomplete truth ({error.args[0]}); {advice}") from None
        if not RADIUS.holds(truth.radius):
            raise ValueError(f"RADIUS {truth.radius:g} m")
        check_aperture(truth.axis, truth.radius, truth.phase)
        if any(abs(p.value) > POWER.largest for p in truth.parameters.values()):
            raise ValueError("a value is too large")
    return truth


def format_truth(truth: Truth) -> list[str]:
    """Format the true values as lines for HISTORY, one per parameter, for programs that keep only headers."""
    return [
        f"truth: {escape(name)} = {p.value:.10g} {escape(p.unit)}".rstrip()
        for name, p in truth.parameters.items()
    ]
