"""What the data and the priors say of the parameters: objective, information, covariance."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ooftorch.likelihood import Likelihood
from ooftorch.model import BeamModel, Layout

__all__ = ["Data", "Posterior"]

# Columns of the Jacobian computed together: enough to keep the processor busy, few enough to keep the
# memory at a handful of aperture fields.
_COLUMNS = 8
_STEP = 1e-5


class Data(NamedTuple):
    """Samples of all maps, one after the other, (n,) each: power, its errors, and which are valid."""

    power: Tensor
    errors: Tensor
    valid: Tensor


class Posterior:
    """Negative log-posterior of the free parameters of a layout, as a function to be minimised.

    Likelihood with its normalisation plus half the squared prior residuals, in natural units. The noise
    of a sample is its error times the parameter `noise`.

    Parameters
    ----------
    model : BeamModel
    layout : Layout
        Which parameters are free, and their priors. Same names as the model's.
    data : Data
    likelihood : Likelihood
    anchor : Tensor, (n_parameters,)
        Coordinates; those of the parameters held fixed stay.
    """

    def __init__(
        self, model: BeamModel, layout: Layout, data: Data, likelihood: Likelihood, anchor: Tensor
    ) -> None:
        self.model, self.layout, self.data, self.likelihood = model, layout, data, likelihood
        self.anchor = anchor
        self.free = torch.tensor(layout.free, device=anchor.device)
        rows, target = layout.prior()
        self.prior_rows, self.prior_target = model.oo(rows), model.oo(target)
        self._noise = layout.index("noise")

    def complete(self, free: Tensor) -> Tensor:
        """All coordinates (..., n_parameters) from the free ones (..., n_free)."""
        return self.anchor.expand(*free.shape[:-1], -1).index_copy(-1, self.free, free)

    def __call__(self, free: Tensor) -> Tensor:
        """Negative log-posterior (...) at the free coordinates (..., n_free)."""
        u = self.complete(free)
        loss = self.likelihood(self.model(u), self.data.power, self.noise(u), self.data.valid)
        return loss + 0.5 * self.prior_residuals(u).square().sum(-1)

    def noise(self, u: Tensor) -> Tensor:
        """Noise of each sample (..., n) at the coordinates u (..., n_parameters)."""
        return self.layout.parameters[self._noise].values(u[..., self._noise, None]) * self.data.errors

    def prior_residuals(self, u: Tensor) -> Tensor:
        """Distance from the priors in standard deviations (..., n_rows)."""
        return u @ self.prior_rows.mT - self.prior_target

    @torch.no_grad()
    def residuals(self, u: Tensor) -> Tensor:
        """Data minus model (n,) at the coordinates u; zero where there is no sample."""
        return torch.where(self.data.valid, self.data.power - self.model(u), 0.0)

    @torch.no_grad()
    def jacobian(self, free: Tensor) -> Tensor:
        """Derivatives of the model's samples by the free coordinates, (n, n_free).

        By central differences of the batched model: coordinates are of order one and the model is smooth,
        so they are good to 1e-9 in double precision, more than a metric or an error bar can use. (Torch's
        forward mode is exact, no faster, and takes two seconds to load.)
        """
        steps = _STEP * torch.eye(len(free), dtype=free.dtype, device=free.device)
        columns = [
            (self.model(self.complete(free + e)) - self.model(self.complete(free - e))) / (2 * _STEP)
            for e in steps.split(_COLUMNS)
        ]
        return torch.cat(columns).mT

    @torch.no_grad()
    def information(self, free: Tensor) -> np.ndarray:
        """Fisher information of data and priors about the free coordinates, (n_free, n_free)."""
        mean = self.likelihood.mean_information
        return self._information(free, self.jacobian(free), mean).cpu().numpy()

    @torch.no_grad()
    def covariance(self, free: Tensor) -> np.ndarray:
        """Covariance of the free coordinates at the optimum, (n_free, n_free).

        For normal errors the inverse of the information. For Cauchy errors, which are asked for where
        the noise is not trusted, that of an M-estimator (Huber 1981, section 7.6): the residuals say
        themselves how much a sample tells, whatever their distribution. Both take the samples' errors as
        independent.
        """
        jacobian = self.jacobian(free)
        if self.likelihood.name == "gaussian":
            fisher = self._information(free, jacobian, self.likelihood.mean_information)
            return np.linalg.pinv(fisher.cpu().numpy(), hermitian=True)
        u = self.complete(free)
        r = (self.residuals(u) / self.noise(u))[self.data.valid]
        slope = float(self.likelihood.curvature(r).mean())
        spread = float(self.likelihood.score(r).square().mean())
        bread = np.linalg.pinv(self._information(free, jacobian, slope).cpu().numpy(), hermitian=True)
        return bread @ self._information(free, jacobian, spread).cpu().numpy() @ bread

    def _information(self, free: Tensor, jacobian: Tensor, per_sample: float) -> Tensor:
        weight = torch.where(self.data.valid, per_sample / self.noise(self.complete(free)).square(), 0.0)
        rows = self.prior_rows[:, self.free]
        fisher = jacobian.mT @ (weight[:, None] * jacobian) + rows.mT @ rows
        if self.layout.parameters[self._noise].free:
            # The expected score of the noise is independent of the others'.
            i = self.layout.free.index(self._noise)
            fisher[i, i] += self.likelihood.scale_information * self.data.valid.sum()
        return fisher
