"""The parameters of a model: names, units, start values, scales, priors, and which are free.

Minimisers see a vector of dimensionless coordinates of order one; outside they are radians, metres and
the units of the data. `Layout` is the one place that knows where in the vector a parameter stands.
"""

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ooftorch.device import OO
from ooftorch.errors import InputError
from ooftorch.optics import illumination, zernike
from ooftorch.optics.receiver import Receiver
from ooftorch.optics.telescope import Telescope

__all__ = ["LOG_LIMIT", "Layout", "Parameter", "Units", "default_layout"]

# Prior widths (standard deviations) of parameters that are not shape of the surface.
GAIN_TIE = 0.03  # relative spread of the maps' gains about their common value
POINTING_PRIOR = 0.25  # per-map pointing error, in units of wavelength over diameter
CENTRE_PRIOR = 0.05  # illumination centre, in dish radii
FOCUS_PRIOR_M = 1e-3  # common error of the defocus, metres
GAIN_RATIO_PRIOR = 0.1  # relative, of a chopped pair

# Power has no trace of these.
UNOBSERVABLE = {"z0": "no power pattern depends on the piston", "amp": "the maps' gains stand for it"}

# Logarithms of a positive parameter over its scale beyond this are one and the same, so that a line search
# may overshoot without meeting an infinity.
LOG_LIMIT = 50.0


@dataclass(frozen=True)
class Parameter:
    """One parameter of the model.

    The coordinate u that minimisers see is value/scale, or log(value/scale) where `log` is set because
    the value is positive by nature.

    Attributes
    ----------
    name, unit : str
    start : float
        Start value, in the unit.
    scale : float
        Typical size, in the unit.
    free : bool
    log : bool
    prior : float or None
        Standard deviation of a normal prior about the start, in the unit (relative where `log`).
    """

    name: str
    unit: str
    start: float
    scale: float = 1.0
    free: bool = False
    log: bool = False
    prior: float | None = None

    def coordinate(self, value: float) -> float:
        """Coordinate of a value; InputError for one that is not positive where it has to be."""
        if self.log and not value > 0:
            raise InputError(f"{self.name} is positive by nature, not {value:g}")
        return math.log(value / self.scale) if self.log else value / self.scale

    def value(self, coordinate: float) -> float:
        """Value at a coordinate."""
        if not self.log:
            return self.scale * coordinate
        return self.scale * math.exp(min(max(coordinate, -LOG_LIMIT), LOG_LIMIT))

    def slope(self, coordinate: float) -> float:
        """Derivative of the value by the coordinate: turns a coordinate's error into the value's."""
        return self.value(coordinate) if self.log else self.scale


@dataclass(frozen=True)
class Layout:
    """All parameters of a model, in order.

    Attributes
    ----------
    parameters : tuple of Parameter
    ties : tuple of (names, float)
        Groups of parameters held together: a normal prior of that width, in coordinates, on each one's
        distance from the mean of its group. (A common value with a flat prior, integrated out.)
    """

    parameters: tuple[Parameter, ...]
    ties: tuple[tuple[tuple[str, ...], float], ...] = ()

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
            No parameter of that name; the nearest are given.
        """
        try:
            return self.names.index(name)
        except ValueError:
            raise self._unknown(name) from None

    def expand(self, name: str) -> list[str]:
        """Parameters meant by `name`: itself, or one per map ("dx" means dx_0, dx_1, ...)."""
        members = [n for n in self.names if n == name or (n.startswith(name + "_") and n[-1].isdigit())]
        if not members:
            raise self._unknown(name)
        return members

    def _unknown(self, name: str) -> InputError:
        near = difflib.get_close_matches(name, self.names, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else f"known are {', '.join(self.names)}"
        return InputError(f"no parameter {name!r}; {hint}")

    def freed(self, names: Iterable[str]) -> "Layout":
        """Return a layout in which `names` are free as well."""
        chosen = {m for name in names for m in self.expand(name)}
        for name in sorted(chosen & set(UNOBSERVABLE)):
            raise InputError(f"{name} cannot be freed: {UNOBSERVABLE[name]}")
        return self._replace(lambda p: replace(p, free=True) if p.name in chosen else p)

    def fixed(self, values: Mapping[str, float]) -> "Layout":
        """Return a layout in which these parameters are held at the given values, without a prior."""
        held = {m: value for name, value in values.items() for m in self.expand(name)}
        for p in self.parameters:
            if p.name in held:
                p.coordinate(held[p.name])
        return self._replace(
            lambda p: replace(p, free=False, start=held[p.name], prior=None) if p.name in held else p
        )

    def added(self, parameter: Parameter) -> "Layout":
        """Return a layout with one more parameter, at the end."""
        return replace(self, parameters=(*self.parameters, parameter))

    def held(self, name: str) -> "Layout":
        """Return a layout in which one parameter keeps the coordinate that it has."""
        self.index(name)
        return self._replace(lambda p: replace(p, free=False) if p.name == name else p)

    def up_to_order(self, order: int) -> "Layout":
        """Return a layout whose Zernikes above `order` are held where they start."""

        def cut(p: Parameter) -> Parameter:
            k = zernike.number(p.name)
            return p if k is None or zernike.order_of(k) <= order else replace(p, free=False)

        return self._replace(cut)

    def _replace(self, change) -> "Layout":
        return replace(self, parameters=tuple(change(p) for p in self.parameters))

    def coordinates(self, values: Mapping[str, float] | None = None) -> np.ndarray:
        """Vector of coordinates at the start values, `values` overriding some by name."""
        values = dict(values or {})
        for name in values:
            self.index(name)
        return np.array([p.coordinate(values.get(p.name, p.start)) for p in self.parameters])

    def values(self, coordinates: np.ndarray) -> dict[str, float]:
        """Values by name at a vector of coordinates."""
        return {p.name: p.value(float(u)) for p, u in zip(self.parameters, coordinates, strict=True)}

    def slopes(self, coordinates: np.ndarray) -> np.ndarray:
        """Derivatives of the values by the coordinates."""
        return np.array([p.slope(float(u)) for p, u in zip(self.parameters, coordinates, strict=True)])

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
        for names, width in self.ties:
            members = [self.index(n) for n in names]
            block = np.zeros((len(members), len(self.parameters)))
            block[:, members] = (np.eye(len(members)) - 1 / len(members)) / width
            rows.extend(block)
            target.extend([0.0] * len(members))
        return np.array(rows).reshape(-1, len(self.parameters)), np.array(target)


class Units:
    """Coordinates of a whole layout to values, and the slopes of that, as tensors.

    Parameters
    ----------
    layout : Layout
    oo : OO
    """

    def __init__(self, layout: Layout, oo: OO) -> None:
        self._scale = oo([p.scale for p in layout.parameters])
        self._log = oo([p.log for p in layout.parameters])

    def values(self, coordinates: Tensor) -> Tensor:
        """Values (..., n_parameters) at coordinates of that shape, differentiable."""
        # The clamp also keeps what is not a logarithm from overflowing.
        exponential = torch.exp(coordinates.clamp(-LOG_LIMIT, LOG_LIMIT))
        return self._scale * torch.where(self._log, exponential, coordinates)

    def slopes(self, coordinates: Tensor, values: Tensor) -> Tensor:
        """Derivatives of the values by the coordinates."""
        beyond = coordinates.abs() > LOG_LIMIT
        return torch.where(self._log, values.masked_fill(beyond, 0.0), self._scale)


def default_layout(
    telescope: Telescope,
    illumination_name: str,
    order: int,
    n_maps: int,
    scale: float,
    wavelength: float,
    receiver: Receiver,
) -> Layout:
    """Every parameter, with what is free and how tightly where nobody says otherwise."""
    model = illumination.model(illumination_name)
    usual = dict(model.defaults)
    known = telescope.illumination
    if "taper_db" in usual and known.taper_db is not None:
        usual["taper_db"] = known.taper_db
    if "sigma" in usual and known.taper_db is not None:
        usual["sigma"] = illumination.sigma_from_taper(illumination_name, known.taper_db)
    if "radius" in usual and known.radius is not None:
        usual["radius"] = known.radius / telescope.radius
    beam = wavelength / (2 * telescope.radius)

    parameters = [Parameter(zernike.name(k), "rad", 0.0, free=k > 0) for k in range(zernike.n_terms(order))]
    for name, start in usual.items():
        unit = {"taper_db": "dB", "x0": "R", "y0": "R", "sigma": "R", "radius": "R"}.get(name, "")
        prior = model.free.get(name, CENTRE_PRIOR if name in ("x0", "y0") else None)
        log = name in ("sigma", "radius", "amp")
        parameters.append(Parameter(name, unit, start, free=name in model.free, log=log, prior=prior))
    for i in range(n_maps):
        parameters += [
            Parameter(f"gain_{i}", "data", scale, scale, free=True, log=True),
            Parameter(f"offset_{i}", "data", 0.0, scale, free=True),
            Parameter(f"dx_{i}", "rad", 0.0, beam, prior=POINTING_PRIOR * beam),
            Parameter(f"dy_{i}", "rad", 0.0, beam, prior=POINTING_PRIOR * beam),
        ]
    parameters.append(Parameter("dz", "m", 0.0, FOCUS_PRIOR_M, prior=FOCUS_PRIOR_M))
    if receiver.chopped:
        ratio = receiver.gain_ratio
        parameters.append(
            Parameter("gain_ratio", "", ratio, ratio, free=True, log=True, prior=GAIN_RATIO_PRIOR)
        )
    gains = tuple(f"gain_{i}" for i in range(n_maps))
    return Layout(tuple(parameters), ties=((gains, GAIN_TIE),))
