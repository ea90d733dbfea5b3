"""A torch function as SciPy wants it: vectors of doubles in, value and derivatives out, everything counted.

`Pack` lays out one tensor, a tuple or a dict of them, of any shapes, as one vector; `Objective` owns value,
gradient and Hessian of a scalar function of them. No method of SciPy sees a tensor, and nobody else counts.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ooftorch.errors import InputError

__all__ = ["Objective", "Pack", "Point", "Tensors"]

Tensors = Tensor | Sequence[Tensor] | Mapping[str, Tensor]
Array = NDArray[np.float64]


class Pack:
    """How tensors lie in one vector of doubles, and back.

    Parameters
    ----------
    x : Tensor, tuple or list of Tensor, or mapping of str to Tensor
        Real and floating; shapes, precisions and devices may differ.

    Attributes
    ----------
    start : ndarray, (n,)
        The vector of `x`.

    Raises
    ------
    InputError
        If it is none of these, holds nothing, or a tensor is complex or of whole numbers.
    """

    def __init__(self, x: Tensors) -> None:
        if isinstance(x, np.ndarray | float):
            x = torch.as_tensor(x, dtype=torch.float64)
        self._keys = list(x) if isinstance(x, Mapping) else None
        self._single = isinstance(x, Tensor)
        leaves = [x] if isinstance(x, Tensor) else list(x.values() if isinstance(x, Mapping) else x)
        for i, leaf in enumerate(leaves):
            name = "x0" if self._single else f"x0[{self._keys[i]!r}]" if self._keys else f"x0[{i}]"
            if not isinstance(leaf, Tensor):
                raise InputError(f"{name} is a {type(leaf).__name__}; expected a tensor")
            if leaf.is_complex():
                raise InputError(f"{name} is complex; give real and imaginary part as two real tensors")
            if not leaf.is_floating_point():
                raise InputError(f"{name} is of {leaf.dtype}, whole numbers; convert it to floating point")
        self._shapes = [leaf.shape for leaf in leaves]
        self._kinds = [(leaf.dtype, leaf.device) for leaf in leaves]
        self._ends = np.cumsum([leaf.numel() for leaf in leaves]).tolist()
        if not self.size:
            raise InputError("x0 holds no number; there is nothing to minimise over")
        self._plain = self._single and self._kinds[0] == (torch.float64, torch.device("cpu"))
        self._flat = len(self._shapes[0]) == 1
        self.start = self.vector(leaves).copy()

    @property
    def size(self) -> int:
        """Length of the vector."""
        return self._ends[-1] if self._ends else 0

    def leaves(self, vector: Array) -> list[Tensor]:
        """Tensors at a vector, copies of it, in order."""
        if self._plain:
            leaf = torch.from_numpy(vector.copy())
            return [leaf if self._flat else leaf.view(self._shapes[0])]
        starts = [0, *self._ends[:-1]]
        return [
            torch.tensor(vector[a:b], dtype=dtype, device=device).view(shape)
            for a, b, shape, (dtype, device) in zip(
                starts, self._ends, self._shapes, self._kinds, strict=True
            )
        ]

    def structure(self, leaves: Sequence[Tensor]) -> Any:
        """The tensors as they were given: one, a tuple, or a dict."""
        if self._single:
            return leaves[0]
        return tuple(leaves) if self._keys is None else dict(zip(self._keys, leaves, strict=True))

    def vector(self, leaves: Sequence[Tensor | None]) -> Array:
        """One vector of doubles of tensors in order; zeros for None."""
        if self._plain and leaves[0] is not None:
            array = leaves[0].numpy(force=True)
            return array if self._flat else array.reshape(-1)
        parts = [
            np.zeros(shape.numel()) if leaf is None else leaf.double().numpy(force=True).reshape(-1)
            for leaf, shape in zip(leaves, self._shapes, strict=True)
        ]
        return np.concatenate(parts)

    def of(self, x: Tensors) -> list[Any]:
        """Leaves of tensors given in the same structure."""
        if isinstance(x, Tensor):
            return [x]
        if isinstance(x, Mapping):
            return [x[key] for key in self._keys or ()]
        return list(x)


class Objective:
    """A scalar torch function of tensors, its derivatives, and what they cost.

    A value keeps its graph until the next point, so a gradient asked for at the same place costs one pass
    back and no second one forth.

    Parameters
    ----------
    fun : callable
        Takes the tensors in the structure of `x0`, and `args`; returns a scalar tensor. With `jac` true it
        returns the scalar and its gradient, in that structure.
    x0 : Tensors
    args : tuple
    jac : bool or callable
        A callable returns the gradient, in the structure of `x0`; by default torch finds it.
    watch : callable, optional
        Is told every value.

    Attributes
    ----------
    pack : Pack
    nfev, njev, nhev : int
        Values, gradients, and Hessians or products with one.
    history : list of (float, float)
        Seconds since the start, and value, of every evaluation.
    best, best_value : ndarray, float
        Where the lowest value was, and that value; None and infinity before the first.
    """

    # Points with their graphs: a trust region goes back to where it was when a trial fails, and asks for the
    # Hessian there again.
    _kept = 3

    def __init__(
        self,
        fun: Callable,
        x0: Tensors,
        args: tuple = (),
        jac: bool | Callable | None = None,
        watch: Callable[[float], None] | None = None,
    ) -> None:
        self.pack = Pack(x0)
        self._fun, self._args, self._jac, self._watch = fun, args, jac, watch
        self.first_order = self.second_order = self._may_be_flat = False
        self.nfev = self.njev = self.nhev = 0
        self.history: list[tuple[float, float]] = []
        self.best: Array | None = None
        self.best_value = math.inf
        self._begin = time.perf_counter()
        self._points: list[Point] = []

    def needs(self, order: int, flat: bool = False) -> None:
        """Say which derivatives will be asked for: 0, 1 or 2; and whether a Hessian of zero may be."""
        self._may_be_flat = flat
        self.first_order, self.second_order = order >= 1, order >= 2
        self._points.clear()  # whose graphs may not do

    def value(self, vector: Array) -> float:
        """Value at a vector."""
        return self._there(vector).f

    def gradient(self, vector: Array) -> Array:
        """Gradient at a vector, (n,)."""
        return self.pack.vector(self._slopes(self._there(vector)))

    def hessp(self, vector: Array, direction: Array) -> Array:
        """Hessian at a vector times a direction, (n,): one pass back through the gradient's graph."""
        point = self._there(vector)
        product = self._product(point, self.pack.leaves(np.asarray(direction, float)))
        self.nhev += 1
        if self.nhev == 1 and not self._may_be_flat and not product.any() and np.any(direction):
            raise _flat()
        return product

    def hessian(self, vector: Array) -> Array:
        """Hessian at a vector, (n, n)."""
        matrix = self._dense(self._there(vector))
        self.nhev += 1
        if self.nhev == 1 and not self._may_be_flat and not matrix.any():
            raise _flat()
        return matrix

    # ---------------------------------------------------------------------------------------- inside

    def _point(self, vector: Array) -> list[Tensor]:
        """Leaves of the graph at a vector."""
        leaves = self.pack.leaves(vector)
        if self.first_order and not self._jac:
            for leaf in leaves:
                leaf.requires_grad_()
        return leaves

    def _call(self, leaves: Sequence[Tensor]) -> Any:
        return self._fun(self.pack.structure(leaves), *self._args)

    def _there(self, vector: Array) -> "Point":
        """The point at a vector: one of the last, or a new one."""
        vector = np.asarray(vector, dtype=np.float64)
        # Bytes, for comparing arrays would be a tenth of the whole on a small problem.
        key = vector.tobytes()
        for i, point in enumerate(self._points):
            if point.key == key:
                self._points.insert(0, self._points.pop(i))
                return point
        point = self._evaluate(vector.copy(), key)
        self._points = [point, *self._points][: self._kept if self.second_order else 1]
        return point

    def _evaluate(self, vector: Array, key: bytes) -> "Point":
        leaves = self._point(vector)
        slopes = None
        with torch.set_grad_enabled(self.first_order and not self._jac):
            value = self._call(leaves)
        if self._jac is True:
            value, slopes = value
            slopes = self.pack.of(slopes)
            self.njev += 1
        point = Point(vector, key, leaves, value, _scalar(value), slopes)
        self.nfev += 1
        self.history.append((time.perf_counter() - self._begin, point.f))
        if point.f < self.best_value:
            self.best, self.best_value = vector, point.f
        if self._watch is not None:
            self._watch(point.f)
        return point

    def _slopes(self, point: "Point") -> list[Tensor | None]:
        """Gradient at a point, leaf by leaf; found once."""
        if point.slopes is None:
            point.slopes = self._differentiate(point)
            self.njev += 1
        return point.slopes

    def _differentiate(self, point: "Point") -> list[Tensor | None]:
        if callable(self._jac):
            return self.pack.of(self._jac(self.pack.structure(point.leaves), *self._args))
        if not point.value.requires_grad:
            raise InputError(
                "the function has no gradient: its value does not come from x by torch operations; use a "
                "method that takes none, such as Nelder-Mead, or give jac"
            )
        slopes = torch.autograd.grad(
            point.value,
            point.leaves,
            retain_graph=self.second_order,
            create_graph=self.second_order,
            allow_unused=True,
        )
        return list(slopes)

    def _product(self, point: "Point", direction: Sequence[Tensor]) -> Array:
        self._only_torch()
        pairs = [
            (slope, d)
            for slope, d in zip(self._slopes(point), direction, strict=True)
            if slope is not None and slope.requires_grad
        ]
        if not pairs:
            return np.zeros(self.pack.size)
        slopes, directions = zip(*pairs, strict=True)
        products = torch.autograd.grad(slopes, point.leaves, directions, retain_graph=True, allow_unused=True)
        return self.pack.vector(products)

    def _only_torch(self) -> None:
        if self._jac:
            raise InputError("a method that uses the Hessian needs torch's own gradient; leave jac out")

    def _dense(self, point: "Point") -> Array:
        self._only_torch()
        leaves = [leaf.detach() for leaf in point.leaves]
        every = tuple(range(len(leaves)))
        slopes = torch.func.grad(lambda *tensors: self._call(tensors), every)
        blocks = torch.func.jacrev(slopes, every)(*leaves)
        rows = [
            torch.cat(
                [
                    b.detach().cpu().double().reshape(leaf.numel(), other.numel())
                    for b, other in zip(row, leaves, strict=True)
                ],
                1,
            )
            for row, leaf in zip(blocks, leaves, strict=True)
        ]
        return torch.cat(rows).numpy()


@dataclass
class Point:
    """Where the function was evaluated: vector, leaves, value with its graph, and the gradient once found."""

    vector: Array
    key: bytes
    leaves: list[Tensor]
    value: Tensor
    f: float
    slopes: list[Tensor | None] | None


def _scalar(value: Any) -> float:
    if not isinstance(value, Tensor) or value.numel() != 1 or value.is_complex():
        what = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise InputError(f"the function returned {what}; expected a real tensor with one number")
    return value.item()


def _flat() -> InputError:
    return InputError(
        "the Hessian of this function is zero where it starts: it is linear, or not smooth; use a method "
        "that takes no Hessian, such as BFGS"
    )
