"""Widths of the priors of scan-line terms: those that maximise the evidence, for a fixed model.

MacKay 1992, Neural Computation 4, 415. The evidence depends on k x k numbers and k numbers more for
each line, k being the number of its templates, so that widths cost little once these are made.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ooftorch.fitting.absorption import Absorption
from ooftorch.fitting.likelihood import Likelihood
from ooftorch.fitting.scan_terms import Templates

__all__ = ["Found", "find_terms", "renew_widths"]

# Standard deviations of excess scatter for which a term is tried at all; and the least width to start from,
# over the largest of all maps.
_SIGNIFICANT, _LEAST_START = 3.0, 0.3
# Evidence that a term has to gain to be kept, natural units.
_LEAST_GAIN = 5.0
# Most iterations of the widths, and the relative change that ends them.
_ITERATIONS, _TOLERANCE, _FINE_TOLERANCE = 40, 0.03, 1e-4
# Numbers that the residuals determine, below which a term of a map is as good as none.
_LEAST_DETERMINED = 0.5
# Residuals beyond this, in scales of the noise, count no more in the rms that equal weights begin with.
_FARTHEST = 30.0
# Most rounds of widths and scale of the noise, and the relative change of the scale that ends them.
_ROUNDS, _SAME_SCALE = 6, 0.01


class _Evidence:
    """Logarithm of the evidence for one observation as a function of the widths, the weights being fixed.

    It depends on the samples through a matrix of k x k and a vector of k numbers for each line alone.
    """

    def __init__(self, templates: Templates, n_maps: int) -> None:
        weighted = templates.values.mT * templates.weights.unsqueeze(-2)
        self._gram = weighted @ templates.values
        self._projected = (weighted @ templates.lines.gather(templates.residuals).unsqueeze(-1))[..., 0]
        self._unit = torch.eye(self._gram.shape[-1], dtype=self._gram.dtype, device=self._gram.device)
        self._maps, self._n_maps, self._spread = templates.lines.maps, n_maps, templates.spread
        counts = [term.n_templates for term in templates.terms]
        self._term = torch.repeat_interleave(torch.tensor(counts, device=self._gram.device))
        self._n_terms = len(counts)
        self._limits = self._gram.new_tensor([term.limit for term in templates.terms])

    def _sum(self, by_template: Tensor) -> Tensor:
        """Sum (n_lines, k) over the lines of each map and the templates of each term, (n_maps, n_terms)."""
        by_term = by_template.new_zeros((len(by_template), self._n_terms)).index_add(
            1, self._term, by_template
        )
        return by_term.new_zeros((self._n_maps, self._n_terms)).index_add(0, self._maps, by_term)

    def estimate(self) -> Tensor:
        """Widths (n_maps, n_terms) by the method of moments, each term as if it were alone.

        Zero for a term whose excess over the noise is significant in no map.
        """
        own = self._gram.diagonal(dim1=-2, dim2=-1)
        excess = self._sum(self._projected.square() - own)
        spread = self._sum(own.square())
        # A term that is significant in one map is tried in all of them.
        significant = (excess > _SIGNIFICANT * torch.sqrt(2 * spread)).any(0)
        widths = (excess / spread).nan_to_num(0.0).clamp(min=0.0).sqrt()
        widths = torch.maximum(widths, _LEAST_START * widths.amax(0))
        return torch.minimum(torch.where(significant, widths, 0.0), self._limits)

    def solve(self, widths: Tensor) -> tuple[float, Tensor, Tensor]:
        """Evidence over that without terms, and posterior mean and variance (n_lines, k), in prior widths."""
        d = self._spread(widths)
        matrix = self._gram * d.unsqueeze(-1) * d.unsqueeze(-2)
        matrix.diagonal(dim1=-2, dim2=-1).add_(1.0)
        root, failed = torch.linalg.cholesky_ex(matrix)
        if bool(failed.any()):
            return -math.inf, torch.zeros_like(d), torch.ones_like(d)
        inverse_root = torch.linalg.solve_triangular(root, self._unit, upper=False)
        whitened = inverse_root @ (d * self._projected).unsqueeze(-1)
        mean = (inverse_root.mT @ whitened)[..., 0]
        log_root = torch.log(root.diagonal(dim1=-2, dim2=-1)).sum()
        gain = 0.5 * whitened.square().sum() - log_root
        return float(gain), mean, inverse_root.square().sum(-2)

    def maximise(self, widths: Tensor, tolerance: float = _TOLERANCE) -> Tensor:
        """Widths that maximise the evidence, from a start."""
        for _ in range(_ITERATIONS):
            _, mean, variance = self.solve(widths)
            found = self._sum(mean.square())
            determined = self._sum(1 - variance)
            new = torch.where(determined > _LEAST_DETERMINED, widths * torch.sqrt(found / determined), 0.0)
            new = torch.minimum(new, self._limits)
            change = (new / widths).nan_to_num(1.0).log().abs().amax()
            widths = new
            if change < tolerance:
                break
        return widths


class Found(NamedTuple):
    """Terms of one observation, and the noise that they leave.

    Attributes
    ----------
    widths : Tensor, (n_maps, n_terms)
        Of the priors, in the units of the templates; zero for a term that is not there.
    absorption : Absorption
        Takes the terms out.
    rescaling : float
        New scale of the noise over the one of the templates.
    shape : tuple of float
        The likelihood's own parameters.
    gain : float
        How much lower the objective is than with the terms so far, natural units.
    """

    widths: Tensor
    absorption: Absorption
    rescaling: float
    shape: tuple[float, ...]
    gain: float


def find_terms(
    templates: Templates,
    law: Likelihood,
    before: Absorption | None,
    n_maps: int,
    valid: Tensor,
    fit_scale: bool,
) -> Found | None:
    """Find the terms of one observation, and the noise that they leave, the model being fixed.

    Tried from the weights that the samples have so far; the first time also from equal ones, because samples
    that a term would explain may so far have been taken for outliers.

    Parameters
    ----------
    templates : Templates
        Of one observation.
    law : Likelihood
    before : Absorption or None
        What takes out the terms found so far.
    n_maps : int
    valid : bool Tensor, (n,)
        Which samples were observed.
    fit_scale : bool
        Whether the scale of the noise is free.

    Returns
    -------
    Found or None
        None if there were no terms, and none are asked for.
    """
    starts = [(templates, 1.0)]
    if law.robust and fit_scale and before is None:
        rms = float(templates.residuals[valid].square().clamp(max=_FARTHEST**2).mean().sqrt())
        starts.append((templates.rescale(rms)._replace(weights=torch.ones_like(templates.weights)), rms))
    so_far = None
    best = None
    for start, scale in starts:
        widths, absorption, rescaling = _iterate(start, law, n_maps, int(valid.sum()), fit_scale)
        if before is None and not bool((widths > 0).any()):
            continue
        rescaling *= scale
        residuals = templates.residuals / rescaling
        rest, _ = absorption.remove(residuals)
        shape = law.estimate(rest[valid])[1]
        objective = _evaluate(residuals, law.at(rest.new_tensor(shape)), absorption, rescaling, valid)
        if so_far is None:
            so_far = _evaluate(templates.residuals, law, before, 1.0, valid)
        if best is None or so_far - objective > best.gain:
            best = Found(widths, absorption, rescaling, shape, so_far - objective)
    return best


def renew_widths(templates: Templates, widths: Tensor) -> Tensor:
    """Adjust the widths (n_maps, n_terms) of the terms of one observation to its latest templates."""
    return _Evidence(templates, len(widths)).maximise(widths, _FINE_TOLERANCE)


def _iterate(
    templates: Templates, law: Likelihood, n_maps: int, n_valid: int, fit_scale: bool
) -> tuple[Tensor, Absorption, float]:
    """Find widths, what takes the terms out, and the new scale of the noise, in turn until they agree."""
    rescaling = 1.0
    widths = _Evidence(templates, n_maps).estimate()
    excess = 1.0
    if not fit_scale:
        # Where the scale of the noise is held too small, everything would be asked for.
        rest = templates.residuals
        excess = max(1.0, math.sqrt(float((law.weight(rest) * rest.square()).sum()) / n_valid))
    for _ in range(_ROUNDS):
        widths = _choose_widths(_Evidence(templates.rescale(excess), n_maps), widths)
        absorption = templates.absorb(widths)
        rest, amplitudes = absorption.remove(templates.residuals)
        # Where the derivative of the objective by the scale is zero, for these weights.
        squares = float((law.weight(rest) * rest.square()).sum() + amplitudes.square().sum())
        change = math.sqrt(squares / n_valid) if fit_scale else 1.0
        rescaling *= change
        templates = templates.rescale(change)
        templates = templates._replace(weights=templates.lines.gather(law.weight(rest / change)))
        if abs(change - 1) < _SAME_SCALE:
            break
    return widths, templates.absorb(widths), rescaling


def _evaluate(
    residuals: Tensor, law: Likelihood, absorption: Absorption | None, scale: float, valid: Tensor
) -> float:
    """Negative log-likelihood of whitened residuals, for this scale of the noise over that of the data."""
    cost, rest = 0.0, residuals
    if absorption is not None:
        rest, amplitudes = absorption.remove(residuals)
        cost = float(0.5 * amplitudes.square().sum() + absorption.log_determinant)
    rest = rest[valid]
    return cost + float(law.per_sample(rest).sum()) + len(rest) * math.log(scale)


def _choose_widths(evidence: _Evidence, start: Tensor) -> Tensor:
    """Widths (n_maps, n_terms) that maximise the evidence, of the terms that gain enough, from a start."""
    widths = torch.where(start > 0, start, evidence.estimate())
    while bool((widths > 0).any()):
        widths = evidence.maximise(widths)
        gain = evidence.solve(widths)[0]
        losses = []
        for i in range(widths.shape[1]):
            without = widths.clone()
            without[:, i] = 0.0
            losses.append(gain - evidence.solve(without)[0] if bool((widths[:, i] > 0).any()) else math.inf)
        weakest = min(range(len(losses)), key=lambda i: losses[i])
        if losses[weakest] > _LEAST_GAIN:
            break
        widths = widths.clone()
        widths[:, weakest] = 0.0
    return widths
