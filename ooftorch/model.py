"""The forward model: parameters to beam maps.

`Layout` knows every parameter by name; `BeamModel` turns the vector it describes into the power that
each map would record. Inside, parameters are dimensionless coordinates of order one; outside they are
radians, metres and the units of the data. No other line of the package counts positions in the vector.
"""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ooftorch import illumination, zernike
from ooftorch.device import OO
from ooftorch.errors import InputError
from ooftorch.receiver import ReceivedPower, Receiver
from ooftorch.telescope import Telescope

__all__ = ["BeamModel", "Layout", "MapGeometry", "Parameter"]

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

    def values(self, coordinates: Tensor) -> Tensor:
        """`value` of a tensor of coordinates, differentiable."""
        if not self.log:
            return self.scale * coordinates
        return self.scale * torch.exp(coordinates.clamp(-LOG_LIMIT, LOG_LIMIT))

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
            k = _zernike_number(p.name)
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


def _zernike_number(name: str) -> int | None:
    return int(name[1:]) if name[0] == "z" and name[1:].isdigit() else None


class MapGeometry(NamedTuple):
    """Where one map was taken: defocus dz (m) and directions x, y (n,), rad, telescope minus source."""

    dz: float
    x: np.ndarray
    y: np.ndarray


class BeamModel(nn.Module):
    """Beam maps of a telescope as a differentiable function of its parameters.

    The parameter `coordinates`, described by `layout`, is what any torch optimiser moves; parameters
    that the layout holds fixed get no gradient. A map's power is gain * P + offset with P the received
    power pattern in units of the perfect, in-focus telescope's peak, so a gain is that peak in the
    data's units.

    Parameters
    ----------
    telescope : Telescope
    wavelength : float
        Metres.
    maps : sequence of MapGeometry
        One per focus position, each with its own samples.
    order : int
        Highest Zernike order.
    illumination : str
        A name of `illumination.MODELS`.
    receiver : Receiver
    scale : float
        Size of the data: unit of the gains and offsets inside.
    n, oversample : int, float
        Aperture raster: n x n pixels over a square of half side `oversample` dish radii, as in the
        original software. Only the pixels that hold the dish are kept.
    oo : OO, optional
        Device and precision.

    Raises
    ------
    InputError
        A wavelength that is not positive, an order below 1, or maps too wide for the raster.
    """

    pixel: Tensor
    pixel_x: Tensor
    pixel_y: Tensor
    coverage: Tensor
    zernikes: Tensor
    per_map_phase: Tensor

    def __init__(
        self,
        telescope: Telescope,
        wavelength: float,
        maps: Sequence[MapGeometry],
        *,
        order: int,
        illumination: str = "gaussian",
        receiver: Receiver = Receiver(),  # noqa: B008  (frozen)
        scale: float = 1.0,
        n: int = 256,
        oversample: float = 2.0,
        oo: OO | None = None,
    ) -> None:
        super().__init__()
        if not (math.isfinite(wavelength) and wavelength > 0):
            raise InputError(f"wavelength {wavelength} m; expected a positive number of metres")
        if order < 1:
            raise InputError(f"order {order}; the lowest that can be fitted is 1 (pointing)")
        self.oo = oo or OO("cpu")
        self.telescope, self.wavelength, self.receiver, self.order = telescope, wavelength, receiver, order
        self.dz = np.array([m.dz for m in maps], float)
        self.sizes = [len(m.x) for m in maps]

        radius = telescope.radius
        pitch = 2 * oversample * radius / n
        widest = max(float(np.max(np.abs((m.x, m.y)), initial=0.0)) for m in maps)
        if widest > 0.5 * wavelength / pitch:
            needed = 2 * math.ceil(2 * oversample * radius * widest / wavelength) + 2
            reach = 0.5 * wavelength / pitch
            raise InputError(
                f"a sample lies {widest:.3g} rad from the source, beyond the {reach:.3g} rad "
                f"that {n} aperture pixels can represent; check the units of the map, or use n >= {needed}"
            )
        # Pixel p at (p - n/2) pitch, so that the centre of the dish is the centre of a pixel.
        edge = math.ceil(radius / pitch + 0.5)
        axis = np.arange(-edge, edge + 1) * pitch
        x, y = np.meshgrid(axis, axis)
        coverage = telescope.coverage(x, y, pitch)
        lit = coverage > 0
        self.axis = axis
        self.pitch = pitch
        x, y, coverage = x[lit], y[lit], coverage[lit]
        k = 2 * math.pi / wavelength
        path = telescope.path_powers(x, y)
        self.n_powers = len(path)
        self._put("pixel", np.flatnonzero(lit))
        self._put("pixel_x", x / radius)
        self._put("pixel_y", y / radius)
        self._put("coverage", coverage)
        self._put("zernikes", zernike.raster(order, x / radius, y / radius))
        # Phase per unit of each power of dz (m), of the pointing dx and dy (rad): CONVENTIONS 3 and 2.
        self._put("per_map_phase", np.concatenate([-k * path, k * x[None], k * y[None]]))

        self.illumination = _illumination_of(illumination, pitch / radius)
        self.layout = _default_layout(telescope, illumination, order, len(maps), scale, wavelength, receiver)
        self.coordinates = nn.Parameter(self.oo(self.layout.coordinates()))

        # Maps with the same samples share one operator and one batched product.
        self._groups: list[tuple[list[int], ReceivedPower]] = []
        for i, m in enumerate(maps):
            for members, _ in self._groups:
                first = maps[members[0]]
                if np.array_equal(first.x, m.x) and np.array_equal(first.y, m.y):
                    members.append(i)
                    break
            else:
                beam = ReceivedPower(receiver, axis, axis, m.x, m.y, wavelength, like=self.coverage)
                self._groups.append(([i], beam))

    def adopt(self, layout: Layout) -> None:
        """Describe the parameters by `layout`: the model's own, or one with others added.

        The coordinates go to its start values, in a new Parameter: make optimisers afterwards.
        """
        for name in self.layout.names:
            layout.index(name)
        self.layout = layout
        self.coordinates = nn.Parameter(self.oo(layout.coordinates()))

    def _put(self, name: str, array: np.ndarray) -> None:
        self.register_buffer(name, self.oo(array), persistent=False)

    def aperture(self, coordinates: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Amplitude and phase on the dish pixels, without defocus.

        Parameters
        ----------
        coordinates : Tensor, (..., n_parameters), optional
            The module's own when not given.

        Returns
        -------
        amplitude, phase : Tensor, (..., n_pixels)
            Phase in radians. Pixels: `pixel_x`, `pixel_y`, in dish radii.
        """
        u = self._own() if coordinates is None else coordinates
        named = self._columns(u)
        amplitude = self.coverage * self.illumination.amplitude(
            self.pixel_x, self.pixel_y, **{name: named[name] for name in self.illumination.defaults}
        )
        n_z = self.zernikes.shape[0]
        first = self.layout.index("z0")
        return amplitude, u[..., first : first + n_z] @ self.zernikes

    def forward(self, coordinates: Tensor | None = None) -> Tensor:
        """Power of every sample of every map.

        Parameters
        ----------
        coordinates : Tensor, (..., n_parameters), optional
            The module's own when not given.

        Returns
        -------
        Tensor, (..., n_samples)
            All maps, one after the other; `split` takes them apart.
        """
        u = self._own() if coordinates is None else coordinates
        named = self._columns(u)
        amplitude, phase = self.aperture(u)

        dz = self.oo(self.dz) + named["dz"]  # (..., n_maps)
        powers = [dz ** (p + 1) for p in range(self.n_powers)]
        per_map = torch.stack([*powers, self._per_map(named, "dx"), self._per_map(named, "dy")], -1)
        phase = phase.unsqueeze(-2) + per_map @ self.per_map_phase  # (..., n_maps, n_pixels)
        amplitude = amplitude.unsqueeze(-2)
        field = torch.stack([amplitude * torch.cos(phase), amplitude * torch.sin(phase)], -1)
        side = len(self.axis)
        square = field.new_zeros((*field.shape[:-2], side * side, 2))
        square = square.index_copy(-2, self.pixel, field).unflatten(-2, (side, side))

        perfect = amplitude.sum(-1, keepdim=True).square()  # (..., 1, 1)
        gain, offset = self._per_map(named, "gain"), self._per_map(named, "offset")
        ratio = named["gain_ratio"].unsqueeze(-1) if self.receiver.chopped else None
        out: list[Tensor] = [field.new_empty(0)] * len(self.dz)
        for members, beam in self._groups:
            # Basic slicing where it can be: all maps usually share their samples.
            chosen = square if len(members) == len(self.dz) else square[..., members, :, :, :]
            p = beam(chosen, ratio) / perfect
            p = gain[..., members, None] * p + offset[..., members, None]
            for j, i in enumerate(members):
                out[i] = p[..., j, :]
        return torch.cat(out, -1)

    def split(self, samples: Tensor | np.ndarray) -> list:
        """Per-map pieces of an array whose last dimension holds the samples of all maps."""
        ends = np.cumsum(self.sizes)
        return [samples[..., end - size : end] for size, end in zip(self.sizes, ends, strict=True)]

    def values(self) -> dict[str, float]:
        """Parameters by name, in their units."""
        return self.layout.values(self.coordinates.detach().cpu().numpy())

    def set(self, **values: float) -> None:
        """Set parameters by name, in their units."""
        with torch.no_grad():
            for name, value in values.items():
                i = self.layout.index(name)
                self.coordinates[i] = self.layout.parameters[i].coordinate(value)

    def _own(self) -> Tensor:
        free = self.coordinates.new_zeros(len(self.coordinates), dtype=torch.bool)
        free[self.layout.free] = True
        return torch.where(free, self.coordinates, self.coordinates.detach())

    def _columns(self, u: Tensor) -> dict[str, Tensor]:
        """Values by name, (..., 1) each."""
        return {p.name: p.values(u[..., i : i + 1]) for i, p in enumerate(self.layout.parameters)}

    def _per_map(self, named: dict[str, Tensor], name: str) -> Tensor:
        return torch.cat([named[f"{name}_{i}"] for i in range(len(self.dz))], -1)


def _illumination_of(name: str, pitch: float) -> illumination.Illumination:
    model = illumination.model(name)
    if name != "tophat":
        return model
    return replace(model, amplitude=lambda x, y, **p: illumination.tophat(x, y, pitch=pitch, **p))


def _default_layout(
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
