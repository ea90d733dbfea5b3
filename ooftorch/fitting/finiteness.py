"""Evaluations of an objective that are not finite: which parameter is responsible."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

__all__ = ["Watch"]

Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Watch:
    """Watches the evaluations of a descent, a row of parameters for each member of a batch.

    The descent itself goes on from its last good point with a shorter step (`optim.bfgs`).

    Parameters
    ----------
    fun : callable
        Takes points (k, n) and their members (k,), returns values (k,) and gradients (k, n).
    x : Tensor, (b, n)
        Where the descent begins.
    """

    def __init__(self, fun: Objective, x: Tensor) -> None:
        self._fun, self._good = fun, x.clone()
        self._named: set[int] = set()

    def check(self, x: Tensor, members: Tensor, value: Tensor, gradient: Tensor) -> Iterator[tuple[int, int]]:
        """Yield members (k,) whose evaluation is the first that is not finite, and a parameter's number."""
        finite = _is_finite(value, gradient)
        if bool(finite.all()):
            self._good[members] = x
            return
        self._good[members[finite]] = x[finite]
        for member, point in zip(members[~finite].tolist(), x[~finite], strict=True):
            if member not in self._named:
                self._named.add(member)
                yield member, self._find_parameter(member, point)

    def _find_parameter(self, member: int, point: Tensor) -> int:
        """Find the parameter that makes the last good point not finite; else the one that changed most."""
        good, number = self._good[member], torch.tensor([member], device=point.device)
        change = (point - good).abs().nan_to_num(torch.inf)
        by_change = change.argsort(descending=True).tolist()
        for i in by_change:
            alone = good.clone()
            alone[i] = point[i]
            if not bool(_is_finite(*self._fun(alone[None], number))):
                return i
        return by_change[0]


def _is_finite(value: Tensor, gradient: Tensor) -> Tensor:
    return (value + gradient.sum(-1)).isfinite()
