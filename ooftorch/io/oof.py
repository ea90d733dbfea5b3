"""Reader and writer of FITS files of the original OOF software; the reader takes the Effelsberg variant too.

One binary table per focus setting with columns DX, DY, FNU and, if known, UFNU and TIME; DZ in the header of
each table, everything else in the primary header. The receiver follows from TELESC, RECV and OBJECT by the
rules of the original reduction script.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from astropy.io import fits

from ooftorch.errors import InputError
from ooftorch.io.fits_tools import (
    NO_TELESCOPE,
    list_columns,
    make_card,
    make_primary_header,
    make_scan_cards,
    read_angles,
    read_column,
    read_description,
    read_focus_offsets,
    read_header_number,
    read_header_text,
    read_receiver,
    read_scans,
    read_wavelength,
    require_columns,
)
from ooftorch.observation import BeamMap, Observation
from ooftorch.optics.receiver import Receiver
from ooftorch.units import ARCSEC

__all__ = ["COLUMNS", "make_oof_hdus", "read_oof"]

COLUMNS = ("DX", "DY", "FNU")
"""The columns that every map must have."""

# TELESC of the original software, by the name of the telescope in this package, if they differ.
_TELESC = {
    "gbt": "GBT",
    "gbt90": "90GBT",
    "alma": "ALMA",
    "alma-nosec": "ALMANoSec",
    "apex": "APEX",
    "jcmt": "JCMT",
}

# Name of a receiver in the rules of the original script, by its present name (both in lower case).
_RECV = {"rcvr40_52": "qunbal", "rcvr26_40": "ka", "rcvr_mba1_5": "mustang"}

# Beam separation of a chopped receiver if the file has no CHOPTHR, arcseconds.
_DEFAULT_CHOP_ARCSEC = 57.8


def read_oof(path: Path, primary: fits.Header, tables: Sequence[tuple[int, Any]]) -> Observation:
    """Read an observation from the tables of an original OOF file.

    Parameters
    ----------
    path : Path
    primary : astropy header of the primary HDU.
    tables : sequence of (number in the file, table HDU), in any order of focus.

    Returns
    -------
    Observation
        `sigma` is None for a map without UFNU (the original loader requires UFNU, the Effelsberg reader
        ignores it).

    Raises
    ------
    InputError
        If a table lacks DX, DY or FNU, or DZ; FREQ is missing or not positive; or the rules do not include
        the receiver.
    """
    require_columns(tables, COLUMNS, path)
    offsets, notes = read_focus_offsets(tables, path)
    maps = tuple(
        _read_map(hdu, dz, f"{path}: HDU {number}") for (number, hdu), dz in zip(tables, offsets, strict=True)
    )
    wavel = read_wavelength([primary], path)
    if wavel is None:
        raise InputError(f"{path}: no FREQ in the primary header; add the observing frequency in Hz")

    telescope = _translate_telescope(read_header_text(primary, "TELESC", "TELESCOP"))
    if telescope is None:
        notes.append(NO_TELESCOPE)
    stated = read_receiver(primary, path)
    own, illumination, assumed = (*stated, []) if stated else _infer_receiver(primary, telescope, wavel, path)
    effelsberg = telescope is None and "DATE_OBS" in primary
    return Observation(
        maps,
        wavel,
        telescope,
        own,
        illumination,
        format="oof-effelsberg" if effelsberg else "oof",
        notes=(*notes, *assumed),
        **read_description(primary, path),
    )


def make_oof_hdus(observation: Observation) -> list[Any]:
    """Make the HDUs of a FITS file of the original OOF software.

    Samples and offsets are exact; missing samples have FNU NaN. TELESC, RECV, CHOPTHR and OBJRADS describe
    the receiver to the original programs, as far as their rules can; the keys CHOPX, CHOPY, GAINRAT, DISCRAD
    and ILLUM are exact, and `read_oof` uses them. UFNU is left out if the errors are unknown; the original
    loader rejects such a file. SCANLINE and SMEAR (rad) of a table are ours too, and only there if needed.

    Parameters
    ----------
    observation : Observation

    Returns
    -------
    list of astropy HDU

    Raises
    ------
    ValueError
        If a text of the observation is not printable ASCII.
    """
    hdus = [fits.PrimaryHDU(header=_make_header(observation))]
    for beam_map in observation.maps:
        columns = [
            fits.Column("DX", "D", unit="rad", array=beam_map.x),
            fits.Column("DY", "D", unit="rad", array=beam_map.y),
            fits.Column("FNU", "D", array=beam_map.power),
        ]
        if beam_map.sigma is not None:
            columns.append(fits.Column("UFNU", "D", array=beam_map.sigma))
        if beam_map.time is not None:
            columns.append(fits.Column("TIME", "D", array=beam_map.time))
        table = fits.BinTableHDU.from_columns(columns)
        table.header.append(make_card("DZ", beam_map.dz, "[m] positive away from the primary"))
        table.header.extend(make_scan_cards(beam_map.scans, beam_map.smear))
        hdus.append(table)
    return hdus


def _read_map(hdu: Any, dz: float, where: str) -> BeamMap:
    names = list_columns(hdu)
    return BeamMap(
        dz,
        read_angles(hdu, "DX", where),
        read_angles(hdu, "DY", where),
        read_column(hdu, "FNU", where),
        sigma=read_column(hdu, "UFNU", where) if "UFNU" in names else None,
        time=read_column(hdu, "TIME", where) if "TIME" in names else None,
        **read_scans(hdu.header, where),
    )


def _translate_telescope(name: str) -> str | None:
    """Name in this package of a TELESC; other names are returned unchanged, None if it is empty."""
    ours = {theirs.casefold(): ours for ours, theirs in _TELESC.items()}
    return ours.get(name.casefold(), name) or None


def _infer_receiver(
    header: fits.Header, telescope: str | None, wavel: float, path: Path
) -> tuple[Receiver, str | None, list[str]]:
    """Infer receiver, its illumination and the assumptions made, by the rules of the original script."""
    notes = []
    name = read_header_text(header, "RECV")
    recv = _RECV.get(name.casefold(), name.casefold())
    receiver = Receiver()
    # If the file does not name the telescope, a receiver of the GBT identifies it.
    if telescope in ("gbt", "gbt90") or (telescope is None and recv in ("qunbal", "ka", "mustang")):
        if not recv:
            recv = "mustang" if wavel < 5e-3 else "qunbal"
            notes.append(f"RECV not in the file; taken as {recv} for {1e3 * wavel:.3g} mm")
        if recv in ("qunbal", "ka"):
            chop = read_header_number(header, "CHOPTHR", str(path))
            if chop is None:
                chop = _DEFAULT_CHOP_ARCSEC
                notes.append(f"CHOPTHR not in the file; taken as {chop} arcsec")
            receiver = Receiver(chop_x=(-chop if recv == "qunbal" else chop) * ARCSEC)
        elif recv != "mustang":
            raise InputError(
                f"{path}: RECV is {name!r}; known are qunbal (Rcvr40_52), Ka (Rcvr26_40) and mustang "
                "(Rcvr_MBA1_5): for another receiver set CHOPX, CHOPY (rad) and GAINRAT in the header"
            )
    elif read_header_text(header, "OBJECT").casefold() == "saturn":
        radius = read_header_number(header, "OBJRADS", str(path))
        if radius is None:
            raise InputError(
                f"{path}: OBJECT is Saturn but there is no OBJRADS; add its radius in radians to the header"
            )
        receiver = Receiver(disc_radius=radius)

    if recv == "mustang":
        return receiver, "tophat", notes
    return receiver, "squashed" if telescope == "alma" else None, notes


def _make_header(observation: Observation) -> fits.Header:
    name, chop, disc = observation.telescope, observation.receiver.chop_x, observation.receiver.disc_radius
    header = make_primary_header(observation, None if name is None else _TELESC.get(name, name))
    if name in ("gbt", "gbt90") or observation.illumination == "tophat":
        header["RECV"] = _choose_recv(observation)
    if header.get("RECV") in ("qunbal", "Ka"):
        header.append(make_card("CHOPTHR", abs(chop) / ARCSEC, "[arcsec]"))
    if disc > 0:
        header.append(make_card("OBJRADS", disc, "[rad]"))
    return header


def _choose_recv(observation: Observation) -> str:
    """RECV for the original programs; "other", which they reject, for receivers outside their rules."""
    receiver = observation.receiver
    plain_source = receiver.disc_radius == 0
    if not receiver.chopped and plain_source and observation.illumination == "tophat":
        return "mustang"
    if receiver.chopped and plain_source and receiver.chop_y == 0 and observation.illumination is None:
        return "qunbal" if receiver.chop_x < 0 else "Ka"
    return "other"
