"""How likely the data are, given the model and the noise.

Each likelihood maps (model, data, noise) to a negative log-likelihood in natural units, normalisation
included, so that a noise scale can be fitted with the rest. `valid` marks the samples that were
observed; the others, whatever they hold, add nothing to value or gradient.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ooftorch.errors import InputError

__all__ = ["LIKELIHOODS", "Cauchy", "Gaussian", "Likelihood", "likelihood"]


@dataclass(frozen=True)
class Likelihood:
    """Base of the likelihoods of independent residuals r = (data - model)/noise.

    Attributes
    ----------
    name : as on the command line.
    mean_information : Fisher information of one sample about its own mean, times noise**2.
    scale_information : Fisher information of one sample about the logarithm of the noise scale.
    widening : how much larger than the residuals the noise has to be for every sample to count; 1 where
        every sample counts always.
    """

    name: str
    mean_information: float
    scale_information: float
    widening: float = 1.0

    def per_sample(self, r: Tensor) -> Tensor:
        """Negative log-density of the scaled residual r, noise taken as 1."""
        raise NotImplementedError

    def score(self, r: Tensor) -> Tensor:
        """Derivative of `per_sample`."""
        raise NotImplementedError

    def curvature(self, r: Tensor) -> Tensor:
        """Second derivative of `per_sample`."""
        raise NotImplementedError

    def sum_and_score(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """`per_sample` summed over the last dimension, and `score`, with as few passes as it takes."""
        raise NotImplementedError

    def scale(self, r: Tensor) -> float:
        """Noise scale that makes unscaled residuals r most likely (or a close robust guess)."""
        raise NotImplementedError

    def __call__(self, model: Tensor, data: Tensor, noise: Tensor, valid: Tensor | None = None) -> Tensor:
        """Negative log-likelihood, summed over the last dimension.

        Parameters
        ----------
        model : Tensor, (..., n)
        data : Tensor, (n,)
        noise : Tensor, broadcastable to (..., n)
            Standard deviation (Gaussian) or half width at half maximum (Cauchy), same units as data.
        valid : bool Tensor, (n,), optional
        """
        if valid is not None:
            # Harmless numbers for missing samples: a NaN masked only on the way out would still
            # reach the gradient.
            data, noise = torch.where(valid, data, 0.0), torch.where(valid, noise, 1.0)
        loss = self.per_sample((data - model) / noise) + torch.log(noise)
        return (loss if valid is None else torch.where(valid, loss, 0.0)).sum(-1)


class Gaussian(Likelihood):
    """Normal errors: r**2/2 per sample (Nikolic 2018, equation 4 with the sign of its exponent mended)."""

    def __init__(self) -> None:
        super().__init__("gaussian", mean_information=1.0, scale_information=2.0)

    def per_sample(self, r: Tensor) -> Tensor:  # noqa: D102
        return 0.5 * r.square() + 0.5 * math.log(2 * math.pi)

    def score(self, r: Tensor) -> Tensor:  # noqa: D102
        return r

    def curvature(self, r: Tensor) -> Tensor:  # noqa: D102
        return torch.ones_like(r)

    def sum_and_score(self, r: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        return 0.5 * torch.linalg.vecdot(r, r) + 0.5 * math.log(2 * math.pi) * r.shape[-1], r

    def scale(self, r: Tensor) -> float:  # noqa: D102
        return float(r.square().mean().sqrt())


class Cauchy(Likelihood):
    """Cauchy errors: log(1 + r**2) per sample, forgiving of glitches (Nikolic 2018, equation 7)."""

    def __init__(self) -> None:
        super().__init__("cauchy", mean_information=0.5, scale_information=0.5, widening=10.0)

    def per_sample(self, r: Tensor) -> Tensor:  # noqa: D102
        return torch.log1p(r.square()) + math.log(math.pi)

    def score(self, r: Tensor) -> Tensor:  # noqa: D102
        return 2 * r / (1 + r.square())

    def curvature(self, r: Tensor) -> Tensor:  # noqa: D102
        return 2 * (1 - r.square()) / (1 + r.square()).square()

    def sum_and_score(self, r: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        s = r.square()
        return torch.log1p(s).sum(-1) + math.log(math.pi) * r.shape[-1], 2 * r / (1 + s)

    def scale(self, r: Tensor) -> float:  # noqa: D102
        # Half of a Cauchy distribution lies within its half width.
        return float(r.abs().median())


LIKELIHOODS: dict[str, type[Gaussian] | type[Cauchy]] = {"gaussian": Gaussian, "cauchy": Cauchy}


def likelihood(name: str) -> Likelihood:
    """Return the likelihood called `name`; InputError with the known names otherwise."""
    try:
        return LIKELIHOODS[name]()
    except KeyError:
        raise InputError(f"unknown likelihood {name!r}; known are {', '.join(sorted(LIKELIHOODS))}") from None
