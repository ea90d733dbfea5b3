"""Uniform illumination of a disc, as behind a cold stop (MUSTANG; original OOF software)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ooftorch.optics.illumination.base import Illumination, LogDerivatives, declare_amplitude
from ooftorch.optics.parameters import Parameter
from ooftorch.optics.telescope import UsualIllumination

__all__ = ["TopHat"]


class TopHat(Illumination):
    """Uniform disc whose edge is a linear ramp one pixel wide.

    Parameters are radius, of the disc in dish radii, and amp, the amplitude inside. For a telescope without a
    cold stop the disc is larger than the dish.
    """

    name = "tophat"
    has_edge = True

    def declare(self, usual: UsualIllumination, dish_radius: float) -> Sequence[Parameter]:  # noqa: D102
        radius = 2.0 if usual.radius is None else usual.radius / dish_radius
        return [Parameter("radius", "R", radius, log=True), declare_amplitude()]

    def amplitude(self, x: Tensor, y: Tensor, pitch: float, *, amp, radius) -> Tensor:  # noqa: D102
        return amp * torch.clamp((radius - torch.hypot(x, y)) / pitch + 0.5, 0.0, 1.0)

    def log_derivatives(self, x: Tensor, y: Tensor, pitch: float, *, amp, radius) -> LogDerivatives:
        """Derivatives of the logarithm of the amplitude; zero where it is dark."""
        inside = (radius - torch.hypot(x, y)) / pitch + 0.5
        return {
            "amp": lambda: torch.where(inside > 0, 1 / amp, 0.0),
            "radius": lambda: torch.where((inside > 0) & (inside < 1), 1 / (inside * pitch), 0.0),
        }
