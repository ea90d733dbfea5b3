"""Elliptical Gaussian illumination, as in the paper (Nikolic 2018, figure 1)."""

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

__all__ = ["Gaussian", "find_width"]

# Relative standard deviation of the prior on the width, about 2 dB of edge taper. Without a prior the taper
# diverges even on good data and biases the surface.
_WIDTH_PRIOR = 0.1


def find_width(taper_db: float) -> float:
    """Find the width sigma (dish radii) whose edge taper is `taper_db` (negative decibels)."""
    return math.sqrt(-10 / (math.log(10) * taper_db))


class Gaussian(Illumination):
    """``amp exp(-form / (2 sigma**2))``, form = dx**2 + dy**2 + rho dx dy + diff (dx**2 - dy**2).

    Parameters are x0, y0, the centre in dish radii; amp, the peak amplitude; sigma, the width, the edge taper
    being -4.343 / sigma**2 decibels; rho and diff, the ellipticity: the form is positive definite for
    (rho/2)**2 + diff**2 < 1.
    """

    name = "gaussian"

    def declare(self, usual: UsualIllumination, dish_radius: float) -> Sequence[Parameter]:  # noqa: D102
        sigma = 0.6 if usual.taper_db is None else find_width(usual.taper_db)
        return [
            Parameter("sigma", "R", sigma, free=True, log=True, prior=_WIDTH_PRIOR),
            *declare_centre(),
            declare_amplitude(),
            Parameter("rho", "", 0.0),
            Parameter("diff", "", 0.0),
        ]

    def amplitude(self, x: Tensor, y: Tensor, pitch: float, *, x0, y0, amp, sigma, rho, diff) -> Tensor:  # noqa: D102
        return amp * torch.exp(_form(x - x0, y - y0, rho, diff) / (-2 * sigma**2))

    def log_derivatives(  # noqa: D102
        self, x: Tensor, y: Tensor, pitch: float, *, x0, y0, amp, sigma, rho, diff
    ) -> LogDerivatives:
        dx, dy = x - x0, y - y0
        by_form = -0.5 / sigma**2
        return {
            "x0": lambda: by_form * ((-2 - 2 * diff) * dx - rho * dy),
            "y0": lambda: by_form * ((2 * diff - 2) * dy - rho * dx),
            "amp": lambda: (1 / amp).expand_as(dx),
            "sigma": lambda: by_form * (-2 / sigma) * _form(dx, dy, rho, diff),
            "rho": lambda: by_form * dx * dy,
            "diff": lambda: by_form * (dx - dy) * (dx + dy),
        }


def _form(dx, dy, rho, diff):
    # No square root: r has no gradient at the centre of the dish.
    return dx * ((1 + diff) * dx + rho * dy) + (1 - diff) * dy * dy
