"""Beam maps at one set of parameters, and all their derivatives there."""

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ooftorch.optics.effect import Backward, Effect

if TYPE_CHECKING:
    from ooftorch.optics.model import BeamModel
    from ooftorch.optics.received_power import Received

__all__ = ["Prediction"]


class Prediction:
    """Beam maps at one set of parameters (or a batch), and their derivatives there.

    What the forward pass computed is kept, so that a gradient costs one more pass, backwards (`vjp`), and so
    does each column of the Jacobian, forwards (`jacobian`). Both are written out: autograd would build the
    graph of a function that never changes anew for every evaluation.

    Parameters
    ----------
    model : BeamModel
    coordinates : Tensor, (..., n_parameters)

    Attributes
    ----------
    values : Tensor, (..., n_parameters)
        The parameters in their units.
    amplitude, phase : Tensor, (..., n_pixels)
        Of the aperture field, radians, without what differs from map to map.
    samples : Tensor, (..., n_samples)
        Power of every sample, all maps one after the other.
    received : list of Received
        Power in the receiver's beams, for each group of maps.
    """

    received: "list[Received]"

    def __init__(self, model: "BeamModel", coordinates: Tensor) -> None:
        self.model, self._coordinates = model, coordinates
        self.groups = model.groups
        self.values = model.units.values(coordinates)
        self.amplitude = model.lighting.amplitude(self._of(model.lighting))
        self.phase = model.surface.phase(self._of(model.surface))

    def _of(self, effect: Effect) -> Tensor:
        """Values (..., n) of the parameters of an effect."""
        return self.values[..., effect.span]

    @functools.cached_property
    def samples(self) -> Tensor:  # noqa: D102  (an attribute of the class docstring)
        model, groups = self.model, self.groups
        coefficients = torch.cat([e.coefficients(self._of(e)) for e in model.map_phases], -1)
        phase = self.phase.unsqueeze(-2) + coefficients @ model.screens  # (..., n_maps, n_pixels)
        amplitude = self.amplitude.unsqueeze(-2)
        self._field = torch.complex(amplitude * torch.cos(phase), amplitude * torch.sin(phase))
        self._total = self.amplitude.sum(-1)[..., None, None]
        # Of the power in units of the perfect, in-focus telescope's peak.
        gain = self._of(model.gains).unsqueeze(-1) / self._total.square()
        self._gain = groups.of(gain, -2)
        offset = groups.of(self._of(model.offsets).unsqueeze(-1), -2)
        ratio = self._of(model.beam_ratio).unsqueeze(-1) if model.receiver.chopped else None
        fields = groups.of(self._on_raster(self._field), -4)
        self.received = [beam.at(field, ratio) for beam, field in zip(groups.beams, fields, strict=True)]
        return groups.joined(
            [torch.addcmul(o, g, r.power) for o, g, r in zip(offset, self._gain, self.received, strict=True)]
        )

    def vjp(self, by_samples: Tensor) -> Tensor:
        """Gradient by the coordinates (..., n_parameters) of a function of the samples.

        Zero for the parameters of an effect all of which the layout holds.

        Parameters
        ----------
        by_samples : Tensor, (..., n_samples)
            Its gradient by the samples.
        """
        _ = self.samples  # the forward pass, where nobody asked for it yet
        back = self._go_back(by_samples)
        gradient = torch.zeros_like(self.values)
        for effect in self.model.effects:
            if effect.free:
                gradient[..., effect.span] = effect.vjp(self, back)
        return gradient * self.model.units.derivatives(self._coordinates, self.values)

    def _go_back(self, by_samples: Tensor) -> Backward:
        model, groups = self.model, self.groups
        parts = groups.apart(by_samples)
        by_map = [torch.linalg.vecdot(w, r.power) for w, r in zip(parts, self.received, strict=True)]
        by_gain = groups.ordered(by_map, -1) / self._total[..., 0].square()
        by_power = [w * g for w, g in zip(parts, self._gain, strict=True)]
        by_field = [r.vjp(w) for r, w in zip(self.received, by_power, strict=True)]
        on_raster = torch.view_as_complex(groups.ordered(by_field, -4)).flatten(-2)
        # The real part goes with the logarithm of the amplitude, the imaginary one with the phase.
        by_log_field = self._field.conj() * on_raster[..., model.pixel_index]
        by_log_amplitude = None
        if model.lighting.free:
            # A brighter pixel also raises the perfect telescope's peak, in whose units the power is.
            rise = torch.linalg.vecdot(by_gain, self._of(model.gains))[..., None]
            by_log_amplitude = by_log_field.real.sum(-2) - (2 * rise / self._total[..., 0]) * self.amplitude
        return Backward(parts, by_power, by_log_field.imag, by_log_amplitude, by_gain)

    def jacobian(self, wanted: Sequence[int]) -> Tensor:
        """Derivatives of the samples by some of the coordinates, (..., len(wanted), n_samples)."""
        n_samples = self.samples.shape[-1]
        out = self.samples.new_zeros((*self.values.shape[:-1], len(wanted), n_samples))
        for effect in self.model.effects:
            rows = {
                i - effect.span.start: row
                for row, i in enumerate(wanted)
                if effect.span.start <= i < effect.span.stop
            }
            if rows:
                effect.jvp(self, out, rows)
        derivatives = self.model.units.derivatives(self._coordinates, self.values)[..., list(wanted)]
        return out.mul_(derivatives.unsqueeze(-1))

    # ------------------------------------------------------------------- changes of the samples, for effects

    def change_by_phase(self, change: Tensor) -> Tensor:
        """Change of the samples for a change of the phase (..., n_maps or 1, n_pixels)."""
        return self._change_by_field(torch.complex(-self._field.imag * change, self._field.real * change))

    def change_by_log_amplitude(self, change: Tensor) -> Tensor:
        """Change of the samples for a change of the logarithm of the amplitude (..., n_pixels)."""
        fall = 2 * torch.linalg.vecdot(self.amplitude, change)[..., None, None] / self._total
        fallen = [g * r.power * fall for g, r in zip(self._gain, self.received, strict=True)]
        return self._change_by_field(change.unsqueeze(-2) * self._field) - self.groups.joined(fallen)

    def change_by_gain(self) -> Tensor:
        """Change of the samples of each map for a change of its gain."""
        return self.groups.joined([r.power / self._total.square() for r in self.received])

    def amplify(self, power: list[Tensor]) -> Tensor:
        """Samples that this power, received in each group of maps, would add."""
        return self.groups.joined([g * p for g, p in zip(self._gain, power, strict=True)])

    def write_by_map(self, out: Tensor, rows: Mapping[int, int], change: Tensor) -> None:
        """Write the part of each map of a change of the samples to a row of its own."""
        parts, targets = self.model.split(change), self.model.split(out)
        for number, row in rows.items():
            targets[number][..., row, :] = parts[number]

    def _change_by_field(self, change: Tensor) -> Tensor:
        """Change of the samples for a change of the field, complex (..., n_maps, n_pixels)."""
        changes = self.groups.of(self._on_raster(change), -4)
        return self.groups.joined(
            [r.jvp(c) * g for r, c, g in zip(self.received, changes, self._gain, strict=True)]
        )

    def _on_raster(self, field: Tensor) -> Tensor:
        """Complex field of the dish pixels (..., n_pixels) on the whole raster (..., ny, nx, 2)."""
        side = self.model.side
        # Two dimensions: torch copies along an index of more several times slower.
        flat = field.reshape(-1, field.shape[-1])
        square = flat.new_zeros((len(flat), side * side)).index_copy(-1, self.model.pixel_index, flat)
        return torch.view_as_real(square.reshape(*field.shape[:-1], side, side))
