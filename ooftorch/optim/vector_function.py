"""A torch function with several values and its derivatives: residuals, and the functions in constraints."""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ooftorch.errors import InputError
from ooftorch.optim.objective import Objective, Pack

__all__ = ["VectorFunction"]

Array = NDArray[np.float64]


class VectorFunction:
    """A torch function of tensors with m values, for SciPy.

    Parameters
    ----------
    fun : callable
        Takes the tensors in the structure that `pack` knows, and `args`; returns a tensor of any shape.
    pack : Pack
    args : tuple

    Attributes
    ----------
    nfev, njev : int
        Number of evaluations and of Jacobians.
    """

    def __init__(self, fun: Callable, pack: Pack, args: tuple = ()) -> None:
        self._fun, self._pack, self._args = fun, pack, args
        self.nfev = self.njev = 0

    def _call(self, leaves: Sequence[Tensor]) -> Tensor:
        values = self._fun(self._pack.to_structure(leaves), *self._args)
        if not isinstance(values, Tensor):
            raise InputError(f"the function returned {values!r}; expected a tensor")
        return values.reshape(-1)

    def value(self, vector: Array) -> Array:
        """Values at a vector, (m,)."""
        with torch.no_grad():
            values = self._call(self._pack.to_leaves(vector)).cpu().double().numpy()
        self.nfev += 1
        return values

    def jacobian(self, vector: Array) -> Array:
        """Jacobian at a vector, (m, n): by forward mode if n <= m, else by reverse mode."""
        self.njev += 1
        leaves = self._pack.to_leaves(vector)
        with torch.no_grad():
            m = self._call(leaves).numel()
        transform = torch.func.jacfwd if self._pack.size <= m else torch.func.jacrev
        every = tuple(range(len(leaves)))
        with warnings.catch_warnings():
            # Forward mode imports parts of torch that are deprecated in torch itself.
            warnings.filterwarnings("ignore", r".*torch\.jit", DeprecationWarning)
            blocks = transform(lambda *tensors: self._call(tensors), every)(*leaves)
        return torch.cat([b.detach().cpu().double().reshape(m, -1) for b in blocks], 1).numpy()

    def hessian(self, vector: Array, weights: Array) -> Array:
        """Hessian at a vector of the weighted sum of the values, (n, n)."""

        def weighted_sum(x: Tensor) -> Tensor:
            values = self._call(self._pack.list_leaves(x))
            return values @ torch.as_tensor(weights, dtype=values.dtype, device=values.device)

        objective = Objective(weighted_sum, self._pack.unpack(vector))
        objective.prepare(2, allow_zero_hessian=True)
        return objective.hessian(vector)
