"""Tools shared by the FITS readers and writers: opening files, exact numbers and texts, header keys."""

import io
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from ooftorch.errors import InputError, shorten
from ooftorch.inputs import ELEVATION, parsing, read_bytes
from ooftorch.observation import Observation
from ooftorch.optics.receiver import Receiver
from ooftorch.scans import SCANS
from ooftorch.units import ARCSEC, SPEED_OF_LIGHT

__all__ = [
    "NO_TELESCOPE",
    "UNKNOWN_ELEVATION",
    "check_aperture",
    "copy_native",
    "escape",
    "find_tables",
    "is_fits",
    "list_columns",
    "make_aperture_axis",
    "make_aperture_image",
    "make_card",
    "make_primary_header",
    "make_scan_cards",
    "make_table",
    "make_text_column",
    "open_fits",
    "radians_per",
    "read_angles",
    "read_column",
    "read_description",
    "read_focus_offsets",
    "read_header_number",
    "read_header_text",
    "read_receiver",
    "read_scans",
    "read_wavelength",
    "require_columns",
    "unescape",
]

# Radians in each unit of angle.
_ANGLES = {
    "rad": 1.0,
    "radian": 1.0,
    "radians": 1.0,
    "deg": np.deg2rad(1),
    "arcmin": np.deg2rad(1 / 60),
    "arcsec": ARCSEC,
}

# Cards that say how much there is, with the largest value where it is not the size of the file.
_COUNT = re.compile(rb"(Z?NAXIS|NAXIS\d+|TFIELDS|PCOUNT|GCOUNT|THEAP) *= *(?P<count>[+-]?\d+)")
_LARGEST_COUNT = {b"NAXIS": 999, b"ZNAXIS": 999, b"TFIELDS": 999}
# A spoilt XTENSION makes another kind of it, and a map less.
_KINDS = (fits.PrimaryHDU, fits.ImageHDU, fits.CompImageHDU, fits.BinTableHDU, fits.TableHDU, fits.GroupsHDU)
# Largest compression of an image in a file.
_COMPRESSION = 1000

# Largest value of an image across the dish: radians, or ratios.
_LARGEST_ON_DISH = 1e9

NO_TELESCOPE = "telescope not named in the file"
"""Note of the readers."""

UNKNOWN_ELEVATION = -999.0
"""MEANEL, degrees, if it is not known, for programs that require a number."""

# Header keys of this package for the receiver, with the attribute of `Receiver` and the comment. They are
# exact also for receivers outside the rules of other programs.
_RECEIVER_KEYS = {
    "CHOPX": ("chop_x", "[rad] beam separation along DX"),
    "CHOPY": ("chop_y", "[rad] beam separation along DY"),
    "GAINRAT": ("gain_ratio", "negative beam over positive beam"),
    "DISCRAD": ("disc_radius", "[rad] radius of a uniform source"),
}


def is_fits(path: Path) -> bool:
    """Whether a file begins like a FITS file; raises `InputError` if it does not exist or cannot be read."""
    return read_bytes(path, 6) == b"SIMPLE"


def open_fits(path: Path) -> list[Any]:
    """Read a FITS file into memory; InputError if it is truncated or damaged.

    Parameters
    ----------
    path : Path

    Returns
    -------
    list of astropy HDU
        Data, columns and the values of all cards have been parsed, so that no later access fails.

    Raises
    ------
    InputError
        If the file is truncated or otherwise not readable as FITS, or a header asks for more than it has.
    """
    data = read_bytes(path)
    problem = f"{path}: truncated or damaged FITS file"
    _check_sizes(data, problem)
    with parsing(problem, "copy it again") as caught, fits.open(io.BytesIO(data)) as hdus:
        loaded = list(hdus)
        for hdu in loaded:
            _load(hdu, len(data))
        # For a file that ends within a header or data astropy may only warn and drop the incomplete part.
        for warning in caught:
            text = str(warning.message)
            if "truncated" in text or "Error validating header" in text:
                raise ValueError(text)
    return loaded


def _check_sizes(data: bytes, problem: str) -> None:
    """Refuse headers with counts that the file cannot hold: astropy would count up to them, or allocate."""
    for found in _COUNT.finditer(data):
        if found.start() % 80 == 0 and not 0 <= int(found["count"]) <= _LARGEST_COUNT.get(
            found[1], len(data)
        ):
            card = found[0].decode("ascii").replace(" ", "")
            raise InputError(f"{problem} ({shorten(card)}, in a file of {len(data)} bytes); copy it again")


def _load(hdu: Any, size: int) -> None:
    """Parse all that astropy leaves for the first access; ValueError for what is no image and no table."""
    if not isinstance(hdu, _KINDS):
        raise ValueError(f"an extension of a kind that is not known, {type(hdu).__name__}")
    for card in hdu.header.cards:
        card.value, card.comment  # noqa: B018
    if isinstance(hdu, fits.CompImageHDU) and hdu.size > _COMPRESSION * size:
        raise ValueError(f"a compressed image of {hdu.size} bytes in a file of {size}")
    table = hdu.data
    for name in hdu.columns.names if hasattr(hdu, "columns") else ():
        if table is None:
            raise ValueError("a table without data")
        table[name]


def make_card(key: str, value: float, comment: str) -> fits.Card:
    """Make a header card with every digit of `value`; astropy itself cuts numbers to 20 characters.

    FITS cannot represent numbers that are not finite; they are written as text.
    """
    value = float(value)
    if not math.isfinite(value):
        return fits.Card(key, repr(value), comment)
    return fits.Card.fromstring(f"{key:<8}= {repr(value).upper():>20} / {comment}")


def read_header_number(header: fits.Header, key: str, where: str) -> float | None:
    """Read the value of a header key as a number; None if the key is absent.

    Raises
    ------
    InputError
        If the value is not a finite number; the message starts with `where`.
    """
    if key not in header:
        return None
    number = _as_number(header[key])
    if number is None:
        raise InputError(f"{where}: {key} is {shorten(repr(header[key]))}; expected a number")
    return number


def read_header_text(header: fits.Header, *keys: str) -> str:
    """Read the text of the first of `keys` that the header has, stripped; empty if it has none."""
    for key in keys:
        value = header.get(key)
        if value is not None and not isinstance(value, fits.card.Undefined):
            return str(value).strip()
    return ""


def read_description(header: fits.Header, path: Path) -> dict[str, Any]:
    """Read source, date and elevation from the primary header, as keywords of `Observation`."""
    elevation = _as_number(header.get("MEANEL"))
    return {
        "object": read_header_text(header, "OBJECT"),
        "date_obs": read_header_text(header, "DATE-OBS", "DATE_OBS"),
        # A fit does not use the elevation, so an unreadable one is ignored.
        "mean_el_deg": elevation if ELEVATION.holds(elevation) else None,
        "source": str(path),
    }


def make_primary_header(observation: Observation, telescope: str | None) -> fits.Header:
    """Make the primary header of an observation: everything that is not in its maps.

    Parameters
    ----------
    observation : Observation
    telescope : str or None
        Name of its telescope in the format.

    Returns
    -------
    astropy header
        TELESC, FREQ, OBJECT, DATE-OBS and MEANEL if known, the receiver keys, and ILLUM.

    Raises
    ------
    ValueError
        If a text is not printable ASCII.
    """
    header = fits.Header()
    if telescope is not None:
        header["TELESC"] = telescope
    header.append(make_card("FREQ", observation.frequency, "[Hz]"))
    if observation.object:
        header["OBJECT"] = observation.object
    if observation.date_obs:
        header["DATE-OBS"] = observation.date_obs
    if observation.mean_el_deg is not None:
        header.append(make_card("MEANEL", observation.mean_el_deg, "[deg]"))
    for key, (attribute, comment) in _RECEIVER_KEYS.items():
        header.append(make_card(key, getattr(observation.receiver, attribute), comment))
    if observation.illumination is not None:
        header["ILLUM"] = observation.illumination
    return header


def read_receiver(header: fits.Header, path: Path) -> tuple[Receiver, str | None] | None:
    """Read receiver and its illumination (or None) from the keys of this package; None if there are none."""
    given = {
        attribute: number
        for key, (attribute, _) in _RECEIVER_KEYS.items()
        if (number := read_header_number(header, key, str(path))) is not None
    }
    return (Receiver(**given), read_header_text(header, "ILLUM") or None) if given else None


def read_wavelength(headers: Iterable[fits.Header], path: Path) -> float | None:
    """Read the wavelength (m) from the first header with FREQ or RESTFRQ (Hz) or WAVEL (m); None if none has.

    Raises
    ------
    InputError
        If the value is not positive, or FREQ and WAVEL of one header disagree.
    """
    for header in headers:
        for key in ("FREQ", "RESTFRQ", "WAVEL"):
            value = read_header_number(header, key, str(path))
            if value is None:
                continue
            if value <= 0:
                raise InputError(f"{path}: {key} is {value:g}; it must be positive")
            if key == "WAVEL":
                return value
            wavel = read_header_number(header, "WAVEL", str(path))
            # The tolerance allows for a WAVEL computed with 3e8 m/s for the speed of light.
            if key == "FREQ" and wavel is not None and abs(wavel * value / SPEED_OF_LIGHT - 1) > 1e-3:
                raise InputError(f"{path}: FREQ {value:g} Hz and WAVEL {wavel:g} m disagree; correct one")
            return SPEED_OF_LIGHT / value
    return None


def make_scan_cards(scans: str, smear: float) -> list[fits.Card]:
    """Make the header cards of a map for its scan lines and its smearing; none for what is usual."""
    cards = [] if scans == "auto" else [fits.Card("SCANLINE", scans, "how the scan lines are found")]
    return [*cards, make_card("SMEAR", smear, "[rad] motion during a sample")] if smear else cards


def read_scans(header: fits.Header, where: str) -> dict[str, Any]:
    """Read the cards of `make_scan_cards`, as keywords of `BeamMap`.

    Raises
    ------
    InputError
        If SCANLINE is another word or SMEAR not a length; the message starts with `where`.
    """
    scans = read_header_text(header, "SCANLINE") or "auto"
    if scans not in SCANS:
        raise InputError(f"{where}: SCANLINE is {shorten(repr(scans))}; expected one of {', '.join(SCANS)}")
    smear = read_header_number(header, "SMEAR", where) or 0.0
    if not 0 <= smear < 1:
        raise InputError(f"{where}: SMEAR is {smear:g}; expected a length on the sky in radians")
    return {"scans": scans, "smear": smear}


def read_focus_offsets(hdus: Sequence[tuple[int, Any]], path: Path) -> tuple[list[float], list[str]]:
    """Read the focus offset DZ of every map, metres.

    Parameters
    ----------
    hdus : sequence of (number in the file, HDU)
    path : Path

    Returns
    -------
    offsets : list of float
    notes : list of str
        A note if the file has millimetres, as some of the original software: recognised by a DZ of 1 or more,
        in which case all DZ of the file are scaled.

    Raises
    ------
    InputError
        If an HDU has no DZ.
    """
    offsets = []
    for number, hdu in hdus:
        dz = read_header_number(hdu.header, "DZ", f"{path}: HDU {number}")
        if dz is None:
            raise InputError(f"{path}: HDU {number} has no DZ; add the focus offset of its map, in metres")
        offsets.append(dz)
    if max((abs(dz) for dz in offsets), default=0.0) < 1:
        return offsets, []
    return [1e-3 * dz for dz in offsets], ["DZ of 1 or more taken as millimetres"]


def list_columns(hdu: Any) -> list[str]:
    """List the upper-case names of the columns of a table; empty for an image."""
    return [name.upper() for name in hdu.columns.names] if hasattr(hdu, "columns") else []


def find_tables(columns: Sequence[str], hdus: Sequence[Any]) -> list[tuple[int, Any]]:
    """Tables with at least one of the columns, as (number in the file, HDU)."""
    return [(number, hdu) for number, hdu in enumerate(hdus) if set(columns) & set(list_columns(hdu))]


def require_columns(tables: Sequence[tuple[int, Any]], needed: Sequence[str], path: Path) -> None:
    """Raise `InputError` naming the first table that lacks one of the columns `needed`."""
    for number, hdu in tables:
        names = list_columns(hdu)
        missing = [name for name in needed if name not in names]
        if missing:
            raise InputError(
                f"{path}: HDU {number} has columns {shorten(', '.join(names))}; {', '.join(missing)} "
                f"missing: every map needs {', '.join(needed)}"
            )


def read_column(hdu: Any, name: str, where: str) -> NDArray:
    """Read a column of a table, flattened, with samples equal to its TNULL masked.

    Raises
    ------
    InputError
        If the column is not of real numbers; the message starts with `where`.
    """
    values = np.ravel(hdu.data[name])
    if values.dtype.kind not in "biuf":
        raise InputError(f"{where}: {name} is of type {values.dtype}; expected real numbers")
    null = hdu.columns[name].null
    return values if null is None else np.ma.masked_equal(values, null)


def read_angles(hdu: Any, name: str, where: str) -> NDArray:
    """Read a column of angles in radians; a column without unit is taken as radians."""
    unit = hdu.columns[name].unit
    return read_column(hdu, name, where) * (radians_per(unit, f"{where}: unit of {name}") if unit else 1.0)


def radians_per(unit: str, what: str) -> float:
    """Radians in one `unit`; InputError for an unknown unit, the message starting with `what`."""
    try:
        return _ANGLES[str(unit).strip().lower()]
    except KeyError:
        raise InputError(f"{what} is {shorten(repr(unit))}; expected one of {', '.join(_ANGLES)}") from None


# ------------------------------------------------------------------------------- tables and images, exactly


def make_table(name: str, columns: Sequence[fits.Column]) -> Any:
    """Make a binary table HDU with a name."""
    return fits.BinTableHDU.from_columns(columns, name=name)


def make_text_column(name: str, texts: Sequence[str]) -> fits.Column:
    """Make a column of texts, as wide as the longest."""
    width = max((len(text) for text in texts), default=0)
    return fits.Column(name, f"{max(width, 1)}A", array=np.array(texts, dtype=str))


def make_aperture_image(name: str, values: NDArray, axis: NDArray, unit: str, meaning: str) -> Any:
    """Make an image HDU across the dish with a linear WCS in metres, which gives positions to rounding.

    Parameters
    ----------
    name : str
    values : ndarray, (n, n)
        Indexed [y, x].
    axis : ndarray, (n,)
        Evenly spaced positions in metres, the same for x and y.
    unit, meaning : str
        Unit of the values, and comment.
    """
    hdu = fits.ImageHDU(values, name=name)
    hdu.header["BUNIT"] = (unit, meaning)
    pitch = (axis[-1] - axis[0]) / (len(axis) - 1)
    for i, letter in enumerate("XY", 1):
        hdu.header[f"CTYPE{i}"] = letter
        hdu.header[f"CUNIT{i}"] = "m"
        # FITS counts pixels from 1.
        hdu.header.append(make_card(f"CRPIX{i}", 1 - axis[0] / pitch, "centre of the dish"))
        hdu.header[f"CRVAL{i}"] = 0.0
        hdu.header.append(make_card(f"CDELT{i}", pitch, ""))
    return hdu


def make_aperture_axis(name: str, axis: NDArray) -> Any:
    """Make a table of the pixel centres of an aperture image, exactly: X in metres."""
    return make_table(name, [fits.Column("X", "D", unit="m", array=axis)])


def check_aperture(axis: NDArray[np.float64], radius: float, *images: NDArray[np.float64]) -> None:
    """Raise ValueError unless images [y, x] across a dish belong to these pixel centres (m)."""
    n = axis.size
    if n < 2 or axis.shape != (n,) or not (np.diff(axis) > 0).all() or not (np.abs(axis) < 2 * radius).all():
        raise ValueError(f"pixel centres that are not those of a dish of {radius:g} m")
    for image in images:
        known = np.isfinite(image)
        if image.shape != (n, n) or np.isinf(image).any() or np.count_nonzero(known) < 3:
            raise ValueError(f"an image of {image.shape} for {n} pixels a side, or without values")
        if np.abs(image[known]).max() > _LARGEST_ON_DISH:
            raise ValueError(f"values to {np.abs(image[known]).max():g} on the dish")


def copy_native(array: Any) -> NDArray[np.float64]:
    """Copy an array of a FITS file to native double precision."""
    return np.array(array, dtype=np.float64)


def escape(text: str) -> str:
    """Escape a text to printable ASCII that does not end in a blank or an ampersand, which FITS drops."""
    text = text.encode("unicode_escape").decode("ascii")
    return f"{text[:-1]}\\x{ord(text[-1]):02x}" if text.endswith((" ", "&")) else text


def unescape(text: str) -> str:
    """Undo `escape`."""
    return text.encode("ascii").decode("unicode_escape")


def _as_number(value: Any) -> float | None:
    """Convert a header value to a finite number, or None."""
    try:
        number = np.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if np.isfinite(number) else None
