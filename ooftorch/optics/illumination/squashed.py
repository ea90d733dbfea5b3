"""Squashed Gaussian of the ALMA antennas, as in the original OOF software."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ooftorch.optics.illumination.base import (
    Illumination,
    LogDerivatives,
    declare_amplitude,
    declare_centre,
)
from ooftorch.optics.parameters import Parameter
from ooftorch.optics.telescope import UsualIllumination

__all__ = ["SquashedGaussian", "find_width"]

# Relative standard deviation of the prior on the width.
_WIDTH_PRIOR = 0.1


def find_width(taper_db: float) -> float:
    """Find the width sigma (dish radii) whose edge taper is `taper_db` (negative decibels)."""
    # Solve g (2 - g) = edge**2 for g = exp(-1 / sigma**2).
    g = 1 - math.sqrt(1 - (10 ** (taper_db / 20)) ** 2)
    return 1 / math.sqrt(-math.log(g))


class SquashedGaussian(Illumination):
    """``amp sqrt(1 - (1 - g)**2)``, g = exp(-r**2 / sigma**2).

    Parameters are x0, y0, the centre in dish radii; amp, the peak amplitude; sigma, the width: 0.55 gives an
    edge taper of -11.4 decibels.
    """

    name = "squashed"

    def declare(self, usual: UsualIllumination, dish_radius: float) -> Sequence[Parameter]:  # noqa: D102
        sigma = 0.55 if usual.taper_db is None else find_width(usual.taper_db)
        return [
            Parameter("sigma", "R", sigma, free=True, log=True, prior=_WIDTH_PRIOR),
            *declare_centre(),
            declare_amplitude(),
        ]

    def amplitude(self, x: Tensor, y: Tensor, pitch: float, *, x0, y0, amp, sigma) -> Tensor:  # noqa: D102
        s = ((x - x0) ** 2 + (y - y0) ** 2) / sigma**2
        # 1 - (1 - g)**2 = g (2 - g), g > 0: the argument of the square root is then never zero.
        return amp * torch.exp(-s / 2) * torch.sqrt(2 - torch.exp(-s))

    def log_derivatives(  # noqa: D102
        self, x: Tensor, y: Tensor, pitch: float, *, x0, y0, amp, sigma
    ) -> LogDerivatives:
        dx, dy = x - x0, y - y0
        s = (dx * dx + dy * dy) / sigma**2
        g = torch.exp(-s)
        by_s = (g - 1) / (2 - g)
        return {
            "x0": lambda: by_s * -2 * dx / sigma**2,
            "y0": lambda: by_s * -2 * dy / sigma**2,
            "amp": lambda: (1 / amp).expand_as(dx),
            "sigma": lambda: by_s * -2 * s / sigma,
        }
