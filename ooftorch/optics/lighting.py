"""Amplitude of the aperture field: the illumination on what is open of each pixel."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ooftorch.device import OO
from ooftorch.optics.effect import Backward, Effect
from ooftorch.optics.illumination.base import LogDerivatives
from ooftorch.optics.instrument import Instrument
from ooftorch.optics.parameters import Layout, Parameter
from ooftorch.optics.pixels import Pixels

if TYPE_CHECKING:
    from ooftorch.optics.prediction import Prediction

__all__ = ["Lighting"]


class Lighting(Effect):
    """Parameters of the illumination model."""

    def __init__(self, instrument: Instrument, layout: Layout, pixels: Pixels, oo: OO) -> None:
        super().__init__(instrument, layout)
        radius = instrument.telescope.radius
        self._illumination = instrument.illumination
        self._pitch = pixels.pitch / radius
        self._x, self._y = oo(pixels.x / radius), oo(pixels.y / radius)
        self.coverage = oo(pixels.coverage)

    @classmethod
    def declare(cls, instrument: Instrument) -> Sequence[Parameter]:  # noqa: D102
        telescope = instrument.telescope
        return instrument.illumination.declare(telescope.illumination, telescope.radius)

    def amplitude(self, values: Tensor) -> Tensor:
        """Amplitude (..., n_pixels), what is blocked of a pixel taken off."""
        named = self._by_name(values)
        return self.coverage * self._illumination.amplitude(self._x, self._y, self._pitch, **named)

    def _by_name(self, values: Tensor) -> dict[str, Tensor]:
        return {p.name: values[..., i, None] for i, p in enumerate(self.parameters)}

    def _log_derivatives(self, at: "Prediction") -> LogDerivatives:
        named = self._by_name(at.values[..., self.span])
        return self._illumination.log_derivatives(self._x, self._y, self._pitch, **named)

    def vjp(self, at: "Prediction", back: Backward) -> Tensor:  # noqa: D102
        derivatives = self._log_derivatives(at)
        gradient = torch.zeros_like(at.values[..., self.span])
        for i, p in enumerate(self.parameters):
            if p.free:
                gradient[..., i] = torch.linalg.vecdot(back.log_amplitude, derivatives[p.name]())
        return gradient

    def jvp(self, at: "Prediction", out: Tensor, rows: Mapping[int, int]) -> None:  # noqa: D102
        derivatives = self._log_derivatives(at)
        for i, row in rows.items():
            out[..., row, :] = at.change_by_log_amplitude(derivatives[self.parameters[i].name]())
