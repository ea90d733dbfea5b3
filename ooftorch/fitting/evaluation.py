"""How well the model describes the observations at one point: objective, noise and chi-square."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ooftorch.fitting.goodness import compute_chi2, estimate_noises
from ooftorch.fitting.setup import Setup
from ooftorch.optics.parameters import Layout
from ooftorch.result import OrderFit

__all__ = ["Fitted", "evaluate"]


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
        objective = posterior.value(u, predicted).tolist()
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
