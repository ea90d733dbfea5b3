"""Amplitude of the aperture field: the illumination times the open fraction of each pixel."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ooftorch.optics.effect import Context, Effect
from ooftorch.optics.illumination.base import LogDerivatives
from ooftorch.optics.instrument import Instrument
from ooftorch.optics.parameters import Parameter
from ooftorch.optics.propagation import Gradients, Propagation

__all__ = ["ApertureAmplitude"]


class ApertureAmplitude(Effect):
    """Aperture amplitude, with the parameters of the illumination model.

    Parameters
    ----------
    context : Context

    Attributes
    ----------
    coverage : Tensor, (n_pixels,)
        Open fraction of each pixel.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        pixels, oo = context.pixels, context.oo
        radius = context.instrument.telescope.radius
        self._illumination = context.instrument.illumination
        self._pitch = pixels.pitch / radius
        self._x, self._y = oo(pixels.x / radius), oo(pixels.y / radius)
        self.coverage = oo(pixels.coverage)

    @classmethod
    def declare(cls, instrument: Instrument) -> Sequence[Parameter]:  # noqa: D102
        telescope = instrument.telescope
        return instrument.illumination.declare(telescope.illumination, telescope.radius)

    def evaluate(self, values: Tensor) -> Tensor:
        """Amplitude (..., n_pixels), blockage included, at the values (..., n_parameters)."""
        named = self._name_values(values)
        return self.coverage * self._illumination.amplitude(self._x, self._y, self._pitch, **named)

    def _name_values(self, values: Tensor) -> dict[str, Tensor]:
        return {p.name: values[..., i, None] for i, p in enumerate(self.parameters)}

    def _log_derivatives(self, values: Tensor) -> LogDerivatives:
        named = self._name_values(values)
        return self._illumination.log_derivatives(self._x, self._y, self._pitch, **named)

    def vjp(self, values: Tensor, propagation: Propagation, gradients: Gradients) -> Tensor:  # noqa: D102
        derivatives = self._log_derivatives(values)
        gradient = torch.zeros_like(values)
        for i, p in enumerate(self.parameters):
            if p.free:
                gradient[..., i] = torch.linalg.vecdot(gradients.log_amplitude, derivatives[p.name]())
        return gradient

    def jvp(self, values: Tensor, propagation: Propagation, out: Tensor, rows: Mapping[int, int]) -> None:  # noqa: D102
        derivatives = self._log_derivatives(values)
        for i, row in rows.items():
            out[..., row, :] = propagation.propagate_log_amplitude(derivatives[self.parameters[i].name]())
