"""Torch functions under SciPy's minimisers: exact gradients and Hessians for any smooth function.

`minimize` takes what `scipy.optimize.minimize` takes, with tensors for arrays.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy.optimize import OptimizeResult

from ooftorch.optim.methods import choose_method
from ooftorch.optim.objective import Objective, Tensors
from ooftorch.optim.progress import show_progress
from ooftorch.optim.scipy_global import GLOBAL
from ooftorch.optim.scipy_local import local_methods, run_local
from ooftorch.optim.torch_methods import TORCH

__all__ = ["minimize", "run_method"]


def minimize(
    fun: Callable,
    x0: Tensors,
    args: tuple = (),
    method: str | None = None,
    *,
    jac: bool | Callable | None = None,
    bounds: Any = None,
    constraints: Any = (),
    tol: float | None = None,
    callback: Callable | None = None,
    options: Mapping[str, Any] | None = None,
    progress: bool | None = None,
) -> OptimizeResult:
    """Minimise a scalar torch function of tensors.

    Parameters
    ----------
    fun : callable
        Takes the tensors in the structure of `x0`, and `args`; returns a tensor with one number.
    x0 : Tensor, sequence of Tensor, or mapping of str to Tensor
        Where to start; any shapes, precisions and devices. SciPy works in double precision; the function
        gets the precisions and devices given.
    args : tuple
        Further arguments of `fun`.
    method : str, optional
        Any of `methods.method_names()`, upper or lower case: SciPy's local methods; its global ones
        ("basinhopping", "differential_evolution", "shgo", "dual_annealing", "direct"), of which all but the
        first need bounds; torch's "adam", "sgd" and "lbfgs", on the whole function; "metric-bfgs", the one
        that fits beam maps, with a `metric` among the options. By default SciPy's choice: BFGS, L-BFGS-B with
        bounds, SLSQP with constraints.
    jac : bool or callable, optional
        True where `fun` returns the value and its gradient, or a function that returns the gradient, in the
        structure of `x0`. By default torch computes it, by reverse mode. Hessians always come from torch:
        as products with a vector if the method takes these, else as the whole matrix.
    bounds : scipy.optimize.Bounds or sequence of (low, high), optional
        One pair for each number, in the order of the tensors flattened and concatenated.
    constraints : one of SciPy's constraints or a sequence of them, optional
        Functions in them take tensors, and torch differentiates them. A `LinearConstraint` acts on the
        tensors flattened and concatenated.
    tol : float, optional
        As in SciPy.
    callback : callable, optional
        As in SciPy, with tensors for x: `callback(intermediate_result)` or `callback(x)`. StopIteration ends
        the minimisation.
    options : mapping, optional
        Options of the method, as in SciPy. Those of torch's methods are lr, maxiter, gtol, and schedule: a
        function that makes a learning-rate scheduler for the optimiser.
    progress : bool, optional
        Whether to draw a bar of evaluations; by default if stderr is a terminal.

    Returns
    -------
    scipy.optimize.OptimizeResult
        As SciPy's, with `x` in the structure of `x0`. `nfev`, `njev` and `nhev` count what was computed here;
        `history` (n, 2) has seconds and value of every evaluation; `interrupted` says whether Ctrl-C ended
        the minimisation, with `x` the best point so far.

    Raises
    ------
    InputError
        If the method is not known, or cannot use what it is given, or the function does not have what the
        method needs.
    """
    name = choose_method(method, bounds, constraints)
    with show_progress(progress) as on_value:
        objective = Objective(fun, x0, args, jac, on_value)
        return run_method(objective, name, bounds, constraints, tol, callback, options)


def run_method(
    objective: Objective,
    name: str,
    bounds: Any = None,
    constraints: Any = (),
    tol: float | None = None,
    callback: Callable | None = None,
    options: Mapping[str, Any] | None = None,
) -> OptimizeResult:
    """Run one method on an objective: what `minimize` and `ScipyOptimizer` share; see `minimize`."""
    start, options = objective.pack.start.copy(), dict(options or {})
    report = None if callback is None else _adapt_callback(callback, objective)
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            if name in local_methods():
                result = run_local(objective, start, name, bounds, constraints, tol, report, options)
            elif name in GLOBAL:
                result = GLOBAL[name](objective, start, bounds, constraints, report, options)
            else:
                result = TORCH[name](objective, start, report, options)
        interrupted = False
    except (KeyboardInterrupt, StopIteration) as stop:
        interrupted = isinstance(stop, KeyboardInterrupt)
        result = OptimizeResult(
            x=start if objective.best is None else objective.best,
            fun=objective.best_value,
            success=False,
            status=99,
            message=f"{'interrupted' if interrupted else 'stopped by the callback'}: the best point so far",
        )
    result.interrupted = interrupted
    result.nfev, result.njev, result.nhev = objective.nfev, objective.njev, objective.nhev
    result.history = np.array(objective.history).reshape(-1, 2)
    result.method = name
    if result.get("x") is None:  # a search that found nothing at all
        result.x, result.fun = objective.best, objective.best_value
    result.fun = float(result.fun)
    result.x = objective.pack.unpack(np.asarray(result.x, float))
    return result


def _adapt_callback(callback: Callable, objective: Objective) -> Callable:
    """Give the callback tensors: methods call with a point or with a result, some with further arguments."""
    pack = objective.pack

    def call_with_x(here: Any, *more: Any, **named: Any) -> Any:
        vector = here.x if isinstance(here, OptimizeResult) else here
        return callback(pack.unpack(np.asarray(vector, float)))

    def call_with_result(intermediate_result: Any) -> Any:
        here = intermediate_result
        given = OptimizeResult(here if isinstance(here, OptimizeResult) else {"x": here})
        if "fun" not in given:
            given.fun = objective.value(given.x)
        given.x = pack.unpack(np.asarray(given.x, float))
        return callback(intermediate_result=given)

    # SciPy decides by the name of the argument, and so do we.
    takes_result = set(inspect.signature(callback).parameters) == {"intermediate_result"}
    return call_with_result if takes_result else call_with_x
