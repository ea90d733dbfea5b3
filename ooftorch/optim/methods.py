"""The methods of minimisation: SciPy's local and global ones, torch's, and our own, run on an `Objective`.

Which local methods there are, and which derivatives, bounds and constraints each uses, is asked of the SciPy
that is installed.
"""

import functools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
import torch
from numpy.typing import NDArray
from scipy.optimize import NonlinearConstraint, OptimizeResult

from ooftorch.errors import InputError
from ooftorch.optim.bfgs import bfgs
from ooftorch.optim.objective import Objective, Pack

__all__ = ["GLOBAL", "OWN", "Uses", "VectorFunction", "listed", "local", "names", "run_local", "uses"]

Array = NDArray[np.float64]


class Uses(NamedTuple):
    """What a method of `scipy.optimize.minimize` makes use of."""

    jac: bool
    hess: bool
    hessp: bool
    bounds: bool
    constraints: bool


def names() -> list[str]:
    """Names of all methods, in lower case."""
    return [*local(), *(name for name in GLOBAL if hasattr(scipy.optimize, name)), *OWN]


@functools.cache
def local() -> tuple[str, ...]:
    """Methods of `scipy.optimize.minimize`, from SciPy itself."""
    from scipy.optimize import _minimize

    return tuple(_minimize.MINIMIZE_METHODS)


@functools.cache
def uses(method: str) -> Uses:
    """What a local method makes use of: SciPy warns of what it is given in vain."""
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
    said = " ".join(str(w.message) for w in caught)
    vain = ("(jac)", "(hess)", "(hessp)", "cannot handle bounds", "cannot handle constraints")
    return Uses(*(words not in said for words in vain))


# ------------------------------------------------------------------------------------ SciPy's local methods


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
    # With constraints the curvature may be theirs.
    objective.needs(2 if can.hess or can.hessp else 1 if can.jac else 0, flat=can.constraints)
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
        constraints=[_constraint(c, objective.pack, can) for c in listed(constraints)],
        tol=tol,
        callback=callback,
        options=options,
        **derivatives,
    )


def listed(constraints: Any) -> list:
    """One constraint or several as a list."""
    return list(constraints) if isinstance(constraints, list | tuple) else [constraints]


class VectorFunction:
    """A torch function of tensors with several values, as SciPy wants constraints and residuals."""

    def __init__(self, fun: Callable, pack: Pack, args: tuple = ()) -> None:
        self._fun, self._pack, self._args = fun, pack, args
        self.nfev = self.njev = 0

    def _call(self, leaves: Sequence[torch.Tensor]) -> torch.Tensor:
        values = self._fun(self._pack.structure(leaves), *self._args)
        if not isinstance(values, torch.Tensor):
            raise InputError(f"the function returned {values!r}; expected a tensor")
        return values.reshape(-1)

    def value(self, vector: Array) -> Array:
        """Values at a vector, (m,)."""
        with torch.no_grad():
            values = self._call(self._pack.leaves(vector)).cpu().double().numpy()
        self.nfev += 1
        return values

    def jacobian(self, vector: Array) -> Array:
        """(m, n): forward mode where there are fewer numbers than values, else reverse mode."""
        self.njev += 1
        leaves = self._pack.leaves(vector)
        with torch.no_grad():
            m = self._call(leaves).numel()
        transform = torch.func.jacfwd if self._pack.size <= m else torch.func.jacrev
        every = tuple(range(len(leaves)))
        with warnings.catch_warnings():
            # Forward mode loads parts of torch that warn of their own age.
            warnings.filterwarnings("ignore", r".*torch\.jit", DeprecationWarning)
            blocks = transform(lambda *tensors: self._call(tensors), every)(*leaves)
        return torch.cat([b.detach().cpu().double().reshape(m, -1) for b in blocks], 1).numpy()

    def hessian(self, vector: Array, weights: Array) -> Array:
        """Hessian (n, n) of the weighted sum of the values."""
        weighted = Objective(
            lambda x: _weighted(self._call(self._pack.of(x)), weights),
            self._pack.structure(self._pack.leaves(vector)),
        )
        weighted.needs(2, flat=True)
        return weighted.hessian(vector)


def _weighted(values: torch.Tensor, weights: Array) -> torch.Tensor:
    return values @ torch.as_tensor(weights, dtype=values.dtype, device=values.device)


def _constraint(given: Any, pack: Pack, can: Uses) -> Any:
    """The same constraint of vectors, with derivatives."""
    if isinstance(given, NonlinearConstraint):
        vector = VectorFunction(given.fun, pack)
        second = {"hess": vector.hessian} if can.hess else {}
        return NonlinearConstraint(
            vector.value, given.lb, given.ub, jac=vector.jacobian, keep_feasible=given.keep_feasible, **second
        )
    if isinstance(given, Mapping):
        vector = VectorFunction(given["fun"], pack, tuple(given.get("args", ())))
        return {"type": given["type"], "fun": vector.value, "jac": vector.jacobian}
    return given


# ----------------------------------------------------------------------------------- SciPy's global methods


def _polished(objective: Objective, result: OptimizeResult, bounds: Any) -> OptimizeResult:
    """A result of a search without derivatives, taken to the bottom of its valley."""
    objective.needs(1)
    end = scipy.optimize.minimize(
        objective.value, result.x, jac=objective.gradient, method="L-BFGS-B", bounds=bounds
    )
    if end.fun < result.fun:
        result.x, result.fun = end.x, end.fun
    return result


def _inner(objective: Objective, bounds: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the local searches inside a global one."""
    objective.needs(1)
    own = dict(options.pop("minimizer_kwargs", {}))
    usual = {"method": "BFGS" if bounds is None else "L-BFGS-B", "jac": objective.gradient}
    return usual | ({} if bounds is None else {"bounds": bounds}) | own


def _basinhopping(objective, start, bounds, constraints, callback, options):
    inner = _inner(objective, bounds, options)
    told = None if callback is None else lambda x, f, accepted: callback(OptimizeResult(x=x, fun=f))
    return scipy.optimize.basinhopping(
        objective.value, start, minimizer_kwargs=inner, callback=told, **options
    )


def _differential_evolution(objective, start, bounds, constraints, callback, options):
    polish = options.pop("polish", True)
    objective.needs(0)
    result = scipy.optimize.differential_evolution(
        objective.value, bounds, x0=start, polish=False, callback=callback, **options
    )
    return _polished(objective, result, bounds) if polish else result


def _shgo(objective, start, bounds, constraints, callback, options):
    inner = _inner(objective, bounds, options)
    own = [_constraint(c, objective.pack, uses("slsqp")) for c in listed(constraints)]
    if own:
        inner["method"] = "SLSQP"
    inner.pop("bounds", None)  # its own
    return scipy.optimize.shgo(
        objective.value, bounds, constraints=own, minimizer_kwargs=inner, callback=callback, **options
    )


def _dual_annealing(objective, start, bounds, constraints, callback, options):
    inner = _inner(objective, bounds, options)
    told = None if callback is None else lambda x, f, context: callback(OptimizeResult(x=x, fun=f))
    return scipy.optimize.dual_annealing(
        objective.value, bounds, x0=start, minimizer_kwargs=inner, callback=told, **options
    )


def _direct(objective, start, bounds, constraints, callback, options):
    objective.needs(0)
    result = scipy.optimize.direct(objective.value, bounds, callback=callback, **options)
    return _polished(objective, result, bounds)


GLOBAL: dict[str, Callable] = {
    "basinhopping": _basinhopping,
    "differential_evolution": _differential_evolution,
    "shgo": _shgo,
    "dual_annealing": _dual_annealing,
    "direct": _direct,
}
"""Global methods of SciPy, by name."""


# ------------------------------------------------------------------------- torch's methods, and our own


def _first_order(
    kind: str, objective: Objective, start: Array, callback: Callable | None, options: dict[str, Any]
) -> OptimizeResult:
    """Torch's optimisers on the whole function, until the gradient or the patience is at an end."""
    make, usual = _TORCH[kind]
    options = {**usual, **options}
    maxiter, gtol, schedule = (options.pop(name) for name in ("maxiter", "gtol", "schedule"))
    objective.needs(1)
    x = torch.from_numpy(start.copy()).requires_grad_()
    optimizer = make([x], **options)
    scheduler = None if schedule is None else schedule(optimizer)

    def closure() -> float:
        here = x.detach().numpy()
        x.grad = torch.from_numpy(objective.gradient(here).copy())
        return objective.value(here)

    done, steps = False, 0
    while not done and steps < maxiter:
        optimizer.step(closure)
        steps += 1
        if scheduler is not None:
            scheduler.step()
        here = x.detach().numpy().copy()
        # The next step asks for the same, so this costs nothing.
        value, gradient = objective.value(here), objective.gradient(here)
        if not (np.isfinite(here).all() and math.isfinite(value)):
            raise InputError(f"{kind} ran away after {steps} steps; take a smaller lr")
        done = bool(np.max(np.abs(gradient)) < gtol)
        if callback is not None:
            callback(OptimizeResult(x=here, fun=value))
    message = "the largest slope is below gtol" if done else "the steps allowed are used up"
    return OptimizeResult(
        x=here, fun=value, jac=gradient, success=done, status=int(not done), nit=steps, message=message
    )


def _metric_bfgs(
    objective: Objective, start: Array, callback: Callable | None, options: dict[str, Any]
) -> OptimizeResult:
    """BFGS in the coordinates in which a metric is the unit matrix: the minimiser of `ooftorch.fit`."""
    objective.needs(1)
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


_PATIENCE = {"maxiter": 1000, "gtol": 1e-5, "schedule": None}
# Optimiser, and options where nobody says otherwise.
_TORCH: dict[str, tuple[Callable, dict[str, Any]]] = {
    "adam": (torch.optim.Adam, {**_PATIENCE, "lr": 1e-2}),
    "sgd": (torch.optim.SGD, {**_PATIENCE, "lr": 1e-3}),
    # One iteration a step, which ends where the gradient says and not by torch's own tests.
    "lbfgs": (
        torch.optim.LBFGS,
        {
            **_PATIENCE,
            "line_search_fn": "strong_wolfe",
            "max_iter": 1,
            "max_eval": 25,
            "tolerance_change": 0.0,
        },
    ),
}
OWN: dict[str, Callable] = {name: functools.partial(_first_order, name) for name in _TORCH} | {
    "metric-bfgs": _metric_bfgs
}
"""Methods that are not SciPy's, by name."""
