"""What the data and the priors say of the parameters: objective, information, covariance."""

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

# Least curvature of a sample in a metric.
_LEAST_CURVATURE = 0.1


@dataclass(frozen=True, eq=False)
class Posterior:
    """Negative log-posterior of the free parameters of a layout, as a function to be minimised.

    Likelihood of the whitened residuals with its normalisation, plus half the squared prior residuals, in
    natural units. Samples and anchor may have a first dimension b of members, one observation each; points
    then have it too. It cannot be changed; `dataclasses.replace` makes another.

    Parameters
    ----------
    model : BeamModel
    layout : Layout
        Which parameters are free, and their priors; of the same names as the model's.
    samples : Samples
    likelihood : Likelihood
    noise : NoiseModel
        Its standard deviations are multiplied by the parameter `noise`.
    anchor : Tensor, ([b,] n_parameters)
        Coordinates; those of the parameters held fixed stay.
    multiplicity : float
        How many samples each sample stands for.

    Attributes
    ----------
    free : int Tensor, (n_free,)
        Positions of the free parameters in the layout.
    whitening : Whitening
        Of the samples.
    prior_rows, prior_target : Tensor
        As of `Layout.prior`.
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
        # Whitened, a sample that was not observed is zero: its share of the sum is taken off.
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
        return self._complete(self.anchor, free)

    def _complete(self, anchor: Tensor, free: Tensor) -> Tensor:
        return anchor.expand(*free.shape[:-1], -1).index_copy(-1, self.free, free)

    def __call__(self, free: Tensor) -> Tensor:
        """Negative log-posterior (...) at the free coordinates (..., n_free), differentiable by torch."""
        u = self.complete(free)
        return self.value(u, self.model(u))

    def value(self, u: Tensor, predicted: Tensor) -> Tensor:
        """Negative log-posterior (...) at the coordinates u, where the model's samples are `predicted`."""
        scale = self._scale(u)
        r = self.whitening.whiten(predicted - self._power, scale)
        loss = self.likelihood.per_sample(r).sum(-1)
        loss = loss + self.whitening.n_valid * torch.log(scale[..., 0]) + self._constant
        return self.multiplicity * loss + 0.5 * self.prior_residuals(u).square().sum(-1)

    @torch.inference_mode()
    def value_and_gradient(self, free: Tensor, members: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Negative log-posterior (...) and its gradient (..., n_free), in one pass each way.

        With `members`, (k,), the rows of `free` are points of these members alone.
        """
        anchor, power, constant, whitening = self.anchor, self._power, self._constant, self.whitening
        if members is not None and len(members) < len(self.anchor):
            anchor, power, constant = anchor[members], power[members], constant[members]
            whitening = whitening.of(members)
        u = self._complete(anchor, free)
        at = self.model.at(u)
        scale = at.values[..., self._scale_index, None]
        # In place from here on: maps can be large, and memory slower than arithmetic.
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
        """Factor on the noise's standard deviations (..., 1) at the coordinates u (..., n_parameters)."""
        return self.model.units.values(u)[..., self._scale_index, None]

    def prior_residuals(self, u: Tensor) -> Tensor:
        """Distance from the priors in standard deviations (..., n_rows)."""
        return u @ self.prior_rows.mT - self.prior_target

    @torch.no_grad()
    def whitened_residuals(self, u: Tensor) -> Tensor:
        """Model minus data over the noise (..., n) at the coordinates u; zero where there is no sample."""
        return self.whitening.whiten(self.model(u) - self._power, self._scale(u))

    @torch.no_grad()
    def jacobian(self, free: Tensor) -> Tensor:
        """Derivatives of the samples by the free coordinates, (..., n_free, n_samples)."""
        return self.model.at(self.complete(free)).jacobian(self.layout.free)

    @torch.no_grad()
    def information(self, free: Tensor) -> Tensor:
        """Fisher information of data and priors about the free coordinates, (..., n_free, n_free)."""
        whitened = self._whiten_rows(self.jacobian(free), self.complete(free))
        return self._information(whitened, self.likelihood.mean_information)

    @torch.inference_mode()
    def metric(self, free: Tensor) -> Tensor:
        """Positive estimate of the Hessian at the free coordinates, (..., n_free, n_free).

        The Gauss-Newton Hessian, each sample with the curvature that the likelihood has at its residual,
        clamped to at least 0.1: far from the end residuals are not what the information expects of them.
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
        # Rows go before the members, as the whitening wants them.
        return self.whitening.whiten(jacobian.movedim(-2, 0), self._scale(u)).movedim(0, -2)

    def _gram(self, whitened: Tensor, weight: Tensor | float) -> Tensor:
        """Products of the whitened Jacobian's rows, samples weighted, and of the priors'."""
        rows = self.prior_rows[:, self.free]
        return self.multiplicity * ((whitened * weight) @ whitened.mT) + rows.mT @ rows

    @torch.no_grad()
    def covariance(self, free: Tensor) -> np.ndarray:
        """Covariance of the free coordinates at the optimum, (n_free, n_free).

        For normal errors the inverse of the information. For a robust likelihood, which is asked for where
        the noise is not trusted, that of an M-estimator (Huber 1981, section 7.6): the residuals say
        themselves how much a sample tells, whatever their distribution. Both take whitened samples as
        independent.
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
            # The expected score of the noise is independent of the others'.
            i = self.layout.free.index(self._scale_index)
            fisher[..., i, i] += (
                self.multiplicity * self.likelihood.scale_information * self.whitening.n_valid
            )
        return fisher
