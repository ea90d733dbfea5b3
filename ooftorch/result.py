"""What a fit found, as one frozen object that can be written, read back, reported and drawn."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ooftorch.optics.basis import SurfaceBasis
from ooftorch.units import half_path

if TYPE_CHECKING:
    from ooftorch.truth import Truth

__all__ = ["Aperture", "Estimate", "FitResult", "MapFit", "OrderFit"]


class Estimate(NamedTuple):
    """A parameter's value, its standard error (0 where it was held), unit, and whether it was free."""

    value: float
    sigma: float
    unit: str
    free: bool


@dataclass(frozen=True)
class OrderFit:
    """The fit at one order of the surface basis.

    Attributes
    ----------
    order : int
    objective : float
        Negative log-posterior, natural units.
    chi2_reduced : float
    n_free, n_eval : int
        Free parameters; evaluations of value and gradient, all starts included.
    seconds : float
    """

    order: int
    objective: float
    chi2_reduced: float
    n_free: int
    n_eval: int
    seconds: float


@dataclass(frozen=True, eq=False)
class MapFit:
    """One map and what the model makes of it.

    Attributes
    ----------
    dz : float
        Focus offset, metres.
    x, y : ndarray, (n,)
        Directions, telescope minus source, radians.
    data, model : ndarray, (n,)
        Power in the data's units; data is NaN where no sample was taken, the model where the file does not
        even say where it would have been.
    noise : float
        Standard error of a sample: the median of the file's errors; where it has none the scatter from
        sample to sample, or that of the residuals where it is less.
    offset : float
        The fitted baseline, in the data's units.
    """

    dz: float
    x: np.ndarray
    y: np.ndarray
    data: np.ndarray
    model: np.ndarray
    noise: float
    offset: float

    @property
    def residual(self) -> np.ndarray:
        """Data minus model, (n,)."""
        return self.data - self.model

    @property
    def peak(self) -> float:
        """Largest excursion of the data from the baseline."""
        return float(np.nanmax(np.abs(self.data - self.offset)))

    @property
    def residual_rms_over_peak(self) -> float:
        """Rms of the residual over the map's own peak."""
        return float(np.sqrt(np.nanmean(self.residual**2)) / self.peak)


@dataclass(frozen=True, eq=False)
class Aperture:
    """The field across the dish.

    Attributes
    ----------
    axis : ndarray, (n,)
        Pixel centres in metres, the same for x and y.
    phase : ndarray, (n, n)
        Radians, indexed [y, x], piston and tilt removed; NaN off the dish.
    amplitude : ndarray, (n, n)
        Illumination over its peak, blockage included; zero off the dish.
    open : ndarray, (n, n)
        Fraction of each pixel that light passes; zero where a cold stop leaves none.
    radius : float
        Of the dish, metres.
    normal_factor : ndarray, (n, n) or None
        Surface error along the normal over half-path error; None where the focal length is not known.
    """

    axis: np.ndarray
    phase: np.ndarray
    amplitude: np.ndarray
    open: np.ndarray
    radius: float
    normal_factor: np.ndarray | None


@dataclass(frozen=True, eq=False)
class FitResult:
    """What a fit found. Every field is always there.

    Attributes
    ----------
    input, telescope, likelihood, illumination, object, date_obs : str
    wavelength : float
        Metres.
    order : int
        Highest order of the basis.
    converged : bool
        Whether the end is a minimum: nearer to it than a hundredth of a standard deviation.
    message : str
        Why it ended.
    objective : float
        Negative log-posterior at the end, natural units.
    chi2_reduced : float
        Squared residuals over noise, per degree of freedom, noise as in `MapFit`; NaN without noise.
    n_data, n_missing, n_free, n_eval : int
        Valid samples, samples never observed, free parameters, evaluations of value and gradient.
    parameters : mapping of str to Estimate
        Every parameter of the model, in order.
    covariance : ndarray, (n_free, n_free)
        Of the free parameters in their units, in the order of `parameters`.
    maps : tuple of MapFit
        In the order of dz.
    orders : tuple of OrderFit
    aperture : Aperture
    notes : tuple of str
        What was assumed on the way, one line each.
    seconds : float
    basis : SurfaceBasis
        What the surface is a sum of.
    robust : bool
        Whether the likelihood forgives outliers.
    stop_radius : float or None
        Radius of an edge that the illumination has of its own, a cold stop, over the dish radius.
    good_surface_rms : float or None
        Rms half-path error, metres, that a good solution for this telescope stays below, where one is known.
    truth : Truth or None
        What was put into simulated maps.
    """

    input: str
    telescope: str
    likelihood: str
    illumination: str
    object: str
    date_obs: str
    wavelength: float
    order: int
    converged: bool
    message: str
    objective: float
    chi2_reduced: float
    n_data: int
    n_missing: int
    n_free: int
    n_eval: int
    parameters: Mapping[str, Estimate]
    covariance: np.ndarray = field(repr=False)
    maps: tuple[MapFit, ...] = field(repr=False)
    orders: tuple[OrderFit, ...] = field(repr=False)
    aperture: Aperture = field(repr=False)
    notes: tuple[str, ...]
    seconds: float
    basis: SurfaceBasis = field(repr=False)
    robust: bool = False
    stop_radius: float | None = None
    good_surface_rms: float | None = None
    truth: "Truth | None" = field(default=None, repr=False)

    @property
    def coefficients(self) -> np.ndarray:
        """Coefficients of the basis in radians, (n_terms,)."""
        return np.array([self.parameters[name].value for name in self.basis.names])

    @property
    def free_names(self) -> list[str]:
        """Names of the free parameters: the rows of `covariance`."""
        return [name for name, p in self.parameters.items() if p.free]

    @property
    def phase_rms(self) -> float:
        """Rms phase over the dish, piston and tilt removed, radians.

        Every part counts alike, as far out as light reaches: to the rim, or to the edge of a cold stop.
        """
        c = self.coefficients
        return float(np.sqrt(c @ self.gram @ c))

    @property
    def phase_error(self) -> float:
        """Standard error of the phase, rms over the same part of the dish, tilt aside, radians."""
        names, free = self.basis.names, self.free_names
        rows = [free.index(name) for name in names if name in free]
        kept = [i for i, name in enumerate(names) if name in free]
        variance = np.sum(self.gram[np.ix_(kept, kept)] * self.covariance[np.ix_(rows, rows)])
        return float(np.sqrt(max(variance, 0.0)))

    @property
    def gram(self) -> np.ndarray:
        """Matrix of the mean square phase, (n_terms, n_terms): see `SurfaceBasis.gram`."""
        return self.basis.gram(1.0 if self.stop_radius is None else min(self.stop_radius, 1.0))

    @property
    def surface_rms(self) -> float:
        """Rms half-path error, wavelength * phase_rms / (4 pi), metres."""
        return half_path(self.phase_rms, self.wavelength)

    @property
    def ruze_efficiency(self) -> float:
        """Estimate of the on-axis gain that the surface leaves, exp(-phase_rms**2) (Ruze 1966)."""
        return math.exp(-(self.phase_rms**2))
