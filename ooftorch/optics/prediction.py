"""Beam maps at one set of parameters, and their derivatives with respect to the parameters.

The forward pass goes from coordinates to values, from these to amplitude and phase of the aperture, and by
`Propagation` to the samples; `vjp` and `jacobian` ask each effect for the derivatives of its parameters.
"""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from ooftorch.optics.effect import Effect
from ooftorch.optics.parts import Parts
from ooftorch.optics.propagation import Propagation

__all__ = ["Prediction"]


class Prediction:
    """Beam maps at one set of parameters (or a batch), and their derivatives there.

    The results of the forward pass are kept: a gradient (`vjp`) then costs one backward pass, and each row
    of `jacobian` one forward pass.

    Parameters
    ----------
    parts : Parts
        Of the model.
    coordinates : Tensor, (..., n_parameters)

    Attributes
    ----------
    values : Tensor, (..., n_parameters)
        The parameters in their units.
    amplitude, phase : Tensor, (..., n_pixels)
        Of the aperture field without defocus and pointing; the phase in radians.
    """

    def __init__(self, parts: Parts, coordinates: Tensor) -> None:
        self._parts, self._coordinates = parts, coordinates
        self.values = parts.units.values(coordinates)
        factors = (effect.evaluate(self._select(effect)) for effect in parts.amplitude_factors)
        self.amplitude = functools.reduce(torch.mul, factors)
        self.phase = parts.surface.phase(self._select(parts.surface))

    def _select(self, effect: Effect) -> Tensor:
        """Values (..., n) of the parameters of an effect."""
        return self.values[..., effect.span]

    @property
    def open_fraction(self) -> Tensor:
        """Open fraction (..., n_pixels) of each pixel."""
        effect = self._parts.open_fraction
        return effect.evaluate(self._select(effect))

    @functools.cached_property
    def _propagation(self) -> Propagation:
        """The far fields, computed when first asked for."""
        parts = self._parts
        coefficients = torch.cat(
            [effect.coefficients(self._select(effect)) for effect in parts.map_phases], -1
        )
        ratio = parts.beam_ratio
        return Propagation(
            parts.raster,
            parts.groups,
            amplitude=self.amplitude,
            phase=self.phase.unsqueeze(-2) + coefficients @ parts.screens,
            gain=self._select(parts.gains),
            offset=self._select(parts.offsets),
            ratio=self._select(ratio).unsqueeze(-1) if ratio.parameters else None,
        )

    @property
    def samples(self) -> Tensor:
        """Power of every sample (..., n_samples), in the units of the data, all maps one after the other."""
        return self._propagation.samples

    def vjp(self, by_samples: Tensor, wanted: Sequence[bool] | None = None) -> Tensor:
        """Gradient of a function of the samples with respect to the coordinates.

        Parameters
        ----------
        by_samples : Tensor, (..., n_samples)
            Gradient of the function with respect to the samples.
        wanted : sequence of bool, optional
            For each effect, whether the gradient by its parameters is needed; by default where any of them is
            free.

        Returns
        -------
        Tensor, (..., n_parameters)
            Zero for the other effects.
        """
        gradients = self._propagation.vjp(by_samples)
        effects = self._parts.effects
        out = torch.zeros_like(self.values)
        for effect, needed in zip(effects, wanted or [e.free for e in effects], strict=True):
            if needed:
                out[..., effect.span] = effect.vjp(self._select(effect), self._propagation, gradients)
        return out * self._parts.units.derivatives(self._coordinates, self.values)

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
        for effect in self._parts.effects:
            rows = {
                i - effect.span.start: row
                for row, i in enumerate(wanted)
                if effect.span.start <= i < effect.span.stop
            }
            if rows:
                effect.jvp(self._select(effect), self._propagation, out, rows)
        derivatives = self._parts.units.derivatives(self._coordinates, self.values)[..., list(wanted)]
        return out.mul_(derivatives.unsqueeze(-1))

    def differentiate(self, phases: Tensor, log_amplitudes: Tensor) -> Tensor:
        """Derivatives of the samples with respect to other phases and amplitudes across the aperture.

        For one set of parameters, not a batch.

        Parameters
        ----------
        phases : Tensor, (k, n_pixels)
            Changes of the phase, radians.
        log_amplitudes : Tensor, (l, n_pixels)
            Changes of the logarithm of the amplitude.

        Returns
        -------
        Tensor, (k + l, n_samples)
        """
        changes = [self._propagation.propagate_phase(some.unsqueeze(-2)) for some in phases.split(8)]
        changes += [self._propagation.propagate_log_amplitude(some) for some in log_amplitudes.split(8)]
        return torch.cat(changes)
