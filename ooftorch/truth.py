"""The truth of simulated maps, and the error of a fit with respect to it."""

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
    """True value of a parameter, and its unit."""

    value: float
    unit: str


@dataclass(frozen=True, eq=False)
class Truth:
    """True parameters and phase of simulated maps.

    Attributes
    ----------
    parameters : mapping of str to TrueValue
        By the names of the parameters of the model (z1, sigma, gain_0, ...), maps numbered in the order of
        dz; dz_0, dz_1, ..., the true focus offset of each map; and what disturbs it, where simulated,
        as rms about the mean of the map: level_rms_0, drift_rms_0 and slope_rms_0 (of the baseline, in the
        units of the data), line_gain_rms_0 and gain_drift_rms_0 (relative), wander_rms_0, jitter_rms_0 and
        line_pointing_rms_0 (radians, mean of both axes).
    axis : ndarray, (n,)
        Positions across the dish, metres, the same for x and y.
    phase : ndarray, (n, n)
        Radians, indexed [y, x]: the whole surface, Zernikes and added shapes. NaN outside the open,
        illuminated part of the dish.
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
        """Phase of a surface minus the true one, piston and tilt removed.

        Parameters
        ----------
        coefficients : array_like, (n_terms,)
            Coefficients of the surface, radians.
        basis : SurfaceBasis, optional
            Their basis; Zernikes by default.
        radius : float, optional
            Normalising radius of the basis, metres; by default that of the truth.

        Returns
        -------
        ndarray, (n, n)
            Radians, on the raster of `phase`; NaN where that is NaN.
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
        """Rms of `error` over the open dish, uniformly weighted, radians; parameters as in `error`."""
        return float(np.sqrt(np.nanmean(self.error(coefficients, basis=basis, radius=radius) ** 2)))

    def pulls(self, result: "FitResult") -> dict[str, float]:
        """Fitted minus true value over the standard error, of every free coefficient but the tilts.

        Only of coefficients that the truth has; empty if the fit has another dish radius, because its
        coefficients then describe other functions.
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
