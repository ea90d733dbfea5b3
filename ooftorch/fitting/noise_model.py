"""Noise models: the covariance of the noise, as a whitening of the residuals.

Likelihood, posterior, metric, covariance, chi-square and start use the noise only through a `Whitening`.
Nuisance terms that a noise model integrates out (a drift, baselines of scan lines) are part of its
covariance. Every noise model has one parameter in a fit, `noise`: a factor on all its standard deviations.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ooftorch.errors import InputError
from ooftorch.fitting.samples import Samples
from ooftorch.optics.parameters import Parameter

__all__ = ["NOISE_MODELS", "IndependentNoise", "NoiseModel", "Whitening", "choose"]


class Whitening(ABC):
    """Linear operator W that makes the noise independent and of unit variance: W^T W = inverse covariance.

    Attributes
    ----------
    n_valid : Tensor, ([b])
        Number of valid samples of each of b observations.
    log_determinant : Tensor, ([b])
        Half the log-determinant of the covariance; for independent samples the sum of the log errors.
    """

    n_valid: Tensor
    log_determinant: Tensor

    @abstractmethod
    def whiten(self, residuals: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        """Apply W to residuals. May overwrite its argument.

        Parameters
        ----------
        residuals : Tensor, (..., [b,] n)
        scale : Tensor, ([b,] 1), or float
            Factor on the standard deviations.

        Returns
        -------
        Tensor, (..., [b,] n)
            Zero for samples that are not valid.
        """

    @abstractmethod
    def transpose(self, whitened: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        """Apply the transpose of W to (..., [b,] n). May overwrite its argument."""

    @abstractmethod
    def select(self, rows: Tensor) -> "Whitening":
        """Return the whitening of the observations with these numbers (int Tensor)."""


class NoiseModel(ABC):
    """Base of the noise models: builds the whitening of given samples.

    Attributes
    ----------
    name : str
        Name in messages.
    """

    name: str

    @abstractmethod
    def whitening(self, samples: Samples) -> Whitening:
        """Return the whitening of these samples.

        Parameters
        ----------
        samples : Samples
            With a first dimension that counts observations, or of one observation.
        """

    def declare_scale(self, errors_known: bool, robust: bool, peak: float) -> Parameter:
        """Declare the parameter `noise`: a factor on the file's errors, or, without them, in data units.

        Parameters
        ----------
        errors_known : bool
            Whether the observation has standard errors. The scale is then held at 1, except for a robust
            likelihood: its scale is not a standard deviation, so it is always fitted.
        robust : bool
            Whether the likelihood is robust.
        peak : float
            Largest power above the baseline, data units.
        """
        if errors_known:
            return Parameter("noise", "errors", 1.0, free=robust, log=True)
        return Parameter("noise", "data", 0.1 * peak, peak, free=True, log=True)


class IndependentNoise(NoiseModel):
    """Independent samples, each with its own standard error."""

    name = "independent"

    def whitening(self, samples: Samples) -> "IndependentWhitening":  # noqa: D102
        valid = samples.valid
        inverse_errors = torch.where(valid, 1 / samples.errors, 0.0)
        if bool((inverse_errors == inverse_errors[..., :1]).all()):
            inverse_errors = inverse_errors[..., :1]
        log_determinant = torch.where(valid, torch.log(samples.errors), 0.0).sum(-1)
        return IndependentWhitening(inverse_errors, valid.sum(-1), log_determinant)


class IndependentWhitening(Whitening):
    """Division by the errors.

    Parameters
    ----------
    inverse_errors : Tensor, ([b,] n) or ([b,] 1)
        Zero for samples that are not valid; one column if all are equal.
    n_valid, log_determinant : Tensor, ([b])
        As in `Whitening`.
    """

    def __init__(self, inverse_errors: Tensor, n_valid: Tensor, log_determinant: Tensor) -> None:
        self._inverse_errors = inverse_errors
        self.n_valid, self.log_determinant = n_valid, log_determinant

    def whiten(self, residuals: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        return residuals.mul_(self._inverse_errors / scale)

    def transpose(self, whitened: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        return whitened.mul_(self._inverse_errors / scale)

    def select(self, rows: Tensor) -> "IndependentWhitening":
        return IndependentWhitening(
            self._inverse_errors[rows], self.n_valid[rows], self.log_determinant[rows]
        )


NOISE_MODELS: dict[str, type[IndependentNoise]] = {"independent": IndependentNoise}
"""Noise models by name."""


def choose(noise: str | NoiseModel) -> NoiseModel:
    """Return the noise model of this name, or a noise model object unchanged; InputError for other names."""
    if isinstance(noise, NoiseModel):
        return noise
    if noise not in NOISE_MODELS:
        raise InputError(f"unknown noise model {noise!r}; known are {', '.join(NOISE_MODELS)}")
    return NOISE_MODELS[noise]()
