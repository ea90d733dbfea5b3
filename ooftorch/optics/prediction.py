"""Beam maps at one set of parameters, and their derivatives, written out by hand.

`samples` is the forward pass, `vjp` the backward pass, `jacobian` the forward derivatives. Intermediate
results are kept, so each derivative costs one more pass and no graph is built.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ooftorch.optics.effect import Effect, Gradients

if TYPE_CHECKING:
    from ooftorch.optics.model import BeamModel
    from ooftorch.optics.received_power import Received

__all__ = ["Prediction"]


class Prediction:
    """Beam maps at one set of parameters (or a batch), and their derivatives there.

    The results of the forward pass are kept: a gradient (`vjp`) then costs one backward pass, and each row
    of `jacobian` one forward pass. Both are written by hand, because autograd would build the same graph
    again at every evaluation.

    Parameters
    ----------
    model : BeamModel
    coordinates : Tensor, (..., n_parameters)

    Attributes
    ----------
    values : Tensor, (..., n_parameters)
        The parameters in their units.
    amplitude, phase : Tensor, (..., n_pixels)
        Of the aperture field without defocus and pointing; the phase in radians.
    samples : Tensor, (..., n_samples)
        Power of every sample, in the units of the data, all maps one after the other.
    received : list of Received
        Received power of each group of maps, before gain and baseline. Set when `samples` is computed.
    groups : MapGroups
        The model's.
    """

    received: "list[Received]"

    def __init__(self, model: "BeamModel", coordinates: Tensor) -> None:
        self.model, self._coordinates = model, coordinates
        self.groups = model.groups
        self.values = model.units.values(coordinates)
        self.amplitude = model.amplitude.evaluate(self._select_values(model.amplitude))
        self.phase = model.surface.phase(self._select_values(model.surface))

    def _select_values(self, effect: Effect) -> Tensor:
        """Values (..., n) of the parameters of an effect."""
        return self.values[..., effect.span]

    @functools.cached_property
    def samples(self) -> Tensor:  # noqa: D102  (an attribute of the class docstring)
        model, groups = self.model, self.groups
        coefficients = torch.cat([e.coefficients(self._select_values(e)) for e in model.map_phases], -1)
        phase = self.phase.unsqueeze(-2) + coefficients @ model.screens  # (..., n_maps, n_pixels)
        amplitude = self.amplitude.unsqueeze(-2)
        self._field = torch.complex(amplitude * torch.cos(phase), amplitude * torch.sin(phase))
        self._total = self.amplitude.sum(-1)[..., None, None]
        # The power is normalised to the peak of the perfect telescope in focus, (sum of the amplitude)^2.
        gain = self._select_values(model.gains).unsqueeze(-1) / self._total.square()
        self._gain = groups.split_maps(gain, -2)
        offset = groups.split_maps(self._select_values(model.offsets).unsqueeze(-1), -2)
        ratio = self._select_values(model.beam_ratio).unsqueeze(-1) if model.receiver.chopped else None
        fields = groups.split_maps(self._fill_raster(self._field), -4)
        self.received = [beam.at(field, ratio) for beam, field in zip(groups.beams, fields, strict=True)]
        return groups.join_samples(
            [torch.addcmul(o, g, r.power) for o, g, r in zip(offset, self._gain, self.received, strict=True)]
        )

    def vjp(self, by_samples: Tensor) -> Tensor:
        """Gradient of a function of the samples with respect to the coordinates.

        Parameters
        ----------
        by_samples : Tensor, (..., n_samples)
            Gradient of the function with respect to the samples.

        Returns
        -------
        Tensor, (..., n_parameters)
            Zero for every effect none of whose parameters is free.
        """
        _ = self.samples  # run the forward pass if it has not been run
        back = self._backpropagate(by_samples)
        gradient = torch.zeros_like(self.values)
        for effect in self.model.effects:
            if effect.free:
                gradient[..., effect.span] = effect.vjp(self, back)
        return gradient * self.model.units.derivatives(self._coordinates, self.values)

    def _backpropagate(self, by_samples: Tensor) -> Gradients:
        model, groups = self.model, self.groups
        parts = groups.split_samples(by_samples)
        by_map = [torch.linalg.vecdot(w, r.power) for w, r in zip(parts, self.received, strict=True)]
        by_gain = groups.join_maps(by_map, -1) / self._total[..., 0].square()
        by_power = [w * g for w, g in zip(parts, self._gain, strict=True)]
        by_field = [r.vjp(w) for r, w in zip(self.received, by_power, strict=True)]
        on_raster = torch.view_as_complex(groups.join_maps(by_field, -4)).flatten(-2)
        # Real part: gradient by the logarithm of the amplitude. Imaginary part: gradient by the phase.
        by_log_field = self._field.conj() * on_raster[..., model.pixel_index]
        by_log_amplitude = None
        if model.amplitude.free:
            # More amplitude also raises the peak of the perfect telescope, to which the power is normalised.
            rise = torch.linalg.vecdot(by_gain, self._select_values(model.gains))[..., None]
            by_log_amplitude = by_log_field.real.sum(-2) - (2 * rise / self._total[..., 0]) * self.amplitude
        return Gradients(parts, by_power, by_log_field.imag, by_log_amplitude, by_gain)

    def jacobian(self, wanted: Sequence[int]) -> Tensor:
        """Derivatives of the samples with respect to some of the coordinates.

        Parameters
        ----------
        wanted : sequence of int
            Positions of these parameters in the layout.

        Returns
        -------
        Tensor, (..., len(wanted), n_samples)
        """
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

    # --------------------------------------------------- first-order changes of the samples, for `Effect.jvp`

    def propagate_phase(self, change: Tensor) -> Tensor:
        """Change of the samples (..., n_samples) for a change of the phase (..., n_maps or 1, n_pixels)."""
        return self._propagate_field(torch.complex(-self._field.imag * change, self._field.real * change))

    def propagate_log_amplitude(self, change: Tensor) -> Tensor:
        """Change of the samples (..., n_samples) for a change of the log amplitude (..., n_pixels)."""
        fall = 2 * torch.linalg.vecdot(self.amplitude, change)[..., None, None] / self._total
        fallen = [g * r.power * fall for g, r in zip(self._gain, self.received, strict=True)]
        return self._propagate_field(change.unsqueeze(-2) * self._field) - self.groups.join_samples(fallen)

    def propagate_gain(self) -> Tensor:
        """Change of the samples (..., n_samples) of each map per unit of its gain."""
        return self.groups.join_samples([r.power / self._total.square() for r in self.received])

    def propagate_power(self, power: list[Tensor]) -> Tensor:
        """Change of the samples (..., n_samples) for a change of the received power of each group of maps."""
        return self.groups.join_samples([g * p for g, p in zip(self._gain, power, strict=True)])

    def write_by_map(self, out: Tensor, rows: Mapping[int, int], change: Tensor) -> None:
        """Write the samples of each map from `change` (..., n_samples) into that map's row of `out`.

        `rows` maps the number of a map to its row; the rest of the row stays as it is.
        """
        parts, targets = self.model.split(change), self.model.split(out)
        for number, row in rows.items():
            targets[number][..., row, :] = parts[number]

    def _propagate_field(self, change: Tensor) -> Tensor:
        """Change of the samples for a change of the field, complex (..., n_maps, n_pixels)."""
        changes = self.groups.split_maps(self._fill_raster(change), -4)
        return self.groups.join_samples(
            [r.jvp(c) * g for r, c, g in zip(self.received, changes, self._gain, strict=True)]
        )

    def _fill_raster(self, field: Tensor) -> Tensor:
        """Complex field of the dish pixels (..., n_pixels) on the whole raster (..., ny, nx, 2)."""
        side = self.model.side
        # In two dimensions: index_copy on more is several times slower.
        flat = field.reshape(-1, field.shape[-1])
        square = flat.new_zeros((len(flat), side * side)).index_copy(-1, self.model.pixel_index, flat)
        return torch.view_as_real(square.reshape(*field.shape[:-1], side, side))
