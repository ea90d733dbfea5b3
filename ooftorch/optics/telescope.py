"""Telescopes: the dish, its optics and blockage, and the change of the optical path with the focus.

Aperture x, y are metres from the centre of the dish. On an offset Gregorian +y points towards the vertex of
the parent paraboloid, as in the original OOF software.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ooftorch.errors import InputError
from ooftorch.optics.blockage import Blockage
from ooftorch.optics.defocus import Optics
from ooftorch.units import SPEED_OF_LIGHT

__all__ = ["FocusErrors", "Telescope", "UsualIllumination"]

Array = NDArray[np.float64]

# Radial steps of the profile of the defocus path, from the centre to the rim, and points on each ring.
_RINGS, _ANGLES = 16, 16
# Usual defocus: path at the rim minus path at the centre, in wavelengths. The literature has 0.7 to 1.9.
_USUAL_DEFOCUS = 1.25
# Focus error where the telescope's is not known: the z4 that it makes, radians. And the least path from rim
# to centre, per metre of motion, that counts as defocus at all.
_FOCUS_ERROR, _LEAST_DEPTH = 0.2, 1e-3


@dataclass(frozen=True)
class UsualIllumination:
    """The usual illumination of a telescope: the start of a fit.

    Attributes
    ----------
    model : "gaussian", "pedestal", "squashed" or "tophat".
    taper_db : amplitude at the rim over that at the centre, decibels (negative); None for a top hat.
    radius : of the cold stop that a top hat has, metres; None where the rim of the dish is the edge.
    """

    model: str = "gaussian"
    taper_db: float | None = -12.0
    radius: float | None = None


@dataclass(frozen=True)
class FocusErrors:
    """How well the focus of a telescope is known: standard deviations.

    Attributes
    ----------
    scale : relative, of the travel of the subreflector or feed.
    shift : of the focus setting that all maps share, metres; None if not known.
    """

    scale: float = 0.03
    shift: float | None = None


@dataclass(frozen=True)
class Telescope:
    """A dish, its optics and its blockage.

    Attributes
    ----------
    name : the name that `telescopes.load` takes, or the stem of the user's file.
    description, source : for people; the source of the numbers.
    radius : of the dish, which is also the normalising radius of the Zernike polynomials, metres.
    optics, blockage, illumination : see `Optics`, `Blockage` and `UsualIllumination`.
    frequency : at which the surface is usually measured, hertz; None if not known.
    good_surface_rms : rms half-path error, metres, that a good solution stays below; None if not known.
    focus_errors : see `FocusErrors`.
    """

    name: str
    description: str
    source: str
    radius: float
    optics: Optics
    blockage: Blockage = field(default_factory=Blockage)
    illumination: UsualIllumination = field(default_factory=UsualIllumination)
    frequency: float | None = None
    good_surface_rms: float | None = None
    focus_errors: FocusErrors = field(default_factory=FocusErrors)

    @property
    def focal_length(self) -> float | None:
        """Focal length of the primary in metres, None if it is not known."""
        return self.optics.focal_length

    def open_at(
        self,
        x: ArrayLike,
        y: ArrayLike,
        *,
        widths: Mapping[str, float] = MappingProxyType({}),
        without_legs: bool = False,
    ) -> NDArray[np.bool_]:
        """Whether points are open: on the dish and outside central blockage, legs, their shadows and holes.

        Parameters
        ----------
        x, y : array_like
            Metres; broadcast together.
        widths : mapping of str to float
            Factors on the widths of the legs and shadows, by the names in `Legs.widths`; others are 1.
        without_legs : bool
            Leave legs and shadows out.

        Returns
        -------
        ndarray of bool
        """
        x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        r = np.hypot(x, y)
        is_open = (r <= self.radius) & (r >= self.blockage.inner_radius)
        if self.blockage.legs is not None and not without_legs:
            is_open = is_open & ~self.blockage.legs.blocked_at(x, y, self.radius, widths)
        for hole in self.blockage.holes:
            is_open = is_open & (np.hypot(x - hole.x, y - hole.y) >= hole.radius)
        return np.asarray(is_open)

    def coverage(self, x: ArrayLike, y: ArrayLike, pitch: float, subsamples: int = 8) -> Array:
        """Return the open fraction of square pixels.

        Weighting partly open pixels by their open fraction makes the far field follow the true edges to much
        better than a pixel.

        Parameters
        ----------
        x, y : array_like
            Centres of the pixels, metres; broadcast together.
        pitch : float
            Side of a pixel, metres.
        subsamples : int
            Test points a side in each pixel.

        Returns
        -------
        ndarray
            From 0 to 1.
        """
        x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        offsets = ((np.arange(subsamples) + 0.5) / subsamples - 0.5) * pitch
        count = np.zeros(np.broadcast_shapes(x.shape, y.shape), dtype=np.int64)
        for dy in offsets:
            for dx in offsets:
                count += self.open_at(x + dx, y + dy)
        return count / subsamples**2

    def path_powers(self, x: ArrayLike, y: ArrayLike) -> Array:
        """Return the growth of the optical path as a polynomial in the motion of the focus.

        Parameters
        ----------
        x, y : array_like
            Metres, of one shape.

        Returns
        -------
        ndarray
            c, shape (P, *x.shape): dL = sum of c[p] dz^(p+1), in metres, for a subreflector or feed moved
            by dz metres away from the primary. P = 1 for ideal optics. Piston is not removed.
        """
        return self.optics.path_powers(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64))

    def path(self, x: ArrayLike, y: ArrayLike, dz: float) -> Array:
        """Return dL in metres for dz metres of focus motion, positive away from the primary."""
        powers = self.path_powers(x, y)
        return np.tensordot(dz ** np.arange(1.0, len(powers) + 1), powers, axes=1)

    def usual_wavelength(self) -> float:
        """Wavelength (m) at which the surface is usually measured; InputError where none is known."""
        if self.frequency is None:
            raise InputError(f"no usual frequency is known for {self.name}; give the frequency")
        return SPEED_OF_LIGHT / self.frequency

    def usual_defocus(self, wavelength: float) -> float:
        """Defocus (m) at which the path from rim to centre grows by 1.25 wavelengths, to two digits.

        InputError where that is a metre or more, as no observation has.
        """
        dz = _USUAL_DEFOCUS * wavelength / max(self.depth(), 1e-300)
        if not dz < 1:
            raise InputError(
                f"{self.name}: {dz:.3g} m of focus motion would be {_USUAL_DEFOCUS:g} wavelengths of path "
                "across the dish; expected less than a metre: check its focal lengths and frequency"
            )
        return float(f"{dz:.1e}")

    def focus_shift_error(self, wavelength: float) -> float:
        """Standard deviation (m) of the focus setting that all maps share.

        Where it is not known, the shift that makes a z4 of 0.2 rad: z4 from centre to rim is twice its
        coefficient.
        """
        if self.focus_errors.shift is not None:
            return self.focus_errors.shift
        return _FOCUS_ERROR * wavelength / (math.pi * max(self.depth(), _LEAST_DEPTH))

    def steepness(self) -> float:
        """Return the largest radial slope of the ring-averaged path per metre of focus motion, rad/m.

        Times dz, it is the angle by which defocus spreads the beam.
        """
        return float(np.max(np.abs(np.diff(self._average_over_rings())))) / self.radius * _RINGS

    def depth(self) -> float:
        """Return |path at the rim - path at the centre|, ring-averaged, per metre of focus motion."""
        rings = self._average_over_rings()
        return float(abs(rings[-1] - rings[0]))

    def _average_over_rings(self) -> Array:
        """Path per metre of focus motion, averaged over each of the rings from the centre to the rim."""
        r, angle = np.meshgrid(
            self.radius * np.linspace(0, 1, _RINGS + 1),
            2 * np.pi * np.arange(_ANGLES) / _ANGLES,
            indexing="ij",
        )
        return self.path_powers(r * np.cos(angle), r * np.sin(angle))[0].mean(1)

    def surface_normal_factor(self, x: ArrayLike, y: ArrayLike) -> Array | None:
        """Return sqrt(1 + (r/2F)^2), r the distance from the axis of the (parent) paraboloid.

        A half-path error times this is the error along the surface normal.

        Parameters
        ----------
        x, y : array_like
            Metres, of one shape.

        Returns
        -------
        ndarray or None
            None if the focal length is not known; only the half-path error can then be given.
        """
        if self.focal_length is None:
            return None
        r = self.optics.axis_distance(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64))
        return np.hypot(1.0, r / (2 * self.focal_length))
