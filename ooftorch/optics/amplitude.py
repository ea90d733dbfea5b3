"""Amplitude of the aperture field: a product of illumination, its bend, and the open fraction of each pixel.

To add a factor, write a subclass of `AmplitudeFactor` and add it to `AMPLITUDE_FACTORS`.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from ooftorch.optics import zernike
from ooftorch.optics.effect import Context, Effect
from ooftorch.optics.illumination.base import LogDerivatives
from ooftorch.optics.instrument import Instrument
from ooftorch.optics.leg_shadows import FACTORS
from ooftorch.optics.parameters import Parameter
from ooftorch.optics.propagation import Gradients, Propagation

__all__ = ["AMPLITUDE_FACTORS", "AmplitudeFactor", "Bend", "IlluminationModel", "OpenFraction"]

# Standard deviation of the prior on a coefficient of the bend, times its radial order, nepers.
BEND_PRIOR = 0.5
# Relative standard deviation of the prior on the widths of the legs and of their shadows.
_WIDTH_PRIOR = 0.3
# Open fraction of a covered pixel: above zero, so that the logarithm of the amplitude has a derivative.
_LEAST_OPEN = 1e-12
# Number of coefficients whose derivatives are computed together (see `surface.py`).
_COLUMNS = 8


class AmplitudeFactor(Effect):
    """One factor of the aperture amplitude."""

    @property
    def is_one(self) -> bool:
        """Whether it is 1 and need not be computed."""
        return False

    @abstractmethod
    def evaluate(self, values: Tensor) -> Tensor:
        """Factor (..., n_pixels) at the values (..., n_parameters)."""

    @abstractmethod
    def log_derivatives(self, values: Tensor) -> LogDerivatives:
        """Derivatives (..., n_pixels) of its logarithm at the values (..., n_parameters), by name."""

    def vjp(self, values: Tensor, propagation: Propagation, gradients: Gradients) -> Tensor:  # noqa: D102
        derivatives = self.log_derivatives(values)
        gradient = torch.zeros_like(values)
        for i, p in enumerate(self.parameters):
            if p.free:
                gradient[..., i] = torch.linalg.vecdot(gradients.log_amplitude, derivatives[p.name]())
        return gradient

    def jvp(self, values: Tensor, propagation: Propagation, out: Tensor, rows: Mapping[int, int]) -> None:  # noqa: D102
        derivatives = self.log_derivatives(values)
        for i, row in rows.items():
            out[..., row, :] = propagation.propagate_log_amplitude(derivatives[self.parameters[i].name]())


class IlluminationModel(AmplitudeFactor):
    """The illumination, with the parameters of its model."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        pixels, oo = context.pixels, context.oo
        radius = context.instrument.telescope.radius
        self._model = context.instrument.illumination
        self._pitch = pixels.pitch / radius
        self._x, self._y = oo(pixels.x / radius), oo(pixels.y / radius)

    @classmethod
    def declare(cls, instrument: Instrument) -> Sequence[Parameter]:  # noqa: D102
        telescope = instrument.telescope
        return instrument.illumination.declare(telescope.illumination, telescope.radius)

    def evaluate(self, values: Tensor) -> Tensor:  # noqa: D102
        return self._model.amplitude(self._x, self._y, self._pitch, **self._name_values(values))

    def log_derivatives(self, values: Tensor) -> LogDerivatives:  # noqa: D102
        return self._model.log_derivatives(self._x, self._y, self._pitch, **self._name_values(values))

    def _name_values(self, values: Tensor) -> dict[str, Tensor]:
        return {p.name: values[..., i, None] for i, p in enumerate(self.parameters)}


class Bend(AmplitudeFactor):
    """Departure of the illumination from its model: exp(sum of a_k U_k), U_k the Zernike polynomials.

    Of radial order 2 to the amplitude order of the instrument; none if that is 0. Piston and tilts are left
    out, because the gains of the maps and the centre of the illumination stand for them.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        instrument, pixels = context.instrument, context.pixels
        radius, order = instrument.telescope.radius, instrument.amplitude_order
        self._matrix = context.oo(zernike.raster(order, pixels.x / radius, pixels.y / radius)[3:])

    @classmethod
    def declare(cls, instrument: Instrument) -> Sequence[Parameter]:  # noqa: D102
        return [
            Parameter(f"a{k}", "", 0.0, free=True, prior=BEND_PRIOR / zernike.order_of(k))
            for k in range(3, zernike.n_terms(instrument.amplitude_order))
        ]

    @property
    def is_one(self) -> bool:  # noqa: D102
        return not self.parameters

    def evaluate(self, values: Tensor) -> Tensor:  # noqa: D102
        return torch.exp(values @ self._matrix)

    def log_derivatives(self, values: Tensor) -> LogDerivatives:  # noqa: D102
        return {
            p.name: partial(torch.clone, row) for p, row in zip(self.parameters, self._matrix, strict=True)
        }

    def vjp(self, values: Tensor, propagation: Propagation, gradients: Gradients) -> Tensor:  # noqa: D102
        return gradients.log_amplitude @ self._matrix.mT

    def jvp(self, values: Tensor, propagation: Propagation, out: Tensor, rows: Mapping[int, int]) -> None:  # noqa: D102
        numbers = list(rows)
        for first in range(0, len(numbers), _COLUMNS):
            chunk = numbers[first : first + _COLUMNS]
            # The coefficients are the first dimension, before the batch.
            change = self._matrix[chunk].reshape(len(chunk), *[1] * (values.dim() - 1), -1)
            changes = propagation.propagate_log_amplitude(change)
            out[..., [rows[i] for i in chunk], :] = changes.movedim(0, -2)


class OpenFraction(AmplitudeFactor):
    """Open fraction of each pixel, with the widths of the legs and of their shadows over the nominal ones."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        pixels, oo = context.pixels, context.oo
        self._nominal = oo(pixels.coverage)
        self._factors = oo(FACTORS)
        shadows = [pixels.shadows[p.name] for p in self.parameters]
        self._index, self._cubics = [oo(s.pixels) for s in shadows], [oo(s.cubics) for s in shadows]

    @classmethod
    def declare(cls, instrument: Instrument) -> Sequence[Parameter]:  # noqa: D102
        legs = instrument.telescope.blockage.legs
        names = () if legs is None else legs.widths
        return [Parameter(name, "", 1.0, free=True, log=True, prior=_WIDTH_PRIOR) for name in names]

    def evaluate(self, values: Tensor) -> Tensor:
        """Open fraction (..., n_pixels) at the values (..., n_parameters).

        Within the resolution of the table of shadows: just below 0 or above 1 in some pixels.
        """
        fraction = self._nominal
        for i, index in enumerate(self._index):
            (a, b, c, d), t = self._find_cubics(i, values)
            covered = ((a * t + b) * t + c) * t + d
            fraction = fraction.expand(*values.shape[:-1], -1).index_add(-1, index, -covered)
        return torch.where(fraction.abs() < _LEAST_OPEN, _LEAST_OPEN, fraction)

    def log_derivatives(self, values: Tensor) -> LogDerivatives:  # noqa: D102
        fraction = self.evaluate(values)

        def derivative(i: int) -> Tensor:
            (a, b, c, _), t = self._find_cubics(i, values)
            slope = (3 * a * t + 2 * b) * t + c
            return torch.zeros_like(fraction).index_add(-1, self._index[i], -slope) / fraction

        return {p.name: partial(derivative, i) for i, p in enumerate(self.parameters)}

    def _find_cubics(self, i: int, values: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients (4, ..., k) of the cubics of one width, and where in their interval it is (..., 1)."""
        width = values[..., i].clamp(self._factors[0], self._factors[-1])
        interval = torch.bucketize(width.detach(), self._factors[1:-1], right=True)
        return self._cubics[i][:, interval], (width - self._factors[interval]).unsqueeze(-1)


AMPLITUDE_FACTORS: tuple[type[AmplitudeFactor], ...] = (IlluminationModel, Bend, OpenFraction)
"""The factors of the amplitude of every model, in the order of their parameters."""
