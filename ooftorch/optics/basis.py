"""Surface bases: functions across the dish whose weighted sum is the phase of the surface.

A `SurfaceBasis` defines the parameter names, the functions on the pixels, the order in which terms are fitted
and the mean square phase over the dish. Zernike polynomials are the built-in basis; any other is a subclass,
passed to `fit` as an object.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ooftorch.errors import InputError
from ooftorch.optics import zernike

__all__ = ["BASES", "MAX_ORDER", "RecordedBasis", "SurfaceBasis", "ZernikeBasis", "choose", "fit_plane"]

Array = NDArray[np.float64]

# Polar grid of the default `gram`: number of rings, and of angles on each ring.
_RINGS, _ANGLES = 128, 512
# Mean square phase of a combination of terms, per squared radian, below which it is piston and tilt alone.
_LEAST_MEAN_SQUARE = 1e-10


class SurfaceBasis(ABC):
    """Functions across the dish, coefficients in radians of phase.

    Attributes
    ----------
    name : str
        Name in files and reports.
    names : tuple of str, (n_terms,)
        Parameter names of the coefficients.
    orders : tuple of int, (n_terms,)
        Order of each term, from 0: a fit frees orders 1, 2, ... one after the other.
    piston, x_tilt, y_tilt : str or None
        Names of the terms that are exactly 1 (unobservable), x/R and y/R (equivalent to pointing), R being
        the dish radius; None if the basis has no such term.
    prior : float or None
        Standard deviation of a normal prior on every coefficient that is neither piston nor tilt, radians;
        None for no prior. Needed if some combination of the terms does not change the beam, such as a
        common piston of all panels.
    """

    name: str
    names: tuple[str, ...]
    orders: tuple[int, ...]
    piston: str | None = None
    x_tilt: str | None = None
    y_tilt: str | None = None
    prior: float | None = None

    @property
    def order(self) -> int:
        """Highest order."""
        return max(self.orders)

    @property
    def shape_names(self) -> list[str]:
        """Names of the terms that are neither piston nor tilt."""
        return [name for name in self.names if name not in (self.piston, self.x_tilt, self.y_tilt)]

    def label(self, name: str) -> str:
        """Short description of a term, for tables; empty by default."""
        return ""

    @abstractmethod
    def evaluate(self, x: ArrayLike, y: ArrayLike) -> Array:
        """Evaluate every term.

        Parameters
        ----------
        x, y : array_like
            Aperture coordinates over the dish radius, of equal shape.

        Returns
        -------
        ndarray, (n_terms, *x.shape)
            Radians of phase per radian of coefficient.
        """

    def gram(self, radius: float = 1.0) -> Array:
        """Matrix of the mean square phase over a disc within the dish.

        Parameters
        ----------
        radius : float
            Of the disc, over the dish radius.

        Returns
        -------
        ndarray, (n_terms, n_terms)
            The mean square of the phase over the disc, piston and tilt removed, is ``c @ gram @ c``.
        """
        x, y = self._sample(radius)
        rest = _remove_plane(self.evaluate(x, y), x, y)
        return rest @ rest.T / x.size

    def project(self, phase: Callable[[Array, Array], Array], radius: float = 1.0) -> Array:
        """Find the coefficients that come nearest to a phase over a disc within the dish.

        Parameters
        ----------
        phase : callable
            Of x, y over the dish radius, (n,) each: the phase there, (n,).
        radius : float
            Of the disc, over the dish radius.

        Returns
        -------
        ndarray, (n_terms,)
            By least squares, piston and tilt of both removed; the smallest where several are as near.
        """
        x, y = self._sample(radius)
        rest = _remove_plane(np.concatenate([self.evaluate(x, y), phase(x, y)[np.newaxis]]), x, y)
        terms, wanted = rest[:-1], rest[-1]
        sizes, directions = np.linalg.eigh(terms @ terms.T / x.size)
        kept = sizes > _LEAST_MEAN_SQUARE
        inverse = (directions[:, kept] / sizes[kept]) @ directions[:, kept].T
        return np.asarray(inverse @ (terms @ wanted) / x.size)

    def _sample(self, radius: float) -> tuple[Array, Array]:
        """Return points x, y (n,) spread evenly over a disc."""
        r = radius * np.sqrt((np.arange(_RINGS) + 0.5) / _RINGS)[:, np.newaxis]  # rings of equal area
        angle = 2 * np.pi * (np.arange(self._angles) + 0.5) / self._angles
        return (r * np.cos(angle)).ravel(), (r * np.sin(angle)).ravel()

    @property
    def _angles(self) -> int:
        """Points on a ring: enough for terms with edges."""
        return _ANGLES


def fit_plane(values: Array, x: Array, y: Array) -> Array:
    """Least-squares plane (piston and tilts) of values (..., n) at the points x, y (n,); shape (..., n)."""
    plane = np.stack([np.ones_like(x), x, y])
    coefficients = np.linalg.solve(plane @ plane.T, plane @ values.T)
    return np.asarray(coefficients.T @ plane, dtype=np.float64)


def _remove_plane(values: Array, x: Array, y: Array) -> Array:
    return values - fit_plane(values, x, y)


class ZernikeBasis(SurfaceBasis):
    """Zernike polynomials z0, z1, ... in the order and normalisation of `ooftorch.optics.zernike`.

    Parameters
    ----------
    order : int
        Highest radial order.
    """

    name = "zernike"
    piston, y_tilt, x_tilt = "z0", "z1", "z2"

    def __init__(self, order: int) -> None:
        numbers = range(zernike.n_terms(order))
        self.names = tuple(map(zernike.name, numbers))
        self.orders = tuple(map(zernike.order_of, numbers))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ZernikeBasis) and other.order == self.order

    def __hash__(self) -> int:
        return hash((ZernikeBasis, self.order))

    def __repr__(self) -> str:
        return f"ZernikeBasis({self.order})"

    def label(self, name: str) -> str:  # noqa: D102
        return zernike.label(self.names.index(name))

    @property
    def _angles(self) -> int:
        return 4 * self.order + 16

    def evaluate(self, x: ArrayLike, y: ArrayLike) -> Array:  # noqa: D102
        return zernike.raster(self.order, x, y)

    def gram(self, radius: float = 1.0) -> Array:
        """As `SurfaceBasis.gram`, by exact quadrature; only z0, z1 and z2 are removed as piston and tilt."""
        gram = zernike.gram(self.order, radius)
        gram[:3] = gram[:, :3] = 0.0
        return gram


@dataclass(frozen=True, eq=False)
class RecordedBasis(SurfaceBasis):
    """A basis read back from a result file: it can be reported, but not evaluated at new points.

    Attributes
    ----------
    labels : tuple of str, (n_terms,)
    recorded_gram : ndarray, (n_terms, n_terms)
        What `gram` returned for the illuminated part of the dish; returned for any radius.
    """

    name: str
    names: tuple[str, ...]
    orders: tuple[int, ...]
    labels: tuple[str, ...]
    recorded_gram: Array
    piston: str | None = None
    x_tilt: str | None = None
    y_tilt: str | None = None

    def label(self, name: str) -> str:  # noqa: D102
        return self.labels[self.names.index(name)]

    def evaluate(self, x: ArrayLike, y: ArrayLike) -> Array:  # noqa: D102
        raise InputError(
            f"the surface is in the basis {self.name!r}, of which the file has the coefficients alone; known "
            f"bases are {', '.join(BASES)}"
        )

    def gram(self, radius: float = 1.0) -> Array:  # noqa: D102
        return self.recorded_gram


BASES: dict[str, type[ZernikeBasis]] = {"zernike": ZernikeBasis}
"""Bases by name: each is constructed from its highest order."""

MAX_ORDER = 64
"""Highest Zernike order allowed: beyond it the pixels do not resolve the terms, and memory runs out."""

# Default order of a basis chosen by name.
_DEFAULT_ORDER = 5


def choose(basis: str | SurfaceBasis, order: int | str | None = None) -> SurfaceBasis:
    """Return the basis of this name up to `order`, or a basis object unchanged.

    Parameters
    ----------
    basis : str or SurfaceBasis
        A name in `BASES`, or an object.
    order : int, optional
        Highest order; by default 5, or that of the object.

    Returns
    -------
    SurfaceBasis

    Raises
    ------
    InputError
        If the name is unknown, the order is below 1 or above `MAX_ORDER`, or differs from that of the object.
    """
    if isinstance(order, str):
        raise InputError(f'order {order!r}; expected a whole number, or "auto"')
    if order is not None and order < 1:
        raise InputError(f"order {order}; the lowest that can be fitted is 1 (pointing)")
    if isinstance(basis, SurfaceBasis):
        if order not in (None, basis.order):
            raise InputError(f"order {order} and a basis of order {basis.order}; give one of them")
        return basis
    if basis not in BASES:
        raise InputError(f"unknown basis {basis!r}; known are {', '.join(BASES)}")
    order = _DEFAULT_ORDER if order is None else order
    if order > MAX_ORDER:
        raise InputError(f"order {order}; the highest is {MAX_ORDER}, finer than any map of a beam shows")
    return BASES[basis](order)
