"""The parameters of a model: names, units, start values, scales, priors, and which are free.

Minimisers work on a vector of dimensionless coordinates of order one; values are in radians, metres and the
units of the data. The position of a parameter in the vector is defined by `Layout` alone.
"""

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ooftorch.device import OO, Movable
from ooftorch.errors import InputError

__all__ = ["LOG_LIMIT", "Layout", "Parameter", "Tie", "Units", "declare_per_map"]

LOG_LIMIT = 50.0
"""Limit of |log(value/scale)| of a positive parameter; beyond it is clamped, so that a line search that
overshoots does not overflow."""

# Largest coordinate that a user may give, and that of a parameter of one map: a baseline may be far above the
# beam.
_FARTHEST, _FARTHEST_OF_MAP = 1e4, 1e9

# Standard deviation of the mean of a tie that is held at zero, over its width. The model does not change
# along the mean, so the minimum has it at exactly zero. The error that it adds to the tilts is 1e-4 rad and
# less; the condition of the information is raised to some 1e9: seven digits are left in double precision.
_CENTRING = 1e-4


@dataclass(frozen=True)
class Parameter:
    """One parameter of the model.

    Its coordinate u is value/scale, or log((value - floor)/scale) for a positive parameter (`log`).

    Attributes
    ----------
    name, unit : str
    start : float
        Start value, in the unit.
    scale : float
        Typical size, in the unit.
    free : bool
        Whether a fit may change it.
    log : bool
        Whether it is positive and its coordinate is a logarithm.
    prior : float or None
        Standard deviation of a normal prior about the start value, in the unit (relative if `log`); None for
        no prior.
    map : int or None
        Number of the map that the parameter belongs to; None for a parameter of all maps.
    floor : float
        Value that a positive parameter stays above, in the unit.
    unobservable : str
        Reason why no power pattern depends on it; such a parameter cannot be freed. Empty otherwise.
    """

    name: str
    unit: str
    start: float
    scale: float = 1.0
    free: bool = False
    log: bool = False
    prior: float | None = None
    map: int | None = None
    unobservable: str = ""
    floor: float = 0.0

    @property
    def kind(self) -> str:
        """The name without the number of the map: "gain" for gain_0, gain_1, ..."""
        return self.name if self.map is None else self.name.removesuffix(f"_{self.map}")

    def coordinate(self, value: float) -> float:
        """Coordinate of a value; InputError if a positive parameter is given a value that is not."""
        if self.log and not value > 0:
            raise InputError(f"{self.name} is positive by nature, not {value:g}")
        if not self.log:
            return value / self.scale
        return math.log(max(value - self.floor, 1e-3 * value) / self.scale)

    def check(self, value: float) -> None:
        """Raise InputError for a value, in the unit, that the parameter cannot have."""
        far = LOG_LIMIT if self.log else _FARTHEST_OF_MAP if self.map is not None else _FARTHEST
        if not abs(self.coordinate(value)) <= far:
            raise InputError(
                f"{self.name} at {value:g} {self.unit}".rstrip()
                + f" is far from all that it can be; expected the order of {self.scale:.3g}"
            )

    def value(self, coordinate: float) -> float:
        """Value at a coordinate."""
        if not self.log:
            return self.scale * coordinate
        return self.floor + self.scale * math.exp(min(max(coordinate, -LOG_LIMIT), LOG_LIMIT))

    def derivative(self, coordinate: float) -> float:
        """Derivative of the value with respect to the coordinate: converts the error of one to the other."""
        if not self.log:
            return self.scale
        return 0.0 if abs(coordinate) > LOG_LIMIT else self.value(coordinate) - self.floor


def declare_per_map(kind: str, n_maps: int, unit: str, start: float, scale: float, **more) -> list[Parameter]:
    """One parameter per map, named `kind`_0, `kind`_1, ...; `more` are further attributes of `Parameter`."""
    return [Parameter(f"{kind}_{i}", unit, start, scale, map=i, **more) for i in range(n_maps)]


class Tie(NamedTuple):
    """Parameters tied to each other: a normal prior on the distance of each from their mean.

    The parameters that are held count in the mean. Without a free one the tie has no effect.

    Attributes
    ----------
    names : tuple of str
    width : float
        Standard deviation of the distance, in coordinates.
    instead : str or None
        Parameter that stands for the mean: while it and all members are free the mean is held at zero.
        Otherwise the mean has no prior, as a common value that is integrated out.
    """

    names: tuple[str, ...]
    width: float
    instead: str | None = None


@dataclass(frozen=True)
class Layout:
    """All parameters of a model, in order.

    Attributes
    ----------
    parameters : tuple of Parameter
    ties : tuple of Tie
    """

    parameters: tuple[Parameter, ...]
    ties: tuple[Tie, ...] = ()

    @property
    def names(self) -> list[str]:
        """Names in order."""
        return [p.name for p in self.parameters]

    @property
    def free(self) -> list[int]:
        """Positions of the free parameters."""
        return [i for i, p in enumerate(self.parameters) if p.free]

    def index(self, name: str) -> int:
        """Position of a parameter.

        Raises
        ------
        InputError
            If there is no parameter of that name; the message gives the nearest names.
        """
        try:
            return self.names.index(name)
        except ValueError:
            raise self._unknown(name) from None

    def __getitem__(self, name: str) -> Parameter:
        """Return the parameter of that name; InputError if there is none."""
        return self.parameters[self.index(name)]

    def span(self, parameters: Sequence[Parameter]) -> slice:
        """Positions, as a slice, of parameters declared together; ValueError if they are not contiguous."""
        if not parameters:
            return slice(0, 0)
        first = self.index(parameters[0].name)
        found = slice(first, first + len(parameters))
        names = [p.name for p in parameters]
        if self.names[found] != names:
            raise ValueError(f"the layout does not hold {', '.join(names)} one after the other")
        return found

    def expand(self, name: str) -> list[str]:
        """Names of the parameters that `name` stands for: itself, or one per map ("dx": dx_0, dx_1, ...)."""
        members = [p.name for p in self.parameters if name in (p.name, p.kind)]
        if not members:
            raise self._unknown(name)
        return members

    def _unknown(self, name: str) -> InputError:
        near = difflib.get_close_matches(name, self.names, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else f"known are {', '.join(self.names)}"
        return InputError(f"no parameter {name!r}; {hint}")

    def with_free(self, names: Iterable[str]) -> "Layout":
        """Return a layout in which these parameters are free as well.

        Parameters
        ----------
        names : iterable of str
            Names, or kinds of per-map parameters ("dx").

        Raises
        ------
        InputError
            If a name is unknown or its parameter is unobservable.
        """
        chosen = {m for name in names for m in self.expand(name)}
        for p in self.parameters:
            if p.name in chosen and p.unobservable:
                raise InputError(f"{p.name} cannot be freed: {p.unobservable}")
        return self._change(chosen, lambda p: replace(p, free=True))

    def with_fixed(self, values: Mapping[str, float]) -> "Layout":
        """Return a layout in which these parameters are held at the given values, without a prior.

        Parameters
        ----------
        values : mapping of str to float
            By name, or by kind of per-map parameters; in their units.

        Raises
        ------
        InputError
            If a name is unknown, or a value must be positive and is not, or is absurdly large.
        """
        held = {m: value for name, value in values.items() for m in self.expand(name)}
        for name, value in held.items():
            self[name].check(value)
        return self._change(held, lambda p: replace(p, free=False, start=held[p.name], prior=None, floor=0.0))

    def with_floor(self, name: str, floor: float) -> "Layout":
        """Return a layout in which this positive parameter, where it is free, stays above a value."""
        return self._change([name], lambda p: replace(p, floor=floor) if p.free else p)

    def with_added(self, *parameters: Parameter) -> "Layout":
        """Return a layout with more parameters, at the end."""
        return replace(self, parameters=(*self.parameters, *parameters))

    def with_held(self, names: Iterable[str]) -> "Layout":
        """Return a layout in which these parameters are not free; their start values and priors stay."""
        chosen = set(names)
        for name in chosen:
            self.index(name)
        return self._change(chosen, lambda p: replace(p, free=False))

    def _change(self, chosen: Iterable[str], change: Callable[[Parameter], Parameter]) -> "Layout":
        chosen = set(chosen)
        return replace(self, parameters=tuple(change(p) if p.name in chosen else p for p in self.parameters))

    def coordinates(self, values: Mapping[str, float] | None = None) -> np.ndarray:
        """Coordinates (n_parameters,) of the start values, or of `values` (by name, in units) where given."""
        values = dict(values or {})
        for name in values:
            self.index(name)
        return np.array([p.coordinate(values.get(p.name, p.start)) for p in self.parameters])

    def values(self, coordinates: np.ndarray) -> dict[str, float]:
        """Values by name, in their units, at the coordinates (n_parameters,)."""
        return {p.name: p.value(float(u)) for p, u in zip(self.parameters, coordinates, strict=True)}

    def derivatives(self, coordinates: np.ndarray) -> np.ndarray:
        """Derivatives of the values with respect to the coordinates, (n_parameters,)."""
        return np.array([p.derivative(float(u)) for p, u in zip(self.parameters, coordinates, strict=True)])

    def prior(self) -> tuple[np.ndarray, np.ndarray]:
        """Priors as linear residuals: half the squared norm of ``rows @ u - target`` is their cost.

        Returns
        -------
        rows : ndarray, (n_rows, n_parameters)
        target : ndarray, (n_rows,)
        """
        rows, target = [], []
        for i, p in enumerate(self.parameters):
            if p.prior is not None and p.free:
                width = p.prior if p.log else p.prior / p.scale
                row = np.zeros(len(self.parameters))
                row[i] = 1 / width
                rows.append(row)
                target.append(p.coordinate(p.start) / width)
        for tie in self.ties:
            members = [self.index(n) for n in tie.names]
            free = [self.parameters[i].free for i in members]
            if not any(free):
                continue
            n = len(members)
            block = np.zeros((n + 1, len(self.parameters)))
            block[:n, members] = (np.eye(n) - 1 / n) / tie.width
            if tie.instead is not None and self[tie.instead].free and all(free):
                block[n, members] = 1 / (n * _CENTRING * tie.width)
            else:
                block = block[:n]
            rows.extend(block)
            target.extend([0.0] * len(block))
        return np.array(rows).reshape(-1, len(self.parameters)), np.array(target)


class Units(Movable):
    """Conversion of the coordinates of a layout to values in their units, on tensors, with derivatives.

    Parameters
    ----------
    layout : Layout
    oo : OO
        Device and precision.
    """

    def __init__(self, layout: Layout, oo: OO) -> None:
        self._scale = oo([p.scale for p in layout.parameters])
        self._log = oo([p.log for p in layout.parameters])
        self._floor = oo([p.floor for p in layout.parameters])

    def values(self, coordinates: Tensor) -> Tensor:
        """Values (..., n_parameters) at coordinates of that shape, differentiable."""
        # exp is evaluated for all entries: the clamp also prevents overflow in those that are not logarithms.
        exponential = torch.exp(coordinates.clamp(-LOG_LIMIT, LOG_LIMIT))
        return self._floor + self._scale * torch.where(self._log, exponential, coordinates)

    def derivatives(self, coordinates: Tensor, values: Tensor) -> Tensor:
        """Derivatives of the values with respect to the coordinates, both (..., n_parameters)."""
        beyond = coordinates.abs() > LOG_LIMIT
        return torch.where(self._log, (values - self._floor).masked_fill(beyond, 0.0), self._scale)
