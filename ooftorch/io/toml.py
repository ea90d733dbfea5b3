"""Reader of observation `.toml` files, which list the file of each map."""

import datetime
import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooftorch.errors import InputError, shorten
from ooftorch.inputs import ELEVATION, parse_toml
from ooftorch.io.fits_tools import (
    NO_TELESCOPE,
    is_fits,
    open_fits,
    read_header_text,
    read_scans,
    read_wavelength,
)
from ooftorch.io.grasp import is_grasp, parse_grasp
from ooftorch.io.image import find_image_hdus, find_sky_sign, read_image
from ooftorch.io.text import parse_text, read_text
from ooftorch.observation import BeamMap, Observation
from ooftorch.optics.receiver import Receiver
from ooftorch.scans import SCANS
from ooftorch.units import ARCSEC, SPEED_OF_LIGHT

__all__ = ["read_toml"]

_NUMBER = (int, float)
# Of one map, or in [observation] of all maps that do not have their own.
_SMEAR_KEYS: dict[str, tuple[type, ...]] = {
    "smear_arcsec": _NUMBER,
    "integration_s": _NUMBER,
    "speed_arcsec_s": _NUMBER,
}
_SCAN_KEYS: dict[str, tuple[type, ...]] = {"scans": (str,), **_SMEAR_KEYS}
_OBSERVATION_KEYS: dict[str, tuple[type, ...]] = {
    "telescope": (str,),
    "frequency_hz": _NUMBER,
    "object": (str,),
    "date_obs": (str, datetime.date),
    "mean_el_deg": _NUMBER,
    "sky": (str,),
    **_SCAN_KEYS,
}
_MAP_KEYS: dict[str, tuple[type, ...]] = {
    "file": (str,),
    "dz_m": _NUMBER,
    "missing": _NUMBER,
    "sigma": _NUMBER,
    "hdu": (int,),
    **_SCAN_KEYS,
}
_WORDS = {str: "a text in quotes", int: "a number", dict: "a table", list: "tables [[map]]"}
_WANTED = "[observation] with telescope, frequency_hz and sky, and one [[map]] per focus with file and dz_m"


def read_toml(path: Path) -> Observation:
    """Read an observation from a `.toml` file that lists the file of each map.

    `[observation]` has telescope (a name, or a telescope's `.toml` relative to this one), frequency_hz,
    object, date_obs, mean_el_deg and sky. `sky` defines the coordinates of the maps: "telescope" for
    telescope pointing minus source (DX, DY), "source" for the direction of the source seen from boresight,
    which is negated here. It is required for text maps; by default a GRASP grid is "source", and an image has
    its SKY key. Each `[[map]]` has file (relative to the `.toml`) and dz_m (metres), and may have missing (a
    power that marks samples never observed), sigma (the error of every sample) and hdu (of a FITS image). A
    map is a text file, a GRASP grid or a FITS image, recognised by content.

    Either table may have scans ("auto", "rows", "columns" or "none": how the scan lines are found) and the
    length on the sky that each sample is averaged over, smear_arcsec, or integration_s and speed_arcsec_s.
    Those of a map come first.

    Parameters
    ----------
    path : Path

    Returns
    -------
    Observation

    Raises
    ------
    InputError
        If the file is not such a `.toml`; a key is unknown, missing or of the wrong type; the smearing is
        given in two ways, or half; the frequency is
        not given, or differs from that in the file of a map; or a map cannot be read.
    """
    document = _parse(path)
    _check_keys(document, {"observation": (dict,), "map": (list,)}, f"{path}")
    table = document["observation"]
    _check_keys(table, _OBSERVATION_KEYS, f"{path}: [observation]")

    maps = []
    frequency = table.get("frequency_hz")
    scans = _choose_scans(table, f"{path}: [observation]")
    for number, entry in enumerate(document.get("map", []), 1):
        where = f"{path}: [[map]] {number}"
        _check_keys(entry, _MAP_KEYS, where)
        for key in ("file", "dz_m"):
            if key not in entry:
                raise InputError(f"{where}: no {key}; it must be given for every map")
        samples = _read_samples(path.parent / entry["file"], entry.get("hdu"), where)
        frequency = _merge_frequency(frequency, samples.frequency, where)
        sky = table.get("sky", samples.sky)
        if sky is None:
            raise InputError(
                f'{path}: [observation] has no sky; "telescope" if the maps have where it pointed minus '
                'the source, "source" if they have the source seen from boresight'
            )
        sign = find_sky_sign(sky, f"{path}: [observation]")
        power = samples.power
        if "missing" in entry:
            power = np.where(power == float(entry["missing"]), np.nan, power)
        sigma = np.full(power.size, float(entry["sigma"])) if "sigma" in entry else None
        maps.append(
            BeamMap(
                entry["dz_m"],
                sign * samples.x,
                sign * samples.y,
                power,
                sigma=sigma,
                **(samples.scans | scans | _choose_scans(entry, where)),
            )
        )

    if frequency is None:
        raise InputError(f"{path}: [observation] has no frequency_hz; add the observing frequency in Hz")
    if not frequency > 0:
        raise InputError(f"{path}: [observation] frequency_hz is {frequency:g}; it must be positive")
    telescope = table.get("telescope")
    if telescope is not None and telescope.endswith(".toml"):
        telescope = str(path.parent / telescope)
    elevation = table.get("mean_el_deg")
    if elevation is not None:
        elevation = ELEVATION.check(elevation, f"{path}: [observation] mean_el_deg")
    return Observation(
        tuple(maps),
        SPEED_OF_LIGHT / frequency,
        telescope,
        Receiver(),
        object=table.get("object", ""),
        date_obs=str(table.get("date_obs", "")),
        mean_el_deg=elevation,
        source=str(path),
        format="toml",
        notes=() if telescope else (NO_TELESCOPE,),
    )


@dataclass(frozen=True)
class _Samples:
    """Content of the file of one map.

    `frequency` (Hz) and `sky` are None if the file does not give them; `scans` are keywords of `BeamMap`.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    power: NDArray[np.float64]
    frequency: float | None = None
    sky: str | None = None
    scans: dict[str, Any] = field(default_factory=dict)


def _parse(path: Path) -> dict[str, Any]:
    text = read_text(path)
    try:
        document = parse_toml(text, f"{path}: not valid TOML")
    except InputError:
        if re.search(r"^\s*\[+(observation|map)\b", text, re.MULTILINE):
            raise
        kind = "a GRASP grid" if is_grasp(text) else "a text file"
        raise InputError(
            f"{path}: {kind}, which cannot be read alone; write an observation .toml that names it: {_WANTED}"
        ) from None
    if not isinstance(document.get("observation"), dict):
        raise InputError(f"{path}: a TOML file without [observation]; expected {_WANTED}")
    return document


def _check_keys(table: Any, known: Mapping[str, tuple[type, ...]], where: str) -> None:
    """Raise InputError for a key that is not `known`, or whose value has another type."""
    if not isinstance(table, dict):
        raise InputError(f"{where}: {shorten(repr(table))}; expected a table of {', '.join(known)}")
    for key, value in table.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise InputError(f"{where}: unknown key {shorten(key)}; {hint}")
        # A bool is an int in Python, but not a number here.
        if not isinstance(value, known[key]) or isinstance(value, bool):
            raise InputError(f"{where}: {key} is {shorten(repr(value))}; expected {_WORDS[known[key][0]]}")
        if isinstance(value, int) and abs(value) > 1e300:  # where it would not be a float
            raise InputError(f"{where}: {key} is {shorten(value, 20)}; expected a number of fewer digits")
        if isinstance(value, str) and not value.isprintable():
            raise InputError(f"{where}: {key} is {shorten(repr(value))}; expected a text of one line")


def _choose_scans(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Read what a table says of scan lines and smearing, as keywords of `BeamMap`."""
    chosen = {}
    if "scans" in table:
        chosen["scans"] = table["scans"]
        if table["scans"] not in SCANS:
            raise InputError(f"{where}: scans is {table['scans']!r}; expected one of {', '.join(SCANS)}")
    given = [key for key in _SMEAR_KEYS if key in table]
    if given not in ([], ["smear_arcsec"], ["integration_s", "speed_arcsec_s"]):
        raise InputError(
            f"{where}: {' and '.join(given)} given; the smearing is smear_arcsec, or integration_s and "
            "speed_arcsec_s: give one or the other"
        )
    if given:
        chosen["smear"] = smear = ARCSEC * math.prod(float(table[key]) for key in given)
        if not 0 <= smear < 1:
            raise InputError(
                f"{where}: {' and '.join(given)}: a smearing of {smear / ARCSEC:g} arcsec; expected a length "
                "on the sky from 0 up"
            )
    return chosen


def _read_samples(path: Path, hdu: int | None, where: str) -> _Samples:
    if is_fits(path):
        return _read_image(path, hdu, where)
    if hdu is not None:
        raise InputError(f"{where}: hdu is for FITS images and {path} is not FITS; leave it out")
    text = read_text(path)
    if is_grasp(text):
        grid = parse_grasp(text, path)
        return _Samples(grid.u, grid.v, grid.power, grid.frequency, "source")
    return _Samples(*parse_text(text, path))


def _read_image(path: Path, hdu: int | None, where: str) -> _Samples:
    hdus = open_fits(path)
    images = dict(find_image_hdus(hdus))
    if not images:
        raise InputError(f"{where}: {path} has no image; a FITS file of tables is read by itself")
    if hdu is None:
        hdu = next(iter(images))
    if hdu not in images:
        raise InputError(f"{where}: hdu is {hdu}; {path} has its images in HDU {', '.join(map(str, images))}")
    headers = [images[hdu].header, hdus[0].header]
    found = read_wavelength(headers, path)
    sky = read_header_text(headers[0], "SKY") or read_header_text(headers[1], "SKY") or "telescope"
    return _Samples(
        *read_image(images[hdu], f"{path}: HDU {hdu}"),
        frequency=None if found is None else SPEED_OF_LIGHT / found,
        sky=sky,
        scans=read_scans(headers[0], where),
    )


def _merge_frequency(known: float | None, found: float | None, where: str) -> float | None:
    """Return the known frequency, or else the one found in a file (Hz); InputError if the two disagree."""
    if known is None or found is None:
        return found if known is None else known
    if abs(found - known) > 1e-3 * known:
        raise InputError(
            f"{where}: its file is for {found:g} Hz, the observation for {known:g} Hz; correct frequency_hz"
        )
    return known
