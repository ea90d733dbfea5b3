"""Likelihoods of whitened residuals: Gaussian, and Cauchy for data with outliers.

Each gives the negative log-likelihood of residuals r (model minus data, whitened by a noise model) in natural
units, including its normalisation, so that the scale of the noise can be fitted too.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ooftorch.errors import InputError

__all__ = ["LIKELIHOODS", "Cauchy", "Gaussian", "Likelihood", "choose"]


class Likelihood(ABC):
    """Base of the likelihoods of independent residuals r of unit scale.

    Attributes
    ----------
    name : str
        Name on the command line and in files.
    mean_information : float
        Fisher information of one sample on its mean.
    scale_information : float
        Fisher information of one sample on the logarithm of the scale of the noise.
    robust : bool
        Whether outliers have limited influence. The scale of the noise is then fitted even if the file has
        errors, and the covariance is estimated from the residuals.
    initial_widening : float
        Factor on the scale of the noise at the start of a search. A robust likelihood starts with a wide
        scale, so that no sample is an outlier yet.
    """

    name: str
    mean_information: float
    scale_information: float
    robust: bool = False
    initial_widening: float = 1.0

    @abstractmethod
    def per_sample(self, r: Tensor) -> Tensor:
        """Negative log-density of each residual, the shape of r."""

    @abstractmethod
    def score(self, r: Tensor) -> Tensor:
        """Derivative of `per_sample` with respect to r."""

    @abstractmethod
    def curvature(self, r: Tensor) -> Tensor:
        """Second derivative of `per_sample` with respect to r."""

    @abstractmethod
    def sum_and_score(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of `per_sample` over the last dimension (...), and `score` (..., n), in few passes over r."""

    @abstractmethod
    def estimate_scale(self, r: Tensor) -> float:
        """Estimate the scale of residuals r (n,): the maximum-likelihood value, or a robust approximation."""


class Gaussian(Likelihood):
    """Normal errors: r**2/2 per sample (Nikolic 2018, equation 4 with the sign of the exponent corrected)."""

    name = "gaussian"
    mean_information, scale_information = 1.0, 2.0

    def per_sample(self, r: Tensor) -> Tensor:  # noqa: D102
        return 0.5 * r.square() + 0.5 * math.log(2 * math.pi)

    def score(self, r: Tensor) -> Tensor:  # noqa: D102
        return r

    def curvature(self, r: Tensor) -> Tensor:  # noqa: D102
        return torch.ones_like(r)

    def sum_and_score(self, r: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        return 0.5 * torch.linalg.vecdot(r, r) + 0.5 * math.log(2 * math.pi) * r.shape[-1], r

    def estimate_scale(self, r: Tensor) -> float:  # noqa: D102
        return float(r.square().mean().sqrt())


class Cauchy(Likelihood):
    """Cauchy errors: log(1 + r**2) per sample, robust against glitches (Nikolic 2018, equation 7)."""

    name = "cauchy"
    mean_information = scale_information = 0.5
    robust, initial_widening = True, 10.0

    def per_sample(self, r: Tensor) -> Tensor:  # noqa: D102
        return torch.log1p(r.square()) + math.log(math.pi)

    def score(self, r: Tensor) -> Tensor:  # noqa: D102
        return 2 * r / (1 + r.square())

    def curvature(self, r: Tensor) -> Tensor:  # noqa: D102
        return 2 * (1 - r.square()) / (1 + r.square()).square()

    def sum_and_score(self, r: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        s = r.square()
        return torch.log1p(s).sum(-1) + math.log(math.pi) * r.shape[-1], 2 * r / (1 + s)

    def estimate_scale(self, r: Tensor) -> float:  # noqa: D102
        # Half of the probability of a Cauchy distribution is within its half width at half maximum.
        return float(r.abs().median())


LIKELIHOODS: dict[str, type[Likelihood]] = {"gaussian": Gaussian, "cauchy": Cauchy}
"""Likelihoods by name."""


def choose(likelihood: str | Likelihood) -> Likelihood:
    """Return the likelihood of this name, or a likelihood object unchanged; InputError for other names."""
    if isinstance(likelihood, Likelihood):
        return likelihood
    if likelihood not in LIKELIHOODS:
        raise InputError(f"unknown likelihood {likelihood!r}; known are {', '.join(sorted(LIKELIHOODS))}")
    return LIKELIHOODS[likelihood]()
