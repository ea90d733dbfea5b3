"""Base class of the parts of the forward model.

Each part declares its parameters and computes the derivatives of the samples with respect to them, forwards
(jvp) and backwards (vjp). `parts.py` has the list of them.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ooftorch.device import OO, Movable
from ooftorch.optics.instrument import Instrument
from ooftorch.optics.parameters import Layout, Parameter, Tie
from ooftorch.optics.pixels import Pixels, Shape
from ooftorch.optics.propagation import Gradients, Propagation

__all__ = ["Context", "Effect"]


class Context(NamedTuple):
    """What the effects of a model are made from.

    Attributes
    ----------
    instrument : Instrument
    layout : Layout
        Contains the declared parameters of every effect, one after the other.
    pixels : Pixels
    dz : ndarray, (n_maps,)
        Nominal focus offsets, metres.
    shape : callable or None
        Fixed phase (rad) added to that of the basis, a function of x, y (m).
    oo : OO
        Device and precision.
    """

    instrument: Instrument
    layout: Layout
    pixels: Pixels
    dz: NDArray[np.float64]
    shape: Shape | None
    oo: OO


class Effect(Movable):
    """One part of the forward model: its parameters, their effect, and the derivatives of that effect.

    Parameters
    ----------
    context : Context

    Attributes
    ----------
    span : slice
        Positions of its parameters in the layout.
    parameters : tuple of Parameter
        Its parameters as they are in the layout, with changed start values and free flags.
    free : bool
        Whether any of its parameters is free.
    """

    def __init__(self, context: Context) -> None:
        self.span = context.layout.span(self.declare(context.instrument))
        self.parameters = context.layout.parameters[self.span]
        self.free = any(p.free for p in self.parameters)

    @classmethod
    @abstractmethod
    def declare(cls, instrument: Instrument) -> Sequence[Parameter]:
        """All parameters of this part for an instrument, with default free flags and priors."""

    @classmethod
    def declare_ties(cls, instrument: Instrument) -> Sequence[Tie]:
        """Ties between the parameters."""
        return ()

    @abstractmethod
    def vjp(self, values: Tensor, propagation: Propagation, gradients: Gradients) -> Tensor:
        """Vector-Jacobian product: gradient of a function of the samples by the parameters of this part.

        Parameters
        ----------
        values : Tensor, (..., n_parameters of this part)
            Values of the parameters of this part, in their units.
        propagation : Propagation
            The forward pass at this point, with its intermediate results.
        gradients : Gradients
            Gradients of that function with respect to the intermediate results.

        Returns
        -------
        Tensor, (..., n_parameters of this part)
            Per unit of each parameter (not per coordinate).
        """

    @abstractmethod
    def jvp(self, values: Tensor, propagation: Propagation, out: Tensor, rows: Mapping[int, int]) -> None:
        """Write the derivatives of the samples with respect to some of the parameters of this part.

        Parameters
        ----------
        values : Tensor, (..., n_parameters of this part)
            Values of the parameters of this part, in their units.
        propagation : Propagation
            The forward pass at this point, with its intermediate results.
        out : Tensor, (..., n_rows, n_samples)
            Zero on entry; receives the derivatives per unit of each parameter.
        rows : mapping of int to int
            From the number of a parameter within this part to its row in `out`.
        """

    def find_rows_by_map(self, kind: str, rows: Mapping[int, int]) -> dict[int, int]:
        """Map number to row, for those of the parameters in `rows` that are of this kind ("gain", "dx")."""
        return {
            p.map: rows[i]
            for i, p in enumerate(self.parameters)
            if i in rows and p.map is not None and p.kind == kind
        }
