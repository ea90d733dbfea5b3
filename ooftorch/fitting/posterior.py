"""Posterior of the parameters given data and priors: objective, gradient, information, metric, covariance."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ooftorch.fitting.likelihood import Likelihood
from ooftorch.fitting.noise_model import NoiseModel, Whitening
from ooftorch.fitting.samples import Samples
from ooftorch.optics.model import BeamModel
from ooftorch.optics.parameters import Layout

__all__ = ["Posterior"]

# Lower limit of the curvature of the negative log-likelihood of a whitened sample in a metric, dimensionless.
_LEAST_CURVATURE = 0.1


@dataclass(frozen=True, eq=False)
class Posterior:
    """Negative log-posterior of the free parameters of a layout, as a function to be minimised.

    It is the negative log-likelihood of the whitened residuals, with its normalisation, plus half the sum of
    the squared prior residuals, in natural units. Samples and anchor may have a first dimension b of members,
    one observation each; points then have it too. Immutable: `dataclasses.replace` makes another.

    Parameters
    ----------
    model : BeamModel
    layout : Layout
        Which parameters are free, and their priors; with the same names as the model's layout.
    samples : Samples
    likelihood : Likelihood
    noise : NoiseModel
        Its standard deviations are multiplied by the parameter `noise`.
    anchor : Tensor, ([b,] n_parameters)
        Coordinates of the parameters that are not free.
    multiplicity : float
        Number of samples of the observation that each sample represents.

    Attributes
    ----------
    free : int Tensor, (n_free,)
        Positions of the free parameters in the layout.
    whitening : Whitening
        Of the samples.
    prior_rows, prior_target : Tensor
        As returned by `Layout.prior`.
    """

    model: BeamModel
    layout: Layout
    samples: Samples
    likelihood: Likelihood
    noise: NoiseModel
    anchor: Tensor
    multiplicity: float = 1.0
    free: Tensor = field(init=False)
    whitening: Whitening = field(init=False)
    prior_rows: Tensor = field(init=False)
    prior_target: Tensor = field(init=False)
    _power: Tensor = field(init=False, repr=False)
    _constant: Tensor = field(init=False, repr=False)
    _scale_index: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        samples, anchor = self.samples, self.anchor
        rows, target = self.layout.prior()
        whitening = self.noise.whitening(samples)
        # A missing sample has whitened residual 0; its constant contribution to the sum is subtracted.
        n_missing = samples.valid.shape[-1] - whitening.n_valid
        missing = self.likelihood.per_sample(samples.power.new_zeros(()))
        derived = {
            "free": torch.tensor(self.layout.free, device=anchor.device),
            "whitening": whitening,
            "prior_rows": anchor.new_tensor(rows),
            "prior_target": anchor.new_tensor(target),
            "_power": torch.where(samples.valid, samples.power, 0.0),
            "_constant": whitening.log_determinant - n_missing * missing,
            "_scale_index": self.layout.index("noise"),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    def complete(self, free: Tensor) -> Tensor:
        """All coordinates (..., n_parameters) from the free ones (..., n_free)."""
        return self._fill_in(self.anchor, free)

    def _fill_in(self, anchor: Tensor, free: Tensor) -> Tensor:
        return anchor.expand(*free.shape[:-1], -1).index_copy(-1, self.free, free)

    def __call__(self, free: Tensor) -> Tensor:
        """Negative log-posterior (...) at the free coordinates (..., n_free), differentiable with torch."""
        u = self.complete(free)
        return self.value(u, self.model(u))

    def value(self, u: Tensor, predicted: Tensor) -> Tensor:
        """Negative log-posterior (...) at all coordinates u (..., n_parameters).

        `predicted` (..., n) are the samples of the model at u; the tensor is not kept.
        """
        scale = self._scale(u)
        r = self.whitening.whiten(predicted - self._power, scale)
        loss = self.likelihood.per_sample(r).sum(-1)
        loss = loss + self.whitening.n_valid * torch.log(scale[..., 0]) + self._constant
        return self.multiplicity * loss + 0.5 * self.prior_residuals(u).square().sum(-1)

    @torch.inference_mode()
    def value_and_gradient(self, free: Tensor, members: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Negative log-posterior and its gradient, by one forward and one backward pass.

        Parameters
        ----------
        free : Tensor, (..., n_free)
            Free coordinates.
        members : int Tensor, (k,), optional
            The members that the k rows of `free` belong to; all of them by default.

        Returns
        -------
        value : Tensor, (...)
        gradient : Tensor, (..., n_free)
        """
        anchor, power, constant, whitening = self.anchor, self._power, self._constant, self.whitening
        if members is not None and len(members) < len(self.anchor):
            anchor, power, constant = anchor[members], power[members], constant[members]
            whitening = whitening.select(members)
        u = self._fill_in(anchor, free)
        at = self.model.at(u)
        scale = at.values[..., self._scale_index, None]
        # In place from here on: for large maps memory traffic costs more than arithmetic.
        r = whitening.whiten(at.samples - power, scale)
        loss, score = self.likelihood.sum_and_score(r)
        by_log_scale = whitening.n_valid - torch.linalg.vecdot(r, score)
        loss = loss + whitening.n_valid * torch.log(scale[..., 0]) + constant
        prior = self.prior_residuals(u)
        gradient = at.vjp(whitening.transpose(score, scale))
        gradient[..., self._scale_index] += by_log_scale
        gradient = self.multiplicity * gradient + prior @ self.prior_rows
        return self.multiplicity * loss + 0.5 * prior.square().sum(-1), gradient[..., self.free]

    def _scale(self, u: Tensor) -> Tensor:
        """Factor (..., 1) on the standard deviations of the noise at all coordinates u."""
        return self.model.parts.units.values(u)[..., self._scale_index, None]

    def prior_residuals(self, u: Tensor) -> Tensor:
        """Deviation from the priors in standard deviations, (..., n_rows)."""
        return u @ self.prior_rows.mT - self.prior_target

    @torch.no_grad()
    def whitened_residuals(self, u: Tensor) -> Tensor:
        """Whitened residuals, model minus data, (..., n) at all coordinates u; zero for missing samples."""
        return self.whitening.whiten(self.model(u) - self._power, self._scale(u))

    @torch.no_grad()
    def jacobian(self, free: Tensor) -> Tensor:
        """Derivatives of the samples with respect to the free coordinates, (..., n_free, n_samples)."""
        return self.model.at(self.complete(free)).jacobian(self.layout.free)

    @torch.no_grad()
    def information(self, free: Tensor) -> Tensor:
        """Fisher information of data and priors on the free coordinates, (..., n_free, n_free)."""
        whitened = self._whiten_rows(self.jacobian(free), self.complete(free))
        return self._information(whitened, self.likelihood.mean_information)

    @torch.inference_mode()
    def metric(self, free: Tensor) -> Tensor:
        """Positive estimate of the Hessian at the free coordinates, (..., n_free, n_free).

        Gauss-Newton Hessian, each sample weighted with the curvature of the likelihood at its residual,
        clamped to at least 0.1. Far from the minimum the residuals do not have the distribution that
        `information` assumes.
        """
        u = self.complete(free)
        at = self.model.at(u)
        scale = at.values[..., self._scale_index, None]
        r = self.whitening.whiten(at.samples - self._power, scale)
        curvature = self.likelihood.curvature(r)
        whitened = self._whiten_rows(at.jacobian(self.layout.free), u)
        metric = self._gram(whitened, curvature.clamp(min=_LEAST_CURVATURE).unsqueeze(-2))
        if self.layout["noise"].free:
            i = self.layout.free.index(self._scale_index)
            by_log = r * (self.likelihood.score(r) + r * curvature)
            metric[..., i, i] += self.multiplicity * by_log.sum(-1)
        return metric

    def _whiten_rows(self, jacobian: Tensor, u: Tensor) -> Tensor:
        """Whiten each row of a Jacobian (..., n_free, n)."""
        # The whitening takes (..., members, n): the parameters are moved to the front.
        return self.whitening.whiten(jacobian.movedim(-2, 0), self._scale(u)).movedim(0, -2)

    def _gram(self, whitened: Tensor, weight: Tensor | float) -> Tensor:
        """Weighted Gram matrix of the rows of the whitened Jacobian, plus that of the priors."""
        rows = self.prior_rows[:, self.free]
        return self.multiplicity * ((whitened * weight) @ whitened.mT) + rows.mT @ rows

    @torch.no_grad()
    def covariance(self, free: Tensor) -> np.ndarray:
        """Covariance of the free coordinates at the optimum, (n_free, n_free).

        For normal errors the inverse of the Fisher information. For a robust likelihood the sandwich estimate
        of an M-estimator (Huber 1981, Robust Statistics, section 7.6), which takes curvature and variance of
        the score from the residuals and holds for any distribution of them. Both assume that whitened samples
        are independent. For one observation, not a batch.
        """
        u = self.complete(free)
        whitened = self._whiten_rows(self.jacobian(free), u)
        if not self.likelihood.robust:
            information = self._information(whitened, self.likelihood.mean_information)
            return torch.linalg.pinv(information, hermitian=True).cpu().numpy()
        r = self.whitened_residuals(u)[self.samples.valid]
        curvature = float(self.likelihood.curvature(r).mean())
        spread = float(self.likelihood.score(r).square().mean())
        bread = torch.linalg.pinv(self._information(whitened, curvature), hermitian=True)
        return (bread @ self._information(whitened, spread) @ bread).cpu().numpy()

    def _information(self, whitened: Tensor, per_sample: float) -> Tensor:
        fisher = self._gram(whitened, per_sample)
        if self.layout["noise"].free:
            # The expected cross information of the scale of the noise and the other parameters is zero.
            i = self.layout.free.index(self._scale_index)
            fisher[..., i, i] += (
                self.multiplicity * self.likelihood.scale_information * self.whitening.n_valid
            )
        return fisher
