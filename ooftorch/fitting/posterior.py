"""What the data and the priors say of the parameters: objective, information, covariance."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ooftorch.fitting.likelihood import Likelihood
from ooftorch.optics.model import BeamModel
from ooftorch.optics.parameters import Layout

__all__ = ["Data", "Posterior"]


# Least curvature of a sample in a metric.
_LEAST = 0.1


class Data(NamedTuple):
    """Samples of all maps, one after the other, (n,) each: power, its errors, and which are valid."""

    power: Tensor
    errors: Tensor
    valid: Tensor


class Posterior:
    """Negative log-posterior of the free parameters of a layout, as a function to be minimised.

    Likelihood with its normalisation plus half the squared prior residuals, in natural units. The noise
    of a sample is its error times the parameter `noise`. Data and anchor may have a first dimension of
    members, one observation each; points then have it too.

    Parameters
    ----------
    model : BeamModel
    layout : Layout
        Which parameters are free, and their priors. The model has to have adopted one of the same names.
    data : Data
    likelihood : Likelihood
    anchor : Tensor, (..., n_parameters)
        Coordinates; those of the parameters held fixed stay.
    multiplicity : float
        How many samples each sample stands for.
    """

    def __init__(
        self,
        model: BeamModel,
        layout: Layout,
        data: Data,
        likelihood: Likelihood,
        anchor: Tensor,
        *,
        multiplicity: float = 1.0,
    ) -> None:
        self.model, self.layout, self.data, self.likelihood = model, layout, data, likelihood
        self.anchor, self.multiplicity = anchor, multiplicity
        self.free = torch.tensor(layout.free, device=anchor.device)
        rows, target = layout.prior()
        self.prior_rows, self.prior_target = model.oo(rows), model.oo(target)
        self._noise = layout.index("noise")
        # A sample that was not observed weighs nothing; its share of the constant is taken off.
        valid = data.valid
        self._power = torch.where(valid, data.power, 0.0)
        self._inverse_errors = torch.where(valid, 1 / data.errors, 0.0)
        if bool((self._inverse_errors == self._inverse_errors[..., :1]).all()):
            self._inverse_errors = self._inverse_errors[..., :1]
        self._n_valid = valid.sum(-1)
        missing = likelihood.per_sample(torch.zeros_like(data.power))
        self._constant = torch.where(valid, torch.log(data.errors), -missing).sum(-1)

    def complete(self, free: Tensor) -> Tensor:
        """All coordinates (..., n_parameters) from the free ones (..., n_free)."""
        return self._completed(self.anchor, free)

    def _completed(self, anchor: Tensor, free: Tensor) -> Tensor:
        return anchor.expand(*free.shape[:-1], -1).index_copy(-1, self.free, free)

    def __call__(self, free: Tensor) -> Tensor:
        """Negative log-posterior (...) at the free coordinates (..., n_free)."""
        u = self.complete(free)
        return self.value(u, self.model(u))

    def value(self, u: Tensor, samples: Tensor) -> Tensor:
        """Negative log-posterior (...) at the coordinates u, where the model is `samples`."""
        loss = self.likelihood(samples, self.data.power, self.noise(u), self.data.valid)
        return self.multiplicity * loss + 0.5 * self.prior_residuals(u).square().sum(-1)

    @torch.inference_mode()
    def value_and_gradient(self, free: Tensor, members: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Negative log-posterior (...) and its gradient (..., n_free), in one pass each way.

        With `members`, (k,), the rows of `free` are points of these members alone.
        """
        held = [self.anchor, self._power, self._inverse_errors, self._n_valid, self._constant]
        if members is not None and len(members) < len(self.anchor):
            held = [t[members] for t in held]
        anchor, power, inverse_errors, n_valid, constant = held
        u = self._completed(anchor, free)
        at = self.model.at(u)
        noise = at.values[..., self._noise, None]
        weight = inverse_errors / noise
        # In place from here on: maps can be large, and memory slower than arithmetic.
        r = (at.samples - power).mul_(weight)
        loss, score = self.likelihood.sum_and_score(r)
        by_log_noise = n_valid - torch.linalg.vecdot(r, score)
        loss = loss + n_valid * torch.log(noise[..., 0]) + constant
        prior = self.prior_residuals(u)
        gradient = at.pull(score.mul_(weight))
        gradient[..., self._noise] += by_log_noise
        gradient = self.multiplicity * gradient + prior @ self.prior_rows
        return self.multiplicity * loss + 0.5 * prior.square().sum(-1), gradient[..., self.free]

    def noise(self, u: Tensor) -> Tensor:
        """Noise of each sample (..., n) at the coordinates u (..., n_parameters)."""
        return self.model.units.values(u)[..., self._noise, None] * self.data.errors

    def prior_residuals(self, u: Tensor) -> Tensor:
        """Distance from the priors in standard deviations (..., n_rows)."""
        return u @ self.prior_rows.mT - self.prior_target

    @torch.no_grad()
    def residuals(self, u: Tensor) -> Tensor:
        """Data minus model (..., n) at the coordinates u; zero where there is no sample."""
        return torch.where(self.data.valid, self.data.power - self.model(u), 0.0)

    @torch.no_grad()
    def jacobian(self, free: Tensor) -> Tensor:
        """Derivatives of the samples by the free coordinates, (..., n_free, n_samples)."""
        return self.model.at(self.complete(free)).jacobian(self.layout.free)

    @torch.no_grad()
    def information(self, free: Tensor) -> Tensor:
        """Fisher information of data and priors about the free coordinates, (..., n_free, n_free)."""
        return self._information(free, self.jacobian(free), self.likelihood.mean_information)

    @torch.inference_mode()
    def metric(self, free: Tensor) -> Tensor:
        """Positive estimate of the Hessian at the free coordinates, (..., n_free, n_free).

        The Gauss-Newton form with the curvature that the likelihood has at each residual: far from the end
        residuals are not what the information expects of them. Where it curves the other way, a little.
        """
        u = self.complete(free)
        at = self.model.at(u)
        noise = at.values[..., self._noise, None]
        r = (at.samples - self._power) * (self._inverse_errors / noise)
        curvature = self.likelihood.curvature(r)
        weight = curvature.clamp(min=_LEAST) * (self._inverse_errors / noise).square()
        metric = self._gram(at.jacobian(self.layout.free), weight)
        if self.layout.parameters[self._noise].free:
            i = self.layout.free.index(self._noise)
            by_log = r * (self.likelihood.score(r) + r * curvature)
            metric[..., i, i] += self.multiplicity * by_log.sum(-1)
        return metric

    def _gram(self, jacobian: Tensor, weight: Tensor) -> Tensor:
        """Products of the Jacobian's rows, samples weighted, and of the priors'."""
        rows = self.prior_rows[:, self.free]
        data = (jacobian * weight.unsqueeze(-2)) @ jacobian.mT
        return self.multiplicity * data + rows.mT @ rows

    @torch.no_grad()
    def covariance(self, free: Tensor) -> np.ndarray:
        """Covariance of the free coordinates at the optimum, (n_free, n_free).

        For normal errors the inverse of the information. For Cauchy errors, which are asked for where
        the noise is not trusted, that of an M-estimator (Huber 1981, section 7.6): the residuals say
        themselves how much a sample tells, whatever their distribution. Both take the samples' errors as
        independent.
        """
        if self.likelihood.name == "gaussian":
            return torch.linalg.pinv(self.information(free), hermitian=True).cpu().numpy()
        jacobian = self.jacobian(free)
        u = self.complete(free)
        r = (self.residuals(u) / self.noise(u))[self.data.valid]
        slope = float(self.likelihood.curvature(r).mean())
        spread = float(self.likelihood.score(r).square().mean())
        bread = torch.linalg.pinv(self._information(free, jacobian, slope), hermitian=True)
        return (bread @ self._information(free, jacobian, spread) @ bread).cpu().numpy()

    def _information(self, free: Tensor, jacobian: Tensor, per_sample: float) -> Tensor:
        noise = self.model.units.values(self.complete(free))[..., self._noise, None]
        weight = per_sample * (self._inverse_errors / noise).square()  # of all samples, or one for all
        fisher = self._gram(jacobian, weight)
        if self.layout.parameters[self._noise].free:
            # The expected score of the noise is independent of the others'.
            i = self.layout.free.index(self._noise)
            fisher[..., i, i] += self.multiplicity * self.likelihood.scale_information * self._n_valid
        return fisher
