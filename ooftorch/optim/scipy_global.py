"""SciPy's global methods: each takes (objective, start, bounds, constraints, callback, options)."""

from collections.abc import Callable
from typing import Any

import scipy.optimize
from scipy.optimize import OptimizeResult

from ooftorch.optim.objective import Objective
from ooftorch.optim.scipy_local import adapt_constraints, uses

__all__ = ["GLOBAL"]


def _run_basinhopping(objective, start, bounds, constraints, callback, options):
    arguments = _local_search(objective, bounds, options)
    report = None if callback is None else lambda x, f, accepted: callback(OptimizeResult(x=x, fun=f))
    return scipy.optimize.basinhopping(
        objective.value, start, minimizer_kwargs=arguments, callback=report, **options
    )


def _run_differential_evolution(objective, start, bounds, constraints, callback, options):
    polish = options.pop("polish", True)
    objective.prepare(0)
    result = scipy.optimize.differential_evolution(
        objective.value, bounds, x0=start, polish=False, callback=callback, **options
    )
    return _polish(objective, result, bounds) if polish else result


def _run_shgo(objective, start, bounds, constraints, callback, options):
    arguments = _local_search(objective, bounds, options)
    adapted = adapt_constraints(constraints, objective.pack, uses("slsqp"))
    if adapted:
        arguments["method"] = "SLSQP"
    arguments.pop("bounds", None)  # shgo passes them on itself
    return scipy.optimize.shgo(
        objective.value,
        bounds,
        constraints=adapted,
        minimizer_kwargs=arguments,
        callback=callback,
        **options,
    )


def _run_dual_annealing(objective, start, bounds, constraints, callback, options):
    arguments = _local_search(objective, bounds, options)
    report = None if callback is None else lambda x, f, context: callback(OptimizeResult(x=x, fun=f))
    return scipy.optimize.dual_annealing(
        objective.value, bounds, x0=start, minimizer_kwargs=arguments, callback=report, **options
    )


def _run_direct(objective, start, bounds, constraints, callback, options):
    objective.prepare(0)
    result = scipy.optimize.direct(objective.value, bounds, callback=callback, **options)
    return _polish(objective, result, bounds)


GLOBAL: dict[str, Callable] = {
    "basinhopping": _run_basinhopping,
    "differential_evolution": _run_differential_evolution,
    "shgo": _run_shgo,
    "dual_annealing": _run_dual_annealing,
    "direct": _run_direct,
}
"""Global methods of SciPy, by name."""


def _local_search(objective: Objective, bounds: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of the local searches inside a global one; the user's own are in `options`."""
    objective.prepare(1)
    given = dict(options.pop("minimizer_kwargs", {}))
    usual = {"method": "BFGS" if bounds is None else "L-BFGS-B", "jac": objective.gradient}
    return usual | ({} if bounds is None else {"bounds": bounds}) | given


def _polish(objective: Objective, result: OptimizeResult, bounds: Any) -> OptimizeResult:
    """Improve the result of a search without derivatives by a local search with the gradient."""
    objective.prepare(1)
    end = scipy.optimize.minimize(
        objective.value, result.x, jac=objective.gradient, method="L-BFGS-B", bounds=bounds
    )
    if end.fun < result.fun:
        result.x, result.fun = end.x, end.fun
    return result
