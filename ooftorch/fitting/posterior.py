"""Posterior of the parameters given data and priors: objective, gradient, information, metric, covariance."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from ooftorch.fitting.absorption import Absorption
from ooftorch.fitting.likelihood import Likelihood
from ooftorch.fitting.noise_model import NoiseModel, Whitening
from ooftorch.fitting.samples import Samples
from ooftorch.optics.model import BeamModel
from ooftorch.optics.parameters import Layout
from ooftorch.optics.prediction import Prediction

__all__ = ["Linearised", "Posterior"]

# Lower limit of the curvature of the negative log-likelihood of a whitened sample in a metric, dimensionless.
_LEAST_CURVATURE = 0.1


class Linearised(NamedTuple):
    """The model of one observation near a point, to first order, in whitened samples.

    Attributes
    ----------
    at : Prediction
        Of the model there.
    law : Likelihood
        With its own parameters as they are there.
    residuals : Tensor, (n,)
        Model minus data, without the nuisance terms of the scan lines; zero for missing samples.
    whitened : Tensor, (n_free, n)
        Derivatives by the free coordinates.
    rows : Tensor, (n_free, n)
        The same without what the nuisance terms of the scan lines take up.
    amplitudes : Tensor, (n_free, n_terms), or None
        The change of these terms.
    """

    at: Prediction
    law: Likelihood
    residuals: Tensor
    whitened: Tensor
    rows: Tensor
    amplitudes: Tensor | None


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
    absorption : Absorption, optional
        Takes the nuisance terms of the scan lines out of the whitened residuals.

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
    absorption: Absorption | None = None
    free: Tensor = field(init=False)
    whitening: Whitening = field(init=False)
    prior_rows: Tensor = field(init=False)
    prior_target: Tensor = field(init=False)
    _power: Tensor = field(init=False, repr=False)
    _constant: Tensor = field(init=False, repr=False)
    _n_missing: Tensor = field(init=False, repr=False)
    _scale_index: int = field(init=False, repr=False)
    _shape: slice = field(init=False, repr=False)
    _wanted: tuple[bool, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        samples, anchor = self.samples, self.anchor
        rows, target = self.layout.prior()
        whitening = self.noise.whitening(samples)
        constant = whitening.log_determinant
        if self.absorption is not None:
            constant = constant + self.absorption.log_determinant
        derived = {
            "free": torch.tensor(self.layout.free, device=anchor.device),
            "whitening": whitening,
            "prior_rows": anchor.new_tensor(rows),
            "prior_target": anchor.new_tensor(target),
            "_power": torch.where(samples.valid, samples.power, 0.0),
            "_constant": constant,
            "_n_missing": samples.valid.shape[-1] - whitening.n_valid,
            "_scale_index": self.layout.index("noise"),
            "_wanted": tuple(
                any(p.free for p in self.layout.parameters[effect.span])
                for effect in self.model.parts.effects
            ),
            "_shape": self.layout.span(self.likelihood.declare()),
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
        values = self.model.parts.units.values(u)
        r = self.whitening.whiten(predicted - self._power, self._scale(values))
        r, cost = self._absorb(r, self.absorption)
        law = self.law(values)
        loss = (
            cost + law.per_sample(r).sum(-1) + self._normalise(values, law, self._constant, self._n_missing)
        )
        return self.multiplicity * loss + 0.5 * self.prior_residuals(u).square().sum(-1)

    def law(self, values: Tensor) -> Likelihood:
        """Return the likelihood with its own parameters as they are among the values (..., n_parameters)."""
        return self.likelihood.at(values[..., self._shape])

    def _scale(self, values: Tensor) -> Tensor:
        """Factor (..., 1) on the standard deviations of the noise at the values (..., n_parameters)."""
        return values[..., self._scale_index, None]

    def _log_rate(self, values: Tensor) -> Tensor:
        """Derivative (...) of the logarithm of the scale of the noise with respect to its coordinate."""
        return 1 - self.layout["noise"].floor / values[..., self._scale_index]

    @staticmethod
    def _absorb(r: Tensor, absorption: Absorption | None) -> tuple[Tensor, Tensor | float]:
        """Return the whitened residuals without the nuisance terms, and the cost (...) of these terms."""
        if absorption is None:
            return r, 0.0
        r, amplitudes = absorption.remove(r)
        return r, 0.5 * amplitudes.square().sum(-1)

    def _normalise(self, values: Tensor, law: Likelihood, constant: Tensor, n_missing: Tensor) -> Tensor:
        """Terms (...) of the objective that do not depend on the residuals."""
        n_valid = self.samples.valid.shape[-1] - n_missing
        # A missing sample has whitened residual 0; its contribution to the sum is subtracted.
        missing = law.per_sample(values.new_zeros(1))[..., 0]
        return n_valid * torch.log(self._scale(values)[..., 0]) + constant - n_missing * missing

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
        n_missing, absorption = self._n_missing, self.absorption
        if members is not None and len(members) < len(self.anchor):
            anchor, power, constant = anchor[members], power[members], constant[members]
            whitening, n_missing = whitening.select(members), n_missing[members]
            absorption = None if absorption is None else absorption.select(members)
        u = self._fill_in(anchor, free)
        at = self.model.at(u)
        scale, law = self._scale(at.values), self.law(at.values)
        # In place from here on: for large maps memory traffic costs more than arithmetic.
        r = whitening.whiten(at.samples - power, scale)
        amplitudes = None
        if absorption is not None:
            r, amplitudes = absorption.remove(r)
        loss, score = law.sum_and_score(r)
        loss = loss + self._normalise(at.values, law, constant, n_missing)
        by_log_scale = whitening.n_valid - torch.linalg.vecdot(r, score)
        by_shape = self._differentiate_by_shape(law, r, n_missing)
        if absorption is not None and amplitudes is not None:
            cost = torch.linalg.vecdot(amplitudes, amplitudes)
            loss, by_log_scale = loss + 0.5 * cost, by_log_scale - cost
            score = absorption.transpose(score, amplitudes)
        prior = self.prior_residuals(u)
        gradient = at.vjp(whitening.transpose(score, scale), self._wanted)
        gradient[..., self._scale_index] += by_log_scale * self._log_rate(at.values)
        gradient[..., self._shape] += by_shape
        gradient = self.multiplicity * gradient + prior @ self.prior_rows
        return self.multiplicity * loss + 0.5 * prior.square().sum(-1), gradient[..., self.free]

    def _differentiate_by_shape(self, law: Likelihood, r: Tensor, n_missing: Tensor) -> Tensor:
        """Derivative (..., n) of the objective with respect to the likelihood's own parameters."""
        if not any(self.layout.parameters[i].free for i in range(self._shape.start, self._shape.stop)):
            return r.new_zeros(())
        missing = law.log_parameter_score(r.new_zeros(1))[..., 0]
        return (law.log_parameter_score(r).sum(-1) - n_missing * missing)[..., None]

    def prior_residuals(self, u: Tensor) -> Tensor:
        """Deviation from the priors in standard deviations, (..., n_rows)."""
        return u @ self.prior_rows.mT - self.prior_target

    @torch.no_grad()
    def whitened_residuals(self, u: Tensor) -> Tensor:
        """Whitened residuals, model minus data, (..., n) at all coordinates u; zero for missing samples.

        Without the nuisance terms of the scan lines.
        """
        return self._absorb(self.whiten_residuals(self.model.at(u)), self.absorption)[0]

    def whiten_residuals(self, at: Prediction) -> Tensor:
        """Whitened residuals (..., n) of a prediction, model minus data; zero for missing samples.

        With the nuisance terms of the scan lines still in them.
        """
        return self.whiten(at, at.samples - self._power)

    def taken_up(self, u: Tensor, predicted: Tensor) -> Tensor:
        """What the nuisance terms of the scan lines add to the samples (..., n) of the model at u."""
        if self.absorption is None:
            return torch.zeros_like(predicted)
        scale = self._scale(self.model.parts.units.values(u))
        r = self.whitening.whiten(predicted - self._power, scale)
        unit = self.whitening.whiten(torch.ones_like(r), scale)
        rest, _ = self.absorption.remove(r)
        return torch.where(self.samples.valid, (rest - r) / unit, 0.0)

    def whiten(self, at: Prediction, samples: Tensor) -> Tensor:
        """Whiten samples (..., n), which may be overwritten, with the scale of the noise of a prediction."""
        return self.whitening.whiten(samples, self._scale(at.values))

    @torch.no_grad()
    def excess(self, u: Tensor) -> Tensor:
        """Rms (...) of the whitened residuals, at least 1, where the scale of the noise is held; else 1."""
        if self.layout["noise"].free:
            return u.new_ones(u.shape[:-1])
        squares = self.whitened_residuals(u).square().sum(-1)
        return torch.sqrt(squares / self.whitening.n_valid).clamp(min=1.0)

    @torch.no_grad()
    def jacobian(self, free: Tensor) -> Tensor:
        """Derivatives of the samples with respect to the free coordinates, (..., n_free, n_samples)."""
        return self.model.at(self.complete(free)).jacobian(self.layout.free)

    @torch.no_grad()
    def information(self, free: Tensor) -> Tensor:
        """Fisher information of data and priors on the free coordinates, (..., n_free, n_free)."""
        values = self.model.parts.units.values(self.complete(free))
        law = self.law(values)
        rows = self._whiten_rows(self.jacobian(free), values)
        return self._information(rows, values, torch.as_tensor(law.mean_information).to(values))

    @torch.inference_mode()
    def metric(self, free: Tensor) -> Tensor:
        """Positive estimate of the Hessian at the free coordinates, (..., n_free, n_free).

        Gauss-Newton Hessian, each sample weighted with the curvature of the likelihood at its residual,
        clamped to at least 0.1. Far from the minimum the residuals do not have the distribution that
        `information` assumes.
        """
        u = self.complete(free)
        at = self.model.at(u)
        law = self.law(at.values)
        r, _ = self._absorb(self.whiten_residuals(at), self.absorption)
        curvature = law.curvature(r)
        rows = self._whiten_rows(at.jacobian(self.layout.free), at.values)
        metric = self._gram(rows, curvature.clamp(min=_LEAST_CURVATURE).unsqueeze(-2))
        if self._shape.stop > self._shape.start:
            self._add_noise_information(metric, law, self._log_rate(at.values))
        elif self.layout["noise"].free:
            i = self.layout.free.index(self._scale_index)
            by_log = r * (law.score(r) + r * curvature)
            rate = self._log_rate(at.values)
            metric[..., i, i] += self.multiplicity * rate.square() * by_log.sum(-1)
        return metric

    def _whiten_rows(self, jacobian: Tensor, values: Tensor) -> tuple[Tensor, Tensor | None]:
        """Whiten each row of a Jacobian (..., n_free, n).

        Returns
        -------
        rows : Tensor, (..., n_free, n)
            Without what the nuisance terms of the scan lines take up.
        amplitudes : Tensor, (..., n_free, n_terms), or None
            The change of these terms.
        """
        # The whitening takes (..., members, n): the parameters are moved to the front.
        rows = self.whitening.whiten(jacobian.movedim(-2, 0), self._scale(values))
        if self.absorption is None:
            return rows.movedim(0, -2), None
        rows, amplitudes = self.absorption.remove(rows)
        return rows.movedim(0, -2), amplitudes.movedim(0, -2)

    def _gram(self, rows: tuple[Tensor, Tensor | None], weight: Tensor | float) -> Tensor:
        """Weighted Gram matrix of the rows of the whitened Jacobian, plus those of the priors."""
        whitened, amplitudes = rows
        prior = self.prior_rows[:, self.free]
        gram = self.multiplicity * ((whitened * weight) @ whitened.mT) + prior.mT @ prior
        return gram if amplitudes is None else gram + self.multiplicity * amplitudes @ amplitudes.mT

    @torch.no_grad()
    def linearise(self, free: Tensor) -> "Linearised":
        """Return the model of one observation near the free coordinates (n_free,), to first order."""
        at = self.model.at(self.complete(free))
        law = self.law(at.values)
        residuals, _ = self._absorb(self.whiten_residuals(at), self.absorption)
        whitened = self.whiten(at, at.jacobian(self.layout.free))
        return Linearised(at, law, residuals, whitened, *self.absorb_rows(whitened))

    def absorb_rows(self, whitened: Tensor) -> tuple[Tensor, Tensor | None]:
        """Take what the nuisance terms of the scan lines take up out of whitened derivatives (k, n)."""
        if self.absorption is None:
            return whitened, None
        return self.absorption.remove(whitened)

    @torch.no_grad()
    def noise_covariance(self, linear: "Linearised") -> Tensor:
        """Covariance of the free coordinates at the optimum, (n_free, n_free), from the noise alone.

        For normal errors the inverse of the Fisher information. For a robust likelihood the sandwich estimate
        of an M-estimator (Huber 1981, Robust Statistics, section 7.6), which takes curvature and variance of
        the score from the residuals and holds for any distribution of them. Both assume that whitened samples
        are independent. For one observation, not a batch.
        """
        law = linear.law
        if not law.robust:
            expected = torch.as_tensor(law.mean_information).to(linear.rows)
            return torch.linalg.pinv(self.find_information(linear, expected), hermitian=True)
        r = linear.residuals[self.samples.valid]
        curvature, spread = law.curvature(r).mean(), law.score(r).square().mean()
        bread = torch.linalg.pinv(self.find_information(linear, curvature), hermitian=True)
        return bread @ self.find_information(linear, spread) @ bread

    def find_information(self, linear: "Linearised", per_sample: Tensor) -> Tensor:
        """Information (n_free, n_free) of data and priors, with this much per whitened sample."""
        return self._information((linear.rows, linear.amplitudes), linear.at.values, per_sample)

    def _information(self, rows: tuple[Tensor, Tensor | None], values: Tensor, per_sample: Tensor) -> Tensor:
        fisher = self._gram(rows, per_sample[..., None, None])
        self._add_noise_information(fisher, self.law(values), self._log_rate(values))
        return fisher

    def _add_noise_information(self, fisher: Tensor, law: Likelihood, log_rate: Tensor) -> None:
        """Add the information on the noise: its scale, and the likelihood's own parameter."""
        # The expected cross information of these and the other parameters is zero.
        n, free = self.multiplicity * self.whitening.n_valid, self.layout.free
        i = free.index(self._scale_index) if self.layout["noise"].free else None
        if i is not None:
            fisher[..., i, i] += law.scale_information * n * log_rate.square()
        if self._shape.stop > self._shape.start and self._shape.start in free:
            j = free.index(self._shape.start)
            own, cross = law.log_parameter_information()
            fisher[..., j, j] += own * n
            if i is not None:
                fisher[..., i, j] += cross * n * log_rate
                fisher[..., j, i] += cross * n * log_rate
