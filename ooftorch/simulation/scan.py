"""Scan patterns: directions and times of the samples of one map.

Directions are in the unit of `half_width`, `half_height` and `step` (radians in the simulator).
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ooftorch.errors import InputError
from ooftorch.scans import find_phase

__all__ = ["PATTERNS", "Scan", "daisy", "grid", "otf"]

Array = NDArray[np.float64]

# Samples per step along the rows of an on-the-fly scan.
_ALONG = 2
# Time between two rows of an on-the-fly scan, in samples.
_TURN = 8
# Largest number of samples of a map, limited by memory.
_MAX_SAMPLES = 1e7


class Scan(NamedTuple):
    """Samples of one map in the order in which they are taken.

    Attributes
    ----------
    x, y : ndarray, (n,)
        Directions, telescope minus source.
    time : ndarray, (n,)
        Time since the first sample, in units of the sampling interval.
    line : ndarray of int, (n,)
        Number of the scan line that each sample belongs to; of a daisy, the sweep from tip to tip.
    """

    x: Array
    y: Array
    time: Array
    line: NDArray[np.int64]

    @property
    def phase(self) -> Array:
        """Time within the line, -1 to +1, (n,)."""
        return find_phase(self.line, self.time)


def grid(half_width: float, half_height: float, step: float) -> Scan:
    """Regular map, row by row from low y, each from low x."""
    x, y = _build_axis(half_width, step), _build_axis(half_height, step)
    columns, rows = np.meshgrid(np.arange(x.size), np.arange(y.size))
    index = np.arange(columns.size)
    return Scan(x[columns.ravel()], y[rows.ravel()], index.astype(float), rows.ravel())


def otf(half_width: float, half_height: float, step: float) -> Scan:
    """On-the-fly map: rows a step apart, scanned in alternating directions, sampled twice per step."""
    x, y = _build_axis(half_width, step / _ALONG), _build_axis(half_height, step)
    columns, rows = np.meshgrid(np.arange(x.size), np.arange(y.size))
    columns[1::2] = columns[1::2, ::-1]
    line = rows.ravel()
    index = np.arange(columns.size)
    return Scan(x[columns.ravel()], y[line], (index + _TURN * line).astype(float), line)


def daisy(half_width: float, half_height: float, step: float) -> Scan:
    """Daisy: petals through the centre, rotated so that neighbouring tips are a step apart.

    The radius is sin(t): the telescope is slow at the tips and fastest in the middle, where the samples of a
    petal are a step apart.
    """
    _check(half_width, half_height, step)
    circle = 2 * math.pi * max(half_width, half_height) / step
    # An odd number: the tips on one side then fall between those on the other.
    petals, each = math.ceil(circle) | 1, math.ceil(circle / 2)
    index = np.arange(petals * each)
    # Shifted by half a sample, so that no two petals have a sample at the centre.
    swing = math.pi * (index + 0.5) / each
    turn = swing / petals
    return Scan(
        half_width * np.sin(swing) * np.cos(turn),
        half_height * np.sin(swing) * np.sin(turn),
        index.astype(float),
        (index + each // 2) // each,
    )


PATTERNS = {"map": grid, "otf": otf, "daisy": daisy}
"""Scan patterns by name."""


def _build_axis(half: float, step: float) -> Array:
    """Positions a step apart, as many as fit within +-half, symmetric about zero."""
    _check(half, half, step)
    n = 2 * math.floor(half / step * (1 + 1e-12)) + 1
    return step * (np.arange(n, dtype=float) - (n - 1) / 2)


def _check(half_width: float, half_height: float, step: float) -> None:
    if not all(0 < step <= half < math.inf for half in (half_width, half_height)):
        raise InputError(
            f"a map of {half_width:g} by {half_height:g} (half sizes) in steps of {step:g}; expected a "
            "positive step and a map at least two steps wide"
        )
    if (4 * half_width / step) * (4 * half_height / step) > _MAX_SAMPLES:
        raise InputError(
            f"a map of {half_width:g} by {half_height:g} (half sizes) in steps of {step:g} has more than "
            f"{_MAX_SAMPLES:g} samples; take larger steps or a smaller map"
        )
