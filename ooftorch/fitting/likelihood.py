"""How likely whitened residuals are.

Each likelihood maps residuals r, data minus model whitened by a noise model, to a negative log-likelihood in
natural units, normalisation included, so that the scale of the noise can be fitted with the rest.
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
        As on the command line.
    mean_information : float
        Fisher information of one sample about its own mean.
    scale_information : float
        Fisher information of one sample about the logarithm of the scale of the noise.
    robust : bool
        Whether it forgives outliers. The errors of a file are then no measure of its scale, which is fitted,
        and the covariance comes from the residuals as they are.
    initial_widening : float
        A search starts with the noise so many times wider than the residuals: with a robust likelihood it
        takes that for every sample to count.
    """

    name: str
    mean_information: float
    scale_information: float
    robust: bool = False
    initial_widening: float = 1.0

    @abstractmethod
    def per_sample(self, r: Tensor) -> Tensor:
        """Negative log-density of the residual r."""

    @abstractmethod
    def score(self, r: Tensor) -> Tensor:
        """Derivative of `per_sample`."""

    @abstractmethod
    def curvature(self, r: Tensor) -> Tensor:
        """Second derivative of `per_sample`."""

    @abstractmethod
    def sum_and_score(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """`per_sample` summed over the last dimension, and `score`, with as few passes as it takes."""

    @abstractmethod
    def estimate_scale(self, r: Tensor) -> float:
        """Scale that makes the residuals r (n,) most likely, or a close robust estimate."""


class Gaussian(Likelihood):
    """Normal errors: r**2/2 per sample (Nikolic 2018, equation 4 with the sign of its exponent mended)."""

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
    """Cauchy errors: log(1 + r**2) per sample, forgiving of glitches (Nikolic 2018, equation 7)."""

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
        # Half of a Cauchy distribution lies within its half width.
        return float(r.abs().median())


LIKELIHOODS: dict[str, type[Likelihood]] = {"gaussian": Gaussian, "cauchy": Cauchy}
"""Likelihoods by name."""


def choose(likelihood: str | Likelihood) -> Likelihood:
    """Return the likelihood of that name, or one as it is; InputError with the known names otherwise."""
    if isinstance(likelihood, Likelihood):
        return likelihood
    if likelihood not in LIKELIHOODS:
        raise InputError(f"unknown likelihood {likelihood!r}; known are {', '.join(sorted(LIKELIHOODS))}")
    return LIKELIHOODS[likelihood]()
