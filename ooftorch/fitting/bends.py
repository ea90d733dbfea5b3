"""How far the illumination bends: the order of the amplitude terms that the evidence asks for."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from ooftorch.fitting.posterior import Posterior
from ooftorch.fitting.setup import Setup
from ooftorch.optics.parameters import Layout

__all__ = ["find_bends"]


def find_bends(setup: Setup, posterior: Posterior, rows: Tensor, u: Tensor) -> list[tuple[Layout, float]]:
    """Find how many of the amplitude terms the evidence asks for.

    By Laplace's approximation, to first order about the minimum: the gradient is that of the posterior, the
    curvature that of the cheapest level.

    Parameters
    ----------
    setup : Setup
    posterior : Posterior
        Of the fits.
    rows : int Tensor, (b,)
        Numbers of their observations.
    u : Tensor, (b, n_parameters)
        Minima of the posterior, coordinates.

    Returns
    -------
    list of (Layout, float)
        For each fit the layout with the terms free whose evidence is largest, and the gain in natural units
        over that of the posterior; the latter's own layout if all terms are free already.
    """
    layout, bends = posterior.layout, setup.bends
    wider = [other for names in bends if len((other := layout.with_free(names)).free) > len(layout.free)]
    if not wider:
        return [(layout, 0.0)] * len(rows)
    largest = wider[-1]
    gradient = replace(posterior, layout=largest).value_and_gradient(u[:, largest.free])[1]
    metric = setup.levels.metric(largest, rows, u, posterior.absorption)
    # Where the scale of the noise is held too small, everything would be asked for.
    excess = posterior.excess(u).square()
    return _rank(wider, layout, metric / excess[:, None, None], gradient / excess[:, None])


def _rank(
    wider: list[Layout], layout: Layout, metric: Tensor, gradient: Tensor
) -> list[tuple[Layout, float]]:
    """For each fit, the one of the wider layouts with the largest evidence, and what it gains over `layout`.

    Metric (b, n, n) and gradient (b, n) are those of the free parameters of the last of them.
    """
    position = {number: i for i, number in enumerate(wider[-1].free)}

    def evaluate(some: Layout) -> Tensor:
        """Logarithm of the evidence with these parameters free, up to a constant."""
        kept = [position[i] for i in some.free]
        root, failed = torch.linalg.cholesky_ex(metric[:, kept][:, :, kept])
        whitened = torch.linalg.solve_triangular(root, gradient[:, kept, None], upper=False)[..., 0]
        added = [some.parameters[i] for i in set(some.free) - set(layout.free)]
        log_prior = sum(math.log(p.prior / p.scale) for p in added if p.prior is not None)
        log_root = torch.log(root.diagonal(dim1=-2, dim2=-1)).sum(-1)
        return torch.where(failed > 0, -math.inf, 0.5 * whitened.square().sum(-1) - log_root - log_prior)

    gains = (torch.stack([evaluate(some) for some in wider]) - evaluate(layout)).nan_to_num(-math.inf)
    return [(wider[int(column.argmax())], float(column.max())) for column in gains.unbind(-1)]
