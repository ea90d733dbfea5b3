"""Likelihoods of whitened residuals: Gaussian, Cauchy for data with outliers, and Student's t between them.

Each gives the negative log-likelihood of residuals r (model minus data, whitened by a noise model) in natural
units, including its normalisation, so that the scale of the noise can be fitted too.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from ooftorch.errors import InputError
from ooftorch.optics.parameters import Parameter

__all__ = ["LIKELIHOODS", "Cauchy", "Gaussian", "Likelihood", "Student", "choose"]

# Degrees of freedom of Student's t above the one of Cauchy: centre and standard deviation of the normal prior
# on their logarithm. Wide, and there only because maps without outliers do not tell 30 from 300.
_EXCESS_START, _EXCESS_PRIOR = 8.0, 2.0
# Degrees of freedom above one at which a search is made: almost Cauchy's likelihood.
_SEARCH_EXCESS = 0.01
# Newton steps of an estimate of scale and degrees of freedom from residuals.
_ESTIMATE_STEPS = 30


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
    search_values : mapping of str to float
        Values of the likelihood's own parameters during a search.
    """

    name: str
    mean_information: float
    scale_information: float
    robust: bool = False
    initial_widening: float = 1.0
    search_values: Mapping[str, float] = MappingProxyType({})

    def declare(self) -> Sequence[Parameter]:
        """Return the parameters of the likelihood's own, beside the scale of the noise; none by default."""
        return ()

    def at(self, values: Tensor) -> "Likelihood":
        """Return the likelihood with these values (..., n) of its own parameters."""
        return self

    @abstractmethod
    def per_sample(self, r: Tensor) -> Tensor:
        """Negative log-density of each residual, the shape of r."""

    @abstractmethod
    def score(self, r: Tensor) -> Tensor:
        """Derivative of `per_sample` with respect to r."""

    @abstractmethod
    def weight(self, r: Tensor) -> Tensor:
        """Score over residual: the weight of each sample in iteratively reweighted least squares."""

    @abstractmethod
    def curvature(self, r: Tensor) -> Tensor:
        """Second derivative of `per_sample` with respect to r."""

    @abstractmethod
    def sum_and_score(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of `per_sample` over the last dimension (...), and `score` (..., n), in few passes over r."""

    def log_parameter_score(self, r: Tensor) -> Tensor:
        """Derivative of `per_sample` with respect to the logarithm of the likelihood's own parameter."""
        raise NotImplementedError(f"{self.name} has no parameter of its own")

    def log_parameter_information(self) -> tuple[Tensor, Tensor]:
        """Fisher information (...) of one sample on the log of that parameter; and of it with log scale."""
        raise NotImplementedError(f"{self.name} has no parameter of its own")

    @abstractmethod
    def estimate_scale(self, r: Tensor) -> float:
        """Estimate the scale of residuals r (n,): the maximum-likelihood value, or a robust approximation."""

    def estimate(self, r: Tensor) -> tuple[float, tuple[float, ...]]:
        """Estimate the scale of residuals r (n,), and the values of the likelihood's own parameters."""
        return self.estimate_scale(r), ()


class Gaussian(Likelihood):
    """Normal errors: r**2/2 per sample (Nikolic 2018, equation 4 with the sign of the exponent corrected)."""

    name = "gaussian"
    mean_information, scale_information = 1.0, 2.0

    def per_sample(self, r: Tensor) -> Tensor:  # noqa: D102
        return 0.5 * r.square() + 0.5 * math.log(2 * math.pi)

    def score(self, r: Tensor) -> Tensor:  # noqa: D102
        return r

    def weight(self, r: Tensor) -> Tensor:  # noqa: D102
        return torch.ones_like(r)

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
        return r * self.weight(r)

    def weight(self, r: Tensor) -> Tensor:  # noqa: D102
        return 2 / (1 + r.square())

    def curvature(self, r: Tensor) -> Tensor:  # noqa: D102
        return 2 * (1 - r.square()) / (1 + r.square()).square()

    def sum_and_score(self, r: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        s = r.square()
        return torch.log1p(s).sum(-1) + math.log(math.pi) * r.shape[-1], 2 * r / (1 + s)

    def estimate_scale(self, r: Tensor) -> float:  # noqa: D102
        # Half of the probability of a Cauchy distribution is within its half width at half maximum.
        return float(r.abs().median())


class Student(Likelihood):
    """Student's t: Cauchy's likelihood at one degree of freedom, the Gaussian one at very many.

    Lange, Little & Taylor 1989, Journal of the American Statistical Association 84, 881. The degrees of
    freedom are fitted with the surface: the parameter `excess_degrees` is what they have above one. With
    fewer than one the likelihood has no bound where many residuals are equal, as of power recorded in coarse
    steps.

    Parameters
    ----------
    excess : Tensor, (..., 1), or float
        Degrees of freedom above one.
    """

    name = "student"
    robust, initial_widening = True, 10.0
    search_values = MappingProxyType({"excess_degrees": _SEARCH_EXCESS})

    def __init__(self, excess: Tensor | float = 0.0) -> None:
        self._excess = torch.as_tensor(excess, dtype=torch.float64)
        self._degrees = 1 + self._excess

    def declare(self) -> Sequence[Parameter]:  # noqa: D102
        return [Parameter("excess_degrees", "", _EXCESS_START, free=True, log=True, prior=_EXCESS_PRIOR)]

    def at(self, values: Tensor) -> "Student":  # noqa: D102
        return Student(values)

    @property
    def degrees(self) -> Tensor:
        """Degrees of freedom, (...)."""
        return self._degrees[..., 0] if self._degrees.dim() else self._degrees

    @property
    def mean_information(self) -> Tensor:  # type: ignore[override]
        """Fisher information of one sample on its mean, (...)."""
        return (self.degrees + 1) / (self.degrees + 3)

    @property
    def scale_information(self) -> Tensor:  # type: ignore[override]
        """Fisher information of one sample on the logarithm of the scale, (...)."""
        return 2 * self.degrees / (self.degrees + 3)

    def log_parameter_information(self) -> tuple[Tensor, Tensor]:  # noqa: D102
        d, excess = self._degrees[..., 0], self._excess[..., 0]
        own = 0.25 * (torch.special.polygamma(1, d / 2) - torch.special.polygamma(1, (d + 1) / 2))
        own = own - (d + 5) / (2 * d * (d + 1) * (d + 3))
        return excess.square() * own, -2 * excess / ((d + 1) * (d + 3))

    def _normalisation(self) -> Tensor:
        d = self._degrees
        return 0.5 * torch.log(math.pi * d) + torch.lgamma(d / 2) - torch.lgamma((d + 1) / 2)

    def per_sample(self, r: Tensor) -> Tensor:  # noqa: D102
        d = self._degrees
        return 0.5 * (d + 1) * torch.log1p(r.square() / d) + self._normalisation()

    def score(self, r: Tensor) -> Tensor:  # noqa: D102
        return r * self.weight(r)

    def weight(self, r: Tensor) -> Tensor:  # noqa: D102
        return (self._degrees + 1) / (self._degrees + r.square())

    def curvature(self, r: Tensor) -> Tensor:  # noqa: D102
        d, s = self._degrees, r.square()
        return (d + 1) * (d - s) / (d + s).square()

    def sum_and_score(self, r: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        d, s = self._degrees, r.square()
        total = 0.5 * (d + 1) * torch.log1p(s / d).sum(-1, keepdim=True) + r.shape[-1] * self._normalisation()
        return total[..., 0], (d + 1) * r / (d + s)

    def log_parameter_score(self, r: Tensor) -> Tensor:  # noqa: D102
        d, s = self._degrees, r.square()
        own = 1 / d + torch.digamma(d / 2) - torch.digamma((d + 1) / 2)
        return 0.5 * self._excess * (torch.log1p(s / d) - (d + 1) * s / (d * (d + s)) + own)

    def estimate_scale(self, r: Tensor) -> float:  # noqa: D102
        return Cauchy().estimate_scale(r)

    def estimate(self, r: Tensor) -> tuple[float, tuple[float, ...]]:
        """Estimate scale and degrees of freedom of residuals r (n,) by maximum likelihood, with the prior."""
        log_scale = math.log(max(self.estimate_scale(r), 1e-300))
        log_excess, n = 0.0, r.numel()
        for _ in range(_ESTIMATE_STEPS):
            # Scoring: Newton steps with the expected information in place of the Hessian.
            law = Student(torch.full((1,), math.exp(log_excess), dtype=r.dtype, device=r.device))
            scaled = r * math.exp(-log_scale)
            by_scale = float(1 - (scaled * law.score(scaled)).mean())
            by_excess = float(law.log_parameter_score(scaled).mean())
            by_excess += (log_excess - math.log(_EXCESS_START)) / _EXCESS_PRIOR**2 / n
            own, cross = (float(t) for t in law.log_parameter_information())
            own += 1 / _EXCESS_PRIOR**2 / n
            scale = float(law.scale_information)
            determinant = scale * own - cross**2
            step_scale = (own * by_scale - cross * by_excess) / determinant
            step_excess = (scale * by_excess - cross * by_scale) / determinant
            log_scale -= min(max(step_scale, -1.0), 1.0)
            log_excess -= min(max(step_excess, -1.0), 1.0)
            if max(abs(step_scale) * math.sqrt(n), abs(step_excess)) < 0.1:
                break
        return math.exp(log_scale), (math.exp(log_excess),)


LIKELIHOODS: dict[str, type[Likelihood]] = {"gaussian": Gaussian, "cauchy": Cauchy, "student": Student}
"""Likelihoods by name."""

# The likelihood of the name "auto".
_AUTO = "student"


def choose(likelihood: str | Likelihood) -> Likelihood:
    """Return the likelihood of this name, or a likelihood object unchanged; InputError for other names."""
    if isinstance(likelihood, Likelihood):
        return likelihood
    if likelihood == "auto":
        likelihood = _AUTO
    if likelihood not in LIKELIHOODS:
        raise InputError(
            f"unknown likelihood {likelihood!r}; known are auto, {', '.join(sorted(LIKELIHOODS))}"
        )
    return LIKELIHOODS[likelihood]()
