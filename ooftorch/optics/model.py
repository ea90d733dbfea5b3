"""The forward model: parameters to beam maps.

`BeamModel` turns the vector of coordinates that a `Layout` describes into the power that each map would
record; its `Prediction` knows the derivatives.
"""

import functools
import math
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ooftorch.device import OO
from ooftorch.errors import InputError
from ooftorch.optics import illumination, zernike
from ooftorch.optics.parameters import Layout, Units, default_layout
from ooftorch.optics.receiver import ReceivedPower, Receiver
from ooftorch.optics.telescope import Telescope

__all__ = ["MAX_ORDER", "BeamModel", "MapGeometry", "Prediction", "Shape"]

Shape = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Phase (rad) as a function of the aperture coordinates x, y (m)."""

# Columns of the Jacobian computed together: enough to keep the processor busy, few enough to keep the
# memory at a handful of aperture fields.
_COLUMNS = 8


MAX_ORDER = 64
"""Zernike order beyond which the pixels would not show the waves, nor the memory hold them."""


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
    shape : callable, optional
        Phase (rad) beside the Zernikes', a function of x, y (m): panels, a bump, a measured map. Held.
    oo : OO, optional
        Device and precision.

    Raises
    ------
    InputError
        A wavelength that is not positive, an order below 1 or above 64, or maps too wide for the raster.
    """

    pixel: Tensor
    pixel_x: Tensor
    pixel_y: Tensor
    coverage: Tensor
    zernikes: Tensor
    shape: Tensor
    per_map_phase: Tensor
    nominal_dz: Tensor

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
        shape: Shape | None = None,
        oo: OO | None = None,
    ) -> None:
        super().__init__()
        if not (math.isfinite(wavelength) and wavelength > 0):
            raise InputError(f"wavelength {wavelength} m; expected a positive number of metres")
        if order < 1:
            raise InputError(f"order {order}; the lowest that can be fitted is 1 (pointing)")
        if order > MAX_ORDER:
            raise InputError(f"order {order}; the highest is {MAX_ORDER}, finer than any map of a beam shows")
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
        self.shaped = shape is not None
        if shape is not None:
            self._put("shape", shape(x, y))
        # Phase per unit of each power of dz (m), of the pointing dx and dy (rad): CONVENTIONS 3 and 2.
        self._put("per_map_phase", np.concatenate([-k * path, k * x[None], k * y[None]]))

        self.illumination = _illumination_of(illumination, pitch / radius)
        self._put("nominal_dz", self.dz)
        self.adopt(default_layout(telescope, illumination, order, len(maps), scale, wavelength, receiver))

        self.groups = _Groups(maps, receiver, axis, wavelength, self.coverage)

    def adopt(self, layout: Layout) -> None:
        """Describe the parameters by `layout`: the model's own, or one with others added.

        The coordinates go to its start values, in a new Parameter: make optimisers afterwards.
        """
        known = getattr(self, "layout", layout)
        for name in known.names:
            layout.index(name)
        self.layout = layout
        self.units = Units(layout, self.oo)
        self.places = _Places(layout, self.zernikes.shape[0], len(self.dz), self.illumination, self.oo)
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
        at = Prediction(self, self._own() if coordinates is None else coordinates)
        return at.amplitude, at.surface

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
        return self.at(self._own() if coordinates is None else coordinates).samples

    def at(self, coordinates: Tensor) -> "Prediction":
        """Predict the maps at the coordinates (..., n_parameters), with all derivatives at hand."""
        return Prediction(self, coordinates)

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


class _Places:
    """Where the model's parameters stand in the vector, and which of them a gradient is wanted for."""

    def __init__(
        self, layout: Layout, n_zernike: int, n_maps: int, lamp: illumination.Illumination, oo: OO
    ) -> None:
        def per_map(name: str) -> Tensor:
            return oo([layout.index(f"{name}_{i}") for i in range(n_maps)])

        free = set(layout.free)
        self.zernike = range(layout.index("z0"), layout.index("z0") + n_zernike)
        self.illumination = {name: layout.index(name) for name in lamp.defaults}
        self.lamp = [i for i in self.illumination.values() if i in free]
        self.dz = layout.index("dz")
        self.ratio = layout.index("gain_ratio") if "gain_ratio" in layout.names else None
        self.gain, self.offset = per_map("gain"), per_map("offset")
        self.dx, self.dy = per_map("dx"), per_map("dy")
        moving = [self.dz, *self.dx.tolist(), *self.dy.tolist()]
        self.moves = not free.isdisjoint(moving)
        # In the order in which `Prediction.pull` finds them.
        pulled = [*self.zernike, *self.gain.tolist(), *self.offset.tolist()]
        pulled += moving if self.moves else []
        pulled += [] if self.ratio is None else [self.ratio]
        self.pulled = oo([*pulled, *self.lamp])


class _Groups:
    """Maps with the same samples share one operator and one batched product."""

    def __init__(
        self,
        maps: Sequence[MapGeometry],
        receiver: Receiver,
        axis: np.ndarray,
        wavelength: float,
        like: Tensor,
    ) -> None:
        self.members: list[list[int]] = []
        for i, m in enumerate(maps):
            for members in self.members:
                first = maps[members[0]]
                if np.array_equal(first.x, m.x) and np.array_equal(first.y, m.y):
                    members.append(i)
                    break
            else:
                self.members.append([i])
        firsts = [maps[members[0]] for members in self.members]
        self.beams = [ReceivedPower(receiver, axis, axis, m.x, m.y, wavelength, like=like) for m in firsts]
        self._sizes = [len(m.x) for m in maps]
        self._order = [i for members in self.members for i in members]
        self._index = [torch.tensor(members, device=like.device) for members in self.members]
        self._back = torch.tensor(np.argsort(self._order), device=like.device)

    def of(self, tensor: Tensor, dim: int) -> list[Tensor]:
        """Each group's part of a tensor whose dimension `dim` counts the maps."""
        if len(self.members) == 1:
            return [tensor]
        return [tensor.index_select(dim, index) for index in self._index]

    def ordered(self, parts: list[Tensor], dim: int) -> Tensor:
        """Inverse of `of`."""
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim).index_select(dim, self._back)

    def apart(self, samples: Tensor) -> list[Tensor]:
        """Each group's part (..., n_maps, n) of the samples of all maps (..., n_samples)."""
        if len(self.members) == 1:
            return [samples.unflatten(-1, (len(self._order), -1))]
        by_map = samples.split(self._sizes, -1)
        return [torch.stack([by_map[i] for i in members], -2) for members in self.members]

    def joined(self, parts: list[Tensor]) -> Tensor:
        """Inverse of `apart`."""
        if len(parts) == 1:
            return parts[0].flatten(-2)
        by_map = [row for part in parts for row in part.unbind(-2)]
        return torch.cat([by_map[i] for i in self._back.tolist()], -1)


class Prediction:
    """Beam maps at one set of parameters (or a batch), and their derivatives there.

    What the way forward computed is kept, so that a gradient costs one more pass, backwards (`pull`), and
    so does each column of the Jacobian, forwards. Both are written out: autograd would build the graph
    of a function that never changes anew for every evaluation.

    Parameters
    ----------
    model : BeamModel
    coordinates : Tensor, (..., n_parameters)

    Attributes
    ----------
    values : Tensor, (..., n_parameters)
        The parameters in their units.
    amplitude, surface : Tensor, (..., n_pixels)
        Aperture amplitude, and phase (rad) without defocus.
    samples : Tensor, (..., n_samples)
        Power of every sample, all maps one after the other.
    """

    def __init__(self, model: "BeamModel", coordinates: Tensor) -> None:
        self._model, self._coordinates = model, coordinates
        places = model.places
        v = self.values = model.units.values(coordinates)
        self._lamp = {name: v[..., i, None] for name, i in places.illumination.items()}
        self.amplitude = model.coverage * model.illumination.amplitude(
            model.pixel_x, model.pixel_y, **self._lamp
        )
        self.surface = v[..., places.zernike.start : places.zernike.stop] @ model.zernikes
        if model.shaped:
            self.surface = self.surface + model.shape

    @functools.cached_property
    def samples(self) -> Tensor:  # noqa: D102  (an attribute of the class docstring)
        model, v, places, groups = self._model, self.values, self._model.places, self._model.groups
        self._dz = model.nominal_dz + v[..., places.dz, None]  # (..., n_maps)
        powers = [self._dz, *(self._dz ** (p + 1) for p in range(1, model.n_powers))]
        per_map = torch.stack([*powers, v.index_select(-1, places.dx), v.index_select(-1, places.dy)], -1)
        # Complex, (..., n_maps, n_pixels).
        phase = self.surface.unsqueeze(-2) + per_map @ model.per_map_phase
        amplitude = self.amplitude.unsqueeze(-2)
        self._field = torch.complex(amplitude * torch.cos(phase), amplitude * torch.sin(phase))
        self._total = self.amplitude.sum(-1)[..., None, None]
        # Of the power in units of the perfect, in-focus telescope's peak.
        self._gain = groups.of(v.index_select(-1, places.gain).unsqueeze(-1) / self._total.square(), -2)
        offset = groups.of(v.index_select(-1, places.offset).unsqueeze(-1), -2)
        ratio = None if places.ratio is None else v[..., places.ratio, None, None]
        fields = groups.of(self._square(self._field), -4)
        self._received = [beam.at(field, ratio) for beam, field in zip(groups.beams, fields, strict=True)]
        return groups.joined(
            [torch.addcmul(o, g, r.power) for o, g, r in zip(offset, self._gain, self._received, strict=True)]
        )

    def pull(self, slope: Tensor) -> Tensor:
        """Slope of a function by the coordinates (..., n_parameters) from that by the samples.

        Zero for the parameters of the illumination, the focus and the pointing that the layout holds.
        """
        model, places, groups = self._model, self._model.places, self._model.groups
        _ = self.samples  # the way forward, where nobody asked for it yet
        slopes = groups.apart(slope)
        by_map = [torch.linalg.vecdot(w, r.power) for w, r in zip(slopes, self._received, strict=True)]
        by_gain = groups.ordered(by_map, -1) / self._total[..., 0].square()
        by_offset = groups.ordered([w.sum(-1) for w in slopes], -1)
        by_power = [w * g for w, g in zip(slopes, self._gain, strict=True)]
        by_field = [r.pull(w) for r, w in zip(self._received, by_power, strict=True)]
        pulled = torch.view_as_complex(groups.ordered(by_field, -4)).flatten(-2)
        # The real part goes with the logarithm of the amplitude, the imaginary one with the phase.
        pulled = self._field.conj() * pulled[..., model.pixel]
        by_phase = pulled.imag
        parts = [by_phase.sum(-2) @ model.zernikes.mT, by_gain, by_offset]
        if places.moves:
            per_map = by_phase @ model.per_map_phase.mT  # (..., n_maps, powers of dz and dx, dy)
            by_dz = (per_map[..., :-2] * self._dz_rates()).sum((-1, -2))
            parts += [by_dz[..., None], per_map[..., -2], per_map[..., -1]]
        if places.ratio is not None:
            by_log = [
                (w * r.ratio_slope()).sum((-1, -2)) for w, r in zip(by_power, self._received, strict=True)
            ]
            parts.append((torch.stack(by_log).sum(0) / self.values[..., places.ratio])[..., None])
        if places.lamp:
            # A brighter pixel also raises the perfect telescope's peak, in whose units the power is.
            rise = torch.linalg.vecdot(by_gain, self.values.index_select(-1, places.gain))[..., None]
            by_lamp = pulled.real.sum(-2) - (2 * rise / self._total[..., 0]) * self.amplitude
            lamp_slopes = self._lamp_slopes(places.lamp)
            parts += [torch.linalg.vecdot(by_lamp, slope_of)[..., None] for _, slope_of in lamp_slopes]
        out = torch.zeros_like(self.values).index_copy(-1, places.pulled, torch.cat(parts, -1))
        return out * model.units.slopes(self._coordinates, self.values)

    def jacobian(self, wanted: Sequence[int]) -> Tensor:
        """Derivatives of the samples by some of the coordinates, (..., len(wanted), n_samples)."""
        model, places, groups = self._model, self._model.places, self._model.groups
        out = self.samples.new_zeros((*self.values.shape[:-1], len(wanted), self.samples.shape[-1]))
        row = {i: r for r, i in enumerate(wanted)}
        numbers = [i for i in wanted if i in places.zernike]
        for start in range(0, len(numbers), _COLUMNS):
            chunk = numbers[start : start + _COLUMNS]
            polynomials = model.zernikes[[i - places.zernike.start for i in chunk]]
            # The columns go before every other dimension.
            polynomials = polynomials.reshape(len(chunk), *[1] * (self._field.dim() - 1), -1)
            out[..., [row[i] for i in chunk], :] = self._by_phase(polynomials).movedim(0, -2)
        if places.dz in row:
            by_dz = self._dz_rates() @ model.per_map_phase[:-2]
            out[..., row[places.dz], :] = self._by_phase(by_dz)
        for i, slope_of in self._lamp_slopes(wanted):
            fall = 2 * torch.linalg.vecdot(self.amplitude, slope_of)[..., None, None] / self._total
            fallen = [g * r.power * fall for g, r in zip(self._gain, self._received, strict=True)]
            out[..., row[i], :] = self._by_field(slope_of.unsqueeze(-2) * self._field) - groups.joined(fallen)
        if places.ratio is not None and places.ratio in row:
            per_log = [g * r.ratio_slope() for g, r in zip(self._gain, self._received, strict=True)]
            out[..., row[places.ratio], :] = groups.joined(per_log) / self.values[..., places.ratio, None]

        def each(members: Tensor, derivative: Callable[[], Tensor]) -> None:
            """Write the rows of parameters that belong to one map each."""
            if row.keys().isdisjoint(members.tolist()):
                return
            for i, part, target in zip(
                members.tolist(), model.split(derivative()), model.split(out), strict=True
            ):
                if i in row:
                    target[..., row[i], :] = part

        each(places.dx, lambda: self._by_phase(model.per_map_phase[-2]))
        each(places.dy, lambda: self._by_phase(model.per_map_phase[-1]))
        each(places.gain, lambda: groups.joined([r.power / self._total.square() for r in self._received]))
        each(places.offset, lambda: torch.ones_like(self.samples))
        slopes = model.units.slopes(self._coordinates, self.values)[..., wanted]
        return out.mul_(slopes.unsqueeze(-1))

    def _square(self, field: Tensor) -> Tensor:
        """Complex field of the dish pixels (..., n_pixels) on the whole raster (..., ny, nx, 2)."""
        side = len(self._model.axis)
        # Two dimensions: torch copies along an index of more several times slower.
        flat = field.reshape(-1, field.shape[-1])
        square = flat.new_zeros((len(flat), side * side)).index_copy(-1, self._model.pixel, flat)
        return torch.view_as_real(square.reshape(*field.shape[:-1], side, side))

    def _dz_rates(self) -> Tensor:
        """Derivative of each power of dz, (..., n_maps, n_powers)."""
        return torch.stack([(p + 1) * self._dz**p for p in range(self._model.n_powers)], -1)

    def _lamp_slopes(self, wanted: Container[int]) -> Iterator[tuple[int, Tensor]]:
        """Those of the wanted parameters that belong to the illumination, and its logarithm's derivatives."""
        model = self._model
        slopes = model.illumination.slopes(model.pixel_x, model.pixel_y, **self._lamp)
        for name, i in model.places.illumination.items():
            if i in wanted:
                yield i, slopes[name]()

    def _by_phase(self, change: Tensor) -> Tensor:
        """Change of the samples for a change of the phase (..., n_maps or 1, n_pixels)."""
        return self._by_field(torch.complex(-self._field.imag * change, self._field.real * change))

    def _by_field(self, change: Tensor) -> Tensor:
        """Change of the samples for a change of the field, complex (..., n_maps, n_pixels)."""
        groups = self._model.groups
        changes = groups.of(self._square(change), -4)
        return groups.joined(
            [r.push(c) * g for r, c, g in zip(self._received, changes, self._gain, strict=True)]
        )


def _illumination_of(name: str, pitch: float) -> illumination.Illumination:
    model = illumination.model(name)
    if name != "tophat":
        return model
    return replace(
        model,
        amplitude=functools.partial(illumination.tophat, pitch=pitch),
        slopes=functools.partial(illumination.tophat_slopes, pitch=pitch),
    )
