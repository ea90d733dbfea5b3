"""BFGS for one function or a batch of them, started from what the problem says of its own curvature.

All members of a batch step together, each with its own metric, line search and end, so that a fit takes the
same path alone as among a thousand others.
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
# Trials of one line search; a function that has not let itself be lowered by then is at its rounding.
_TRIALS = 20


class Minimum(NamedTuple):
    """Where the members of a batch ended, (b, ...) each.

    Attributes
    ----------
    x : Tensor, (b, n)
    value : Tensor, (b,)
    distance : Tensor, (b,)
        Length of the gradient in the metric of the start: that to the minimum, in standard deviations.
    n_eval : Tensor, (b,)
        Evaluations of value and gradient.
    stuck : bool Tensor, (b,)
        Whether it ended because no further decrease was found, or at the limit of evaluations.
    """

    x: Tensor
    value: Tensor
    distance: Tensor
    n_eval: Tensor
    stuck: Tensor


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

    That is BFGS with the inverse of the metric as its first inverse Hessian, a strong Wolfe line search, and,
    the metric being the information of a likelihood or near it, a stopping rule in standard deviations: at
    the end each whitened gradient is below `gtol`, so the minimum is some `gtol` standard deviations away.

    Parameters
    ----------
    fun : callable
        Takes points (k, n) and the numbers (k,) of the members they belong to; returns values (k,) and
        gradients (k, n). A trial that is not finite is stepped back from.
    x0 : Tensor, (b, n)
    metric : Tensor, (b, n, n)
        Positive semidefinite estimate of the Hessian.
    gtol : float
    max_step : float
        Longest change of any coordinate in one step.
    max_eval : int
        Evaluations after which a member is given up.

    Returns
    -------
    Minimum
    """
    unwhiten = inverse_root(metric)
    who = torch.arange(len(x0), device=x0.device)
    value, gradient = fun(x0, who)
    searches = _Searches(x0, value, gradient, unwhiten, max_step)
    x, value = x0.clone(), value.clone()
    distance, n_eval, stuck = (
        torch.zeros_like(value),
        torch.ones_like(who),
        torch.zeros_like(who, dtype=torch.bool),
    )
    trials = 1
    while True:
        ended = (searches.steepness < gtol) | searches.failed | (trials >= max_eval)
        if ended.any():
            here = torch.as_tensor(ended, device=x0.device)
            gone = who[here]
            x[gone], value[gone] = searches.x[here], searches.f[here]
            distance[gone] = torch.linalg.vector_norm(searches.whitened[here], dim=-1)
            n_eval[gone] = trials
            stuck[gone] = torch.as_tensor(~(searches.steepness[ended] < gtol), device=x0.device)
            who = who[~here]
            if not len(who):
                return Minimum(x, value, distance, n_eval, stuck)
            searches = searches.take(~ended)
        searches.look(*fun(searches.trial(), who))
        trials += 1


class _Searches:
    """Quasi-Newton iterations of several members, each somewhere in its own line search.

    Points x, values f, gradients g and inverse Hessians h are those of the last accepted step. The search
    goes along p; `low` is the best step so far and `high` the other end of the bracket, infinite before
    there is one (Nocedal & Wright 2006, algorithms 3.5 and 3.6). Vectors are torch's, on its device; what
    there is one number of per member is NumPy's, where small arrays cost less.
    """

    _p: Tensor
    _low_g: Tensor
    _low_f: Tensor
    _f: np.ndarray
    _slope: np.ndarray
    _step: np.ndarray
    _reach: np.ndarray
    _trials: np.ndarray
    _low: "_End"
    _high: "_End"

    def __init__(self, x: Tensor, f: Tensor, g: Tensor, unwhiten: Tensor, max_step: float) -> None:
        self.x, self.f, self.g = x, f, g
        self._unwhiten, self._max_step = unwhiten, max_step
        self._h = unwhiten @ unwhiten.mT
        everyone = np.ones(len(x), dtype=bool)
        self._fresh, self.failed = everyone, ~everyone
        self._begin(everyone)
        if not np.isfinite(self._f).all():
            self.failed = ~np.isfinite(self._f)

    def take(self, chosen: np.ndarray) -> "_Searches":
        """Searches of the chosen members alone."""
        some = object.__new__(_Searches)
        for name, state in self.__dict__.items():
            if isinstance(state, Tensor):
                state = state[torch.as_tensor(chosen, device=state.device)]
            elif isinstance(state, np.ndarray | _End):
                state = state[chosen]
            setattr(some, name, state)
        return some

    def trial(self) -> Tensor:
        """Points to look at next."""
        return torch.addcmul(self.x, self.x.new_tensor(self._step)[:, None], self._p)

    def look(self, f_there: Tensor, g_there: Tensor) -> None:
        """Take in the values and gradients at the trial points."""
        f, slope = torch.stack([f_there, torch.linalg.vecdot(g_there, self._p)]).cpu().numpy()
        nowhere = ~(np.isfinite(f) & np.isfinite(slope))
        f, slope, step = np.where(nowhere, np.inf, f), np.where(nowhere, 0.0, slope), self._step
        above = (f > self._f + _DECREASE * step * self._slope) | (f >= self._low.f)
        flat = np.abs(slope) <= -_CURVATURE * self._slope
        # At the longest step allowed a decrease is enough.
        accepted = ~above & (flat | ((step >= self._reach) & (slope < 0)))
        if accepted.all():
            self._accept(accepted, step, f_there, g_there)
            return
        self._trials = self._trials + 1
        here = _End(step, f, slope)
        turned = ~above & (slope * np.sign(self._high.step - self._low.step) >= 0)
        self._high = here.where(above, self._low.where(turned, self._high))
        self._low_g = torch.where(self._column(above), self._low_g, g_there)
        self._low_f = torch.where(self._column(above)[:, 0], self._low_f, f_there)
        self._low = self._low.where(above, here)
        self._step = np.minimum(_between(self._low, self._high), self._reach)
        spent = ~accepted & (self._trials >= _TRIALS)
        lowered = spent & (self._low.step > 0)
        if (accepted | lowered).any():
            # What was accepted is also the lowest of its search.
            self._accept(accepted | lowered, self._low.step, self._low_f, self._low_g)
        hopeless = spent & ~lowered
        if hopeless.any():
            self.failed = hopeless & self._fresh
            self._begin(hopeless, afresh=hopeless)

    def _accept(self, which: np.ndarray, step: np.ndarray, f: Tensor, g: Tensor) -> None:
        """Go to the end of the step, learn the curvature along it, and begin the next search."""
        s = self.x.new_tensor(np.where(which, step, 0.0))[:, None] * self._p
        chosen = None if which.all() else self._column(which)
        y = g - self.g if chosen is None else torch.where(chosen, g - self.g, 0.0)
        curvature = torch.linalg.vecdot(s, y)[:, None]
        hy = _times(self._h, y)
        yhy = torch.linalg.vecdot(y, hy)[:, None]
        # Where the function curves the other way there is nothing to learn.
        rho = torch.where(curvature > 1e-12 * yhy, 1 / curvature, 0.0)
        along = (rho + rho * rho * yhy) * s - rho * hy
        self._h = self._h + along[:, :, None] * s[:, None, :] - (rho * s)[:, :, None] * hy[:, None, :]
        self._fresh = self._fresh & ~which
        self.x = self.x + s
        self.f = f if chosen is None else torch.where(chosen[:, 0], f, self.f)
        self.g = g if chosen is None else torch.where(chosen, g, self.g)
        self._begin(which)

    def _begin(self, which: np.ndarray, afresh: np.ndarray | None = None) -> None:
        """Begin a line search of these members, `afresh` with the first metric again."""
        if afresh is not None:
            first = self._unwhiten @ self._unwhiten.mT
            self._h = torch.where(self._column(afresh)[..., None], first, self._h)
            self._fresh = self._fresh | afresh
        p = -_times(self._h, self.g)
        self.whitened = _times(self._unwhiten.mT, self.g)
        scalars = [self.f, torch.linalg.vecdot(self.g, p), p.abs().amax(-1), self.whitened.abs().amax(-1)]
        f, slope, longest, self.steepness = torch.stack(scalars).cpu().numpy()
        if afresh is None and (which & (slope >= 0)).any():
            # Rounding can cost the metric its sign.
            self._begin(which, afresh=which & (slope >= 0))
            return
        reach = self._max_step / np.maximum(longest, 1e-300)
        zero = np.zeros_like(f)
        state = {
            "_p": p,
            "_low_f": self.f,
            "_low_g": self.g,
            "_f": f,
            "_slope": slope,
            "_reach": reach,
            "_step": np.minimum(reach, 1.0),
            "_trials": zero,
            "_low": _End(zero, f, slope),
            "_high": _End(zero + np.inf, zero + np.inf, zero),
        }
        for name, new in state.items():
            setattr(self, name, new if which.all() else self._mixed(which, new, getattr(self, name)))

    def _mixed(self, which: np.ndarray, new, old):
        if isinstance(new, Tensor):
            return torch.where(self._column(which) if new.dim() == 2 else self._column(which)[:, 0], new, old)
        return new.where(which, old) if isinstance(new, _End) else np.where(which, new, old)

    def _column(self, which: np.ndarray) -> Tensor:
        return torch.as_tensor(which, device=self.x.device)[:, None]


@dataclass
class _End:
    """One end of the brackets of several line searches: step, value and slope, (b,) each."""

    step: np.ndarray
    f: np.ndarray
    slope: np.ndarray

    def where(self, chosen: np.ndarray, other: "_End") -> "_End":
        """Return this end for the chosen members, the other for the rest."""
        mine, others = (self.step, self.f, self.slope), (other.step, other.f, other.slope)
        return _End(*(np.where(chosen, a, b) for a, b in zip(mine, others, strict=True)))

    def __getitem__(self, chosen: np.ndarray) -> "_End":
        return _End(self.step[chosen], self.f[chosen], self.slope[chosen])


def _between(low: _End, high: _End) -> np.ndarray:
    """Next step: the minimum of the cubic through the bracket's ends, well inside; or farther out."""
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
    """Matrices T (b, n, n) with T T' the inverse of `metric`; what nothing constrains stays bounded."""
    diagonal = metric.diagonal(dim1=-2, dim2=-1)
    # What does not act at all stays where it is.
    scale = torch.where(diagonal > 0, diagonal.rsqrt(), 0.0)
    values, vectors = torch.linalg.eigh(metric * scale[..., :, None] * scale[..., None, :])
    values = torch.maximum(values, values[..., -1:] * 1e-12)
    return scale[..., :, None] * vectors * values.rsqrt()[..., None, :]
