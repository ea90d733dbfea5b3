"""Aperture phase of the surface: a weighted sum of basis functions, plus an optional fixed phase map."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from ooftorch.optics.basis import SurfaceBasis
from ooftorch.optics.effect import Context, Effect
from ooftorch.optics.instrument import Instrument
from ooftorch.optics.parameters import Parameter
from ooftorch.optics.propagation import Gradients, Propagation

__all__ = ["Surface"]

# Number of coefficients whose derivatives are computed together: enough to use all cores, few enough that
# the memory stays at a few aperture fields.
_COLUMNS = 8


class Surface(Effect):
    """Phase of the surface: basis functions times coefficients (radians), plus a fixed shape (radians).

    Parameters
    ----------
    context : Context

    Attributes
    ----------
    matrix : Tensor, (n_terms, n_pixels)
        Basis functions on the pixels.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        instrument, pixels = context.instrument, context.pixels
        radius = instrument.telescope.radius
        self.matrix = context.oo(instrument.basis.evaluate(pixels.x / radius, pixels.y / radius))
        self._shape = None if context.shape is None else context.oo(context.shape(pixels.x, pixels.y))

    @classmethod
    def declare(cls, instrument: Instrument) -> Sequence[Parameter]:  # noqa: D102
        return [_declare_term(instrument.basis, name) for name in instrument.basis.names]

    def phase(self, values: Tensor) -> Tensor:
        """Phase (..., n_pixels), radians, at the coefficients (..., n_terms)."""
        phase = values @ self.matrix
        return phase if self._shape is None else phase + self._shape

    def vjp(self, values: Tensor, propagation: Propagation, gradients: Gradients) -> Tensor:  # noqa: D102
        return gradients.phase.sum(-2) @ self.matrix.mT

    def jvp(self, values: Tensor, propagation: Propagation, out: Tensor, rows: Mapping[int, int]) -> None:  # noqa: D102
        numbers = list(rows)
        for first in range(0, len(numbers), _COLUMNS):
            chunk = numbers[first : first + _COLUMNS]
            # The coefficients are the first dimension, before the batch and the maps.
            change = self.matrix[chunk].reshape(len(chunk), *[1] * (values.dim()), -1)
            out[..., [rows[i] for i in chunk], :] = propagation.propagate_phase(change).movedim(0, -2)


def _declare_term(basis: SurfaceBasis, name: str) -> Parameter:
    if name == basis.piston:
        return Parameter(name, "rad", 0.0, unobservable="no power pattern depends on the piston")
    return Parameter(name, "rad", 0.0, free=True, prior=basis.prior if name in basis.shape_names else None)
