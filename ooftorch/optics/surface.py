"""Phase of the surface: coefficients of a basis, and a shape that is held."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from ooftorch.device import OO
from ooftorch.optics.basis import SurfaceBasis
from ooftorch.optics.effect import Backward, Effect
from ooftorch.optics.instrument import Instrument
from ooftorch.optics.parameters import Layout, Parameter
from ooftorch.optics.pixels import Pixels, Shape

if TYPE_CHECKING:
    from ooftorch.optics.prediction import Prediction

__all__ = ["Surface"]

# Columns of the Jacobian computed together: enough to keep the processor busy, few enough to keep the
# memory at a handful of aperture fields.
_COLUMNS = 8


class Surface(Effect):
    """The sum of basis functions, coefficients in radians, and of a shape (rad) without parameters."""

    def __init__(
        self, instrument: Instrument, layout: Layout, pixels: Pixels, shape: Shape | None, oo: OO
    ) -> None:
        super().__init__(instrument, layout)
        radius = instrument.telescope.radius
        self.matrix = oo(instrument.basis.evaluate(pixels.x / radius, pixels.y / radius))
        self._shape = None if shape is None else oo(shape(pixels.x, pixels.y))

    @classmethod
    def declare(cls, instrument: Instrument) -> Sequence[Parameter]:  # noqa: D102
        return [_declare_term(instrument.basis, name) for name in instrument.basis.names]

    def phase(self, values: Tensor) -> Tensor:
        """Phase (..., n_pixels), radians, at the coefficients (..., n_terms)."""
        phase = values @ self.matrix
        return phase if self._shape is None else phase + self._shape

    def vjp(self, at: "Prediction", back: Backward) -> Tensor:  # noqa: D102
        return back.phase.sum(-2) @ self.matrix.mT

    def jvp(self, at: "Prediction", out: Tensor, rows: Mapping[int, int]) -> None:  # noqa: D102
        numbers = list(rows)
        for first in range(0, len(numbers), _COLUMNS):
            chunk = numbers[first : first + _COLUMNS]
            # The columns go before every other dimension.
            change = self.matrix[chunk].reshape(len(chunk), *[1] * (at.values.dim()), -1)
            out[..., [rows[i] for i in chunk], :] = at.change_by_phase(change).movedim(0, -2)


def _declare_term(basis: SurfaceBasis, name: str) -> Parameter:
    if name == basis.piston:
        return Parameter(name, "rad", 0.0, unobservable="no power pattern depends on the piston")
    return Parameter(name, "rad", 0.0, free=True, prior=basis.prior if name in basis.shape_names else None)
