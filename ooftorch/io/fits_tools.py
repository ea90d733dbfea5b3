"""What the FITS readers and writers share: opening a file whole, exact numbers and texts, header keys."""

import math
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from numpy.typing import NDArray

from ooftorch.errors import InputError
from ooftorch.observation import Observation
from ooftorch.optics.receiver import Receiver
from ooftorch.units import ARCSEC, SPEED_OF_LIGHT

__all__ = [
    "NO_TELESCOPE",
    "UNKNOWN_ELEVATION",
    "angles",
    "aperture_axis",
    "aperture_image",
    "column",
    "column_names",
    "description",
    "escaped",
    "exact_card",
    "focus_offsets",
    "header_number",
    "header_text",
    "is_fits",
    "native",
    "open_fits",
    "plain",
    "primary_header",
    "radians_per",
    "require_columns",
    "stated_receiver",
    "table",
    "text_column",
    "wavelength",
]

_ANGLES = {
    "rad": 1.0,
    "radian": 1.0,
    "radians": 1.0,
    "deg": np.deg2rad(1),
    "arcmin": np.deg2rad(1 / 60),
    "arcsec": ARCSEC,
}

NO_TELESCOPE = "telescope not named in the file"

UNKNOWN_ELEVATION = -999.0
"""MEANEL, degrees, for programs that insist on a number."""

# Our own keys say exactly what the receiver did, also where other programs' rules have no words for it.
_RECEIVER_KEYS = {
    "CHOPX": ("chop_x", "[rad] beam separation along DX"),
    "CHOPY": ("chop_y", "[rad] beam separation along DY"),
    "GAINRAT": ("gain_ratio", "negative beam over positive beam"),
    "DISCRAD": ("disc_radius", "[rad] radius of a uniform source"),
}


def is_fits(path: Path) -> bool:
    """Whether a file begins as FITS does; raises `InputError` if there is no such file to read."""
    if path.is_dir():
        raise InputError(f"{path} is a directory; name a file")
    try:
        with path.open("rb") as stream:
            return stream.read(6) == b"SIMPLE"
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def open_fits(path: Path) -> list[Any]:
    """Read a FITS file whole, and refuse one that ends too early.

    Parameters
    ----------
    path : Path

    Returns
    -------
    list of astropy HDU, data in memory.

    Raises
    ------
    InputError
        If the file is truncated or otherwise not readable as FITS.
    """
    problem = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", AstropyWarning)
        try:
            with fits.open(path, memmap=False) as hdus:
                loaded = list(hdus)
                for hdu in loaded:
                    hdu.data  # noqa: B018  (read on first access, and the file is closed below)
        except (OSError, ValueError, TypeError, EOFError, fits.VerifyError) as error:
            problem = str(error) or type(error).__name__
    # Of a file that ends inside a header or its data astropy may only warn, and drop what is missing.
    for warning in caught:
        text = str(warning.message)
        if "truncated" in text or "Error validating header" in text:
            problem = text
    if problem is not None:
        raise InputError(f"{path}: truncated or damaged FITS file ({problem.splitlines()[0]}); copy it again")
    return loaded


def exact_card(key: str, value: float, comment: str) -> fits.Card:
    """Header card with every digit of `value`: astropy by itself cuts what exceeds 20 characters.

    FITS has no number for what is not finite; it becomes a text.
    """
    value = float(value)
    if not math.isfinite(value):
        return fits.Card(key, repr(value), comment)
    return fits.Card.fromstring(f"{key:<8}= {repr(value).upper():>20} / {comment}")


def header_number(header: fits.Header, key: str, where: str) -> float | None:
    """Value of a header key as a number; None where the key is absent.

    Raises
    ------
    InputError
        If the key is there but holds no finite number; `where` opens the message.
    """
    if key not in header:
        return None
    number = _as_number(header[key])
    if number is None:
        raise InputError(f"{where}: {key} is {header[key]!r}; expected a number")
    return number


def header_text(header: fits.Header, *keys: str) -> str:
    """Text of the first of `keys` that the header has, stripped; empty where it has none."""
    for key in keys:
        value = header.get(key)
        if value is not None and not isinstance(value, fits.card.Undefined):
            return str(value).strip()
    return ""


def description(header: fits.Header, path: Path) -> dict[str, Any]:
    """Source, date and elevation of the primary header, as keywords of `Observation`."""
    elevation = _as_number(header.get("MEANEL"))
    return {
        "object": header_text(header, "OBJECT"),
        "date_obs": header_text(header, "DATE-OBS", "DATE_OBS"),
        # No fit needs the elevation, so an unreadable one is no reason to refuse the file.
        "mean_el_deg": None if elevation == UNKNOWN_ELEVATION else elevation,
        "source": str(path),
    }


def primary_header(observation: Observation, telescope: str | None) -> fits.Header:
    """Header that says of an observation all that is not in its maps.

    Parameters
    ----------
    observation : Observation
    telescope : str or None
        Its telescope, by the name that the format has for it.

    Returns
    -------
    astropy header
        TELESC, FREQ, OBJECT, DATE-OBS and MEANEL as far as they are known, the receiver's keys, and ILLUM.

    Raises
    ------
    ValueError
        If a text is not printable ASCII.
    """
    header = fits.Header()
    if telescope is not None:
        header["TELESC"] = telescope
    header.append(exact_card("FREQ", observation.frequency, "[Hz]"))
    if observation.object:
        header["OBJECT"] = observation.object
    if observation.date_obs:
        header["DATE-OBS"] = observation.date_obs
    if observation.mean_el_deg is not None:
        header.append(exact_card("MEANEL", observation.mean_el_deg, "[deg]"))
    for key, (attribute, comment) in _RECEIVER_KEYS.items():
        header.append(exact_card(key, getattr(observation.receiver, attribute), comment))
    if observation.illumination is not None:
        header["ILLUM"] = observation.illumination
    return header


def stated_receiver(header: fits.Header, path: Path) -> tuple[Receiver, str | None] | None:
    """Receiver, and illumination it asks for, by our own keys; None where the header has none of them."""
    given = {
        attribute: number
        for key, (attribute, _) in _RECEIVER_KEYS.items()
        if (number := header_number(header, key, str(path))) is not None
    }
    return (Receiver(**given), header_text(header, "ILLUM") or None) if given else None


def wavelength(headers: Iterable[fits.Header], path: Path) -> float | None:
    """Wavelength in metres from the first header that gives FREQ or RESTFRQ (Hz) or WAVEL (m).

    Raises
    ------
    InputError
        If the value is not positive, or FREQ and WAVEL of one header disagree.
    """
    for header in headers:
        for key in ("FREQ", "RESTFRQ", "WAVEL"):
            value = header_number(header, key, str(path))
            if value is None:
                continue
            if value <= 0:
                raise InputError(f"{path}: {key} is {value:g}; it must be positive")
            if key == "WAVEL":
                return value
            wavel = header_number(header, "WAVEL", str(path))
            # Wide enough for a WAVEL computed with 3e8 for the speed of light, as some programs do.
            if key == "FREQ" and wavel is not None and abs(wavel * value / SPEED_OF_LIGHT - 1) > 1e-3:
                raise InputError(f"{path}: FREQ {value:g} Hz and WAVEL {wavel:g} m disagree; correct one")
            return SPEED_OF_LIGHT / value
    return None


def focus_offsets(hdus: Sequence[tuple[int, Any]], path: Path) -> tuple[list[float], list[str]]:
    """Focus offset DZ of every map, metres.

    Parameters
    ----------
    hdus : sequence of (number in the file, HDU)
    path : Path

    Returns
    -------
    offsets : list of float
    notes : list of str
        Says so where the file had millimetres: some files of the original software do, known by a DZ of
        one or more, and then all DZ of the file are scaled.

    Raises
    ------
    InputError
        If an HDU has no DZ.
    """
    offsets = []
    for number, hdu in hdus:
        dz = header_number(hdu.header, "DZ", f"{path}: HDU {number}")
        if dz is None:
            raise InputError(f"{path}: HDU {number} has no DZ; add the focus offset of its map, in metres")
        offsets.append(dz)
    if max((abs(dz) for dz in offsets), default=0.0) < 1:
        return offsets, []
    return [1e-3 * dz for dz in offsets], ["DZ of 1 or more taken as millimetres"]


def column_names(hdu: Any) -> list[str]:
    """Upper-case names of the columns of a table; empty for an image."""
    return [name.upper() for name in hdu.columns.names] if hasattr(hdu, "columns") else []


def require_columns(tables: Sequence[tuple[int, Any]], needed: Sequence[str], path: Path) -> None:
    """Raise `InputError` naming the first table that lacks one of the columns `needed`."""
    for number, hdu in tables:
        names = column_names(hdu)
        missing = [name for name in needed if name not in names]
        if missing:
            raise InputError(
                f"{path}: HDU {number} has columns {', '.join(names)}; {', '.join(missing)} missing: "
                f"every map needs {', '.join(needed)}"
            )


def column(hdu: Any, name: str) -> NDArray:
    """One column of a table, flattened, with samples equal to its TNULL masked."""
    values = np.ravel(hdu.data[name])
    null = hdu.columns[name].null
    return values if null is None else np.ma.masked_equal(values, null)


def angles(hdu: Any, name: str, where: str) -> NDArray:
    """One column of angles in radians; radians where it has no unit."""
    unit = hdu.columns[name].unit
    return column(hdu, name) * (radians_per(unit, f"{where}: unit of {name}") if unit else 1.0)


def radians_per(unit: str, what: str) -> float:
    """Radians in one `unit`; `what` opens the message that refuses an unknown one."""
    try:
        return _ANGLES[unit.strip().lower()]
    except KeyError:
        raise InputError(f"{what} is {unit!r}; expected one of {', '.join(_ANGLES)}") from None


# ------------------------------------------------------------------------------- tables and images, exactly


def table(name: str, columns: Sequence[fits.Column]) -> Any:
    """Binary table with a name."""
    return fits.BinTableHDU.from_columns(columns, name=name)


def text_column(name: str, texts: Sequence[str]) -> fits.Column:
    """Column of texts, as wide as the longest."""
    width = max((len(text) for text in texts), default=0)
    return fits.Column(name, f"{max(width, 1)}A", array=np.array(texts, dtype=str))


def aperture_image(name: str, values: NDArray, axis: NDArray, unit: str, meaning: str) -> Any:
    """Image across the dish with a linear WCS in metres, which gives the places to rounding.

    Parameters
    ----------
    name : str
    values : ndarray, (n, n)
        Indexed [y, x].
    axis : ndarray, (n,)
        Evenly spaced places in metres, the same for x and y.
    unit, meaning : str
        Of the values.
    """
    hdu = fits.ImageHDU(values, name=name)
    hdu.header["BUNIT"] = (unit, meaning)
    pitch = (axis[-1] - axis[0]) / (len(axis) - 1)
    for i, letter in enumerate("XY", 1):
        hdu.header[f"CTYPE{i}"] = letter
        hdu.header[f"CUNIT{i}"] = "m"
        # FITS counts pixels from 1.
        hdu.header.append(exact_card(f"CRPIX{i}", 1 - axis[0] / pitch, "centre of the dish"))
        hdu.header[f"CRVAL{i}"] = 0.0
        hdu.header.append(exact_card(f"CDELT{i}", pitch, ""))
    return hdu


def aperture_axis(name: str, axis: NDArray) -> Any:
    """Table of the places of an `aperture_image`, exactly: X in metres."""
    return table(name, [fits.Column("X", "D", unit="m", array=axis)])


def native(array: Any) -> NDArray[np.float64]:
    """Copy of what FITS stores, in native double precision."""
    return np.array(array, dtype=np.float64)


def escaped(text: str) -> str:
    """The same in printable ASCII, and not ending in a blank or an ampersand, which FITS would drop."""
    text = text.encode("unicode_escape").decode("ascii")
    return f"{text[:-1]}\\x{ord(text[-1]):02x}" if text.endswith((" ", "&")) else text


def plain(text: str) -> str:
    """Undo `escaped`."""
    return text.encode("ascii").decode("unicode_escape")


def _as_number(value: Any) -> float | None:
    """Finite number that a header value stands for, or None."""
    try:
        number = np.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None
