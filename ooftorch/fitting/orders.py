"""Fit the orders of the surface basis in turn, each started from the result of the order below.

The objective has several minima: the highest order is also started from the perfect dish, and restarted from
random surfaces until two starts lead to the lowest minimum (see `search`).
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ooftorch.errors import StopFit
from ooftorch.fitting import search
from ooftorch.fitting.evaluation import Fitted, evaluate
from ooftorch.fitting.refinement import Refined, begin, finish
from ooftorch.fitting.search import Minima
from ooftorch.fitting.setup import Setup
from ooftorch.optics.basis import SurfaceBasis
from ooftorch.optics.parameters import Layout
from ooftorch.result import OrderFit

__all__ = ["Progress", "fit_orders"]


class Progress(NamedTuple):
    """Progress of a fit, passed to a callback after every evaluation and every finished order.

    Attributes
    ----------
    order : int
        Order being fitted.
    n_eval : int
        Evaluations at this order so far, of all observations fitted side by side.
    objective : float
        Latest negative log-posterior of one of the observations.
    finished : OrderFit or None
        The fit of this order, of one of the observations, once it is finished.
    """

    order: int
    n_eval: int
    objective: float
    finished: OrderFit | None


def fit_orders(setup: Setup, rows: Tensor, progress: Callable[[Progress], None] | None) -> list[Fitted]:
    """Fit some of the observations of a setup side by side, order by order.

    If the callback raises `StopFit`, the fits end with the last order that is finished; at the highest order,
    once the search has ended, with the lowest minimum that it has found.

    Parameters
    ----------
    setup : Setup
    rows : int Tensor, (b,)
        Numbers of the observations.
    progress : callable or None

    Returns
    -------
    list of Fitted
        One per observation.

    Raises
    ------
    StopFit
        If the callback raised it before any order was finished.
    """
    levels, start = setup.levels, setup.starts[rows]
    basis = levels.exact.model.instrument.basis
    u = start
    found: list[Fitted] = []
    history: list[tuple[OrderFit, ...]] = [() for _ in rows]
    stopped = False
    blamed: dict[int, dict[str, None]] = {}
    for order in range(1, basis.order + 1):
        began = time.perf_counter()
        counter = _Counter(order, progress, blamed)
        layout = _hold_above(setup.layout, basis, order)
        try:
            if order < basis.order:
                minimum = search.approach(levels, layout, rows, u, counter)
                fits = _begin_at(setup, layout, rows, minimum)
            else:
                starts = [u, start] if order > 1 else [start]
                fits, stopped = _fit_highest(setup, rows, starts, counter)
        except StopFit:
            if not found:
                raise
            stopped = True
            break
        u = torch.cat([fit.minimum.coordinates for fit in fits])
        seconds = (time.perf_counter() - began) / len(rows)
        found = evaluate(setup, fits, rows, order, seconds)
        history = [(*before, *fitted.orders) for before, fitted in zip(history, found, strict=True)]
        try:
            if progress is not None:
                progress(Progress(order, counter.n_eval, history[0][-1].objective, history[0][-1]))
        except StopFit:
            stopped = stopped or order < basis.order
            break
    return [
        fitted._replace(orders=orders, interrupted=stopped, notes=_describe(blamed.get(row, ())))
        for fitted, orders, row in zip(found, history, rows.tolist(), strict=True)
    ]


def _describe(blamed: Iterable[str]) -> tuple[str, ...]:
    """Notes on parameters at whose trial values the objective was not finite."""
    names = ", ".join(blamed)
    text = f"the objective was not finite at trial values of {names}: continued from the last good point"
    return (text,) if names else ()


def _begin_at(setup: Setup, layout: Layout, rows: Tensor, minima: Minima) -> list[Refined]:
    """Fits at minima of the search level, one for each observation, that have taken up nothing yet."""
    # The search has a likelihood with long tails; what is reported has the one of the residuals.
    u = search.estimate_noise(setup.levels, setup.levels.search, layout, rows, minima.coordinates)
    return begin(setup, layout, minima._replace(coordinates=u))


def _fit_highest(
    setup: Setup, rows: Tensor, starts: Sequence[Tensor], counter: "_Counter"
) -> tuple[list[Refined], bool]:
    """Fit the highest order, and say whether that was stopped after the search."""
    minima, numbers, n_eval = search.search(setup.levels, setup.layout, rows, starts, counter)
    try:
        fits, stopped = finish(setup, rows, minima, numbers, counter), False
    except StopFit:
        lowest = [search.sort_lowest_first(minima, numbers, i)[0] for i in range(len(rows))]
        best = Minima(*(t[lowest] for t in minima))._replace(n_eval=torch.zeros_like(rows))
        fits, stopped = _begin_at(setup, setup.layout, rows, best), True
    return [
        replace(f, minimum=f.minimum._replace(n_eval=f.minimum.n_eval + n_eval[i]))
        for i, f in enumerate(fits)
    ], stopped


def _hold_above(layout: Layout, basis: SurfaceBasis, order: int) -> Layout:
    """Return a layout in which the terms above an order are held."""
    return layout.with_held(name for name, n in zip(basis.names, basis.orders, strict=True) if n > order)


class _Counter:
    """Count the evaluations of one order over all its starts, and report them to the callback.

    Parameters
    ----------
    order : int
    progress : callable or None
    blamed : dict
        To be filled in: for each observation the parameters at whose trial values it was not finite.
    """

    def __init__(
        self, order: int, progress: Callable[[Progress], None] | None, blamed: dict[int, dict[str, None]]
    ) -> None:
        self._order, self._progress, self._blamed, self.n_eval = order, progress, blamed, 0

    def __call__(self, members: int, objective: float) -> None:
        self.n_eval += members
        if self._progress is not None:
            self._progress(Progress(self._order, self.n_eval, objective, None))

    def blame(self, row: int, name: str) -> None:
        self._blamed.setdefault(row, {})[name] = None
