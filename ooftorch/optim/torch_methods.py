"""Methods that are not SciPy's: torch's optimisers, and the BFGS in a metric that fits beam maps.

Each takes (objective, start, callback, options).
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult

from ooftorch.errors import InputError
from ooftorch.optim.bfgs import bfgs
from ooftorch.optim.objective import Objective

__all__ = ["TORCH"]

Array = NDArray[np.float64]


def _run_optimizer(
    name: str, objective: Objective, start: Array, callback: Callable | None, options: dict[str, Any]
) -> OptimizeResult:
    """Run one of torch's optimisers until the gradient is below gtol, or for maxiter steps."""
    make, defaults = _OPTIMIZERS[name]
    options = {**defaults, **options}
    maxiter, gtol, schedule = (options.pop(key) for key in ("maxiter", "gtol", "schedule"))
    objective.prepare(1)
    x = torch.from_numpy(start.copy()).requires_grad_()
    optimizer = make([x], **options)
    scheduler = None if schedule is None else schedule(optimizer)

    def closure() -> float:
        here = x.detach().numpy()
        x.grad = torch.from_numpy(objective.gradient(here).copy())
        return objective.value(here)

    converged, steps = False, 0
    while not converged and steps < maxiter:
        optimizer.step(closure)
        steps += 1
        if scheduler is not None:
            scheduler.step()
        here = x.detach().numpy().copy()
        # Costs nothing: the next step asks for value and gradient at the same point.
        value, gradient = objective.value(here), objective.gradient(here)
        if not (np.isfinite(here).all() and math.isfinite(value)):
            raise InputError(f"{name} ran away after {steps} steps; take a smaller lr")
        converged = bool(np.max(np.abs(gradient)) < gtol)
        if callback is not None:
            callback(OptimizeResult(x=here, fun=value))
    message = "the gradient is below gtol" if converged else "the step limit is reached"
    return OptimizeResult(
        x=here,
        fun=value,
        jac=gradient,
        success=converged,
        status=int(not converged),
        nit=steps,
        message=message,
    )


def _run_metric_bfgs(
    objective: Objective, start: Array, callback: Callable | None, options: dict[str, Any]
) -> OptimizeResult:
    """Run BFGS in the coordinates in which a metric is the unit matrix: the minimiser of `ooftorch.fit`."""
    objective.prepare(1)
    options = {"metric": np.eye(start.size), "gtol": 1e-5, "max_step": math.inf, **options}
    metric = torch.as_tensor(options.pop("metric"), dtype=torch.float64)

    def fun(x: torch.Tensor, members: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        here = x[0].numpy()
        value, gradient = objective.value(here), objective.gradient(here)
        if callback is not None:
            callback(OptimizeResult(x=here.copy(), fun=value))
        return torch.tensor([value], dtype=torch.float64), torch.from_numpy(gradient.copy())[None]

    end = bfgs(fun, torch.from_numpy(start)[None], metric[None], **options)
    x, stuck = end.x[0].numpy(), bool(end.stuck[0])
    message = "no further decrease found" if stuck else "the gradient is below gtol, in the metric"
    return OptimizeResult(
        x=x,
        fun=float(end.value[0]),
        jac=objective.gradient(x),
        success=not stuck,
        status=int(stuck),
        message=message,
    )


_LIMITS = {"maxiter": 1000, "gtol": 1e-5, "schedule": None}
# Class and default options of each optimiser.
_OPTIMIZERS: dict[str, tuple[Callable, dict[str, Any]]] = {
    "adam": (torch.optim.Adam, {**_LIMITS, "lr": 1e-2}),
    "sgd": (torch.optim.SGD, {**_LIMITS, "lr": 1e-3}),
    # One iteration per step, so that gtol decides about the end and not torch's own tests.
    "lbfgs": (
        torch.optim.LBFGS,
        {
            **_LIMITS,
            "line_search_fn": "strong_wolfe",
            "max_iter": 1,
            "max_eval": 25,
            "tolerance_change": 0.0,
        },
    ),
}
TORCH: dict[str, Callable] = {name: functools.partial(_run_optimizer, name) for name in _OPTIMIZERS} | {
    "metric-bfgs": _run_metric_bfgs
}
"""Methods that are not SciPy's, by name."""
