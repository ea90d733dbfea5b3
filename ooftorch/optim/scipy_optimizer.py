"""SciPy's minimisers as a torch optimiser, one step of which is a whole minimisation."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult
from torch import Tensor, nn

from ooftorch.errors import InputError
from ooftorch.optim.methods import choose_method
from ooftorch.optim.minimizer import run_method
from ooftorch.optim.objective import Objective, Point
from ooftorch.optim.progress import show_progress

__all__ = ["ScipyOptimizer"]

Array = NDArray[np.float64]


class ScipyOptimizer(torch.optim.Optimizer):
    """Any method of `minimize` behind the interface of a torch optimiser.

    Parameters
    ----------
    parameters : torch.nn.Module, or iterable of Tensor
        What to optimise: all parameters of the module that require a gradient, or the given ones. Precisions
        and devices may differ. There are no parameter groups: the function is minimised over all parameters.
    method : str
        As of `minimize`.
    bounds, constraints, tol, callback, options, progress
        As of `minimize`; tensors are a tuple in the order of the parameters.
    **more
        Options of the method as keywords, in addition to `options`: gtol=1e-8, maxiter=100, ...

    Attributes
    ----------
    result : scipy.optimize.OptimizeResult or None
        Of the last step: see `minimize`.

    Raises
    ------
    InputError
        If no parameter requires a gradient, one is complex, or the method is not known.
    """

    def __init__(
        self,
        parameters: nn.Module | Iterable[Tensor],
        method: str = "BFGS",
        *,
        bounds: Any = None,
        constraints: Any = (),
        tol: float | None = None,
        callback: Callable | None = None,
        options: dict[str, Any] | None = None,
        progress: bool | None = None,
        **more: Any,
    ) -> None:
        self._module = parameters if isinstance(parameters, nn.Module) else None
        given = list(parameters.parameters() if isinstance(parameters, nn.Module) else parameters)
        if any(isinstance(p, dict) for p in given):
            raise InputError("parameters come in groups; one function is minimised over all: give one list")
        trainable = [p for p in given if p.requires_grad]
        if not trainable:
            raise InputError("no parameter requires a gradient; there is nothing to optimise")
        super().__init__(trainable, {})
        self._method = choose_method(method, bounds, constraints)
        self._setup = {"bounds": bounds, "constraints": constraints, "tol": tol, "callback": callback}
        self._options, self._progress = {**(options or {}), **more}, progress
        self.result: OptimizeResult | None = None

    def step(self, closure: Callable[..., Tensor]) -> Tensor:  # type: ignore[override]
        """Minimise, and set the parameters to the minimum found.

        Parameters
        ----------
        closure : callable
            Without arguments: returns the loss for the parameters as they are; it may call `backward`, as
            other optimisers require, unless the method uses the Hessian. With one argument, if a module was
            given: gets a function to call in place of the module, with parameters and floating-point inputs
            in double precision, and returns the loss.

        Returns
        -------
        Tensor
            The loss at the minimum, without a graph.

        Raises
        ------
        InputError
            If the closure does not return the loss, or calls `backward` where the method uses the Hessian.
        """
        parameters = self.param_groups[0]["params"]
        with show_progress(self._progress) as on_value:
            given = inspect.signature(closure).parameters.values()
            if any(p.default is p.empty and p.kind is not p.VAR_KEYWORD for p in given):
                if self._module is None:
                    raise InputError(
                        "a closure with an argument needs the module: give it in place of its parameters"
                    )
                objective: Objective = _ModuleLoss(self._module, closure, on_value)
            else:
                objective = _InPlaceLoss(parameters, closure, on_value)
            self.result = run_method(objective, self._method, options=self._options, **self._setup)
        with torch.no_grad():
            for p, value in zip(parameters, self.result.x, strict=True):
                p.copy_(value)
                p.grad = None
        return torch.as_tensor(self.result.fun, dtype=torch.float64)


class _InPlaceLoss(Objective):
    """A loss of parameters that are overwritten before every evaluation."""

    # A graph refers to the parameters, which the next point overwrites: only one point can be kept.
    _n_kept = 1

    def __init__(self, parameters: Sequence[Tensor], closure: Callable, on_value: Callable | None) -> None:
        super().__init__(closure, tuple(p.detach() for p in parameters), on_value=on_value)
        self._parameters = list(parameters)

    def _leaves_at(self, vector: Array) -> list[Tensor]:
        for p, value in zip(self._parameters, self.pack.to_leaves(vector), strict=True):
            p.data.copy_(value)
            p.grad = None
        return self._parameters

    def _call(self, leaves: Sequence[Tensor]) -> Any:
        # The closure may call backward even if the method uses no gradient.
        with torch.enable_grad():
            return self._fun()

    def _evaluate(self, vector: Array, key: bytes) -> Point:
        point = super()._evaluate(vector, key)
        if any(p.grad is not None for p in self._parameters):
            if self.second_order:
                raise InputError(
                    "the closure calls backward, which uses up the graph that the Hessian needs; return the "
                    "loss and leave backward out"
                )
            point.gradients = [None if p.grad is None else p.grad.clone() for p in self._parameters]
            self.njev += 1
        return point

    def _dense_hessian(self, point: Point) -> Array:
        rows = [self._hessian_product(point, self.pack.to_leaves(row)) for row in np.eye(self.pack.size)]
        return np.stack(rows)


class _ModuleLoss(Objective):
    """A loss of a module that is called with substitute parameters, in double precision."""

    def __init__(self, module: nn.Module, closure: Callable, on_value: Callable | None) -> None:
        named = {name: p for name, p in module.named_parameters() if p.requires_grad}
        super().__init__(closure, tuple(_to_double(p.detach()) for p in named.values()), on_value=on_value)
        self._names = list(named)
        fixed = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        self._fixed = {name: _to_double(t.detach()) for name, t in fixed.items() if name not in named}
        self._module = module

    def _call(self, leaves: Sequence[Tensor]) -> Any:
        state = {**self._fixed, **dict(zip(self._names, leaves, strict=True))}

        def call(*inputs: Any, **named: Any) -> Any:
            named = {name: _to_double(value) for name, value in named.items()}
            return torch.func.functional_call(self._module, state, tuple(map(_to_double, inputs)), named)

        return self._fun(call)


def _to_double(value: Any) -> Any:
    """Convert a real floating-point tensor to double precision; return anything else as it is."""
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
