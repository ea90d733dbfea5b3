"""Fit the orders of the surface basis in turn, each started from the result of the order below.

The objective has several minima: the highest order is also started from the perfect dish, and restarted from
random surfaces until two starts lead to the lowest minimum (see `search`).
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


class Fitted(NamedTuple):
    """State of the fit of one observation after one order or all.

    Attributes
    ----------
    coordinates : Tensor, (n_parameters,)
    predicted : ndarray, (n_samples,)
        Samples of the model at these coordinates.
    noises : list of float
        Standard error of a sample of each map.
    distance : float
        Estimated distance to the minimum, in standard deviations.
    orders : tuple of OrderFit
        Of the orders fitted so far.
    """

    coordinates: Tensor
    predicted: np.ndarray
    noises: list[float]
    distance: float
    orders: tuple[OrderFit, ...]


def fit_orders(setup: Setup, rows: Tensor, progress: Callable[[Progress], None] | None) -> list[Fitted]:
    """Fit some of the observations of a setup side by side, order by order.

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
    """
    levels, start = setup.levels, setup.starts[rows]
    basis = levels.exact.model.instrument.basis
    u = start
    history: list[tuple[OrderFit, ...]] = [() for _ in rows]
    for order in range(1, basis.order + 1):
        began = time.perf_counter()
        counter = _Counter(order, progress)
        layout = _hold_above(setup.layout, basis, order)
        if order < basis.order:
            minimum = search.approach(levels, layout, rows, u, counter)
            n_eval = minimum.n_eval
        else:
            starts = [u, start] if order > 1 else [start]
            minima, numbers, n_eval = search.search(levels, layout, rows, starts, counter)
            minimum = search.finish(levels, layout, rows, minima, numbers, counter)
            n_eval = n_eval + minimum.n_eval
        u = minimum.coordinates
        seconds = (time.perf_counter() - began) / len(rows)
        found = evaluate(setup, layout, rows, u, order, minimum.distance, n_eval, seconds)
        history = [(*before, *fitted.orders) for before, fitted in zip(history, found, strict=True)]
        if progress is not None:
            progress(Progress(order, counter.n_eval, history[0][-1].objective, history[0][-1]))
    return [fitted._replace(orders=orders) for fitted, orders in zip(found, history, strict=True)]


def _hold_above(layout: Layout, basis: SurfaceBasis, order: int) -> Layout:
    """Return a layout in which the terms above an order are held."""
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
    """Evaluate objective, noise and chi-square of some of the observations on the exact model.

    Parameters
    ----------
    setup : Setup
    layout : Layout
        Which parameters are free at this order.
    rows : int Tensor, (b,)
        Numbers of the observations.
    u : Tensor, (b, n_parameters)
        Coordinates.
    order : int
    distance : Tensor, (b,)
        To the minimum, in standard deviations.
    n_eval : Tensor, (b,)
        Evaluations of each observation at this order.
    seconds : float
        Wall time per observation at this order.

    Returns
    -------
    list of Fitted
        One per observation, with this order alone.
    """
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
        chi2 = compute_chi2(
            setup.levels.noise, samples.select_observations(i), noises, setup.errors_known, residuals[i]
        )
        dof = int(samples.valid[i].sum()) - len(layout.free)
        one = OrderFit(order, objective[i], chi2 / dof, len(layout.free), int(n_eval[i]), seconds)
        found.append(Fitted(u[i], predicted[i].cpu().numpy(), noises, float(distance[i]), (one,)))
    return found


class _Counter:
    """Count the evaluations of one order over all its starts, and report them to the callback."""

    def __init__(self, order: int, progress: Callable[[Progress], None] | None) -> None:
        self._order, self._progress, self.n_eval = order, progress, 0

    def __call__(self, members: int, objective: float) -> None:
        self.n_eval += members
        if self._progress is not None:
            self._progress(Progress(self._order, self.n_eval, objective, None))
