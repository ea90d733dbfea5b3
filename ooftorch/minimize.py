"""SciPy's BFGS with PyTorch gradients, started from what the problem says of its own curvature."""

from collections.abc import Callable

import numpy as np
import scipy.optimize
import torch
from torch import Tensor

__all__ = ["Objective", "bfgs", "newton_decrement"]

# A trial step may land where the function is not a number. It then counts as this much worse than the
# start, in units of the start's size: the line search backs off instead of stopping.
_PENALTY = 1e3


class Objective:
    """A torch function as SciPy sees it: vectors of NumPy in, value and gradient out.

    The one owner of values, gradients and their count.

    Parameters
    ----------
    fun : callable
        Maps a Tensor (n,) to a scalar Tensor.
    like : Tensor
        Its dtype and device are those of the Tensor that `fun` gets.
    callback : callable, optional
        Called with (number of evaluations, value) after each evaluation.

    Attributes
    ----------
    n_eval : int
        Evaluations of value and gradient so far.
    """

    def __init__(
        self,
        fun: Callable[[Tensor], Tensor],
        like: Tensor,
        callback: Callable[[int, float], None] | None = None,
    ) -> None:
        self._fun = fun
        self._like = like
        self._callback = callback
        self.n_eval = 0

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """Value and gradient (n,) at x (n,), both in double precision."""
        t = torch.as_tensor(x, dtype=self._like.dtype, device=self._like.device).requires_grad_()
        with torch.enable_grad():
            value = self._fun(t)
            (gradient,) = torch.autograd.grad(value, t)
        self.n_eval += 1
        f = value.item()
        if self._callback is not None:
            self._callback(self.n_eval, f)
        return f, gradient.double().cpu().numpy()


def bfgs(
    objective: Callable[[np.ndarray], tuple[float, np.ndarray]],
    x0: np.ndarray,
    information: np.ndarray,
    *,
    gtol: float = 1e-3,
    max_iter: int = 1000,
) -> scipy.optimize.OptimizeResult:
    """Minimise with SciPy's BFGS in the coordinates in which `information` is the unit matrix.

    That is BFGS with the inverse of the information (Fisher) matrix as its first inverse Hessian, and
    with a stopping rule in standard deviations: at the end each whitened gradient is below `gtol`, so the
    minimum is some `gtol` standard deviations away.

    Parameters
    ----------
    objective : callable
        x (n,) to (value, gradient (n,)), such as an `Objective`.
    x0 : ndarray, (n,)
    information : ndarray, (n, n)
        Positive semidefinite estimate of the Hessian.
    gtol : float
    max_iter : int

    Returns
    -------
    scipy.optimize.OptimizeResult
        `x` and `jac` in the coordinates of x0; `success` and `message` as SciPy gives them.
    """
    unwhiten = _inverse_root(information)
    worst = np.inf

    def whitened(u: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal worst
        f, g = objective(x0 + unwhiten @ u)
        if not (np.isfinite(f) and np.isfinite(g).all()):
            return worst, np.zeros_like(u)
        if worst == np.inf:
            worst = f + _PENALTY * (1 + abs(f))
        return f, unwhiten.T @ g

    found = scipy.optimize.minimize(
        whitened,
        np.zeros_like(x0),
        jac=True,
        method="BFGS",
        options={"gtol": gtol, "maxiter": max_iter},
    )
    found.x = x0 + unwhiten @ found.x
    found.jac = np.linalg.solve(unwhiten.T, found.jac)
    return found


def newton_decrement(gradient: np.ndarray, information: np.ndarray) -> float:
    """Twice the drop that a Newton step with this information would bring: g' F^-1 g.

    In a log-posterior it is the squared distance to the minimum in standard deviations.
    """
    return float(np.sum((_inverse_root(information).T @ gradient) ** 2))


def _inverse_root(information: np.ndarray) -> np.ndarray:
    """Matrix T with T T' the inverse of `information`, directions that nothing constrains bounded."""
    scale = 1 / np.sqrt(np.maximum(np.diag(information), np.finfo(float).tiny))
    values, vectors = np.linalg.eigh(information * np.outer(scale, scale))
    values = np.maximum(values, values[-1] * 1e-12)
    return scale[:, None] * vectors / np.sqrt(values)
