"""Blockage of the dish: a central disc, legs with their shadows, and holes."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Blockage", "Hole", "Legs", "find_shadow_corner"]

Array = NDArray[np.float64]


def find_shadow_corner(dish_radius: float, half_width: float, angle: float) -> tuple[float, float]:
    """Find where the edge of the shadow of a leg meets the rim of the dish.

    The leg lies along +x. It shadows the light that converges on the subreflector in a wedge of opening
    `angle` (as in pyoof for Effelsberg).

    Parameters
    ----------
    dish_radius, half_width : float
        Of the dish and of the leg, metres.
    angle : float
        Radians, greater than zero.

    Returns
    -------
    (along, across)
        Metres; along^2 + across^2 = dish_radius^2.
    """
    a, sin2 = half_width, math.sin(angle) ** 2
    d = (math.sqrt(a * a + (dish_radius**2 - a * a) / sin2) - a) * sin2
    return d / math.tan(angle), a + d


@dataclass(frozen=True)
class Legs:
    """Four legs that carry the subreflector or the feed.

    Attributes
    ----------
    shape : "plus" (along x and y) or "x" (along the diagonals).
    radius, half_width : half width of a leg at these distances from the centre, metres, of one length; linear
        between them, constant outside. A repeated radius is a step.
    outer_radius : length of a leg from the centre, measured along it, metres.
    shadow : opening angle of the shadow beyond the foot of a leg, radians; None for no shadow.
    """

    shape: str
    radius: tuple[float, ...]
    half_width: tuple[float, ...]
    outer_radius: float
    shadow: float | None = None

    def blocked_at(self, x: Array, y: Array, dish_radius: float) -> NDArray[np.bool_]:
        """Whether a leg or its shadow covers the points x, y (m) of a dish of this radius (m)."""
        width = np.interp(np.hypot(x, y), self.radius, self.half_width)
        if self.shape == "x":
            x, y = (x + y) / math.sqrt(2), (y - x) / math.sqrt(2)
        x, y = np.abs(x), np.abs(y)
        return self._arm(x, y, width, dish_radius) | self._arm(y, x, width, dish_radius)

    def _arm(self, along: Array, across: Array, width: Array, dish_radius: float) -> NDArray[np.bool_]:
        on_leg = (along < self.outer_radius) & (across < width)
        if self.shadow is None:
            return on_leg
        # The edge of the shadow is a straight line from the foot to the rim; beyond the rim it has no effect.
        corner_along, corner_across = find_shadow_corner(dish_radius, self.half_width[0], self.shadow)
        slope = (corner_across - self.half_width[0]) / (corner_along - self.outer_radius)
        edge = self.half_width[0] + slope * (along - self.outer_radius)
        return on_leg | (along >= self.outer_radius) & (across < edge)


@dataclass(frozen=True)
class Hole:
    """A round piece of the dish, centre (x, y) and radius in metres, that does not reflect."""

    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Blockage:
    """Blockage of the dish: a central disc of `inner_radius` (m), legs, and holes."""

    inner_radius: float = 0.0
    legs: Legs | None = None
    holes: tuple[Hole, ...] = ()
