"""Bootstrap: observations as they might have come out, to see how far a fit would scatter."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ooftorch.errors import InputError
from ooftorch.result import FitResult

if TYPE_CHECKING:
    from ooftorch.observation import BeamMap, Observation

__all__ = ["resample"]


def resample(observation: "Observation", result: FitResult, n: int, *, seed: int = 0) -> "list[Observation]":
    """Draw observations from a fit and its own residuals.

    Each map becomes its fitted model plus residuals drawn with replacement from that map's (Efron 1979, the
    bootstrap of residuals): what the noise is need not be known, only that samples are independent. Fit them
    with `fit_many`; the scatter of the coefficients is their standard error, by a road that assumes neither a
    likelihood nor a linear model.

    Parameters
    ----------
    observation : Observation
        The one that was fitted.
    result : FitResult
    n : int
        Observations to draw.
    seed : int

    Returns
    -------
    list of Observation

    Raises
    ------
    InputError
        If the result is that of other maps.
    """
    sizes = [m.power.size for m in observation.maps]
    if sizes != [m.data.size for m in result.maps]:
        raise InputError(
            f"the observation has maps of {sizes} samples, the result of others; give the observation that "
            "was fitted"
        )
    rng = np.random.default_rng(seed)

    def drawn(m: "BeamMap", model: np.ndarray) -> "BeamMap":
        valid = m.valid
        power = m.power.copy()
        # In units of each sample's error, where there is one.
        error = np.ones(power.size) if m.sigma is None else m.sigma
        residuals = (m.power - model)[valid] / error[valid]
        power[valid] = model[valid] + error[valid] * rng.choice(residuals, size=residuals.size)
        return replace(m, power=power)

    fits = [m.model for m in result.maps]
    return [
        replace(
            observation,
            maps=tuple(drawn(m, model) for m, model in zip(observation.maps, fits, strict=True)),
            truth=None,  # the fit is what is true of them
        )
        for _ in range(n)
    ]
