"""Scan lines: which samples of a map the telescope took in one sweep, in which order and along which way.

Levels, gains and pointing drift from line to line, and a sample is smeared along its line. A map says itself
how its lines are found, `BeamMap.scans`.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ooftorch.observation import BeamMap

__all__ = [
    "SCANS",
    "ScanLines",
    "find_axis",
    "find_lines",
    "find_phase",
    "find_smear",
    "is_placed",
    "name_scans",
]

SCANS = ("auto", "rows", "columns", "none")
"""Ways to find the lines: from the motion of the telescope; samples of equal DY; of equal DX; not at all."""

# Median number of samples of a line below which the samples are in no order that is a scan.
_LEAST = 5
# Step in time or on the sky, in median steps, that begins a new line.
_JUMP = 3.0
# Distance in median steps that the first steps of a line cover, for their direction; and distance back along
# it by which the telescope must have turned. Both are above the jitter of the recorded pointing.
_FIRST, _BACK = 2.5, 2.0
# Samples that are searched for the end of a line at a time.
_AHEAD = 512
# Samples on each side between which the direction of a line is taken.
_REACH = 2
# Rounding errors of positions, over a step on the sky.
_ROUNDING = 1e-6


class ScanLines(NamedTuple):
    """Scan lines of a map.

    Attributes
    ----------
    number : ndarray of int, (n,)
        Line of each sample, from 0; -1 for samples of no line.
    phase : ndarray, (n,)
        Time within the line, -1 at its first sample to +1 at its last; 0 in a line of one sample. Where no
        time is known: the place in the order of the samples, or along a row or column.
    """

    number: NDArray[np.int64]
    phase: NDArray[np.float64]

    @property
    def n(self) -> int:
        """Number of lines."""
        return int(self.number.max()) + 1

    def sort(self) -> NDArray[np.int64]:
        """Numbers of the samples of all lines, line after line, each in order."""
        order = np.lexsort((self.phase, self.number))
        return order[np.searchsorted(self.number[order], 0) :]


def is_placed(m: "BeamMap") -> NDArray[np.bool_]:
    """Whether the position of each sample can be used: that of a missing sample may be undefined."""
    reach = np.max(np.abs((m.x[m.valid], m.y[m.valid])))
    return m.valid | ((np.abs(m.x) <= reach) & (np.abs(m.y) <= reach))


def find_lines(m: "BeamMap") -> ScanLines | None:
    """Find the scan lines of a map, in the way that `m.scans` says.

    "auto" follows the samples in the order of time, or of the file where there is no time. A new line begins
    at a step of more than three times the median step, in time or on the sky, and where the telescope turns
    back. "rows" are the samples at equal y, "columns" those at equal x.

    Parameters
    ----------
    m : BeamMap

    Returns
    -------
    ScanLines or None
        None if the map has no lines: "none", or half the lines have fewer than five samples.
    """
    if m.scans == "none" or not m.n_valid:
        return None
    lines = _follow(m) if m.scans == "auto" else _group(m)
    return lines if lines and np.median(np.bincount(lines.number[lines.number >= 0])) >= _LEAST else None


def find_smear(m: "BeamMap") -> NDArray[np.float64] | None:
    """Length and direction over which each sample is averaged while the telescope moves.

    Parameters
    ----------
    m : BeamMap

    Returns
    -------
    ndarray (2, n) or None
        Radians along x and y, `m.smear` long along the line, of either sense; zero for samples of no line.
        None if the map is not smeared, or has no lines.
    """
    lines = find_lines(m) if m.smear else None
    return None if lines is None else m.smear * _find_directions(m, lines)


def find_axis(m: "BeamMap", lines: ScanLines) -> str | None:
    """Axis that the lines run along, "x" or "y"; None if they run along neither."""
    axes = np.abs(_find_directions(m, lines)[:, lines.number >= 0])
    # Within 3 degrees: a scan along right ascension or an arc of a daisy is not along an axis.
    along = np.median(axes, axis=1) > np.cos(np.deg2rad(3))
    return "x" if along[0] else "y" if along[1] else None


def name_scans(m: "BeamMap") -> str:
    """Word of `SCANS` that gives the lines of a map to a file that keeps no time, and perhaps no order."""
    if m.scans != "auto":
        return m.scans
    lines = find_lines(m)
    return "none" if lines is None else {"x": "rows", "y": "columns", None: "auto"}[find_axis(m, lines)]


# --------------------------------------------------------------------- lines from the motion of the telescope


def _follow(m: "BeamMap") -> ScanLines | None:
    """Lines of the samples in the order of time, or of the file; None if that is no scan."""
    order = np.arange(m.power.size)
    if m.time is not None:
        order = np.argsort(m.time, kind="stable")
        order = order[np.isfinite(m.time[order])]
    # Samples at unknown positions are passed over; the time that they take is that of `place`.
    place = np.flatnonzero(is_placed(m)[order])
    order = order[place]
    if order.size < 2:
        return None
    clock = place.astype(float) if m.time is None else m.time[order]
    position = np.stack([m.x, m.y], -1)[order]
    slots = np.diff(place)
    length = np.hypot(*np.diff(position, axis=0).T) / slots
    step = _median_step(length)
    extent = np.ptp(position, axis=0).max()
    # Scattered samples, or those of a raster in another order than that of a scan, are far apart.
    if not step or (_LEAST - 1) * step > (1 + _ROUNDING) * extent:
        return None
    wait = np.diff(clock)
    tick = _median_step(wait / slots)
    broken = (length > _JUMP * step) | (wait - (slots - 1) * tick > _JUMP * tick)
    ends = np.flatnonzero(np.append(broken, True)) + 1
    first = 0
    begins = np.zeros(order.size, bool)
    for end in ends.tolist():
        begins[list(_find_begins(position, first, end, step))] = True
        first = end
    return _collect(m.power.size, order, np.cumsum(begins) - 1, clock)


def _median_step(steps: NDArray) -> float:
    """Median of the steps that are more than zero; zero if there is none."""
    moving = steps[steps > 0]
    return float(np.median(moving)) if moving.size else 0.0


def _find_begins(position: NDArray, first: int, end: int, step: float) -> Iterator[int]:
    """Yield the first sample of each line among the samples from `first` to `end`, which has no jump."""
    while first < end:
        yield first
        ahead = _AHEAD
        while True:
            stop = min(first + ahead, end)
            length = _find_turn(position[first:stop] - position[first], step)
            if length or stop == end:
                break
            ahead *= 4
        first = first + length if length else end


def _find_turn(position: NDArray, step: float) -> int:
    """Number of samples up to where the telescope turns back; 0 if it does not.

    `position` (n, 2) is that from the first sample of the line on, less that of the first.
    """
    far = np.hypot(*position.T) > _FIRST * step
    if not far.any():
        return 0
    last = int(np.argmax(far))
    # Once with the direction of the first steps, then with that of the line.
    for _ in range(2):
        way = position[last] / np.hypot(*position[last])
        progress = position @ way
        farthest = np.maximum.accumulate(progress)
        back = progress < farthest - _BACK * step
        if not back.any():
            return 0
        turned = int(np.argmax(back))
        last = int(np.argmax(progress[:turned] >= farthest[turned] - _ROUNDING * step))
        if not last:
            return turned
    return last + 1


# --------------------------------------------------------------------------------- lines of a regular raster


def _group(m: "BeamMap") -> ScanLines | None:
    """Lines of the samples at equal y ("rows") or x ("columns"); None if no samples are."""
    order = np.flatnonzero(is_placed(m))
    along, across = (m.x, m.y) if m.scans == "rows" else (m.y, m.x)
    order = order[np.argsort(across[order], kind="stable")]
    gaps = np.diff(across[order])
    total = np.sort(gaps).cumsum()
    if not total.size or not total[-1]:
        return None
    # Half the extent of the map is in gaps of at least the pitch of the raster, whatever is missing.
    pitch = np.sort(gaps)[np.searchsorted(total, 0.5 * total[-1])]
    number = np.append(0, np.cumsum(gaps > 0.5 * pitch))
    clock = (along if m.time is None else m.time)[order]
    by_clock = np.lexsort((clock, number))
    by_clock = by_clock[np.isfinite(clock[by_clock])]
    return _collect(m.power.size, order[by_clock], number[by_clock], clock[by_clock])


# ------------------------------------------------------------------------------------------------ in common


def _collect(n: int, order: NDArray, number: NDArray, clock: NDArray) -> ScanLines | None:
    """Lines of `n` samples from those in `order`, line after line, their line and their time."""
    if not order.size:
        return None
    lines = ScanLines(np.full(n, -1), np.zeros(n))
    lines.number[order] = np.cumsum(np.append(False, np.diff(number) > 0))
    lines.phase[order] = find_phase(number, clock)
    return lines


def find_phase(number: NDArray[np.int64], clock: NDArray[np.float64]) -> NDArray[np.float64]:
    """Time within the line, -1 to +1, of samples with these lines and times, line after line in order."""
    begin, end = np.searchsorted(number, number), np.searchsorted(number, number, side="right") - 1
    since, span = clock - clock[begin], clock[end] - clock[begin]
    return np.where(span > 0, 2 * since / np.where(span > 0, span, 1.0) - 1, 0.0)


def _find_directions(m: "BeamMap", lines: ScanLines) -> NDArray[np.float64]:
    """Unit vectors (2, n) along the line of each sample; zero for samples of no line, or that stand still.

    Of either sense, always with x from zero up, and rounded, so that all samples of a raster have the same.
    """
    order = lines.sort()
    number = lines.number[order]
    place = np.arange(order.size)
    begin, end = np.searchsorted(number, number), np.searchsorted(number, number, side="right") - 1
    before, after = (order[np.clip(place + way * _REACH, begin, end)] for way in (-1, 1))
    position = np.stack([m.x, m.y])
    chord = position[:, after] - position[:, before]
    length = np.hypot(*chord)
    unit = np.round(chord / np.where(length > 0, length, 1.0), 9)
    sense = np.where((unit[0] < 0) | ((unit[0] == 0) & (unit[1] < 0)), -1.0, 1.0)
    directions = np.zeros_like(position)
    directions[:, order] = sense * unit + 0.0  # no minus zero
    return directions
