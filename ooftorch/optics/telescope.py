"""Telescopes: the dish and what stands in front of it, and the path light gains when the focus moves.

A telescope is a TOML file. Those the package knows are in ``telescopes/``; a user's own has the same form.
Aperture x, y are metres from the centre of the dish. On an offset Gregorian +y points towards the vertex of
the parent paraboloid, as in the original OOF software.
"""

import difflib
import math
import re
import reprlib
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ooftorch.errors import InputError
from ooftorch.optics.defocus import DualReflector, OffsetGregorian, Optics, PrimeFocus, Shaped

__all__ = [
    "Blockage",
    "Hole",
    "Legs",
    "Telescope",
    "UsualIllumination",
    "load",
    "names",
    "shadow_corner",
]

Array = NDArray[np.float64]

# ---------------------------------------------------------------------------------------- blockage


def shadow_corner(dish_radius: float, half_width: float, angle: float) -> tuple[float, float]:
    """Where the edge of a leg's shadow meets the rim of the dish.

    The leg lies along +x. Light that converges on the subreflector is shadowed by the leg in a wedge of
    opening `angle` (the form pyoof uses for Effelsberg).

    Parameters
    ----------
    dish_radius, half_width : float
        Of the dish and of the leg, metres.
    angle : float
        Radians, greater than zero.

    Returns
    -------
    (along, across)
        Metres; along^2 + across^2 = dish_radius^2.
    """
    a, sin2 = half_width, math.sin(angle) ** 2
    d = (math.sqrt(a * a + (dish_radius**2 - a * a) / sin2) - a) * sin2
    return d / math.tan(angle), a + d


@dataclass(frozen=True)
class Legs:
    """Four legs that carry the subreflector or the feed.

    Attributes
    ----------
    shape : "plus" (along x and y) or "x" (along the diagonals).
    radius, half_width : half width of a leg at these distances from the centre, metres, of one length; linear
        between them, constant outside. A repeated radius is a step.
    outer_radius : length of a leg from the centre, measured along it, metres.
    shadow : opening of the shadow behind a leg, radians, which begins at its foot; None for no shadow.
    """

    shape: str
    radius: tuple[float, ...]
    half_width: tuple[float, ...]
    outer_radius: float
    shadow: float | None = None

    def blocked_at(self, x: Array, y: Array, dish_radius: float) -> NDArray[np.bool_]:
        """Tell where the legs or their shadows stand on a dish of this radius (m)."""
        width = np.interp(np.hypot(x, y), self.radius, self.half_width)
        if self.shape == "x":
            x, y = (x + y) / math.sqrt(2), (y - x) / math.sqrt(2)
        x, y = np.abs(x), np.abs(y)
        return self._arm(x, y, width, dish_radius) | self._arm(y, x, width, dish_radius)

    def _arm(self, along: Array, across: Array, width: Array, dish_radius: float) -> NDArray[np.bool_]:
        on_leg = (along < self.outer_radius) & (across < width)
        if self.shadow is None:
            return on_leg
        # The edge of the shadow is a straight line from the foot to the rim, and outside the dish beyond.
        corner_along, corner_across = shadow_corner(dish_radius, self.half_width[0], self.shadow)
        slope = (corner_across - self.half_width[0]) / (corner_along - self.outer_radius)
        edge = self.half_width[0] + slope * (along - self.outer_radius)
        return on_leg | (along >= self.outer_radius) & (across < edge)


@dataclass(frozen=True)
class Hole:
    """A round piece of the dish at (x, y), metres, that does not reflect."""

    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Blockage:
    """What keeps light from the dish: a central disc of `inner_radius` (m), legs, and holes."""

    inner_radius: float = 0.0
    legs: Legs | None = None
    holes: tuple[Hole, ...] = ()


# --------------------------------------------------------------------------------------- telescope


# Rings on which the path is averaged.
_RINGS = 16


@dataclass(frozen=True)
class UsualIllumination:
    """The illumination to expect at a telescope, where a fit may start.

    Attributes
    ----------
    model : "gaussian", "pedestal", "squashed" or "tophat".
    taper_db : amplitude at the rim over that at the centre, decibels (negative); None for a top hat.
    radius : of the cold stop that a top hat has, metres; None where the rim of the dish is the edge.
    """

    model: str = "gaussian"
    taper_db: float | None = -12.0
    radius: float | None = None


@dataclass(frozen=True)
class Telescope:
    """A dish, its optics and its blockage.

    Attributes
    ----------
    name : as `load` knows it, or the stem of the user's file.
    description, source : for people; the source of the numbers.
    radius : of the dish, and the radius on which Zernike polynomials are normalised, metres.
    optics, blockage, illumination : see there.
    frequency : at which the surface is usually measured, hertz; None where nobody says.
    """

    name: str
    description: str
    source: str
    radius: float
    optics: Optics
    blockage: Blockage = field(default_factory=Blockage)
    illumination: UsualIllumination = field(default_factory=UsualIllumination)
    frequency: float | None = None

    @property
    def focal_length(self) -> float | None:
        """Focal length of the primary in metres, None if it is not known."""
        return self.optics.focal_length

    def open_at(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.bool_]:
        """Tell where light reaches the dish: on it, and not behind the centre, a leg, its shadow or a hole.

        Parameters
        ----------
        x, y : array_like
            Metres; broadcast together.

        Returns
        -------
        ndarray of bool
        """
        x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        r = np.hypot(x, y)
        is_open = (r <= self.radius) & (r >= self.blockage.inner_radius)
        if self.blockage.legs is not None:
            is_open = is_open & ~self.blockage.legs.blocked_at(x, y, self.radius)
        for hole in self.blockage.holes:
            is_open = is_open & (np.hypot(x - hole.x, y - hole.y) >= hole.radius)
        return np.asarray(is_open)

    def coverage(self, x: ArrayLike, y: ArrayLike, pitch: float, subsamples: int = 8) -> Array:
        """Return the open fraction of square pixels.

        A pixel that is partly open then counts for what it passes, which makes the far field follow the true
        edges to much better than a pixel.

        Parameters
        ----------
        x, y : array_like
            Centres of the pixels, metres; broadcast together.
        pitch : float
            Side of a pixel, metres.
        subsamples : int
            Points a side at which a pixel is looked at.

        Returns
        -------
        ndarray
            From 0 to 1.
        """
        x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        offsets = ((np.arange(subsamples) + 0.5) / subsamples - 0.5) * pitch
        count = np.zeros(np.broadcast_shapes(x.shape, y.shape), dtype=np.int64)
        for dy in offsets:
            for dx in offsets:
                count += self.open_at(x + dx, y + dy)
        return count / subsamples**2

    def path_powers(self, x: ArrayLike, y: ArrayLike) -> Array:
        """Return the growth of the optical path as a polynomial in the motion of the focus.

        Parameters
        ----------
        x, y : array_like
            Metres, of one shape.

        Returns
        -------
        ndarray
            c, shape (P, *x.shape): dL = sum of c[p] dz^(p+1), in metres, for a subreflector or feed moved
            by dz metres away from the primary. P = 1 for ideal optics. Piston is not removed.
        """
        return self.optics.path_powers(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64))

    def path(self, x: ArrayLike, y: ArrayLike, dz: float) -> Array:
        """Return dL in metres for dz metres of focus motion, positive away from the primary."""
        powers = self.path_powers(x, y)
        return np.tensordot(dz ** np.arange(1.0, len(powers) + 1), powers, axes=1)

    def steepness(self) -> float:
        """Return the steepest slope of the path per metre of focus motion, averaged over rings: rad/m.

        So far off axis, times dz, does a defocus send the light.
        """
        return float(np.max(np.abs(np.diff(self._rings())))) / self.radius * _RINGS

    def depth(self) -> float:
        """Return the path from rim to centre, averaged over rings, per metre of focus motion."""
        rings = self._rings()
        return float(abs(rings[-1] - rings[0]))

    def _rings(self) -> Array:
        """Path per metre of focus motion, averaged over rings from the centre to the rim."""
        r, angle = np.meshgrid(
            self.radius * np.linspace(0, 1, _RINGS + 1), 2 * np.pi * np.arange(16) / 16, indexing="ij"
        )
        return self.path_powers(r * np.cos(angle), r * np.sin(angle))[0].mean(1)

    def surface_normal_factor(self, x: ArrayLike, y: ArrayLike) -> Array | None:
        """Return sqrt(1 + (r/2F)^2), r the distance from the axis of the (parent) paraboloid.

        A half-path error times this is the error along the surface normal.

        Parameters
        ----------
        x, y : array_like
            Metres, of one shape.

        Returns
        -------
        ndarray or None
            None if the focal length is not known; only the half-path error can then be given.
        """
        if self.focal_length is None:
            return None
        r = self.optics.axis_distance(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64))
        return np.hypot(1.0, r / (2 * self.focal_length))


# ------------------------------------------------------------------------------------------- files


class _Kind(NamedTuple):
    """A sort of value: in words, and the test for it."""

    words: str
    accepts: Callable[[Any], bool]


class _Key(NamedTuple):
    kind: _Kind
    required: bool = False


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _one_of(words: Iterable[str]) -> _Kind:
    words = tuple(words)
    return _Kind("one of " + ", ".join(words), lambda v: v in words)


_TEXT = _Kind("a text", lambda v: isinstance(v, str))
_NUMBER = _Kind("a number", _is_number)
_POSITIVE = _Kind("a positive number", lambda v: _is_number(v) and v > 0)
_NOT_NEGATIVE = _Kind("a number from 0 up", lambda v: _is_number(v) and v >= 0)
_DECIBELS = _Kind("a negative number (dB)", lambda v: _is_number(v) and v < 0)
_OPENING = _Kind("an angle between 0 and 90 degrees", lambda v: _is_number(v) and 0 < v < 90)
_TABLE = _Kind("a table", lambda v: isinstance(v, dict))
_TABLES = _Kind("a list of tables", lambda v: isinstance(v, list) and all(map(_TABLE.accepts, v)))
_WIDTHS = _Kind(
    "a positive number or a list of them",
    lambda v: _POSITIVE.accepts(v) or (isinstance(v, list) and v != [] and all(map(_POSITIVE.accepts, v))),
)
_RISING = _Kind(
    "a list of radii that never falls",
    lambda v: isinstance(v, list) and all(map(_NOT_NEGATIVE.accepts, v)) and v == sorted(v),
)
_CORRECTION = _Kind(
    "8 rows of 3 numbers",
    lambda v: (
        isinstance(v, list)
        and len(v) == 8
        and all(isinstance(row, list) and len(row) == 3 and all(map(_is_number, row)) for row in v)
    ),
)
_ZERNIKES = _Kind(
    "a table of numbers named z0, z1, ...",
    lambda v: (
        isinstance(v, dict)
        and v != {}
        and all(re.fullmatch(r"z(0|[1-9]\d{0,2})", k) and _is_number(c) for k, c in v.items())
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
        "subreflector_angle_deg": _Key(_NUMBER, required=True),
        "feed_angle_deg": _Key(_NUMBER, required=True),
    },
    "shaped": {"path": _Key(_ZERNIKES, required=True), "focal_length_m": _Key(_POSITIVE)},
}
_COLD_STOP = {"radius_m": _Key(_POSITIVE)}  # for receivers that have one, whatever the usual model
_TAPER = {"taper_db": _Key(_DECIBELS, required=True), **_COLD_STOP}
_ILLUMINATION = {
    "gaussian": _TAPER,
    "pedestal": _TAPER,
    "squashed": _TAPER,
    "tophat": _COLD_STOP,
}
_TELESCOPE = {
    "description": _Key(_TEXT),
    "source": _Key(_TEXT),
    "frequency_hz": _Key(_POSITIVE),
    "radius_m": _Key(_POSITIVE, required=True),
    "optics": _Key(_TABLE, required=True),
    "blockage": _Key(_TABLE),
    "illumination": _Key(_TABLE),
}
_BLOCKAGE = {"inner_radius_m": _Key(_NOT_NEGATIVE), "legs": _Key(_TABLE), "holes": _Key(_TABLES)}
_LEGS = {
    "shape": _Key(_one_of(("plus", "x")), required=True),
    "half_width_m": _Key(_WIDTHS, required=True),
    "radius_m": _Key(_RISING),
    "outer_radius_m": _Key(_POSITIVE),
    "shadow_deg": _Key(_OPENING),
}
_HOLE = {
    "x_m": _Key(_NUMBER, required=True),
    "y_m": _Key(_NUMBER, required=True),
    "radius_m": _Key(_POSITIVE, required=True),
}

_ALIASES = {"90gbt": "gbt90", "almanosec": "alma-nosec"}  # as the original software writes them


def names() -> list[str]:
    """Return the names of the telescopes that come with the package, sorted."""
    return sorted(f.name.removesuffix(".toml") for f in _folder().iterdir() if f.name.endswith(".toml"))


def load(name_or_path: str | Path) -> Telescope:
    """Load a telescope.

    Parameters
    ----------
    name_or_path : str or Path
        A name the package knows, in any case (also "90GBT" and "ALMANoSec", as the original software has
        them), or the path of a TOML file, ending in ".toml".

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
        return _read(Path(text), text)
    known = names()
    name = _ALIASES.get(text.lower(), text.lower())
    if name not in known:
        near = difflib.get_close_matches(name, [*known, *_ALIASES])
        hint = f"nearest: {', '.join(near)}" if near else f"known: {', '.join(known)}"
        raise InputError(
            f"no telescope is named {text!r}; {hint}; `ooftorch telescopes` lists all, or give a .toml file"
        )
    return _read(_folder() / f"{name}.toml", f"{name}.toml")


def _folder() -> Traversable:
    return resources.files("ooftorch.optics") / "telescopes"


def _read(file: Path | Traversable, shown: str) -> Telescope:
    try:
        with file.open("rb") as stream:
            spec = tomllib.load(stream)
    except OSError as error:
        raise InputError(f"cannot read {shown}: {error.strerror}; give a telescope's TOML file") from None
    except ValueError as error:  # not UTF-8, or not TOML
        raise InputError(f"{shown} is not TOML: {error}") from None
    return _telescope(spec, file.name.removesuffix(".toml"), shown)


def _telescope(spec: dict[str, Any], name: str, file: str) -> Telescope:
    _check(spec, _TELESCOPE, file)
    radius = spec["radius_m"]
    return Telescope(
        name,
        spec.get("description", ""),
        spec.get("source", ""),
        radius,
        _optics(spec["optics"], radius, f"{file}: [optics]"),
        _blockage(spec.get("blockage", {}), radius, file),
        _illumination(spec.get("illumination"), f"{file}: [illumination]"),
        spec.get("frequency_hz"),
    )


def _optics(spec: dict[str, Any], radius: float, where: str) -> Optics:
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


def _blockage(spec: dict[str, Any], radius: float, file: str) -> Blockage:
    where = f"{file}: [blockage]"
    _check(spec, _BLOCKAGE, where)
    inner = spec.get("inner_radius_m", 0.0)
    if inner >= radius:
        raise InputError(f"{where} inner_radius_m = {inner} leaves nothing of a dish of radius_m = {radius}")
    holes = []
    for hole in spec.get("holes", []):
        _check(hole, _HOLE, f"{file}: [[blockage.holes]]")
        holes.append(Hole(hole["x_m"], hole["y_m"], hole["radius_m"]))
    legs = _legs(spec["legs"], radius, f"{file}: [blockage.legs]") if "legs" in spec else None
    return Blockage(inner, legs, tuple(holes))


def _legs(spec: dict[str, Any], radius: float, where: str) -> Legs:
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
        if foot >= shadow_corner(radius, widths[0], shadow)[0]:
            raise InputError(f"{where} outer_radius_m = {foot} leaves no room for a shadow on the dish")
    return Legs(spec["shape"], tuple(at), tuple(widths), foot, shadow)


def _illumination(spec: dict[str, Any] | None, where: str) -> UsualIllumination:
    if spec is None:
        return UsualIllumination()
    _check_choice(spec, "model", _ILLUMINATION, where)
    return UsualIllumination(spec["model"], spec.get("taper_db"), spec.get("radius_m"))


def _check_choice(spec: dict[str, Any], key: str, choices: Mapping[str, dict[str, _Key]], where: str) -> None:
    """Check a table in which one key decides about the others."""
    choice = {key: _Key(_one_of(choices), required=True)}
    any_of = {k: v._replace(required=False) for keys in choices.values() for k, v in keys.items()}
    _check(spec, any_of | choice, where)
    _check(spec, choices[spec[key]] | choice, f"{where} with {key} = {spec[key]!r}")


def _check(spec: dict[str, Any], keys: Mapping[str, _Key], where: str) -> None:
    """Refuse a table with a key that is not known, one that is missing, or a value of the wrong kind."""
    for key in spec:
        if key not in keys:
            near = difflib.get_close_matches(key, keys, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(keys)}"
            raise InputError(f"{where} has no key {key!r}; {hint}")
    for key, (kind, required) in keys.items():
        if key not in spec:
            if required:
                raise InputError(f"{where} needs {key}, {kind.words}")
        elif not kind.accepts(spec[key]):
            raise InputError(f"{where} {key} = {reprlib.repr(spec[key])}; expected {kind.words}")
