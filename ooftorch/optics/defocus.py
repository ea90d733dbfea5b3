"""Change of the optical path when the focus moves, for each kind of telescope.

Aperture x, y are metres from the centre of the dish. On an offset Gregorian +y points towards the vertex of
the parent paraboloid, as in the original OOF software.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ooftorch.optics import zernike

__all__ = ["DualReflector", "OffsetGregorian", "Optics", "PrimeFocus", "Shaped"]

Array = NDArray[np.float64]


def _focus_path(focal_length: float, x: Array, y: Array, shift: tuple[float, float, float]) -> Array:
    """Path change of the ray from (x, y) of a paraboloid when its focus is shifted by (X, Y, Z), metres.

    The ray makes the angle t with the axis at the focus, tan(t/2) = a = r/2f. Written with sin(t)/r in closed
    form there is no division by r. A pure Z shift gives Z cos t; its piston, Z at the centre, is kept as in
    the original software and is not observable.
    """
    a2 = (x * x + y * y) / (2 * focal_length) ** 2
    cos_t = (1 - a2) / (1 + a2)
    sin_t_over_r = 1 / (focal_length * (1 + a2))
    return shift[2] * cos_t - sin_t_over_r * (shift[0] * x + shift[1] * y)


@dataclass(frozen=True)
class Optics:
    """Optics of a telescope: the path change for a motion of the focus, and the paraboloid of the primary.

    Attributes
    ----------
    focal_length : of the primary, metres; None if it is not known.
    kind : description, for reports.
    """

    kind: ClassVar[str]

    focal_length: float | None

    def path_powers(self, x: Array, y: Array) -> Array:
        """Return c, shape (P, *x.shape), with path change = sum of c[p] dz^(p+1), all in metres."""
        raise NotImplementedError

    def axis_distance(self, x: Array, y: Array) -> Array:
        """Return the distance (m) of the points from the axis of the paraboloid."""
        return np.hypot(x, y)


@dataclass(frozen=True)
class PrimeFocus(Optics):
    """A feed at the focus of a paraboloid: dL = dz cos t."""

    kind = "prime focus"

    focal_length: float

    def path_powers(self, x: Array, y: Array) -> Array:  # noqa: D102
        return _focus_path(self.focal_length, x, y, (0, 0, 1))[np.newaxis]


@dataclass(frozen=True)
class DualReflector(Optics):
    """Cassegrain or Gregorian: dL = dz (cos t + cos t_eff), t_eff with the effective focal length.

    Attributes
    ----------
    correction : rows of the coefficients of dz^3, dz^2 and dz, in metres; row k belongs to r^(8-k), k = 0..7.
        Added to the ideal path (pyoof-srt: the shaped mirrors of the SRT). Empty for none.
    """

    kind = "Cassegrain or Gregorian"

    focal_length: float
    effective_focal_length: float
    correction: tuple[tuple[float, ...], ...] = ()

    def path_powers(self, x: Array, y: Array) -> Array:  # noqa: D102
        out = _focus_path(self.focal_length, x, y, (0, 0, 1))
        ideal = out + _focus_path(self.effective_focal_length, x, y, (0, 0, 1))
        if not self.correction:
            return ideal[np.newaxis]
        r = np.hypot(x, y)
        cubic, square, linear = (np.polyval([*column, 0.0], r) for column in np.transpose(self.correction))
        return np.stack([ideal + linear, square, cubic])


@dataclass(frozen=True)
class OffsetGregorian(Optics):
    """Offset Gregorian of the GBT's kind.

    Attributes
    ----------
    vertex_offset : distance of the dish's centre from the axis of the parent paraboloid, metres.
    subreflector_angle : of the subreflector's Y (focus) axis to the parent axis, radians.
    feed_angle : of the chief ray to the feed, radians.
    """

    kind = "offset Gregorian"

    focal_length: float
    effective_focal_length: float
    vertex_offset: float
    subreflector_angle: float
    feed_angle: float

    def path_powers(self, x: Array, y: Array) -> Array:
        """Return the path for a motion along the subreflector's Y (focus) axis, shape (1, *x.shape)."""
        return self.motion_path(x, self._flip_y(y), (0, 1, 0))[np.newaxis]

    def axis_distance(self, x: Array, y: Array) -> Array:  # noqa: D102
        return np.hypot(x, self.vertex_offset + self._flip_y(y))

    @staticmethod
    def _flip_y(y: Array) -> Array:
        # In the package +y points towards the vertex of the parent, as in the maps and surface tables of the
        # original software; the optical formulas measure y outwards. The sign is changed only here.
        return -y

    def motion_path(self, x: Array, y_outward: Array, motion: tuple[float, float, float]) -> Array:
        """Path change for a motion of the subreflector along its three axes.

        Agrees with an exact ray trace of the GBT's ellipsoid to 1e-4. The three-axis form in the original
        software has the wrong sign in one term of a Z motion.

        Parameters
        ----------
        x, y_outward : ndarray
            Metres from the centre of the dish, y away from the parent's vertex: minus the y used elsewhere.
        motion : (X, Y, Z)
            Metres in GBT subreflector axes: X in the symmetry plane, Y the focus, Z out of the plane.

        Returns
        -------
        ndarray
            Path change in metres.
        """
        in_plane, focus, out_of_plane = motion
        path = np.zeros(np.broadcast_shapes(np.shape(x), np.shape(y_outward)))
        for angle, focal_length, offset in (
            (self.subreflector_angle, self.focal_length, self.vertex_offset),
            (self.subreflector_angle - self.feed_angle, self.effective_focal_length, 0.0),
        ):
            # The motion in the axes of this leg: primary to subreflector, then subreflector to feed.
            along = focus * math.cos(angle) + in_plane * math.sin(angle)
            outward = -focus * math.sin(angle) + in_plane * math.cos(angle)
            path += _focus_path(focal_length, x, y_outward + offset, (out_of_plane, outward, along))
        return path


@dataclass(frozen=True)
class Shaped(Optics):
    """Optics given only by their defocus path: dL = dz sum of c_k U_k, with OOF Zernikes U_k on the dish.

    Attributes
    ----------
    radius : normalising radius, metres.
    terms : pairs (k, c_k), metres of path per metre of dz.
    """

    kind = "shaped"

    radius: float
    terms: tuple[tuple[int, float], ...]

    def path_powers(self, x: Array, y: Array) -> Array:  # noqa: D102
        coefficients = np.zeros(max(k for k, _ in self.terms) + 1)
        for k, c in self.terms:
            coefficients[k] = c
        order = zernike.order_of(len(coefficients) - 1)
        basis = zernike.raster(order, x / self.radius, y / self.radius)[: len(coefficients)]
        return np.tensordot(coefficients, basis, axes=1)[np.newaxis]
