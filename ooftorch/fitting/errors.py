"""Error bars at the minimum: from the noise alone, and widened by what the residuals show beyond it.

The errors from the noise take the samples as independent. Real residuals are not: drifts, pointing errors and
what the model misses are alike along a scan line and on the next ones. The robust errors are a sandwich
estimate (Huber 1967; Liang & Zeger 1986, Biometrika 73, 13): the scatter of the gradient from one group of
samples to the next takes the place of what independent samples would give. The groups are scan lines, summed
over all runs of neighbours a beam wide (the weights of Newey & West 1987, Econometrica 55, 703); maps without
scan lines are grouped by cells of a beam. A fit follows the groups that weigh much, which makes the scatter
too small; each sum is divided by the square root of one minus its own share of the information (Bell &
McCaffrey 2002, Survey Methodology 28, 169), which is exact for independent samples.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ooftorch.fitting.absorption import index_lines
from ooftorch.fitting.posterior import Linearised, Posterior
from ooftorch.fitting.samples import Samples

__all__ = ["Covariances", "Groups", "estimate_covariances", "group_samples"]

# Fewest neighbouring scan lines that are taken together, and most cells along a side of a map without lines.
_LEAST_RUN, _MOST_CELLS = 2, 24
# Share of all information above which a sum counts as having no more: a group that alone fixes a parameter.
_MOST_SHARE = 0.99
# Smallest observed curvature along any direction, over that of independent samples.
_LEAST_CURVATURE = 0.1
# Part of a parameter's information that others leave to it, as a root, below which it is not fixed.
_LEAST_PIVOT = 1e-6


class Groups(NamedTuple):
    """Groups of samples whose residuals may be alike.

    Attributes
    ----------
    number : int Tensor, (n,)
        Group of each sample, from 0 through all maps; -1 for none.
    map : int Tensor, (n,)
        Map of each sample.
    runs : tuple of int
        For each map, how many neighbouring groups are taken together.
    """

    number: Tensor
    map: Tensor
    runs: tuple[int, ...]


class Covariances(NamedTuple):
    """Covariances of the free coordinates at the minimum, (n_free, n_free).

    Attributes
    ----------
    noise : Tensor
        From the noise alone, samples taken as independent.
    robust : Tensor
        From the scatter between groups of samples; no variance is smaller than in `noise`.
    """

    noise: Tensor
    robust: Tensor


def group_samples(samples: Samples, beam: float) -> Groups:
    """Group the samples of one observation by scan lines, or cells of a beam on maps without lines.

    Parameters
    ----------
    samples : Samples
        With map and directions, of one observation.
    beam : float
        Wavelength over diameter, radians.
    """
    assert samples.map is not None
    assert samples.x is not None
    assert samples.y is not None
    number, runs, n = torch.full_like(samples.map, -1), [], 0
    for i in range(int(samples.map.max()) + 1):
        here = (samples.map == i) & samples.valid
        lined = here if samples.line is None else here & (samples.line >= 0)
        if samples.line is not None and bool(lined.any()):
            _, number[lined] = torch.unique(samples.line[lined], return_inverse=True)
            runs.append(_choose_run(number[lined], samples.x[lined], samples.y[lined], beam))
        else:
            lined = here
            number[here] = _find_cells(torch.stack([samples.x[here], samples.y[here]]), beam)
            runs.append(1)
        number[lined] += n
        n = int(number.max()) + 1
    return Groups(number, samples.map, tuple(runs))


def _find_cells(position: Tensor, beam: float) -> Tensor:
    """Cell of each of some positions (2, n): a beam wide, wider on maps of very many beams."""
    extent = float((position.amax(1) - position.amin(1)).max())
    cells = torch.floor(position / max(beam, extent / _MOST_CELLS))
    return torch.unique(cells, dim=1, return_inverse=True)[1]


def _choose_run(line: Tensor, x: Tensor, y: Tensor, beam: float) -> int:
    """Number of neighbouring lines within a beam, from the distance of one line's middle to the next."""
    counts = torch.bincount(line)
    middles = torch.stack([torch.bincount(line, weights=axis) / counts for axis in (x, y)])
    if len(counts) < _LEAST_RUN:
        return 1
    pitch = float(torch.linalg.vector_norm(middles.diff(dim=1), dim=0).median())
    within = math.ceil(beam / pitch) if pitch > beam / len(counts) else len(counts)
    # Runs that hold much of a map are too few to tell a scatter.
    return min(max(within, _LEAST_RUN), max(len(counts) // 4, 1))


def estimate_covariances(posterior: Posterior, linear: Linearised, groups: Groups) -> Covariances:
    """Estimate the covariances of the free coordinates at the minimum of one observation.

    Parameters
    ----------
    posterior : Posterior
        Of one observation.
    linear : Linearised
        At its minimum.
    groups : Groups
        Of its samples.
    """
    noise = posterior.noise_covariance(linear)
    return Covariances(noise, _estimate_robust(posterior, linear, noise, groups))


def _estimate_robust(posterior: Posterior, linear: Linearised, noise: Tensor, groups: Groups) -> Tensor:
    law, r = linear.law, linear.residuals
    valid = posterior.samples.valid
    score = torch.where(valid, law.score(r), 0.0)
    curvature = torch.where(valid, law.curvature(r), 0.0)
    information = _find_curvature(posterior, linear, curvature)
    if information is None:
        return noise
    root = torch.linalg.inv(torch.linalg.cholesky(information))  # coordinates in which it is 1
    index = index_lines(groups.number, groups.map)
    rows = index.gather(root @ linear.rows).movedim(-3, -2)
    weights = index.gather(curvature)
    gradients = index.gather((root @ linear.whitened) * score).sum(-1).mT
    shares = (rows * weights.unsqueeze(-2)) @ rows.mT
    prior = root @ posterior.prior_rows[:, posterior.free].mT
    scatter = prior @ prior.mT
    for i, run in enumerate(groups.runs):
        here = index.maps == i
        scatter = scatter + _scatter(gradients[here], shares[here], run)
    robust = root.mT @ scatter @ root
    widening = torch.sqrt((noise.diagonal() / robust.diagonal()).clamp(min=1.0))
    # What the model does not depend on, as the scale of the noise, has no scatter here.
    widening = torch.where(robust.diagonal() > 0, widening, 0.0)
    robust = robust * torch.outer(widening, widening)
    return robust + torch.diag(torch.where(robust.diagonal() > 0, 0.0, noise.diagonal()))


def _find_curvature(posterior: Posterior, linear: Linearised, curvature: Tensor) -> Tensor | None:
    """Hessian of the objective with the observed curvature of every sample, kept positive.

    None where the maps and the priors together do not fix every parameter.
    """
    mean = curvature.sum() / posterior.whitening.n_valid
    expected = posterior.find_information(linear, mean)
    observed = expected + posterior.multiplicity * (linear.rows * (curvature - mean)) @ linear.rows.mT
    size = expected.diagonal().sqrt()
    root, failed = torch.linalg.cholesky_ex(expected / torch.outer(size, size))
    if failed or not bool(root.diagonal().min() > _LEAST_PIVOT and torch.isfinite(observed).all()):
        return None
    root = size.unsqueeze(-1) * root
    relative = torch.linalg.solve_triangular(root, observed, upper=False)
    relative = torch.linalg.solve_triangular(root, relative.mT, upper=False)
    values, vectors = torch.linalg.eigh(relative)
    vectors = root @ vectors
    return (vectors * values.clamp(min=_LEAST_CURVATURE)) @ vectors.mT


def _scatter(gradients: Tensor, shares: Tensor, run: int) -> Tensor:
    """Scatter (p, p) of the gradients (n_groups, p) of one map, summed over runs of neighbouring groups.

    `shares` (n_groups, p, p) are their parts of the information, whose whole is the unit matrix.
    """
    gradients, shares = (_sum_runs(t, run) for t in (gradients, shares))
    values, vectors = torch.linalg.eigh(shares)
    left = (1 - values.clamp(max=_MOST_SHARE)).rsqrt()
    corrected = (vectors @ (left.unsqueeze(-1) * (vectors.mT @ gradients.unsqueeze(-1)))).squeeze(-1)
    return corrected.mT @ corrected / run


def _sum_runs(values: Tensor, run: int) -> Tensor:
    """Sums (n_groups + run - 1, ...) over all runs of neighbours, the incomplete ones at the ends too."""
    ends = values.new_zeros((run - 1, *values.shape[1:]))
    return torch.cat([ends, values, ends]).unfold(0, run, 1).sum(-1)
