"""Goodness of fit: standard error of a sample of each map, and chi-square."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ooftorch.fitting.noise_model import NoiseModel
from ooftorch.fitting.samples import Samples, has_errors
from ooftorch.observation import BeamMap

__all__ = ["compute_chi2", "estimate_noises"]

Array = NDArray[np.float64]


def estimate_noises(maps: Sequence[BeamMap], residuals: Sequence[Array]) -> list[float]:
    """Estimate the standard error of a sample of each map.

    With errors in the file: their median. Without: the smaller of two robust estimates, the scatter of fourth
    differences along the scan in the outer half of the map, and that of the residuals. The differences remove
    a beam that is sampled a few times over its width, but not if consecutive samples are not neighbours on
    the sky; the residuals are then the smaller.

    Parameters
    ----------
    maps : sequence of BeamMap
    residuals : sequence of ndarray, (n,)
        Data minus model of each map.

    Returns
    -------
    list of float
        In the units of the data.
    """
    if has_errors(maps):
        return [float(np.median(m.sigma[m.valid])) for m in maps if m.sigma is not None]
    return [_estimate_scatter(m, r) for m, r in zip(maps, residuals, strict=True)]


def _estimate_scatter(m: BeamMap, residual: Array) -> float:
    x, y, power = m.x[m.valid], m.y[m.valid], m.power[m.valid]
    r = np.hypot(x - np.median(x), y - np.median(y))[2:-2]
    differences = np.convolve(power, (1, -4, 6, -4, 1), mode="valid")[r >= np.median(r)]
    scatter = np.median(np.abs(differences)) / math.sqrt(70)
    return float(1.4826 * min(scatter, np.median(np.abs(residual[m.valid]))))


def compute_chi2(
    noise: NoiseModel, samples: Samples, noises: Sequence[float], errors_known: bool, residuals: Tensor
) -> float:
    """Sum of the squared whitened residuals; NaN if an error is zero.

    Parameters
    ----------
    noise : NoiseModel
    samples : Samples
        Of one observation.
    noises : sequence of float
        Standard error of a sample of each map, used if the file has no errors.
    errors_known : bool
        Whether the file has errors.
    residuals : Tensor, (n,)
        Data minus model.
    """
    if not errors_known:
        per_map = samples.errors.new_tensor(noises)
        samples = samples._replace(errors=per_map[samples.map] * samples.errors)
    if not bool((samples.errors > 0).all()):
        return math.nan
    return float(noise.whitening(samples).whiten(residuals.clone()).square().sum())
