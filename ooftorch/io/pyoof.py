"""Reader and writer of FITS files of pyoof, the Effelsberg package."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from astropy.io import fits

from ooftorch.errors import InputError
from ooftorch.io.fits_tools import (
    UNKNOWN_ELEVATION,
    make_card,
    make_primary_header,
    make_scan_cards,
    make_table,
    read_angles,
    read_column,
    read_description,
    read_focus_offsets,
    read_header_text,
    read_receiver,
    read_scans,
    read_wavelength,
    require_columns,
)
from ooftorch.observation import BeamMap, Observation
from ooftorch.optics.receiver import Receiver
from ooftorch.scans import name_scans

__all__ = ["COLUMNS", "make_pyoof_hdus", "read_pyoof"]

COLUMNS = ("U", "V", "BEAM")
"""The columns that every map must have."""


def read_pyoof(path: Path, primary: fits.Header, tables: Sequence[tuple[int, Any]]) -> Observation:
    """Read an observation from the tables of a pyoof file.

    U and V are the direction of the source seen from boresight, DX and DY telescope pointing minus source,
    hence the minus sign. The sign of dz is the same, and a file simulated with coefficients K (wavelengths)
    is fitted by z = -2 pi K (CONVENTIONS 5).

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
    offsets, notes = read_focus_offsets(tables, path)
    maps = tuple(
        BeamMap(
            dz,
            -read_angles(hdu, "U", f"{path}: HDU {number}"),
            -read_angles(hdu, "V", f"{path}: HDU {number}"),
            read_column(hdu, "BEAM", f"{path}: HDU {number}"),
            **read_scans(hdu.header, f"{path}: HDU {number}"),
        )
        for (number, hdu), dz in zip(tables, offsets, strict=True)
    )
    wavel = read_wavelength([primary], path)
    if wavel is None:
        raise InputError(f"{path}: neither FREQ nor WAVEL in the primary header; add FREQ in Hz")
    receiver, illumination = read_receiver(primary, path) or (Receiver(), None)
    telescope = read_header_text(primary, "TELESC", "TELESCOP")
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
        **read_description(primary, path),
    )


def make_pyoof_hdus(observation: Observation) -> list[Any]:
    """Make the HDUs of a FITS file of pyoof: minus, zero and plus in HDU 1, 2 and 3.

    Offsets and powers are exact (double precision; the files of pyoof itself are single); missing samples
    have BEAM NaN. Errors and times are not written: a fit of the file estimates the noise; SCANLINE, ours,
    says where the scan lines are. Unknown values that pyoof requires are an empty text, and -999 for the
    elevation.

    Parameters
    ----------
    observation : Observation

    Returns
    -------
    list of astropy HDU

    Raises
    ------
    InputError
        If there are not three maps with equal numbers of samples, the middle one in focus, or the beam is
        chopped or the source extended.
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
    header = make_primary_header(observation, observation.telescope)
    header.append(make_card("WAVEL", observation.wavelength, "[m]"))
    header["DATE_OBS"] = observation.date_obs
    header.setdefault("OBJECT", "")
    header.setdefault("MEANEL", UNKNOWN_ELEVATION)
    hdus = [fits.PrimaryHDU(header=header)]
    for name, m in zip(("MINUS OOF", "ZERO OOF", "PLUS OOF"), maps, strict=True):
        columns = {"U": (-m.x, "rad"), "V": (-m.y, "rad"), "BEAM": (m.power, None)}
        hdu = make_table(name, [fits.Column(n, "D", unit=unit, array=a) for n, (a, unit) in columns.items()])
        hdu.header.append(make_card("DZ", m.dz, "[m] positive away from the primary"))
        hdu.header.extend(make_scan_cards(name_scans(m), m.smear))
        hdus.append(hdu)
    return hdus
