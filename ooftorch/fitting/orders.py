"""Orders of the surface one after the other, each started from the result of the one below.

The last one starts once more from the perfect dish, and from other surfaces until two starts lead to the
lowest end: the objective has several minima.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ooftorch.fitting import search
from ooftorch.fitting.goodness import compute_chi2, estimate_noises
from ooftorch.fitting.setup import Setup
from ooftorch.optics.basis import SurfaceBasis
from ooftorch.optics.parameters import Layout
from ooftorch.result import OrderFit

__all__ = ["Fitted", "Progress", "evaluate", "fit_orders"]


class Progress(NamedTuple):
    """What a fit tells its watcher: where it is, and an order when one is finished.

    `n_eval` counts the evaluations of all observations fitted side by side; the objective, and the order that
    is finished, are those of one of them.
    """

    order: int
    n_eval: int
    objective: float
    finished: OrderFit | None


class Fitted(NamedTuple):
    """Where the fit of one observation ended, or is at one order.

    Attributes
    ----------
    coordinates : Tensor, (n_parameters,)
    predicted : ndarray, (n_samples,)
        The model's samples.
    noises : list of float
        Standard error of a sample of each map.
    distance : float
        To the minimum, in standard deviations.
    orders : tuple of OrderFit
    """

    coordinates: Tensor
    predicted: np.ndarray
    noises: list[float]
    distance: float
    orders: tuple[OrderFit, ...]


def fit_orders(setup: Setup, rows: Tensor, progress: Callable[[Progress], None] | None) -> list[Fitted]:
    """Fit some of the observations, order by order."""
    levels, start = setup.levels, setup.starts[rows]
    basis = levels.exact.model.instrument.basis
    u = start
    history: list[tuple[OrderFit, ...]] = [() for _ in rows]
    for order in range(1, basis.order + 1):
        began = time.perf_counter()
        counter = _Counter(order, progress)
        layout = _up_to_order(setup.layout, basis, order)
        if order < basis.order:
            end = search.approach(levels, layout, rows, u, counter)
            n_eval = end.n_eval
        else:
            starts = [u, start] if order > 1 else [start]
            ends, numbers, n_eval = search.search(levels, layout, rows, starts, counter)
            end = search.finish(levels, layout, rows, ends, numbers, counter)
            n_eval = n_eval + end.n_eval
        u = end.coordinates
        seconds = (time.perf_counter() - began) / len(rows)
        found = evaluate(setup, layout, rows, u, order, end.distance, n_eval, seconds)
        history = [(*before, *fitted.orders) for before, fitted in zip(history, found, strict=True)]
        if progress is not None:
            progress(Progress(order, counter.n_eval, history[0][-1].objective, history[0][-1]))
    return [fitted._replace(orders=orders) for fitted, orders in zip(found, history, strict=True)]


def _up_to_order(layout: Layout, basis: SurfaceBasis, order: int) -> Layout:
    """Layout in which the surface above an order is held."""
    return layout.with_held(name for name, n in zip(basis.names, basis.orders, strict=True) if n > order)


def evaluate(
    setup: Setup,
    layout: Layout,
    rows: Tensor,
    u: Tensor,
    order: int,
    distance: Tensor,
    n_eval: Tensor,
    seconds: float,
) -> list[Fitted]:
    """Objective, noise and chi-square of some of the observations at the coordinates u (b, n_parameters)."""
    posterior = setup.levels.posterior(setup.levels.exact, layout, rows, u)
    with torch.no_grad():
        predicted = posterior.model(u)
        objective = posterior.value(u, predicted.clone()).tolist()
    samples = posterior.samples
    residuals = torch.where(samples.valid, samples.power - predicted, 0.0)
    found = []
    for i, row in enumerate(rows.tolist()):
        maps = setup.observations[row].maps
        noises = estimate_noises(maps, posterior.model.split(residuals[i].cpu().numpy()))
        chi2 = compute_chi2(setup.levels.noise, samples.of(i), noises, setup.errors_known, residuals[i])
        dof = int(samples.valid[i].sum()) - len(layout.free)
        one = OrderFit(order, objective[i], chi2 / dof, len(layout.free), int(n_eval[i]), seconds)
        found.append(Fitted(u[i], predicted[i].cpu().numpy(), noises, float(distance[i]), (one,)))
    return found


class _Counter:
    """Counts the evaluations of one order, over all its starts, and tells the watcher."""

    def __init__(self, order: int, progress: Callable[[Progress], None] | None) -> None:
        self._order, self._progress, self.n_eval = order, progress, 0

    def __call__(self, members: int, objective: float) -> None:
        self.n_eval += members
        if self._progress is not None:
            self._progress(Progress(self._order, self.n_eval, objective, None))
