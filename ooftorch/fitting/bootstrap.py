"""Bootstrap: resampled observations, whose fits scatter as the noise makes the real one scatter."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ooftorch.errors import InputError
from ooftorch.result import FitResult

if TYPE_CHECKING:
    from ooftorch.observation import BeamMap, Observation

__all__ = ["resample"]


def resample(observation: "Observation", result: FitResult, n: int, *, seed: int = 0) -> "list[Observation]":
    """Draw observations from a fit and its residuals.

    Each map is its fitted model plus residuals drawn with replacement from those of the same map (bootstrap
    of residuals; Efron 1979, Annals of Statistics 7, 1). Samples must be independent; their distribution need
    not be known. Fit the result with `fit_many`: the scatter of the coefficients is their standard error,
    without assuming a likelihood or a linear model.

    Parameters
    ----------
    observation : Observation
        The one that was fitted.
    result : FitResult
        Its fit.
    n : int
        Number of observations to draw.
    seed : int
        Random seed.

    Returns
    -------
    list of Observation

    Raises
    ------
    InputError
        If the maps of the result have other sizes than those of the observation.
    """
    sizes = [m.power.size for m in observation.maps]
    if sizes != [m.data.size for m in result.maps]:
        raise InputError(
            f"the observation has maps of {sizes} samples, the result of others; give the observation that "
            "was fitted"
        )
    rng = np.random.default_rng(seed)

    def draw_map(m: "BeamMap", model: np.ndarray) -> "BeamMap":
        valid = m.valid
        power = m.power.copy()
        # Residuals in units of the error of each sample, if errors are given.
        error = np.ones(power.size) if m.sigma is None else m.sigma
        residuals = (m.power - model)[valid] / error[valid]
        power[valid] = model[valid] + error[valid] * rng.choice(residuals, size=residuals.size)
        return replace(m, power=power)

    fits = [m.model for m in result.maps]
    return [
        replace(
            observation,
            maps=tuple(draw_map(m, model) for m, model in zip(observation.maps, fits, strict=True)),
            truth=None,  # the true surface of the resampled maps is that of the fit
        )
        for _ in range(n)
    ]
