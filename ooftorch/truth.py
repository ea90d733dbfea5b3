"""What a simulation put into its maps, and how far a fit is from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ooftorch.optics import zernike
from ooftorch.optics.basis import SurfaceBasis, ZernikeBasis, fit_plane

if TYPE_CHECKING:
    from ooftorch.result import FitResult

__all__ = ["TrueValue", "Truth"]


class TrueValue(NamedTuple):
    """A parameter's value and unit."""

    value: float
    unit: str


@dataclass(frozen=True, eq=False)
class Truth:
    """What a simulation put into its maps.

    Attributes
    ----------
    parameters : mapping of str to TrueValue
        Under the names of the model's parameters (z1, sigma, gain_0, ...), maps numbered by dz; and dz_0,
        dz_1, ..., where the focus of each map really was.
    axis : ndarray, (n,)
        Positions across the dish, metres, the same for x and y.
    phase : ndarray, (n, n)
        Radians, indexed [y, x], all of the surface: Zernikes and what none of them describes. NaN where
        no light reaches.
    radius : float
        Of the dish, metres.
    """

    parameters: Mapping[str, TrueValue]
    axis: NDArray[np.float64] = field(repr=False)
    phase: NDArray[np.float64] = field(repr=False)
    radius: float

    def error(
        self, coefficients: ArrayLike, *, basis: SurfaceBasis | None = None, radius: float | None = None
    ) -> NDArray[np.float64]:
        """Phase of a surface less the true one, piston and tilt removed.

        Parameters
        ----------
        coefficients : array_like, (n_terms,)
            Of the surface, radians.
        basis : SurfaceBasis, optional
            What they are coefficients of; Zernikes by default.
        radius : float, optional
            Of the dish that the basis is for, metres, where it is not that of the truth.

        Returns
        -------
        ndarray, (n, n)
            Radians, where `phase` is; NaN off the dish.
        """
        c = np.asarray(coefficients, float)
        basis = basis or ZernikeBasis(zernike.order_of(c.size - 1))
        dish = np.isfinite(self.phase)
        x, y = (a[dish] / (radius or self.radius) for a in np.meshgrid(self.axis, self.axis))
        difference = c @ basis.evaluate(x, y) - self.phase[dish]
        error = np.full(self.phase.shape, np.nan)
        error[dish] = difference - fit_plane(difference[np.newaxis], x, y)[0]
        return error

    def rms_error(
        self, coefficients: ArrayLike, *, basis: SurfaceBasis | None = None, radius: float | None = None
    ) -> float:
        """Rms of `error` over the dish, radians: every part counts alike."""
        return float(np.sqrt(np.nanmean(self.error(coefficients, basis=basis, radius=radius) ** 2)))

    def pulls(self, result: "FitResult") -> dict[str, float]:
        """Fit less truth over the standard error, of every free coefficient that the truth has, tilts aside.

        None where the fit took another dish radius: its coefficients then mean something else.
        """
        if result.aperture.radius != self.radius:
            return {}
        names = result.basis.shape_names
        fitted = {name: result.parameters[name] for name in names if name in self.parameters}
        return {
            name: (p.value - self.parameters[name].value) / p.sigma
            for name, p in fitted.items()
            if p.sigma > 0
        }
