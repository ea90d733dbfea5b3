"""FITS files of pyoof, the Effelsberg package: reader and writer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from astropy.io import fits

from ooftorch.errors import InputError
from ooftorch.io.fits_tools import (
    UNKNOWN_ELEVATION,
    angles,
    column,
    description,
    exact_card,
    focus_offsets,
    header_text,
    primary_header,
    require_columns,
    stated_receiver,
    table,
    wavelength,
)
from ooftorch.observation import BeamMap, Observation
from ooftorch.optics.receiver import Receiver

__all__ = ["COLUMNS", "pyoof_hdus", "read_pyoof"]

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
    receiver, illumination = stated_receiver(primary, path) or (Receiver(), None)
    telescope = header_text(primary, "TELESC", "TELESCOP")
    if not telescope:
        telescope = "effelsberg"
        notes.append("telescope not named in the file; pyoof files are taken as Effelsberg")
    return Observation(
        maps,
        wavel,
        telescope,
        receiver,
        illumination,
        format="pyoof",
        notes=tuple(notes),
        **description(primary, path),
    )


def pyoof_hdus(observation: Observation) -> list[Any]:
    """HDUs of a FITS file of pyoof: minus, zero and plus in HDU 1, 2 and 3.

    Offsets and powers keep every bit, where pyoof's own files have single precision; missing samples have
    BEAM NaN. The format has no place for errors and times: `fit` estimates the noise. What pyoof insists on
    and nobody knows is an empty text, and -999 for the elevation.

    Parameters
    ----------
    observation : Observation

    Returns
    -------
    list of astropy HDU

    Raises
    ------
    InputError
        If there are not three maps of as many samples, the middle one in focus, or the beam is chopped or the
        source no point.
    ValueError
        If a text of the observation is not printable ASCII.
    """
    maps = observation.maps
    offsets = ", ".join(f"{1e3 * m.dz:+g}" for m in maps)
    sizes = [m.power.size for m in maps]
    if len(maps) != 3 or maps[1].dz != 0:  # they are sorted
        raise InputError(
            f"maps at dz {offsets} mm; a pyoof file has three, at minus, zero and plus: use layout oof"
        )
    if len(set(sizes)) > 1:
        raise InputError(f"maps of {sizes} samples; a pyoof file has as many in each: use layout oof")
    if observation.receiver.chopped or observation.receiver.disc_radius:
        raise InputError(
            f"{observation.receiver}; a pyoof file is for a single beam and a point source: use layout oof"
        )
    header = primary_header(observation, observation.telescope)
    header.append(exact_card("WAVEL", observation.wavelength, "[m]"))
    header["DATE_OBS"] = observation.date_obs
    header.setdefault("OBJECT", "")
    header.setdefault("MEANEL", UNKNOWN_ELEVATION)
    hdus = [fits.PrimaryHDU(header=header)]
    for name, m in zip(("MINUS OOF", "ZERO OOF", "PLUS OOF"), maps, strict=True):
        columns = {"U": (-m.x, "rad"), "V": (-m.y, "rad"), "BEAM": (m.power, None)}
        hdu = table(name, [fits.Column(n, "D", unit=unit, array=a) for n, (a, unit) in columns.items()])
        hdu.header.append(exact_card("DZ", m.dz, "[m] positive away from the primary"))
        hdus.append(hdu)
    return hdus
