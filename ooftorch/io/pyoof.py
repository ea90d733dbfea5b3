"""Reader for FITS files of pyoof, the Effelsberg package."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from astropy.io import fits

from ooftorch.errors import InputError
from ooftorch.io.fitsfile import (
    angles,
    column,
    description,
    focus_offsets,
    header_text,
    require_columns,
    wavelength,
)
from ooftorch.observation import BeamMap, Observation
from ooftorch.receiver import Receiver

__all__ = ["COLUMNS", "read_pyoof"]

COLUMNS = ("U", "V", "BEAM")
"""The columns that every map must have."""


def read_pyoof(path: Path, primary: fits.Header, tables: Sequence[tuple[int, Any]]) -> Observation:
    """Observation from the tables of a pyoof file.

    U and V are the direction of the source seen from boresight; DX and DY are the telescope's pointing
    minus the source, hence the minus sign. The sign of dz needs no change, and a file simulated with
    coefficients K (in wavelengths) is fitted by z = -2 pi K.

    Parameters
    ----------
    path : Path
    primary : astropy header of the primary HDU.
    tables : sequence of (number in the file, table HDU), in any order of focus.

    Returns
    -------
    Observation

    Raises
    ------
    InputError
        If a table lacks U, V or BEAM, or DZ; or FREQ and WAVEL are both missing, not positive or in
        disagreement.
    """
    require_columns(tables, COLUMNS, path)
    offsets, notes = focus_offsets(tables, path)
    maps = tuple(
        BeamMap(
            dz,
            -angles(hdu, "U", f"{path}: HDU {number}"),
            -angles(hdu, "V", f"{path}: HDU {number}"),
            column(hdu, "BEAM"),
        )
        for (number, hdu), dz in zip(tables, offsets, strict=True)
    )
    wavel = wavelength([primary], path)
    if wavel is None:
        raise InputError(f"{path}: neither FREQ nor WAVEL in the primary header; add FREQ in Hz")
    telescope = header_text(primary, "TELESC", "TELESCOP")
    if not telescope:
        telescope = "effelsberg"
        notes.append("telescope not named in the file; pyoof files are taken as Effelsberg")
    return Observation(
        maps,
        wavel,
        telescope,
        Receiver(),
        format="pyoof",
        notes=tuple(notes),
        **description(primary, path),
    )
