"""The methods of `scipy.optimize.minimize`, each given the derivatives that it uses.

Which methods there are, and which derivatives, bounds and constraints each uses, is found out from the SciPy
that is installed.
"""

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
from numpy.typing import NDArray
from scipy.optimize import NonlinearConstraint, OptimizeResult

from ooftorch.optim.objective import Objective, Pack
from ooftorch.optim.vector_function import VectorFunction

__all__ = ["Uses", "adapt_constraints", "list_constraints", "local_methods", "run_local", "uses"]

Array = NDArray[np.float64]


class Uses(NamedTuple):
    """What a method of `scipy.optimize.minimize` makes use of."""

    jac: bool
    hess: bool
    hessp: bool
    bounds: bool
    constraints: bool


@functools.cache
def local_methods() -> tuple[str, ...]:
    """Names of the methods of `scipy.optimize.minimize`, in lower case."""
    from scipy.optimize import _minimize

    return tuple(_minimize.MINIMIZE_METHODS)


@functools.cache
def uses(method: str) -> Uses:
    """Find out what a local method makes use of, from SciPy's warnings about what it ignores."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for more in (
            {"bounds": [(-1.0, 1.0)]},
            {"constraints": [{"type": "ineq", "fun": lambda x: 1 - x[0]}]},
        ):
            scipy.optimize.minimize(
                lambda x: float(x @ x),
                np.array([0.5]),
                method=method,
                jac=lambda x: 2 * x,
                hess=lambda x: 2 * np.eye(1),
                hessp=lambda x, p: 2 * p,
                options={"maxiter": 1},
                **more,
            )
    messages = " ".join(str(w.message) for w in caught)
    ignored = ("(jac)", "(hess)", "(hessp)", "cannot handle bounds", "cannot handle constraints")
    return Uses(*(words not in messages for words in ignored))


def run_local(
    objective: Objective,
    start: Array,
    name: str,
    bounds: Any,
    constraints: Any,
    tol: float | None,
    callback: Callable | None,
    options: dict[str, Any],
) -> OptimizeResult:
    """Run a method of `scipy.optimize.minimize` with the derivatives that it uses."""
    can = uses(name)
    order = 2 if can.hess or can.hessp else 1 if can.jac else 0
    # A linear function under curved constraints has a minimum, and a Hessian of zero.
    objective.prepare(order, allow_zero_hessian=can.constraints)
    derivatives: dict[str, Any] = {}
    if can.jac:
        derivatives["jac"] = objective.gradient
    if can.hessp:
        derivatives["hessp"] = objective.hessp
    elif can.hess:
        derivatives["hess"] = objective.hessian
    return scipy.optimize.minimize(
        objective.value,
        start,
        method=name,
        bounds=bounds,
        constraints=adapt_constraints(constraints, objective.pack, can),
        tol=tol,
        callback=callback,
        options=options,
        **derivatives,
    )


def list_constraints(constraints: Any) -> list:
    """Return one constraint or several as a list."""
    return list(constraints) if isinstance(constraints, list | tuple) else [constraints]


def adapt_constraints(constraints: Any, pack: Pack, can: Uses) -> list:
    """Turn constraints on tensors into constraints on vectors, with the derivatives that a method uses."""
    return [_adapt(constraint, pack, can) for constraint in list_constraints(constraints)]


def _adapt(constraint: Any, pack: Pack, can: Uses) -> Any:
    if isinstance(constraint, NonlinearConstraint):
        function = VectorFunction(constraint.fun, pack)
        second = {"hess": function.hessian} if can.hess else {}
        return NonlinearConstraint(
            function.value,
            constraint.lb,
            constraint.ub,
            jac=function.jacobian,
            keep_feasible=constraint.keep_feasible,
            **second,
        )
    if isinstance(constraint, Mapping):
        function = VectorFunction(constraint["fun"], pack, tuple(constraint.get("args", ())))
        return {"type": constraint["type"], "fun": function.value, "jac": function.jacobian}
    return constraint  # a linear one, which is about vectors already
