"""A torch function as SciPy wants it: vectors of doubles in, value and derivatives out, evaluations counted.

`Pack` converts one tensor, or a tuple or dict of tensors of any shapes, to one vector and back; `Objective`
computes value, gradient and Hessian of a scalar function of them at such a vector.
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
    """Conversion between tensors and one vector of doubles.

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
        If `x` is none of these, holds no number, or has a complex or integer tensor.
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
        # One tensor of doubles on the CPU needs no conversion.
        self._shares_memory = self._single and self._kinds[0] == (torch.float64, torch.device("cpu"))
        self._is_vector = len(self._shapes[0]) == 1
        self.start = self.to_vector(leaves).copy()

    @property
    def size(self) -> int:
        """Length of the vector."""
        return self._ends[-1] if self._ends else 0

    def to_leaves(self, vector: Array) -> list[Tensor]:
        """Return the tensors that hold a vector's numbers, as copies, in order."""
        if self._shares_memory:
            leaf = torch.from_numpy(vector.copy())
            return [leaf if self._is_vector else leaf.view(self._shapes[0])]
        starts = [0, *self._ends[:-1]]
        return [
            torch.tensor(vector[a:b], dtype=dtype, device=device).view(shape)
            for a, b, shape, (dtype, device) in zip(
                starts, self._ends, self._shapes, self._kinds, strict=True
            )
        ]

    def to_structure(self, leaves: Sequence[Tensor]) -> Any:
        """Arrange tensors as `x` was given: one tensor, a tuple, or a dict."""
        if self._single:
            return leaves[0]
        return tuple(leaves) if self._keys is None else dict(zip(self._keys, leaves, strict=True))

    def unpack(self, vector: Array) -> Any:
        """Return the tensors that hold a vector's numbers, arranged as `x` was given."""
        return self.to_structure(self.to_leaves(vector))

    def to_vector(self, leaves: Sequence[Tensor | None]) -> Array:
        """Concatenate tensors into one vector of doubles; None counts as zeros."""
        if self._shares_memory and leaves[0] is not None:
            array = leaves[0].numpy(force=True)
            return array if self._is_vector else array.reshape(-1)
        parts = [
            np.zeros(shape.numel()) if leaf is None else leaf.double().numpy(force=True).reshape(-1)
            for leaf, shape in zip(leaves, self._shapes, strict=True)
        ]
        return np.concatenate(parts)

    def list_leaves(self, x: Tensors) -> list[Any]:
        """List the tensors of something arranged as `x` was, in order."""
        if isinstance(x, Tensor):
            return [x]
        if isinstance(x, Mapping):
            return [x[key] for key in self._keys or ()]
        return list(x)


class Objective:
    """A scalar torch function of tensors, with its derivatives and counts of evaluations.

    The graph of a value is kept until the next point, so a gradient at the same point takes one backward pass
    and no second forward pass.

    Parameters
    ----------
    fun : callable
        Takes the tensors in the structure of `x0`, and `args`; returns a scalar tensor. With `jac` true it
        returns the scalar and its gradient, in that structure.
    x0 : Tensors
    args : tuple
    jac : bool or callable
        A callable returns the gradient, in the structure of `x0`; by default torch finds it.
    on_value : callable, optional
        Called with every new value.

    Attributes
    ----------
    pack : Pack
    nfev, njev, nhev : int
        Number of values, gradients, and Hessians or Hessian-vector products computed.
    history : list of (float, float)
        Seconds since the start, and value, of every evaluation.
    best, best_value : ndarray, float
        Point of the lowest value so far, and that value; None and infinity before the first.
    """

    # How many points are kept with their graphs where Hessians are used: after a rejected trial a
    # trust-region method returns to the previous point and asks for the Hessian there again.
    _n_kept = 3

    def __init__(
        self,
        fun: Callable,
        x0: Tensors,
        args: tuple = (),
        jac: bool | Callable | None = None,
        on_value: Callable[[float], None] | None = None,
    ) -> None:
        self.pack = Pack(x0)
        self._fun, self._args, self._jac, self._on_value = fun, args, jac, on_value
        self.first_order = self.second_order = self._zero_hessian_allowed = False
        self.nfev = self.njev = self.nhev = 0
        self.history: list[tuple[float, float]] = []
        self.best: Array | None = None
        self.best_value = math.inf
        self._start_time = time.perf_counter()
        self._points: list[Point] = []

    def prepare(self, order: int, *, allow_zero_hessian: bool = False) -> None:
        """Set the highest derivative that will be asked for (0, 1 or 2), and whether the Hessian may be zero.

        Unless allowed, a zero Hessian at the first point is refused: it means a function that is linear or
        not smooth there.
        """
        self._zero_hessian_allowed = allow_zero_hessian
        self.first_order, self.second_order = order >= 1, order >= 2
        self._points.clear()  # their graphs may lack the derivatives

    def value(self, vector: Array) -> float:
        """Value at a vector."""
        return self._point_at(vector).f

    def gradient(self, vector: Array) -> Array:
        """Gradient at a vector, (n,)."""
        return self.pack.to_vector(self._gradients(self._point_at(vector)))

    def hessp(self, vector: Array, direction: Array) -> Array:
        """Hessian at a vector times a direction, (n,): one backward pass through the gradient's graph."""
        point = self._point_at(vector)
        product = self._hessian_product(point, self.pack.to_leaves(np.asarray(direction, float)))
        self.nhev += 1
        if self.nhev == 1 and not self._zero_hessian_allowed and not product.any() and np.any(direction):
            raise _zero_hessian()
        return product

    def hessian(self, vector: Array) -> Array:
        """Hessian at a vector, (n, n)."""
        matrix = self._dense_hessian(self._point_at(vector))
        self.nhev += 1
        if self.nhev == 1 and not self._zero_hessian_allowed and not matrix.any():
            raise _zero_hessian()
        return matrix

    # --------------------------------------------------------------------------------------- private

    def _leaves_at(self, vector: Array) -> list[Tensor]:
        """Return the leaves of the graph to be built at a vector."""
        leaves = self.pack.to_leaves(vector)
        if self.first_order and not self._jac:
            for leaf in leaves:
                leaf.requires_grad_()
        return leaves

    def _call(self, leaves: Sequence[Tensor]) -> Any:
        return self._fun(self.pack.to_structure(leaves), *self._args)

    def _point_at(self, vector: Array) -> "Point":
        """Return the point at a vector: a stored one, or else a new evaluation."""
        vector = np.asarray(vector, dtype=np.float64)
        # Comparing bytes is fast; comparing arrays would take a tenth of the time of a small problem.
        key = vector.tobytes()
        for i, point in enumerate(self._points):
            if point.key == key:
                self._points.insert(0, self._points.pop(i))
                return point
        point = self._evaluate(vector.copy(), key)
        self._points = [point, *self._points][: self._n_kept if self.second_order else 1]
        return point

    def _evaluate(self, vector: Array, key: bytes) -> "Point":
        leaves = self._leaves_at(vector)
        gradients = None
        with torch.set_grad_enabled(self.first_order and not self._jac):
            value = self._call(leaves)
        if self._jac is True:
            value, gradients = value
            gradients = self.pack.list_leaves(gradients)
            self.njev += 1
        point = Point(key, leaves, value, _to_float(value), gradients)
        self.nfev += 1
        self.history.append((time.perf_counter() - self._start_time, point.f))
        if point.f < self.best_value:
            self.best, self.best_value = vector, point.f
        if self._on_value is not None:
            self._on_value(point.f)
        return point

    def _gradients(self, point: "Point") -> list[Tensor | None]:
        """Return the gradient at a point, one tensor for each leaf; computed once."""
        if point.gradients is None:
            point.gradients = self._differentiate(point)
            self.njev += 1
        return point.gradients

    def _differentiate(self, point: "Point") -> list[Tensor | None]:
        if callable(self._jac):
            gradient = self._jac(self.pack.to_structure(point.leaves), *self._args)
            return self.pack.list_leaves(gradient)
        if not point.value.requires_grad:
            raise InputError(
                "the function has no gradient: its value does not come from x by torch operations; use a "
                "method that takes none, such as Nelder-Mead, or give jac"
            )
        gradients = torch.autograd.grad(
            point.value,
            point.leaves,
            retain_graph=self.second_order,
            create_graph=self.second_order,
            allow_unused=True,
        )
        return list(gradients)

    def _hessian_product(self, point: "Point", direction: Sequence[Tensor]) -> Array:
        self._refuse_jac()
        pairs = [
            (gradient, d)
            for gradient, d in zip(self._gradients(point), direction, strict=True)
            if gradient is not None and gradient.requires_grad
        ]
        if not pairs:
            return np.zeros(self.pack.size)
        gradients, directions = zip(*pairs, strict=True)
        products = torch.autograd.grad(
            gradients, point.leaves, directions, retain_graph=True, allow_unused=True
        )
        return self.pack.to_vector(products)

    def _refuse_jac(self) -> None:
        if self._jac:
            raise InputError("a method that uses the Hessian needs torch's own gradient; leave jac out")

    def _dense_hessian(self, point: "Point") -> Array:
        self._refuse_jac()
        leaves = [leaf.detach() for leaf in point.leaves]
        every = tuple(range(len(leaves)))
        gradients = torch.func.grad(lambda *tensors: self._call(tensors), every)
        blocks = torch.func.jacrev(gradients, every)(*leaves)
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
    """One evaluation: leaves, value with its graph and as a number, and the gradient once computed.

    `key` is the vector's bytes, by which the point is found again.
    """

    key: bytes
    leaves: list[Tensor]
    value: Tensor
    f: float
    gradients: list[Tensor | None] | None


def _to_float(value: Any) -> float:
    if not isinstance(value, Tensor) or value.numel() != 1 or value.is_complex():
        what = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise InputError(f"the function returned {what}; expected a real tensor with one number")
    return value.item()


def _zero_hessian() -> InputError:
    return InputError(
        "the Hessian of this function is zero where it starts: it is linear, or not smooth; use a method "
        "that takes no Hessian, such as BFGS"
    )
