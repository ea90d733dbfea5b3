"""FITS files of the original OOF software: reader, for its Effelsberg variant too, and writer.

One binary table per focus setting with columns DX, DY, FNU and, if known, UFNU and TIME; DZ in the header
of each table, everything else in the primary header. What the receiver did follows from TELESC, RECV and
OBJECT by the rules of the original reduction script.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from astropy.io import fits

from ooftorch.errors import InputError
from ooftorch.io.fits_tools import (
    NO_TELESCOPE,
    angles,
    column,
    column_names,
    description,
    exact_card,
    focus_offsets,
    header_number,
    header_text,
    primary_header,
    require_columns,
    stated_receiver,
    wavelength,
)
from ooftorch.observation import BeamMap, Observation
from ooftorch.optics.receiver import Receiver
from ooftorch.units import ARCSEC

__all__ = ["COLUMNS", "oof_hdus", "read_oof"]

COLUMNS = ("DX", "DY", "FNU")
"""The columns that every map must have."""

# Names of the original software for telescopes that this package calls otherwise.
_TELESC = {
    "gbt": "GBT",
    "gbt90": "90GBT",
    "alma": "ALMA",
    "alma-nosec": "ALMANoSec",
    "apex": "APEX",
    "jcmt": "JCMT",
}

# Today's names of the receivers that the original rules know.
_RECV = {"rcvr40_52": "qunbal", "rcvr26_40": "ka", "rcvr_mba1_5": "mustang"}

_DEFAULT_CHOP_ARCSEC = 57.8


def read_oof(path: Path, primary: fits.Header, tables: Sequence[tuple[int, Any]]) -> Observation:
    """Observation from the tables of an original OOF file.

    Parameters
    ----------
    path : Path
    primary : astropy header of the primary HDU.
    tables : sequence of (number in the file, table HDU), in any order of focus.

    Returns
    -------
    Observation
        `sigma` is None for a map without UFNU (the original loader insists on it, the Effelsberg reader
        ignores it).

    Raises
    ------
    InputError
        If a table lacks DX, DY or FNU, or DZ; FREQ is missing or not positive; or the receiver is not one
        that the rules know.
    """
    require_columns(tables, COLUMNS, path)
    offsets, notes = focus_offsets(tables, path)
    maps = tuple(
        _read_map(hdu, dz, f"{path}: HDU {number}") for (number, hdu), dz in zip(tables, offsets, strict=True)
    )
    wavel = wavelength([primary], path)
    if wavel is None:
        raise InputError(f"{path}: no FREQ in the primary header; add the observing frequency in Hz")

    telescope = _telescope(header_text(primary, "TELESC", "TELESCOP"))
    if telescope is None:
        notes.append(NO_TELESCOPE)
    stated = stated_receiver(primary, path)
    own, illumination, assumed = (*stated, []) if stated else _receiver(primary, telescope, wavel, path)
    effelsberg = telescope is None and "DATE_OBS" in primary
    return Observation(
        maps,
        wavel,
        telescope,
        own,
        illumination,
        format="oof-effelsberg" if effelsberg else "oof",
        notes=(*notes, *assumed),
        **description(primary, path),
    )


def oof_hdus(observation: Observation) -> list[Any]:
    """HDUs of a FITS file of the original OOF software.

    Samples and offsets keep every bit; missing samples have FNU NaN. TELESC, RECV, CHOPTHR and
    OBJRADS are set so that the original programs see what their rules can express; the keys CHOPX, CHOPY,
    GAINRAT, DISCRAD and ILLUM say it exactly and are what `read_oof` goes by. UFNU is left out where the
    errors are unknown, and the original loader refuses such a file.

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
    hdus = [fits.PrimaryHDU(header=_primary_header(observation))]
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
        table.header.append(exact_card("DZ", beam_map.dz, "[m] positive away from the primary"))
        hdus.append(table)
    return hdus


def _read_map(hdu: Any, dz: float, where: str) -> BeamMap:
    names = column_names(hdu)
    return BeamMap(
        dz,
        angles(hdu, "DX", where),
        angles(hdu, "DY", where),
        column(hdu, "FNU"),
        sigma=column(hdu, "UFNU") if "UFNU" in names else None,
        time=column(hdu, "TIME") if "TIME" in names else None,
    )


def _telescope(name: str) -> str | None:
    """Name of this package for a TELESC; a name that the original software does not have stays as it is."""
    ours = {theirs.casefold(): ours for ours, theirs in _TELESC.items()}
    return ours.get(name.casefold(), name) or None


def _receiver(
    header: fits.Header, telescope: str | None, wavel: float, path: Path
) -> tuple[Receiver, str | None, list[str]]:
    """Receiver, illumination it asks for, and assumptions: the rules of the original script, in its order."""
    notes = []
    name = header_text(header, "RECV")
    recv = _RECV.get(name.casefold(), name.casefold())
    receiver = Receiver()
    # The GBT's receivers say enough where the file does not name the telescope.
    if telescope in ("gbt", "gbt90") or (telescope is None and recv in ("qunbal", "ka", "mustang")):
        if not recv:
            recv = "mustang" if wavel < 5e-3 else "qunbal"
            notes.append(f"RECV not in the file; taken as {recv} for {1e3 * wavel:.3g} mm")
        if recv in ("qunbal", "ka"):
            chop = header_number(header, "CHOPTHR", str(path))
            if chop is None:
                chop = _DEFAULT_CHOP_ARCSEC
                notes.append(f"CHOPTHR not in the file; taken as {chop} arcsec")
            receiver = Receiver(chop_x=(-chop if recv == "qunbal" else chop) * ARCSEC)
        elif recv != "mustang":
            raise InputError(
                f"{path}: RECV is {name!r}; known are qunbal (Rcvr40_52), Ka (Rcvr26_40) and mustang "
                "(Rcvr_MBA1_5): for another receiver set CHOPX, CHOPY (rad) and GAINRAT in the header"
            )
    elif header_text(header, "OBJECT").casefold() == "saturn":
        radius = header_number(header, "OBJRADS", str(path))
        if radius is None:
            raise InputError(
                f"{path}: OBJECT is Saturn but there is no OBJRADS; add its radius in radians to the header"
            )
        receiver = Receiver(disc_radius=radius)

    if recv == "mustang":
        return receiver, "tophat", notes
    return receiver, "squashed" if telescope == "alma" else None, notes


def _primary_header(observation: Observation) -> fits.Header:
    name, chop, disc = observation.telescope, observation.receiver.chop_x, observation.receiver.disc_radius
    header = primary_header(observation, None if name is None else _TELESC.get(name, name))
    if name in ("gbt", "gbt90") or observation.illumination == "tophat":
        header["RECV"] = _original_recv(observation)
    if header.get("RECV") in ("qunbal", "Ka"):
        header.append(exact_card("CHOPTHR", abs(chop) / ARCSEC, "[arcsec]"))
    if disc > 0:
        header.append(exact_card("OBJRADS", disc, "[rad]"))
    return header


def _original_recv(observation: Observation) -> str:
    """RECV for the original programs: "other", which they refuse, where their rules have no name."""
    receiver = observation.receiver
    plain_source = receiver.disc_radius == 0
    if not receiver.chopped and plain_source and observation.illumination == "tophat":
        return "mustang"
    if receiver.chopped and plain_source and receiver.chop_y == 0 and observation.illumination is None:
        return "qunbal" if receiver.chop_x < 0 else "Ka"
    return "other"
