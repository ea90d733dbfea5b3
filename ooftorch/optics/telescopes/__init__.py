"""The telescopes of the package, one TOML file each, and the reader of such files.

A user's own telescope is a file of the same form.
"""

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ooftorch.errors import InputError, shorten
from ooftorch.inputs import ANGLE, FREQUENCY, LENGTH, RADIUS, Range, parse_toml, read_bytes
from ooftorch.optics import illumination
from ooftorch.optics.blockage import Blockage, Hole, Legs, find_shadow_corner
from ooftorch.optics.defocus import DualReflector, OffsetGregorian, Optics, PrimeFocus, Shaped
from ooftorch.optics.telescope import FocusErrors, Telescope, UsualIllumination

__all__ = ["load", "names"]


class _Kind(NamedTuple):
    """A kind of value: its description for messages, and the test for it."""

    words: str
    accepts: Callable[[Any], bool]


class _Key(NamedTuple):
    kind: _Kind
    required: bool = False


def _accept_range(known: Range) -> _Kind:
    return _Kind(str(known), known.holds)


def _accept_words(words: Iterable[str]) -> _Kind:
    words = tuple(words)
    return _Kind("one of " + ", ".join(words), lambda v: v in words)


_TEXT = _Kind("a text", lambda v: isinstance(v, str))
# Positive lengths say so: zero and negative ones are the usual mistake.
_POSITIVE = _Kind(f"a positive number, {LENGTH}", LENGTH.holds)
_RADIUS = _Kind(f"a positive number, {RADIUS}", RADIUS.holds)
_FREQUENCY = _Kind(f"a positive number, {FREQUENCY}", FREQUENCY.holds)
_ANGLE = _accept_range(ANGLE)
_PLACE = _accept_range(Range(-LENGTH.largest, LENGTH.largest, "m"))
_NOT_NEGATIVE = _Kind("a number from 0 up to 100000 m", Range(0.0, LENGTH.largest).holds)
_DECIBELS = _Kind("a negative number (dB), from -200 to -0.001", Range(-200.0, -1e-3).holds)
_OPENING = _Kind("an angle between 0 and 90 degrees, from 0.01 to 89.99", Range(0.01, 89.99).holds)
_MICROMETRES = _Kind("a positive number, from 0.001 to 1e+06 (um)", Range(1e-3, 1e6).holds)
_SCALE = _Kind("a positive number, from 1e-06 to 1", Range(1e-6, 1.0).holds)
_SHIFT = _Kind("a positive number, from 1e-09 to 1 (m)", Range(1e-9, 1.0).holds)
# Coefficients of a path, per metre of motion.
_SLOPE = Range(-1e3, 1e3)
# Longest list: more legs and holes than a dish has would take long to lay on its pixels.
_MAX_ITEMS = 100
# Longest description, characters.
_LONGEST_TEXT = 1000
# Points across the dish of which one must be open.
_POINTS = 101
_TABLE = _Kind("a table", lambda v: isinstance(v, dict))
_TABLES = _Kind(
    f"a list of at most {_MAX_ITEMS} tables",
    lambda v: isinstance(v, list) and len(v) <= _MAX_ITEMS and all(map(_TABLE.accepts, v)),
)
_WIDTHS = _Kind(
    f"a positive number or a list of them, each {LENGTH}",
    lambda v: (
        _POSITIVE.accepts(v)
        or (isinstance(v, list) and 0 < len(v) <= _MAX_ITEMS and all(map(_POSITIVE.accepts, v)))
    ),
)
_RISING = _Kind(
    "a list of radii that never falls",
    lambda v: isinstance(v, list) and all(map(_NOT_NEGATIVE.accepts, v)) and v == sorted(v),
)
_CORRECTION = _Kind(
    f"8 rows of 3 numbers, each {_SLOPE}",
    lambda v: (
        isinstance(v, list)
        and len(v) == 8
        and all(isinstance(row, list) and len(row) == 3 and all(map(_SLOPE.holds, row)) for row in v)
    ),
)
_ZERNIKES = _Kind(
    f"a table of numbers named z0, z1, ..., each {_SLOPE}",
    lambda v: (
        isinstance(v, dict)
        and v != {}
        and all(re.fullmatch(r"z(0|[1-9]\d{0,2})", k) and _SLOPE.holds(c) for k, c in v.items())
    ),
)

_TWO_MIRRORS = {
    "focal_length_m": _Key(_POSITIVE, required=True),
    "effective_focal_length_m": _Key(_POSITIVE, required=True),
}
_OPTICS = {
    "prime-focus": {"focal_length_m": _Key(_POSITIVE, required=True)},
    "cassegrain": {**_TWO_MIRRORS, "path_correction": _Key(_CORRECTION)},
    "gregorian": {**_TWO_MIRRORS, "path_correction": _Key(_CORRECTION)},
    "offset-gregorian": {
        **_TWO_MIRRORS,
        "vertex_offset_m": _Key(_POSITIVE, required=True),
        "subreflector_angle_deg": _Key(_ANGLE, required=True),
        "feed_angle_deg": _Key(_ANGLE, required=True),
    },
    "shaped": {"path": _Key(_ZERNIKES, required=True), "focal_length_m": _Key(_POSITIVE)},
}
_COLD_STOP = {"radius_m": _Key(_POSITIVE)}  # for receivers that have one, whatever the usual model
_TAPER = {"taper_db": _Key(_DECIBELS, required=True), **_COLD_STOP}
_ILLUMINATION = {name: _TAPER if name in illumination.TAPERED else _COLD_STOP for name in illumination.NAMES}
_TELESCOPE = {
    "description": _Key(_TEXT),
    "source": _Key(_TEXT),
    "frequency_hz": _Key(_FREQUENCY),
    "radius_m": _Key(_RADIUS, required=True),
    "good_surface_rms_um": _Key(_MICROMETRES),
    "optics": _Key(_TABLE, required=True),
    "blockage": _Key(_TABLE),
    "illumination": _Key(_TABLE),
    "focus": _Key(_TABLE),
}
_FOCUS = {"scale_error": _Key(_SCALE), "shift_error_m": _Key(_SHIFT)}
_BLOCKAGE = {"inner_radius_m": _Key(_NOT_NEGATIVE), "legs": _Key(_TABLE), "holes": _Key(_TABLES)}
_LEGS = {
    "shape": _Key(_accept_words(("plus", "x")), required=True),
    "half_width_m": _Key(_WIDTHS, required=True),
    "radius_m": _Key(_RISING),
    "outer_radius_m": _Key(_POSITIVE),
    "shadow_deg": _Key(_OPENING),
}
_HOLE = {
    "x_m": _Key(_PLACE, required=True),
    "y_m": _Key(_PLACE, required=True),
    "radius_m": _Key(_POSITIVE, required=True),
}

_ALIASES = {"90gbt": "gbt90", "almanosec": "alma-nosec"}  # as the original software writes them


def names() -> list[str]:
    """Return the names of the telescopes that come with the package, sorted."""
    return sorted(f.name.removesuffix(".toml") for f in _find_folder().iterdir() if f.name.endswith(".toml"))


def load(name_or_path: str | Path) -> Telescope:
    """Load a telescope.

    Parameters
    ----------
    name_or_path : str or Path
        The name of a telescope of the package, in any case (also "90GBT" and "ALMANoSec", the names of the
        original software), or the path of a TOML file, ending in ".toml".

    Returns
    -------
    Telescope

    Raises
    ------
    InputError
        If the name is unknown, or the file cannot be read or does not describe a telescope.
    """
    text = str(name_or_path)
    if text.endswith(".toml"):
        return _read_file(Path(text), text)
    known = names()
    name = _ALIASES.get(text.lower(), text.lower())
    if name not in known:
        near = difflib.get_close_matches(name, [*known, *_ALIASES])
        hint = f"nearest: {', '.join(near)}" if near else f"known: {', '.join(known)}"
        raise InputError(
            f"no telescope is named {shorten(text)!r}; {hint}; `ooftorch telescopes` lists all, or give "
            "a .toml file"
        )
    return _read_file(_find_folder() / f"{name}.toml", f"{name}.toml")


def _find_folder() -> Traversable:
    return resources.files(__package__)


def _read_file(file: Path | Traversable, shown: str) -> Telescope:
    content = read_bytes(file) if isinstance(file, Path) else file.read_bytes()
    spec = parse_toml(content, f"{shown} is not TOML")
    return _build_telescope(spec, file.name.removesuffix(".toml"), shown)


def _build_telescope(spec: dict[str, Any], name: str, file: str) -> Telescope:
    _check(spec, _TELESCOPE, file)
    radius = spec["radius_m"]
    telescope = Telescope(
        name,
        shorten(spec.get("description", ""), _LONGEST_TEXT),
        shorten(spec.get("source", ""), _LONGEST_TEXT),
        radius,
        _build_optics(spec["optics"], radius, f"{file}: [optics]"),
        _build_blockage(spec.get("blockage", {}), radius, file),
        _build_illumination(spec.get("illumination"), f"{file}: [illumination]"),
        spec.get("frequency_hz"),
        spec["good_surface_rms_um"] / 1e6 if "good_surface_rms_um" in spec else None,
        _build_focus_errors(spec.get("focus", {}), f"{file}: [focus]"),
    )
    points = np.meshgrid(*2 * [np.linspace(-radius, radius, _POINTS)])
    if not telescope.open_at(*points).any():
        raise InputError(f"{file}: [blockage] leaves nothing of a dish of radius_m = {radius:g}")
    return telescope


def _build_optics(spec: dict[str, Any], radius: float, where: str) -> Optics:
    _check_choice(spec, "type", _OPTICS, where)
    match spec["type"]:
        case "prime-focus":
            return PrimeFocus(spec["focal_length_m"])
        case "cassegrain" | "gregorian":
            rows = tuple(map(tuple, spec.get("path_correction", [])))
            return DualReflector(spec["focal_length_m"], spec["effective_focal_length_m"], rows)
        case "offset-gregorian":
            return OffsetGregorian(
                spec["focal_length_m"],
                spec["effective_focal_length_m"],
                spec["vertex_offset_m"],
                math.radians(spec["subreflector_angle_deg"]),
                math.radians(spec["feed_angle_deg"]),
            )
        case _:
            terms = tuple((int(name[1:]), c) for name, c in spec["path"].items())
            return Shaped(spec.get("focal_length_m"), radius, terms)


def _build_blockage(spec: dict[str, Any], radius: float, file: str) -> Blockage:
    where = f"{file}: [blockage]"
    _check(spec, _BLOCKAGE, where)
    inner = spec.get("inner_radius_m", 0.0)
    if inner >= radius:
        raise InputError(f"{where} inner_radius_m = {inner} leaves nothing of a dish of radius_m = {radius}")
    holes = []
    for hole in spec.get("holes", []):
        _check(hole, _HOLE, f"{file}: [[blockage.holes]]")
        holes.append(Hole(hole["x_m"], hole["y_m"], hole["radius_m"]))
    legs = _build_legs(spec["legs"], radius, f"{file}: [blockage.legs]") if "legs" in spec else None
    return Blockage(inner, legs, tuple(holes))


def _build_legs(spec: dict[str, Any], radius: float, where: str) -> Legs:
    _check(spec, _LEGS, where)
    widths, at = spec["half_width_m"], spec.get("radius_m", [0.0])
    if not isinstance(widths, list):
        widths = [widths]
    if len(at) != len(widths):
        raise InputError(f"{where} half_width_m and radius_m must be lists of one length")
    if max(widths) >= radius:
        raise InputError(f"{where} half_width_m = {max(widths)} hides a dish of radius_m = {radius}")
    foot, shadow = spec.get("outer_radius_m", radius), None
    if "shadow_deg" in spec:
        shadow = math.radians(spec["shadow_deg"])
        if len(widths) > 1:
            raise InputError(f"{where} shadow_deg needs legs of one width; give half_width_m as one number")
        if foot >= find_shadow_corner(radius, widths[0], shadow)[0]:
            raise InputError(f"{where} outer_radius_m = {foot} leaves no room for a shadow on the dish")
    return Legs(spec["shape"], tuple(at), tuple(widths), foot, shadow)


def _build_illumination(spec: dict[str, Any] | None, where: str) -> UsualIllumination:
    if spec is None:
        return UsualIllumination()
    _check_choice(spec, "model", _ILLUMINATION, where)
    return UsualIllumination(spec["model"], spec.get("taper_db"), spec.get("radius_m"))


def _build_focus_errors(spec: dict[str, Any], where: str) -> FocusErrors:
    _check(spec, _FOCUS, where)
    return FocusErrors(spec.get("scale_error", FocusErrors.scale), spec.get("shift_error_m"))


def _check_choice(spec: dict[str, Any], key: str, choices: Mapping[str, dict[str, _Key]], where: str) -> None:
    """Check a table in which the value of one key determines which other keys are allowed."""
    choice = {key: _Key(_accept_words(choices), required=True)}
    any_of = {k: v._replace(required=False) for keys in choices.values() for k, v in keys.items()}
    _check(spec, any_of | choice, where)
    _check(spec, choices[spec[key]] | choice, f"{where} with {key} = {spec[key]!r}")


def _check(spec: dict[str, Any], keys: Mapping[str, _Key], where: str) -> None:
    """Raise InputError for a table with an unknown or a missing key, or a value of the wrong kind."""
    for key in spec:
        if key not in keys:
            near = difflib.get_close_matches(key, keys, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(keys)}"
            raise InputError(f"{where} has no key {shorten(repr(key))}; {hint}")
    for key, (kind, required) in keys.items():
        if key not in spec:
            if required:
                raise InputError(f"{where} needs {key}, {kind.words}")
        elif not kind.accepts(spec[key]):
            raise InputError(f"{where} {key} = {shorten(repr(spec[key]))}; expected {kind.words}")
