"""What every part of the model has in common: its parameters, declared, and the derivatives by them."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from ooftorch.device import Movable
from ooftorch.optics.instrument import Instrument
from ooftorch.optics.parameters import Layout, Parameter

if TYPE_CHECKING:
    from ooftorch.optics.prediction import Prediction

__all__ = ["Backward", "Effect"]


class Backward(NamedTuple):
    """Gradient of a function of the samples by what lies between the parameters and the samples.

    Attributes
    ----------
    samples : list of Tensor, (..., n_maps of the group, n)
        By the samples, a tensor for each group of maps.
    received : list of Tensor, the same shapes
        By the received power.
    phase : Tensor, (..., n_maps, n_pixels)
        By the aperture phase of each map.
    log_amplitude : Tensor, (..., n_pixels), or None
        By the logarithm of the aperture amplitude; None where no parameter of the illumination is free.
    gain : Tensor, (..., n_maps)
        By the gain of each map.
    """

    samples: list[Tensor]
    received: list[Tensor]
    phase: Tensor
    log_amplitude: Tensor | None
    gain: Tensor


class Effect(Movable):
    """Some parameters of the model: their declaration, and (in subclasses) what they do and its derivatives.

    Parameters
    ----------
    instrument : Instrument
    layout : Layout
        Holds the declared parameters.

    Attributes
    ----------
    span : slice
        Where its parameters stand in the layout.
    parameters : tuple of Parameter
        Its parameters as the layout has them.
    free : bool
        Whether any of them is free.
    """

    def __init__(self, instrument: Instrument, layout: Layout) -> None:
        self.span = layout.span(self.declare(instrument))
        self.parameters = layout.parameters[self.span]
        self.free = any(p.free for p in self.parameters)

    @classmethod
    @abstractmethod
    def declare(cls, instrument: Instrument) -> Sequence[Parameter]:
        """Every parameter, with what is free and how tightly by default."""

    @classmethod
    def declare_ties(cls, instrument: Instrument) -> tuple[tuple[tuple[str, ...], float], ...]:
        """Ties between the parameters, as of `Layout`."""
        return ()

    @abstractmethod
    def vjp(self, at: "Prediction", back: Backward) -> Tensor:
        """Gradient of a function of the samples by the values of its parameters, (..., n_parameters).

        Parameters
        ----------
        at : Prediction
            Where.
        back : Backward
            The gradient of that function by what lies in between.
        """

    @abstractmethod
    def jvp(self, at: "Prediction", out: Tensor, rows: Mapping[int, int]) -> None:
        """Write derivatives of the samples by the values of some of its parameters.

        Parameters
        ----------
        at : Prediction
            Where.
        out : Tensor, (..., n_rows, n_samples)
            Zero on entry.
        rows : mapping of int to int
            Row of `out` by the number of a parameter among this effect's.
        """

    def rows_by_map(self, kind: str, rows: Mapping[int, int]) -> dict[int, int]:
        """Rows of the parameters of one kind, by the number of their map."""
        return {
            p.map: rows[i]
            for i, p in enumerate(self.parameters)
            if i in rows and p.map is not None and p.kind == kind
        }
