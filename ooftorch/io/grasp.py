"""Reader of GRASP field grids (`.grd`): the co-polar power of one field on a regular uv grid."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ooftorch.errors import InputError
from ooftorch.inputs import Range

__all__ = ["FieldGrid", "is_grasp", "parse_grasp"]

_HEADER_END = re.compile(r"^\+\+\+\+", re.MULTILINE)
_HERTZ = {"HZ": 1.0, "KHZ": 1e3, "MHZ": 1e6, "GHZ": 1e9}
# "FREQUENCY:  26.0 GHz", and "FREQUENCIES [GHz]:" with the number on the next line.
_FREQUENCY = re.compile(
    r"^\s*FREQUENC(?:Y|IES)\s*(?:\[(?P<before>\w+)\])?\s*:\s*(?P<value>\d+(?:\.\d*)?(?:E[-+]?\d+)?)"
    r"[ \t]*(?P<after>\w*)",
    re.IGNORECASE | re.MULTILINE,
)
_GRIDS = {
    4: "elevation over azimuth",
    5: "elevation and azimuth",
    6: "azimuth over elevation",
    7: "theta-phi",
    9: "azimuth over elevation, EDX",
    10: "elevation over azimuth, EDX",
}
_COMPONENTS = {1: "theta and phi", 2: "right and left circular", 4: "major and minor axis", 9: "total power"}
# Largest side of a grid, points; and points for every line of a file that leaves out the missing ones.
_LARGEST_SIDE, _SPARSE = 100_000, 100
# Fortran omits the E of a three-digit exponent: 0.1234-100.
_SHORT_EXPONENT = re.compile(r"(?<=\d)(?=[+-]\d{3}$)")


@dataclass(frozen=True)
class FieldGrid:
    """Content of a `.grd` file.

    Attributes
    ----------
    u, v : ndarray, (nv * nu,), u fastest
        Direction cosines sin(theta) cos(phi) and sin(theta) sin(phi): the source seen from boresight.
    power : ndarray, (nv * nu,)
        Squared modulus of the co-polar component; NaN at grid points missing in the file (KLIMIT 1).
    frequency : float or None
        Hertz; None if the header does not give it.
    """

    u: NDArray[np.float64]
    v: NDArray[np.float64]
    power: NDArray[np.float64]
    frequency: float | None


def is_grasp(text: str) -> bool:
    """Whether `text` contains the line of plus signs that ends the header of a `.grd` file."""
    return _HEADER_END.search(text) is not None


def parse_grasp(text: str, path: Path) -> FieldGrid:
    """Read a `.grd` file: KTYPE 1, one field set of linear components (ICOMP 3) on a uv grid (IGRID 1).

    Parameters
    ----------
    text : str
    path : Path
        For messages.

    Returns
    -------
    FieldGrid

    Raises
    ------
    InputError
        If the file has another kind of grid or field, a line does not have the numbers expected there, or it
        ends too early. The message has the line number.
    """
    header = _HEADER_END.split(text, maxsplit=1)[0]
    lines = _iterate_lines(text, header.count("\n") + 1, path)

    (ktype,) = next(lines).integers(1)
    if ktype != 1:
        raise InputError(f"{path}: KTYPE {ktype}; only KTYPE 1, the standard grid, can be read")
    nset, icomp, ncomp, igrid = next(lines).integers(4)
    if igrid != 1:
        raise InputError(
            f"{path}: IGRID {igrid} ({_GRIDS.get(igrid, 'not known')}); only IGRID 1, the uv grid, can be "
            "read: export the field on a uv grid"
        )
    if icomp != 3:
        raise InputError(
            f"{path}: ICOMP {icomp} ({_COMPONENTS.get(icomp, 'not known')}); only ICOMP 3, linear co and "
            "cross components, can be read"
        )
    if nset != 1 or ncomp not in (2, 3):
        raise InputError(f"{path}: NSET {nset}, NCOMP {ncomp}; expected 1 field set of 2 or 3 components")
    ix, iy = next(lines).integers(2)
    xs, ys, xe, ye = next(lines).floats(4)
    nx, ny, klimit = next(lines).integers(3)
    # Every row, and without KLIMIT every point, has a line of its own.
    n_lines = text.count("\n") + 1
    held = 2 <= nx < _LARGEST_SIDE and 2 <= ny <= n_lines and nx * ny <= (_SPARSE if klimit else 1) * n_lines
    if not held or klimit not in (0, 1):
        raise InputError(
            f"{path}: {nx:g} x {ny:g} points, KLIMIT {klimit:g}, in {n_lines} lines; expected 2 x 2 or more, "
            "all in the file, KLIMIT 0 or 1"
        )

    ends, power = Range(-1.0, 1.0), np.full((ny, nx), np.nan)
    if not (all(map(ends.holds, (xs, ys, xe, ye))) and max(abs(ix), abs(iy)) < _LARGEST_SIDE):
        raise InputError(
            f"{path}: a grid from {xs:g}, {ys:g} to {xe:g}, {ye:g}, centre {ix:g}, {iy:g}; expected u and v "
            "from -1 to 1"
        )
    for j in range(ny):
        # IS counts from 1.
        first, count = next(lines).integers(2) if klimit else (1, nx)
        if count < 0 or (count > 0 and first < 1) or first + count - 1 > nx:
            raise InputError(f"{path}: row {j + 1} has {count} points from {first} on; the grid has {nx}")
        for i in range(first - 1, first - 1 + count):
            real, imag = next(lines).floats(2 * ncomp)[:2]
            power[j, i] = real * real + imag * imag  # infinite, and no error, where it overflows

    step_x, step_y = (xe - xs) / (nx - 1), (ye - ys) / (ny - 1)
    v, u = np.meshgrid(ys + step_y * (iy + np.arange(ny)), xs + step_x * (ix + np.arange(nx)), indexing="ij")
    return FieldGrid(u.ravel(), v.ravel(), power.ravel(), _find_frequency(header))


def _find_frequency(header: str) -> float | None:
    """Find the frequency (Hz) in the free header lines; None if there is none, or a list or range."""
    found = _FREQUENCY.search(header)
    if found is None:
        return None
    unit = _HERTZ.get((found["before"] or found["after"]).upper())
    return None if unit is None else unit * float(found["value"])


@dataclass(frozen=True)
class _Line:
    where: str
    fields: list[str]

    def floats(self, n: int) -> list[float]:
        try:
            values = [float(_SHORT_EXPONENT.sub("E", value)) for value in self.fields]
        except ValueError:
            values = []
        if len(values) != n:
            raise InputError(f"{self.where}: {' '.join(self.fields)[:60]!r}; expected {n} numbers")
        return values

    def integers(self, n: int) -> list[int]:
        values = self.floats(n)
        if not all(value.is_integer() for value in values):
            raise InputError(f"{self.where}: {' '.join(self.fields)!r}; expected {n} whole numbers")
        return [int(value) for value in values]


def _iterate_lines(text: str, skip: int, path: Path) -> Iterator[_Line]:
    """Yield the lines after the header that are not blank; raises InputError when there are no more."""
    for number, line in enumerate(text.splitlines()[skip:], skip + 1):
        if line.strip():
            yield _Line(f"{path}:{number}", line.split())
    raise InputError(f"{path}: the file ends before its grid does; copy it again")
