"""Sums of squares of torch residuals under `scipy.optimize.least_squares`."""

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.optimize
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult

from ooftorch.optim.objective import Pack, Tensors
from ooftorch.optim.progress import show_progress
from ooftorch.optim.vector_function import VectorFunction

__all__ = ["least_squares"]

Array = NDArray[np.float64]


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
        Whether to draw a bar of evaluations; by default if stderr is a terminal.
    **options
        Bounds, method, loss, tolerances, ...: as in SciPy.

    Returns
    -------
    scipy.optimize.OptimizeResult
        As SciPy's, with `x` in the structure of `x0`; `jac` (m, n) is torch's, by forward mode if n <= m,
        else by reverse mode. `history` and `interrupted` are those of `minimize`.

    Raises
    ------
    InputError
        If `x0` or what the function returns cannot be used.
    """
    pack = Pack(x0)
    start = pack.start
    with show_progress(progress) as on_value:
        function = VectorFunction(residuals, pack, args)
        best, lowest = start, math.inf
        start_time = time.perf_counter()
        history: list[tuple[float, float]] = []

        def value(x: Array) -> Array:
            r = function.value(x)
            nonlocal best, lowest
            cost = 0.5 * float(r @ r)
            history.append((time.perf_counter() - start_time, cost))
            if cost < lowest:
                best, lowest = np.array(x), cost
            if on_value is not None:
                on_value(cost)
            return r

        try:
            with np.errstate(over="ignore", invalid="ignore"):
                result = scipy.optimize.least_squares(value, start, jac=function.jacobian, **options)
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
    result.nfev, result.njev = function.nfev, function.njev
    result.history = np.array(history).reshape(-1, 2)
    result.x = pack.unpack(np.asarray(result.x, float))
    return result
