"""How well a fit describes each map: noise of a sample, and chi-square."""

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
    """Standard error of a sample of each map.

    The median of the file's errors; where it has none, the scatter from sample to sample away from the beam,
    by fourth differences along the scan: a beam sampled a few times over its width hardly shows in them.
    Where neighbours in the file are none on the sky the beam does show, and the scatter of the residuals is
    smaller.

    Parameters
    ----------
    maps : sequence of BeamMap
    residuals : sequence of ndarray
        Data minus model of each map.
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
    """Sum of the squared whitened residuals; NaN without noise.

    Parameters
    ----------
    noise : NoiseModel
    samples : Samples
        Of one observation.
    noises : sequence of float
        Standard error of a sample of each map, used where the file has no errors.
    errors_known : bool
    residuals : Tensor, (n,)
        Data minus model.
    """
    if not errors_known:
        per_map = samples.errors.new_tensor(noises)
        samples = samples._replace(errors=per_map[samples.map])
    if not bool((samples.errors > 0).all()):
        return math.nan
    return float(noise.whitening(samples).whiten(residuals.clone()).square().sum())
