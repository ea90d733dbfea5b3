"""The samples of observations as tensors for a fit: all maps one after the other."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ooftorch.device import OO
from ooftorch.observation import BeamMap, Observation
from ooftorch.scans import ScanLines, find_lines, is_placed

__all__ = [
    "Samples",
    "collect_samples",
    "describe_errors",
    "find_directions",
    "has_errors",
    "is_recorded_in_steps",
]


# Share of the samples with one and the same power above which the power is recorded in coarse steps.
_EQUAL = 0.2


class Samples(NamedTuple):
    """Samples of all maps, one map after the other; an optional first dimension b counts observations.

    Attributes
    ----------
    power : Tensor, ([b,] n)
    errors : Tensor, ([b,] n)
        Standard errors, in units of the parameter `noise`.
    valid : bool Tensor, ([b,] n)
        False for samples that were never observed.
    map : int Tensor, (n,), or None
        Number of the map that each sample belongs to.
    x, y : Tensor, (n,), or None
        Directions, radians.
    time : Tensor, ([b,] n), or None
        As the file has it.
    line : int Tensor, (n,), or None
        Number of the scan line that each sample belongs to, counted through all maps; -1 for samples of none.
        None if no map has lines.
    phase : Tensor, (n,), or None
        Time within the line, -1 at its first to +1 at its last sample.
    """

    power: Tensor
    errors: Tensor
    valid: Tensor
    map: Tensor | None = None
    x: Tensor | None = None
    y: Tensor | None = None
    time: Tensor | None = None
    line: Tensor | None = None
    phase: Tensor | None = None

    def select_samples(self, numbers: Tensor) -> "Samples":
        """Return the samples with these numbers, of all observations."""
        return Samples(
            self.power[..., numbers],
            self.errors[..., numbers],
            self.valid[..., numbers],
            *(None if t is None else t[..., numbers] for t in self[3:]),
        )

    def select_observations(self, rows: Tensor | int) -> "Samples":
        """Return all samples of the observations with these numbers; of one, without the first dimension."""
        return self._replace(
            power=self.power[rows],
            errors=self.errors[rows],
            valid=self.valid[rows],
            time=None if self.time is None else self.time[rows],
        )


def collect_samples(
    observations: Sequence[Observation],
    oo: OO,
    errors: Sequence[NDArray] | None = None,
    lines: Sequence[ScanLines | None] | None = None,
) -> Samples:
    """Collect the samples of observations of the same shape as tensors.

    Parameters
    ----------
    observations : sequence of Observation
        Directions are those of the first.
    oo : OO
    errors : sequence of ndarray, optional
        Relative errors of the samples of each map, where none are known; 1 by default.
    lines : sequence of ScanLines or None, optional
        Scan lines of each map; by default those of the first observation.
    """
    maps = observations[0].maps
    known = has_errors(maps)

    def stack(column) -> Tensor:
        return oo(np.stack([np.concatenate([column(m) for m in o.maps]) for o in observations]))

    timed = all(m.time is not None for o in observations for m in o.maps)
    line, phase = _number_lines(maps, [find_lines(m) for m in maps] if lines is None else lines)
    relative = np.concatenate([np.ones(m.power.size) for m in maps] if errors is None else errors)
    x, y = (oo(np.concatenate(axis)) for axis in zip(*map(find_directions, maps), strict=True))
    return Samples(
        power=stack(lambda m: np.where(m.valid, m.power, 0.0)),
        errors=stack(lambda m: np.where(m.valid, m.sigma, 1.0))
        if known
        else oo(np.stack([relative] * len(observations))),
        valid=stack(lambda m: m.valid),
        map=torch.repeat_interleave(torch.arange(len(maps)), torch.tensor([m.power.size for m in maps])).to(
            oo.device
        ),
        x=x,
        y=y,
        time=stack(lambda m: m.time) if timed else None,
        line=None if line is None else oo(line),
        phase=None if phase is None else oo(phase),
    )


def _number_lines(
    maps: Sequence[BeamMap], of_maps: Sequence[ScanLines | None]
) -> tuple[NDArray[np.int64], NDArray] | tuple[None, None]:
    """Scan line of each sample, counted through all maps, and time within it; None if no map has lines."""
    numbers, phases, n = [], [], 0
    for m, lines in zip(maps, of_maps, strict=True):
        if lines is None:
            lines = ScanLines(np.full(m.power.size, -1), np.zeros(m.power.size))
        numbers.append(np.where(lines.number < 0, -1, lines.number + n))
        phases.append(lines.phase)
        n += lines.n
    return (np.concatenate(numbers), np.concatenate(phases)) if n else (None, None)


def find_directions(m: BeamMap) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Directions x, y of all samples, radians; zero for samples without a usable position."""
    known = is_placed(m)
    return np.where(known, m.x, 0.0), np.where(known, m.y, 0.0)


def has_errors(maps: Sequence[BeamMap]) -> bool:
    """Whether every map has errors that are not all 1 (a placeholder of some writers)."""
    given = [m.sigma[m.valid] for m in maps if m.sigma is not None]
    return len(given) == len(maps) and not all((sigma == 1).all() for sigma in given)


def is_recorded_in_steps(observation: Observation) -> bool:
    """Whether steps of the power are larger than its noise: more than a fifth of a map's samples are equal.

    A likelihood with long tails then takes these for the whole, and its noise for nothing.
    """

    def count_equal(m: BeamMap) -> int:
        return int(np.unique(m.power[m.valid], return_counts=True)[1].max(initial=0))

    return any(count_equal(m) > _EQUAL * m.n_valid for m in observation.maps)


def describe_errors(maps: Sequence[BeamMap]) -> list[str]:
    """Notes on errors that cannot be used, one line each."""
    given = sum(m.sigma is not None for m in maps)
    if has_errors(maps) or not given:
        return []
    if given == len(maps):
        return ["errors of 1 throughout are a writer's placeholder: noise estimated from the data"]
    return [f"errors given for only {given} of {len(maps)} maps: noise estimated for all"]
