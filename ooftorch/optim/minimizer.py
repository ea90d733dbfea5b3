"""Torch functions under SciPy's minimisers: exact gradients and Hessians for any smooth function.

`minimize` takes what `scipy.optimize.minimize` takes, with tensors for arrays; `least_squares` does the same
for residuals.
"""

import inspect
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import scipy.optimize
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult

from ooftorch.errors import InputError
from ooftorch.optim.methods import GLOBAL, OWN, VectorFunction, listed, local, names, run_local, uses
from ooftorch.optim.objective import Objective, Pack, Tensors

__all__ = ["chosen", "least_squares", "minimize", "run", "watched"]

Array = NDArray[np.float64]


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
        Any of `methods.names()`, in any case. SciPy's local methods; its global ones ("basinhopping",
        "differential_evolution", "shgo", "dual_annealing", "direct"), of which all but the first need bounds;
        torch's "adam", "sgd" and "lbfgs", on the whole function; "metric-bfgs", the one that fits beam maps,
        with a `metric` among the options. By default as SciPy chooses: BFGS, L-BFGS-B with bounds, SLSQP with
        constraints.
    jac : bool or callable, optional
        True where `fun` returns the value and its gradient, or a function that returns the gradient, in the
        structure of `x0`. By default torch finds it, by reverse mode. Hessians are torch's always: products
        with a vector where the method takes these, else the whole matrix.
    bounds : scipy.optimize.Bounds or sequence of (low, high), optional
        One for each number, tensors laid out one after the other.
    constraints : one of SciPy's constraints or a sequence of them, optional
        Functions in them take tensors, and their derivatives are torch's. A `LinearConstraint` is about the
        numbers laid out one after the other.
    tol : float, optional
        As in SciPy.
    callback : callable, optional
        As in SciPy, with tensors for x: `callback(intermediate_result)` or `callback(x)`. StopIteration ends
        the minimisation.
    options : mapping, optional
        Of the method, as SciPy has them. Of torch's: lr, maxiter, gtol, and schedule, which makes a
        learning-rate schedule from the optimiser.
    progress : bool, optional
        Whether to draw a bar of evaluations; by default while a person is watching.

    Returns
    -------
    scipy.optimize.OptimizeResult
        As SciPy's, with `x` in the structure of `x0`; and `nfev`, `njev`, `nhev` as they were counted here,
        `history` (n, 2): seconds and value of every evaluation, and `interrupted`: whether Ctrl-C ended it,
        `x` then being the best point so far.

    Raises
    ------
    InputError
        If the method is not known, or cannot use what it is given, or the function does not have what the
        method needs.
    """
    name = chosen(method, bounds, constraints)
    with watched(progress) as watch:
        objective = Objective(fun, x0, args, jac, watch)
        return run(objective, name, bounds, constraints, tol, callback, options)


def run(
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
    told = None if callback is None else _told(callback, objective)
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            if name in local():
                result = run_local(objective, start, name, bounds, constraints, tol, told, options)
            elif name in GLOBAL:
                result = GLOBAL[name](objective, start, bounds, constraints, told, options)
            else:
                result = OWN[name](objective, start, told, options)
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
    result.x = objective.pack.structure(objective.pack.leaves(np.asarray(result.x, float)))
    return result


def chosen(method: str | None, bounds: Any, constraints: Any) -> str:
    """Name of the method, in lower case."""
    if method is None:
        return "slsqp" if listed(constraints) else "bfgs" if bounds is None else "l-bfgs-b"
    name = method.lower()
    if name not in names():
        raise InputError(f"unknown method {method!r}; known are {', '.join(names())}")
    if name in local():
        can = uses(name)
        if bounds is not None and not can.bounds:
            raise InputError(f"{method} cannot keep bounds; take L-BFGS-B, or leave the bounds out")
        if listed(constraints) and not can.constraints:
            raise InputError(f"{method} cannot keep constraints; take SLSQP or trust-constr")
    elif listed(constraints) and name != "shgo":
        raise InputError(f"{method} cannot keep constraints; take SLSQP or trust-constr")
    if name in OWN and bounds is not None:
        raise InputError(f"{method} cannot keep bounds; take L-BFGS-B, or leave the bounds out")
    if name in GLOBAL and name != "basinhopping" and bounds is None:
        raise InputError(f"{method} searches a box; give bounds")
    return name


def _told(callback: Callable, objective: Objective) -> Callable:
    """The callback with tensors; methods call it with a point, or with a result, or say more beside."""

    def tensors(vector: Any) -> Any:
        return objective.pack.structure(objective.pack.leaves(np.asarray(vector, float)))

    def old(here: Any, *more: Any, **named: Any) -> Any:
        return callback(tensors(here.x if isinstance(here, OptimizeResult) else here))

    def new(intermediate_result: Any) -> Any:
        here = intermediate_result
        given = OptimizeResult(here if isinstance(here, OptimizeResult) else {"x": here})
        if "fun" not in given:
            given.fun = objective.value(given.x)
        given.x = tensors(given.x)
        return callback(intermediate_result=given)

    # SciPy looks at the name of the argument.
    return new if set(inspect.signature(callback).parameters) == {"intermediate_result"} else old


# ------------------------------------------------------------------------------------------ least squares


def least_squares(
    residuals: Callable, x0: Tensors, args: tuple = (), *, progress: bool | None = None, **options: Any
) -> OptimizeResult:
    """Minimise the sum of squares of torch residuals, by `scipy.optimize.least_squares`.

    Parameters
    ----------
    residuals : callable
        Takes the tensors in the structure of `x0`, and `args`; returns a tensor of residuals, any shape.
    x0 : Tensor, sequence of Tensor, or mapping of str to Tensor
    args : tuple
    progress : bool, optional
        Whether to draw a bar of evaluations; by default while a person is watching.
    **options
        Bounds, method, loss, tolerances, ...: as in SciPy.

    Returns
    -------
    scipy.optimize.OptimizeResult
        As SciPy's, with `x` in the structure of `x0`; `jac` (m, n) is torch's, by forward mode where there
        are fewer numbers than residuals, else by reverse mode. And `history`, `interrupted` as of `minimize`.

    Raises
    ------
    InputError
        If `x0` or what the function returns cannot be used.
    """
    pack = Pack(x0)
    start = pack.start
    with watched(progress) as watch:
        vector = VectorFunction(residuals, pack, args)
        best, lowest = start, math.inf
        begin = time.perf_counter()
        history: list[tuple[float, float]] = []

        def value(x: Array) -> Array:
            r = vector.value(x)
            nonlocal best, lowest
            cost = 0.5 * float(r @ r)
            history.append((time.perf_counter() - begin, cost))
            if cost < lowest:
                best, lowest = np.array(x), cost
            if watch is not None:
                watch(cost)
            return r

        try:
            with np.errstate(over="ignore", invalid="ignore"):
                result = scipy.optimize.least_squares(value, start, jac=vector.jacobian, **options)
            result.interrupted = False
        except KeyboardInterrupt:
            result = OptimizeResult(
                x=best,
                cost=lowest,
                success=False,
                status=-99,
                interrupted=True,
                message="interrupted: the best point so far",
            )
    result.nfev, result.njev = vector.nfev, vector.njev
    result.history = np.array(history).reshape(-1, 2)
    result.x = pack.structure(pack.leaves(np.asarray(result.x, float)))
    return result


@contextmanager
def watched(wanted: bool | None) -> Iterator[Callable[[float], None] | None]:
    """Yield what is to be told every value: a bar of evaluations, or None where nobody watches."""
    if wanted is None:
        wanted = sys.stderr.isatty()
    if not wanted:
        yield None
        return
    from tqdm import tqdm

    with tqdm(unit=" evaluations", leave=False, miniters=1) as bar:
        lowest = math.inf

        def watch(value: float) -> None:
            nonlocal lowest
            lowest = min(lowest, value)
            bar.set_postfix_str(f"lowest {lowest:.8g}", refresh=False)
            bar.update()

        yield watch
