"""How samples scatter about the model: the noise that whitening makes independent and of unit scale.

Likelihood, posterior, metric, covariance, chi-square and start see the noise only through a `Whitening`. What
a noise model integrates out (a drift, levels of scan lines), its whitening takes from the residuals. Every
noise model has one parameter in a fit, `noise`: the factor on all its standard deviations.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ooftorch.errors import InputError
from ooftorch.fitting.samples import Samples

__all__ = ["NOISE_MODELS", "IndependentNoise", "NoiseModel", "Whitening", "choose"]


class Whitening(ABC):
    """Linear operator W that makes the noise of the samples independent, W^T W being its inverse covariance.

    Attributes
    ----------
    n_valid : Tensor, ([b])
        Samples that were observed, for each of b observations.
    log_determinant : Tensor, ([b])
        Half the logarithm of the determinant of the covariance: for independent samples, the sum of the
        logarithms of their errors.
    """

    n_valid: Tensor
    log_determinant: Tensor

    @abstractmethod
    def whiten(self, residuals: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        """Whiten residuals (..., [b,] n); zero where no sample was observed. May overwrite its argument.

        Parameters
        ----------
        residuals : Tensor, (..., [b,] n)
        scale : Tensor, ([b,] 1), or float
            Factor on the standard deviations.
        """

    @abstractmethod
    def transpose(self, whitened: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        """Apply the transposed operator to (..., [b,] n). May overwrite its argument."""

    @abstractmethod
    def of(self, rows: Tensor) -> "Whitening":
        """Return the whitening of some of the observations."""


class NoiseModel(ABC):
    """A description of the noise, of any observation.

    Attributes
    ----------
    name : str
    """

    name: str

    @abstractmethod
    def whitening(self, samples: Samples) -> Whitening:
        """Return the whitening of these samples."""


class IndependentNoise(NoiseModel):
    """Independent samples, each with its own error."""

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
        Zero where no sample was observed.
    n_valid, log_determinant : Tensor, ([b])
    """

    def __init__(self, inverse_errors: Tensor, n_valid: Tensor, log_determinant: Tensor) -> None:
        self._inverse_errors = inverse_errors
        self.n_valid, self.log_determinant = n_valid, log_determinant

    def whiten(self, residuals: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        return residuals.mul_(self._inverse_errors / scale)

    def transpose(self, whitened: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        return whitened.mul_(self._inverse_errors / scale)

    def of(self, rows: Tensor) -> "IndependentWhitening":
        return IndependentWhitening(
            self._inverse_errors[rows], self.n_valid[rows], self.log_determinant[rows]
        )


NOISE_MODELS: dict[str, type[IndependentNoise]] = {"independent": IndependentNoise}
"""Noise models by name."""


def choose(noise: str | NoiseModel) -> NoiseModel:
    """Return the noise model of that name, or a model as it is; InputError with the known names otherwise."""
    if isinstance(noise, NoiseModel):
        return noise
    if noise not in NOISE_MODELS:
        raise InputError(f"unknown noise model {noise!r}; known are {', '.join(NOISE_MODELS)}")
    return NOISE_MODELS[noise]()
