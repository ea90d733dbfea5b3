"""Blockage of the dish: a central disc, legs with their shadows, and holes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Blockage", "Edge", "Hole", "Legs", "find_shadow_corner"]

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


class Edge(NamedTuple):
    """The edge that is first to cover a point when all widths grow together.

    Attributes
    ----------
    across, width : ndarray
        Distance of the point from the axis of that leg, and half width of the leg or shadow there, metres.
    of : dict of str to ndarray of bool
        Whether it is the edge of a leg or of a shadow, by the names in `Legs.widths`.
    """

    across: Array
    width: Array
    of: dict[str, NDArray[np.bool_]]


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

    @property
    def widths(self) -> tuple[str, ...]:
        """Names of the widths that the blockage has: of the legs, and of the shadow beyond their feet."""
        return ("legs",) if self.shadow is None else ("legs", "shadow")

    def blocked_at(
        self, x: Array, y: Array, dish_radius: float, factors: Mapping[str, float] = MappingProxyType({})
    ) -> NDArray[np.bool_]:
        """Whether a leg or its shadow covers the points x, y (m) of a dish of this radius (m).

        `factors`, by the names in `widths`, are those on the widths; 1 where not given.
        """
        blocked = np.zeros(np.broadcast_shapes(np.shape(x), np.shape(y)), dtype=bool)
        for across, width, beyond in self._arms(x, y, dish_radius):
            factor = np.where(beyond, factors.get("shadow", 1.0), factors.get("legs", 1.0))
            blocked |= across < factor * width
        return blocked

    def nearest_edge(self, x: Array, y: Array, dish_radius: float) -> Edge:
        """Find the edge that is first to cover the points x, y (m) when legs and shadows widen."""
        (across, width, beyond), (other_across, other_width, other_beyond) = self._arms(x, y, dish_radius)
        swap = other_across * width < across * other_width
        across, width = np.where(swap, other_across, across), np.where(swap, other_width, width)
        beyond = np.where(swap, other_beyond, beyond)
        return Edge(across, width, {"legs": ~beyond, "shadow": beyond} if self.shadow else {"legs": ~beyond})

    def _arms(self, x: Array, y: Array, dish_radius: float) -> list[tuple[Array, Array, NDArray[np.bool_]]]:
        """For both pairs of legs: distance from their axis, half width there, and whether beyond the foot."""
        width = np.interp(np.hypot(x, y), self.radius, self.half_width)
        if self.shape == "x":
            x, y = (x + y) / math.sqrt(2), (y - x) / math.sqrt(2)
        x, y = np.abs(x), np.abs(y)
        arms = []
        for along, across in ((x, y), (y, x)):
            beyond = along >= self.outer_radius
            arms.append((across, np.where(beyond, self._shadow_width(along, dish_radius), width), beyond))
        return arms

    def _shadow_width(self, along: Array, dish_radius: float) -> Array:
        """Half width of the shadow, a straight line from the foot to the rim; zero without one."""
        if self.shadow is None:
            return np.zeros_like(along)
        # Beyond the rim the line has no effect.
        corner_along, corner_across = find_shadow_corner(dish_radius, self.half_width[0], self.shadow)
        slope = (corner_across - self.half_width[0]) / (corner_along - self.outer_radius)
        return self.half_width[0] + slope * (along - self.outer_radius)


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
