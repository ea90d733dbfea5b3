"""Surface bases: functions across the dish whose weighted sum is the phase of the surface.

Everything that has to do with the shape of the surface asks a `SurfaceBasis`: which parameters there are,
their values on the pixels, in which order they are fitted, and what their sum amounts to over the dish.
Zernike polynomials are one basis; another is a subclass, passed to `fit` as an object.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ooftorch.errors import InputError
from ooftorch.optics import zernike

__all__ = ["BASES", "MAX_ORDER", "RecordedBasis", "SurfaceBasis", "ZernikeBasis", "choose", "fit_plane"]

Array = NDArray[np.float64]

# Points of the polar grid on which a basis is averaged where it does not say how: rings, and angles on each.
_RINGS, _ANGLES = 128, 512


class SurfaceBasis(ABC):
    """Functions across the dish, coefficients in radians of phase.

    Attributes
    ----------
    name : str
        In files and reports.
    names : tuple of str, (n_terms,)
        Parameter names of the coefficients.
    orders : tuple of int, (n_terms,)
        Order of each term, from 0: a fit frees orders 1, 2, ... one after the other.
    piston, x_tilt, y_tilt : str or None
        Names of the terms that are piston (never observable) and the tilts (the pointing); None where the
        basis has no such term of its own.
    prior : float or None
        Standard deviation of a normal prior on every coefficient, radians; None for none. A basis some
        combination of which no beam shows (a common piston of all panels) needs one.
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
        """Names of the terms that are shape of the surface: neither piston nor tilt."""
        return [name for name in self.names if name not in (self.piston, self.x_tilt, self.y_tilt)]

    def label(self, name: str) -> str:
        """Short description of a term, for tables."""
        return ""

    @abstractmethod
    def evaluate(self, x: ArrayLike, y: ArrayLike) -> Array:
        """Evaluate every term.

        Parameters
        ----------
        x, y : array_like
            Aperture coordinates over the dish radius, of one shape.

        Returns
        -------
        ndarray, (n_terms, *x.shape)
        """

    def gram(self, radius: float = 1.0) -> Array:
        """Matrix that turns coefficients into the variance of the surface over a disc within the dish.

        Parameters
        ----------
        radius : float
            Of the disc, over the dish radius.

        Returns
        -------
        ndarray, (n_terms, n_terms)
            The mean square of the phase over the disc, piston and tilt removed, is ``c @ gram @ c``.
        """
        r = radius * np.sqrt((np.arange(_RINGS) + 0.5) / _RINGS)[:, np.newaxis]  # rings of equal area
        angle = 2 * np.pi * (np.arange(_ANGLES) + 0.5) / _ANGLES
        x, y = (r * np.cos(angle)).ravel(), (r * np.sin(angle)).ravel()
        terms = self.evaluate(x, y)
        rest = terms - fit_plane(terms, x, y)
        return rest @ rest.T / x.size


def fit_plane(values: Array, x: Array, y: Array) -> Array:
    """Best plane, piston included, of values (..., n) at the points x, y (n,)."""
    plane = np.stack([np.ones_like(x), x, y])
    coefficients = np.linalg.lstsq(plane.T, values.T, rcond=None)[0]
    return np.asarray(coefficients.T @ plane, dtype=np.float64)


class ZernikeBasis(SurfaceBasis):
    """Zernike polynomials z0, z1, ... up to a radial order, as `ooftorch.optics.zernike` has them.

    Parameters
    ----------
    order : int
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

    def evaluate(self, x: ArrayLike, y: ArrayLike) -> Array:  # noqa: D102
        return zernike.raster(self.order, x, y)

    def gram(self, radius: float = 1.0) -> Array:
        """As of `SurfaceBasis`, the tilts being z1 and z2 alone: exact quadrature instead of a grid."""
        gram = zernike.gram(self.order, radius)
        gram[:3] = gram[:, :3] = 0.0
        return gram


@dataclass(frozen=True, eq=False)
class RecordedBasis(SurfaceBasis):
    """A basis as a file remembers it: it can be reported, but not evaluated at new points.

    Attributes
    ----------
    labels : tuple of str, (n_terms,)
    over_dish : ndarray, (n_terms, n_terms)
        What `gram` was for the part of the dish that light reaches.
    """

    name: str
    names: tuple[str, ...]
    orders: tuple[int, ...]
    labels: tuple[str, ...]
    over_dish: Array
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
        return self.over_dish


BASES: dict[str, type[ZernikeBasis]] = {"zernike": ZernikeBasis}
"""Bases by name: each is made from the highest order."""

MAX_ORDER = 64
"""Zernike order beyond which the pixels would not show the waves, nor the memory hold them."""

# Order of a basis chosen by name where nobody says otherwise.
_USUAL_ORDER = 5


def choose(basis: str | SurfaceBasis, order: int | None = None) -> SurfaceBasis:
    """Return the basis of that name up to `order` (5 by default), or a basis as it is.

    Raises
    ------
    InputError
        If the name is not known, the order is below 1, or a basis is given that has another order.
    """
    if order is not None and order < 1:
        raise InputError(f"order {order}; the lowest that can be fitted is 1 (pointing)")
    if isinstance(basis, SurfaceBasis):
        if order not in (None, basis.order):
            raise InputError(f"order {order} and a basis of order {basis.order}; give one of them")
        return basis
    if basis not in BASES:
        raise InputError(f"unknown basis {basis!r}; known are {', '.join(BASES)}")
    order = _USUAL_ORDER if order is None else order
    if order > MAX_ORDER:
        raise InputError(f"order {order}; the highest is {MAX_ORDER}, finer than any map of a beam shows")
    return BASES[basis](order)
