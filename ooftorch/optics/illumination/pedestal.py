"""Parabolic taper on a pedestal, as in pyoof."""

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

__all__ = ["Pedestal"]

# Lower limit of 1 - r**2: 0**q has an infinite derivative for q < 1. Far below any amplitude that matters, it
# keeps the gradient finite at and beyond the rim.
_FLOOR = 1e-24
# Standard deviations of the priors on the taper (decibels) and on the exponent q.
_TAPER_PRIOR, _EXPONENT_PRIOR = 2.0, 0.25


class Pedestal(Illumination):
    """``amp (C + (1 - C)(1 - r**2)**q)``, C = 10**(taper_db/20).

    Parameters are x0, y0, the centre in dish radii; amp, the peak amplitude; taper_db, the edge taper in
    decibels (negative); q, the exponent, 1 to 2 in practice. Beyond r = 1 the amplitude stays at the
    pedestal.
    """

    name = "pedestal"

    def declare(self, usual: UsualIllumination, dish_radius: float) -> Sequence[Parameter]:  # noqa: D102
        taper = -12.0 if usual.taper_db is None else usual.taper_db
        return [
            Parameter("taper_db", "dB", taper, free=True, prior=_TAPER_PRIOR),
            Parameter("q", "", 1.5, free=True, prior=_EXPONENT_PRIOR),
            *declare_centre(),
            declare_amplitude(),
        ]

    def amplitude(self, x: Tensor, y: Tensor, pitch: float, *, x0, y0, amp, taper_db, q) -> Tensor:  # noqa: D102
        c = 10 ** (taper_db / 20)
        base = torch.clamp(1 - (x - x0) ** 2 - (y - y0) ** 2, min=_FLOOR)
        return amp * (c + (1 - c) * base**q)

    def log_derivatives(  # noqa: D102
        self, x: Tensor, y: Tensor, pitch: float, *, x0, y0, amp, taper_db, q
    ) -> LogDerivatives:
        c = 10 ** (taper_db / 20)
        dx, dy = x - x0, y - y0
        base = torch.clamp(1 - dx * dx - dy * dy, min=_FLOOR)
        bell = base**q
        value = c + (1 - c) * bell
        by_r2 = torch.where(base > _FLOOR, -q * (1 - c) * bell / (base * value), 0.0)
        return {
            "x0": lambda: -2 * dx * by_r2,
            "y0": lambda: -2 * dy * by_r2,
            "amp": lambda: (1 / amp).expand_as(dx),
            "taper_db": lambda: math.log(10) / 20 * c * (1 - bell) / value,
            "q": lambda: (1 - c) * bell * torch.log(base) / value,
        }
