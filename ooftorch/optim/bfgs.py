"""BFGS for one function or a batch of them, started with an estimate of the Hessian.

All members of a batch are evaluated together, but each has its own inverse Hessian, line search and stopping
test, so that a fit takes the same path alone as in a batch of a thousand.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["Minimum", "bfgs", "inverse_root"]

# The usual constants of the strong Wolfe conditions for quasi-Newton steps (Nocedal & Wright 2006, 3.1).
_DECREASE, _CURVATURE = 1e-4, 0.9
# Trials of one line search; a function that has not decreased by then is limited by rounding.
_TRIALS = 20


class Minimum(NamedTuple):
    """Results of a batch of b minimisations of n parameters each.

    Attributes
    ----------
    x : Tensor, (b, n)
    value : Tensor, (b,)
    distance : Tensor, (b,)
        Length of the gradient in the metric: the distance to the minimum, in standard deviations.
    n_eval : Tensor, (b,)
        Evaluations of value and gradient.
    stuck : bool Tensor, (b,)
        Whether the search ended because no further decrease was found, or at the limit of evaluations.
    inverse_hessian : Tensor, (b, n, n)
        Estimate at the end.
    """

    x: Tensor
    value: Tensor
    distance: Tensor
    n_eval: Tensor
    stuck: Tensor
    inverse_hessian: Tensor

    @property
    def metric(self) -> Tensor:
        """Estimate of the Hessian at the end, (b, n, n): to continue with."""
        root = inverse_root(self.inverse_hessian)
        return root @ root.mT


@torch.no_grad()
def bfgs(
    fun: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    x0: Tensor,
    metric: Tensor,
    *,
    gtol: float = 1e-3,
    max_step: float = 1.0,
    max_eval: int = 2000,
) -> Minimum:
    """Minimise by BFGS in the coordinates in which `metric` is the unit matrix.

    That is BFGS with the inverse of the metric as its first inverse Hessian and a strong Wolfe line search.
    If the metric is the Fisher information of a likelihood, or near it, the stopping rule is in standard
    deviations: each component of the whitened gradient is below `gtol`, so the minimum is about `gtol`
    standard deviations away.

    Parameters
    ----------
    fun : callable
        Takes points (k, n) and the indices (k,) of the members they belong to; returns values (k,) and
        gradients (k, n). Where a trial is not finite, a shorter step is tried.
    x0 : Tensor, (b, n)
    metric : Tensor, (b, n, n)
        Positive semidefinite estimate of the Hessian.
    gtol : float
    max_step : float
        Longest change of any coordinate in one step.
    max_eval : int
        Limit of evaluations for each member.

    Returns
    -------
    Minimum
    """
    unwhiten = inverse_root(metric)
    members = torch.arange(len(x0), device=x0.device)
    value, gradient = fun(x0, members)
    searches = _Searches(x0, value, gradient, unwhiten, max_step)
    x, value, inverse_hessian = x0.clone(), value.clone(), torch.zeros_like(unwhiten)
    distance, n_eval, stuck = (
        torch.zeros_like(value),
        torch.ones_like(members),
        torch.zeros_like(members, dtype=torch.bool),
    )
    trials = 1
    while True:
        ended = (searches.largest_gradient < gtol) | searches.failed | (trials >= max_eval)
        if ended.any():
            mask = torch.as_tensor(ended, device=x0.device)
            done = members[mask]
            x[done], value[done] = searches.x[mask], searches.f[mask]
            distance[done] = torch.linalg.vector_norm(searches.whitened[mask], dim=-1)
            n_eval[done], inverse_hessian[done] = trials, searches.inverse_hessian[mask]
            stuck[done] = torch.as_tensor(~(searches.largest_gradient[ended] < gtol), device=x0.device)
            members = members[~mask]
            if not len(members):
                return Minimum(x, value, distance, n_eval, stuck, inverse_hessian)
            searches = searches.select(~ended)
        searches.update(*fun(searches.trial_points(), members))
        trials += 1


class _Searches:
    """Quasi-Newton iterations of several members, each at its own stage of its own line search.

    Points x, values f, gradients g and inverse Hessians are those of the last accepted step. The line
    search goes along p; `low` is the best step so far and `high` the other end of the bracket, infinite
    before there is one (Nocedal & Wright 2006, algorithms 3.5 and 3.6). Vectors are torch tensors on the
    device of x0; scalars of each member are in NumPy arrays, where operations on small arrays are faster.
    """

    _p: Tensor
    _low_g: Tensor
    _low_f: Tensor
    _f: np.ndarray
    _slope: np.ndarray
    _step: np.ndarray
    _longest_step: np.ndarray
    _trials: np.ndarray
    _low: "_End"
    _high: "_End"

    def __init__(self, x: Tensor, f: Tensor, g: Tensor, unwhiten: Tensor, max_step: float) -> None:
        self.x, self.f, self.g = x, f, g
        self._unwhiten, self._max_step = unwhiten, max_step
        self.inverse_hessian = unwhiten @ unwhiten.mT
        everyone = np.ones(len(x), dtype=bool)
        self._fresh, self.failed = everyone, ~everyone
        self._begin(everyone)
        if not np.isfinite(self._f).all():
            self.failed = ~np.isfinite(self._f)

    def select(self, mask: np.ndarray) -> "_Searches":
        """Return the searches of some of the members."""
        selected = object.__new__(_Searches)
        for name, state in self.__dict__.items():
            if isinstance(state, Tensor):
                state = state[torch.as_tensor(mask, device=state.device)]
            elif isinstance(state, np.ndarray | _End):
                state = state[mask]
            setattr(selected, name, state)
        return selected

    def trial_points(self) -> Tensor:
        """Return the points to be evaluated next."""
        return torch.addcmul(self.x, self.x.new_tensor(self._step)[:, None], self._p)

    def update(self, f_trial: Tensor, g_trial: Tensor) -> None:
        """Continue the line searches with the values and gradients at the trial points."""
        f, slope = torch.stack([f_trial, torch.linalg.vecdot(g_trial, self._p)]).cpu().numpy()
        not_finite = ~(np.isfinite(f) & np.isfinite(slope))
        f, slope, step = np.where(not_finite, np.inf, f), np.where(not_finite, 0.0, slope), self._step
        above = (f > self._f + _DECREASE * step * self._slope) | (f >= self._low.f)
        flat = np.abs(slope) <= -_CURVATURE * self._slope
        # At the longest step allowed a decrease is enough.
        accepted = ~above & (flat | ((step >= self._longest_step) & (slope < 0)))
        if accepted.all():
            self._accept(accepted, step, f_trial, g_trial)
            return
        self._trials = self._trials + 1
        here = _End(step, f, slope)
        turned = ~above & (slope * np.sign(self._high.step - self._low.step) >= 0)
        self._high = here.where(above, self._low.where(turned, self._high))
        self._low_g = torch.where(self._column(above), self._low_g, g_trial)
        self._low_f = torch.where(self._column(above)[:, 0], self._low_f, f_trial)
        self._low = self._low.where(above, here)
        self._step = np.minimum(_interpolate(self._low, self._high), self._longest_step)
        spent = ~accepted & (self._trials >= _TRIALS)
        lowered = spent & (self._low.step > 0)
        if (accepted | lowered).any():
            # An accepted step is also the lowest of its line search.
            self._accept(accepted | lowered, self._low.step, self._low_f, self._low_g)
        hopeless = spent & ~lowered
        if hopeless.any():
            self.failed = hopeless & self._fresh
            self._begin(hopeless, reset=hopeless)

    def _accept(self, which: np.ndarray, step: np.ndarray, f: Tensor, g: Tensor) -> None:
        """Take the step, update the inverse Hessian (BFGS), and begin the next line search."""
        s = self.x.new_tensor(np.where(which, step, 0.0))[:, None] * self._p
        mask = None if which.all() else self._column(which)
        y = g - self.g if mask is None else torch.where(mask, g - self.g, 0.0)
        curvature = torch.linalg.vecdot(s, y)[:, None]
        hy = _times(self.inverse_hessian, y)
        yhy = torch.linalg.vecdot(y, hy)[:, None]
        # Without positive curvature along the step the inverse Hessian is left as it is.
        rho = torch.where(curvature > 1e-12 * yhy, 1 / curvature, 0.0)
        along = (rho + rho * rho * yhy) * s - rho * hy
        change = along[:, :, None] * s[:, None, :] - (rho * s)[:, :, None] * hy[:, None, :]
        self.inverse_hessian = self.inverse_hessian + change
        self._fresh = self._fresh & ~which
        self.x = self.x + s
        self.f = f if mask is None else torch.where(mask[:, 0], f, self.f)
        self.g = g if mask is None else torch.where(mask, g, self.g)
        self._begin(which)

    def _begin(self, which: np.ndarray, reset: np.ndarray | None = None) -> None:
        """Begin a line search of these members, those in `reset` with the first inverse Hessian again."""
        if reset is not None:
            first = self._unwhiten @ self._unwhiten.mT
            self.inverse_hessian = torch.where(self._column(reset)[..., None], first, self.inverse_hessian)
            self._fresh = self._fresh | reset
        p = -_times(self.inverse_hessian, self.g)
        self.whitened = _times(self._unwhiten.mT, self.g)
        scalars = [self.f, torch.linalg.vecdot(self.g, p), p.abs().amax(-1), self.whitened.abs().amax(-1)]
        f, slope, longest, self.largest_gradient = torch.stack(scalars).cpu().numpy()
        if reset is None and (which & (slope >= 0)).any():
            # By rounding the inverse Hessian may no longer be positive definite.
            self._begin(which, reset=which & (slope >= 0))
            return
        longest_step = self._max_step / np.maximum(longest, 1e-300)
        zero = np.zeros_like(f)
        state = {
            "_p": p,
            "_low_f": self.f,
            "_low_g": self.g,
            "_f": f,
            "_slope": slope,
            "_longest_step": longest_step,
            "_step": np.minimum(longest_step, 1.0),
            "_trials": zero,
            "_low": _End(zero, f, slope),
            "_high": _End(zero + np.inf, zero + np.inf, zero),
        }
        for name, new in state.items():
            setattr(self, name, new if which.all() else self._merge(which, new, getattr(self, name)))

    def _merge(self, which: np.ndarray, new, old):
        if isinstance(new, Tensor):
            return torch.where(self._column(which) if new.dim() == 2 else self._column(which)[:, 0], new, old)
        return new.where(which, old) if isinstance(new, _End) else np.where(which, new, old)

    def _column(self, which: np.ndarray) -> Tensor:
        return torch.as_tensor(which, device=self.x.device)[:, None]


@dataclass
class _End:
    """One end of the brackets of several line searches: step, value and slope along p, (b,) each."""

    step: np.ndarray
    f: np.ndarray
    slope: np.ndarray

    def where(self, mask: np.ndarray, other: "_End") -> "_End":
        """Return this end for the members in the mask, the other for the rest."""
        mine, others = (self.step, self.f, self.slope), (other.step, other.f, other.slope)
        return _End(*(np.where(mask, a, b) for a, b in zip(mine, others, strict=True)))

    def __getitem__(self, mask: np.ndarray) -> "_End":
        return _End(self.step[mask], self.f[mask], self.slope[mask])


def _interpolate(low: _End, high: _End) -> np.ndarray:
    """Next step: the minimum of the cubic through the bracket; before there is one, four times `low`."""
    with np.errstate(all="ignore"):
        width = high.step - low.step
        mean = low.slope + high.slope - 3 * (high.f - low.f) / width
        root = np.sign(width) * np.sqrt(np.maximum(mean**2 - low.slope * high.slope, 0.0))
        share = 1 - (high.slope + root - mean) / (high.slope - low.slope + 2 * root)
        share = np.clip(np.where(np.isfinite(share), share, 0.5), 0.1, 0.9)
        return np.where(np.isfinite(high.step), low.step + share * width, 4 * low.step)


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)


def inverse_root(metric: Tensor) -> Tensor:
    """Matrices T (b, n, n) with T T' the inverse of `metric`, regularised where the metric is singular."""
    diagonal = metric.diagonal(dim1=-2, dim2=-1)
    # A parameter that the function does not depend on is never moved.
    scale = torch.where(diagonal > 0, diagonal.rsqrt(), 0.0)
    values, vectors = torch.linalg.eigh(metric * scale[..., :, None] * scale[..., None, :])
    values = torch.maximum(values, values[..., -1:] * 1e-12)
    return scale[..., :, None] * vectors * values.rsqrt()[..., None, :]
