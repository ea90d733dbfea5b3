"""How well the model describes the observations at one point: objective, noise and chi-square."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ooftorch.fitting.goodness import compute_chi2, estimate_noises
from ooftorch.fitting.posterior import Posterior
from ooftorch.fitting.refinement import Refined
from ooftorch.fitting.setup import Setup
from ooftorch.optics.parameters import Layout
from ooftorch.result import OrderFit

__all__ = ["Fitted", "evaluate"]


class Fitted(NamedTuple):
    """State of the fit of one observation after one order or all.

    Attributes
    ----------
    layout : Layout
        Which parameters are free.
    coordinates : Tensor, (n_parameters,)
    predicted : ndarray, (n_samples,)
        Samples of the model at these coordinates.
    taken_up : ndarray, (n_samples,)
        What the terms of the scan lines add to them.
    noises : list of float
        Standard error of a sample of each map.
    distance : float
        Estimated distance to the minimum, in standard deviations.
    orders : tuple of OrderFit
        Of the orders fitted so far.
    posterior : Posterior
        Of the exact model.
    widths : ndarray, (n_maps, n_terms)
        Of the priors of the terms of scan lines.
    interrupted : bool
        Whether the fit was ended before its time.
    notes : tuple of str
        On what happened during the fit.
    """

    layout: Layout
    coordinates: Tensor
    predicted: np.ndarray
    taken_up: np.ndarray
    noises: list[float]
    distance: float
    orders: tuple[OrderFit, ...]
    posterior: Posterior
    widths: np.ndarray
    interrupted: bool = False
    notes: tuple[str, ...] = ()


def evaluate(setup: Setup, fits: Sequence[Refined], rows: Tensor, order: int, seconds: float) -> list[Fitted]:
    """Evaluate objective, noise and chi-square of fits on the exact model.

    Parameters
    ----------
    setup : Setup
    fits : sequence of Refined
        The minima, and which parameters are free there.
    rows : int Tensor, (b,)
        Numbers of the observations.
    order : int
    seconds : float
        Wall time per observation at this order.

    Returns
    -------
    list of Fitted
        One per fit, with this order alone.
    """
    with torch.no_grad():
        predicted = setup.levels.exact.model(torch.cat([fit.minimum.coordinates for fit in fits]))
    return [
        _evaluate_one(setup, fit, row, p, order, seconds)
        for fit, row, p in zip(fits, rows.tolist(), predicted, strict=True)
    ]


def _evaluate_one(
    setup: Setup, fit: Refined, row: int, predicted: Tensor, order: int, seconds: float
) -> Fitted:
    u, layout = fit.minimum.coordinates[0], fit.layout
    posterior = setup.levels.posterior(setup.levels.exact, layout, row, u, fit.absorption)
    with torch.no_grad():
        objective = float(posterior.value(u, predicted))
        taken_up = posterior.taken_up(u, predicted)
    samples = posterior.samples
    residuals = torch.where(samples.valid, samples.power - predicted - taken_up, 0.0)
    maps = setup.observations[row].maps
    noises = estimate_noises(maps, posterior.model.split(residuals.cpu().numpy()))
    chi2 = compute_chi2(setup.levels.noise, samples, noises, setup.errors_known, residuals)
    dof = int(samples.valid.sum()) - len(layout.free)
    n_eval = int(fit.minimum.n_eval[0])
    surface = posterior.model.parts.surface.span
    coefficients = tuple(posterior.model.parts.units.values(u)[surface].tolist())
    return Fitted(
        layout,
        u,
        predicted.cpu().numpy(),
        taken_up.cpu().numpy(),
        noises,
        float(fit.minimum.distance[0]),
        (OrderFit(order, objective, chi2 / dof, len(layout.free), n_eval, seconds, coefficients),),
        posterior,
        fit.widths.cpu().numpy(),
    )
