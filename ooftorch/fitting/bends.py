"""How far the illumination bends: the order of the amplitude terms that the evidence asks for."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from ooftorch.fitting.posterior import Posterior
from ooftorch.fitting.setup import Setup
from ooftorch.optics.parameters import Layout

__all__ = ["find_bends"]


def find_bends(
    setup: Setup, posterior: Posterior, rows: Tensor, u: Tensor
) -> list[tuple[Layout, float, Tensor | None]]:
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
    list of (Layout, float, Tensor)
        For each fit the layout with the terms free whose evidence is largest, the gain in natural units
        over that of the posterior, and the metric (n_free, n_free) for that layout; the posterior's own
        layout, and None, if all terms are free already.
    """
    layout, bends = posterior.layout, setup.bends
    wider = [other for names in bends if len((other := layout.with_free(names)).free) > len(layout.free)]
    if not wider:
        return [(layout, 0.0, None)] * len(rows)
    largest = wider[-1]
    gradient = replace(posterior, layout=largest).value_and_gradient(u[:, largest.free])[1]
    metric = setup.levels.metric(largest, rows, u, posterior.absorption)
    # Where the scale of the noise is held too small, everything would be asked for.
    excess = posterior.excess(u).square()
    ranked = _rank(wider, layout, metric / excess[:, None, None], gradient / excess[:, None])
    return [
        (best, gain, _select(one, largest, best)) for one, (best, gain) in zip(metric, ranked, strict=True)
    ]


def _select(metric: Tensor, largest: Layout, some: Layout) -> Tensor:
    """Select the rows and columns of the parameters that are free in a smaller layout."""
    kept = _find_positions(largest, some)
    return metric[..., kept, :][..., kept]


def _find_positions(largest: Layout, some: Layout) -> list[int]:
    """Positions of the free parameters of a layout among those of a larger one."""
    position = {number: i for i, number in enumerate(largest.free)}
    return [position[i] for i in some.free]


def _rank(
    wider: list[Layout], layout: Layout, metric: Tensor, gradient: Tensor
) -> list[tuple[Layout, float]]:
    """For each fit, the one of the wider layouts with the largest evidence, and what it gains over `layout`.

    Metric (b, n, n) and gradient (b, n) are those of the free parameters of the last of them.
    """
    largest = wider[-1]

    def evaluate(some: Layout) -> Tensor:
        """Logarithm of the evidence with these parameters free, up to a constant."""
        root, failed = torch.linalg.cholesky_ex(_select(metric, largest, some))
        kept = _find_positions(largest, some)
        whitened = torch.linalg.solve_triangular(root, gradient[:, kept, None], upper=False)[..., 0]
        added = [some.parameters[i] for i in set(some.free) - set(layout.free)]
        log_prior = sum(math.log(p.prior / p.scale) for p in added if p.prior is not None)
        log_root = torch.log(root.diagonal(dim1=-2, dim2=-1)).sum(-1)
        return torch.where(failed > 0, -math.inf, 0.5 * whitened.square().sum(-1) - log_root - log_prior)

    gains = (torch.stack([evaluate(some) for some in wider]) - evaluate(layout)).nan_to_num(-math.inf)
    return [(wider[int(column.argmax())], float(column.max())) for column in gains.unbind(-1)]
