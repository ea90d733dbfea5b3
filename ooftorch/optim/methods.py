"""The table of methods: their names, and which of them a problem can be given to."""

from typing import Any

import scipy.optimize

from ooftorch.errors import InputError
from ooftorch.optim.scipy_global import GLOBAL
from ooftorch.optim.scipy_local import list_constraints, local_methods, uses
from ooftorch.optim.torch_methods import TORCH

__all__ = ["choose_method", "method_names"]


def method_names() -> list[str]:
    """Names of all methods, in lower case."""
    return [*local_methods(), *(name for name in GLOBAL if hasattr(scipy.optimize, name)), *TORCH]


def choose_method(method: str | None, bounds: Any, constraints: Any) -> str:
    """Return the name in lower case of the method asked for, or of SciPy's default for such a problem.

    Raises
    ------
    InputError
        If there is no such method, or it cannot use the bounds or constraints, or needs bounds.
    """
    if method is None:
        return "slsqp" if list_constraints(constraints) else "bfgs" if bounds is None else "l-bfgs-b"
    name = method.lower()
    if name not in method_names():
        raise InputError(f"unknown method {method!r}; known are {', '.join(method_names())}")
    if name in local_methods():
        can = uses(name)
        keeps_bounds, keeps_constraints = can.bounds, can.constraints
    else:
        keeps_bounds, keeps_constraints = name in GLOBAL, name == "shgo"
    if bounds is not None and not keeps_bounds:
        raise InputError(f"{method} cannot keep bounds; take L-BFGS-B, or leave the bounds out")
    if list_constraints(constraints) and not keeps_constraints:
        raise InputError(f"{method} cannot keep constraints; take SLSQP or trust-constr")
    if name in GLOBAL and name != "basinhopping" and bounds is None:
        raise InputError(f"{method} searches a box; give bounds")
    return name
