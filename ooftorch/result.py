"""The result of a fit: a frozen record that can be written, read back, reported and drawn without torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ooftorch.optics.basis import SurfaceBasis
from ooftorch.units import half_path

if TYPE_CHECKING:
    from ooftorch.truth import Truth

__all__ = [
    "Aperture",
    "Cause",
    "Estimate",
    "FitResult",
    "MapFit",
    "OrderEvidence",
    "OrderFit",
    "OrderView",
    "ScanTerm",
]


class Estimate(NamedTuple):
    """Value of a parameter, its standard errors (0 if it was held), unit, and whether it was free.

    `sigma` includes what the residuals show beyond independent noise; `sigma_noise` is from such noise alone;
    `sigma_model` is how far a wider model would move it, beyond what noise makes of that: the next order of
    the surface and of the amplitude. NaN where that was not asked.
    """

    value: float
    sigma: float
    unit: str
    free: bool
    sigma_noise: float = math.nan
    sigma_model: float = math.nan


class OrderEvidence(NamedTuple):
    """Whether the maps ask for the last order of the surface, and for the next.

    Gains are of the objective (natural units), divided by the ratio of the variances with and without what
    the residuals show beyond independent noise. Costs are half the number of terms times the logarithm of the
    number of samples over that ratio (Schwarz 1978, Annals of Statistics 6, 461): an order is asked for whose
    gain is above its cost.

    Attributes
    ----------
    gain_last, cost_last : float
        Of the last order; NaN where it is not free.
    gain_next, cost_next : float
        Of the next order, to first order; NaN for a basis that has none.
    """

    gain_last: float = math.nan
    cost_last: float = math.nan
    gain_next: float = math.nan
    cost_next: float = math.nan


_UNKNOWN = OrderEvidence()


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
    coefficients : tuple of float, (n_terms,)
        Of the surface, radians; zero above this order. Empty in files of layouts 1 to 3.
    """

    order: int
    objective: float
    chi2_reduced: float
    n_free: int
    n_eval: int
    seconds: float
    coefficients: tuple[float, ...] = ()


class OrderView(NamedTuple):
    """What the fit at one order says of the telescope.

    Attributes
    ----------
    order : int
    chi2_reduced : float
    bic : float
        Information criterion of Schwarz (1978) above the lowest of all orders, as in `OrderEvidence`: from
        the terms of the last order's fit that are above this order, and their errors.
    phase_rms, phase_error : float
        Over the dish, radians; the error is that of the last order, the terms above this one held at zero.
    change : float
        Rms difference of the phase from the order below, radians; NaN for the first.
    focus_shift : float
        Focus offset that the surface looks most like, metres.
    pointing : tuple of float
        Where the tilts alone put the beam, x and y, telescope minus source, radians.
    """

    order: int
    chi2_reduced: float
    bic: float
    phase_rms: float
    phase_error: float
    change: float
    focus_shift: float
    pointing: tuple[float, float]


@dataclass(frozen=True, eq=False)
class MapFit:
    """One map: data, fitted model and noise.

    Attributes
    ----------
    dz : float
        Focus offset, metres.
    x, y : ndarray, (n,)
        Directions, telescope minus source, radians.
    data, model : ndarray, (n,)
        Power in the units of the data. The data are NaN for missing samples; the model is NaN only for
        missing samples without a usable position.
    noise : float
        Standard error of a sample, in the units of the data: the median of the errors of the file; without
        errors the scatter from sample to sample, or that of the residuals if smaller.
    offset : float
        The fitted baseline, in the units of the data.
    scan_terms : ndarray, (n,)
        What the scan lines' own levels, gains and pointing errors add to the model, in the units of the data.
    """

    dz: float
    x: np.ndarray
    y: np.ndarray
    data: np.ndarray
    model: np.ndarray
    noise: float
    offset: float
    scan_terms: np.ndarray

    @property
    def residual(self) -> np.ndarray:
        """Data minus model and minus what the scan lines add to it, (n,)."""
        return self.data - self.model - self.scan_terms

    @property
    def peak(self) -> float:
        """Largest deviation of the data from the baseline, in the units of the data."""
        return float(np.nanmax(np.abs(self.data - self.offset)))

    @property
    def residual_rms_over_peak(self) -> float:
        """Rms of the residual over the peak of this map."""
        return float(np.sqrt(np.nanmean(self.residual**2)) / self.peak)


class ScanTerm(NamedTuple):
    """Errors of single scan lines that a fit has integrated out.

    Attributes
    ----------
    name : str
        "level", "slope" (of the level, from the middle of a line to its end), "gain", "pointing" (each axis)
        or "pointing_drift" (from the middle of a line to its end).
    unit : str
        "peak" (of the maps), "" (relative) or "beam" (wavelength over diameter).
    rms : tuple of float
        Rms over the lines of each map, in that unit; zero where the map has none.
    """

    name: str
    unit: str
    rms: tuple[float, ...]


class Cause(NamedTuple):
    """What may be wrong with an observation, or disturbed it.

    Attributes
    ----------
    name : str
        "dz_sign", "dz_scale", "beam_size", "flipped", "swapped", "displaced", "extended", "smeared",
        "saturated", "dz_of_one_map", "changed", "clipped", "glitches", "drift", "wander" or "stripes".
    factor : float
        How many times less the maps miss a model (mean square of the residuals) with that put right; NaN for
        what shows in the samples without a trial.
    text : str
        One sentence.
    change : float
        Rms by which the surface moves when that is put right, in a cheap fit, radians; NaN without a trial.
    """

    name: str
    factor: float
    text: str
    change: float = math.nan


@dataclass(frozen=True, eq=False)
class Aperture:
    """The field across the dish.

    Attributes
    ----------
    axis : ndarray, (n,)
        Pixel centres in metres, the same for x and y.
    phase : ndarray, (n, n)
        Radians, indexed [y, x], piston and tilt removed; NaN where the amplitude is zero.
    amplitude : ndarray, (n, n)
        Illumination over its peak, blockage included; zero off the dish.
    open : ndarray, (n, n)
        Open fraction of each pixel; zero outside a cold stop.
    radius : float
        Of the dish, metres.
    normal_factor : ndarray, (n, n) or None
        Surface error along the normal over half-path error; None if the focal length is not known.
    phase_error : ndarray, (n, n) or None
        Standard error of the phase, radians; NaN as the phase. None in files of layouts 1 to 3.
    """

    axis: np.ndarray
    phase: np.ndarray
    amplitude: np.ndarray
    open: np.ndarray
    radius: float
    normal_factor: np.ndarray | None
    phase_error: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class FitResult:
    """The result of a fit.

    Attributes
    ----------
    input, telescope, likelihood, illumination, object, date_obs : str
    wavelength : float
        Metres.
    order : int
        Highest order of the basis.
    converged : bool
        Whether the fit stopped within 0.01 standard deviations of a minimum.
    message : str
        Reason why it stopped.
    interrupted : bool
        Whether it was ended before its time: terms above the last of `orders` are zero.
    objective : float
        Negative log-posterior at the solution, natural units.
    chi2_reduced : float
        Sum of squared whitened residuals per degree of freedom, with the errors of the file or, without them,
        the noise of each `MapFit`; NaN if that is zero.
    n_data, n_missing, n_free, n_eval : int
        Valid samples, samples never observed, free parameters, evaluations of value and gradient.
    parameters : mapping of str to Estimate
        Every parameter of the model, in order.
    covariance : ndarray, (n_free, n_free)
        Covariance of the free parameters in their units, in the order of `parameters`; it includes what the
        residuals show beyond independent noise.
    maps : tuple of MapFit
        In the order of dz.
    orders : tuple of OrderFit
    aperture : Aperture
    notes : tuple of str
        Assumptions made, one line each.
    seconds : float
        Wall time of the fit.
    basis : SurfaceBasis
        Functions whose sum is the phase of the surface.
    robust : bool
        Whether the likelihood is robust against outliers.
    stop_radius : float or None
        Radius of a cold stop over the dish radius, for an illumination with a sharp edge; else None.
    good_surface_rms : float or None
        Rms half-path error, metres, that a good solution for this telescope stays below; None if not known.
    truth : Truth or None
        True values of simulated maps.
    amplitude_order : int
        Highest order of the Zernikes by which the illumination departs from its model; 0 for none.
    scan_terms : tuple of ScanTerm
        Errors of scan lines that were found and integrated out.
    focus : ndarray, (n_terms,), or None
        Coefficients of the phase that a focus offset makes, radians per metre of dz, as near as the basis
        comes to it over the disc that `phase_rms` is of. None in files of layouts 1 and 2.
    noise_covariance : ndarray, (n_free, n_free), or None
        As `covariance`, from independent noise alone. None in files of layouts 1 to 3, whose `covariance` is
        that.
    order_evidence : OrderEvidence
        What the last order and the next are worth.
    causes : tuple of Cause
        What may be wrong with the observation, the gravest first.
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
    amplitude_order: int = 0
    scan_terms: tuple[ScanTerm, ...] = ()
    focus: np.ndarray | None = field(default=None, repr=False)
    interrupted: bool = False
    noise_covariance: np.ndarray | None = field(default=None, repr=False)
    order_evidence: OrderEvidence = _UNKNOWN
    causes: tuple[Cause, ...] = ()

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

        Uniformly weighted over the disc within the rim, or within the cold stop if that is smaller; blockage
        is not left out.
        """
        return self._find_rms(self.coefficients)

    def _find_rms(self, c: np.ndarray) -> float:
        return float(np.sqrt(max(c @ self.gram @ c, 0.0)))

    @property
    def phase_error(self) -> float:
        """Standard error of the phase, rms over the same disc, piston and tilt removed, radians."""
        return self._find_rms_error(self._covariance_of_coefficients)

    @property
    def phase_error_noise(self) -> float:
        """As `phase_error`, from independent noise alone; NaN where that is not known apart."""
        if self.noise_covariance is None:
            return math.nan
        return self._find_rms_error(self._pick_coefficients(self.noise_covariance))

    @property
    def phase_error_model(self) -> float:
        """How far a wider model would move the phase beyond its noise, rms over the same disc, radians.

        NaN where that was not asked.
        """
        sizes = np.array([self.parameters[name].sigma_model for name in self.basis.names])
        return float(np.sqrt(np.diag(self.gram) @ sizes**2))

    @property
    def recommended_order(self) -> int:
        """The order that the maps ask for: the next, this one, or the one below."""
        e = self.order_evidence
        if e.gain_next > e.cost_next:
            return self.order + 1
        return self.order - 1 if self.order > 1 and e.gain_last < e.cost_last else self.order

    @property
    def excess(self) -> float:
        """Variance of the phase over what independent noise would make it; 1 where that is not known."""
        noise = self.phase_error_noise
        return (self.phase_error / noise) ** 2 if min(noise, self.phase_error) > 0 else 1.0

    @property
    def order_views(self) -> tuple[OrderView, ...]:
        """What the fits of all orders say of the telescope; none where their coefficients are not known."""
        fits = [o for o in self.orders if o.coefficients]
        if not fits:
            return ()
        bic = [self._find_bic(o.order) for o in fits]
        lowest, tilts = min(bic), [self.basis.x_tilt, self.basis.y_tilt]
        views, before = [], None
        for o, criterion in zip(fits, bic, strict=True):
            c = np.array(o.coefficients)
            change = math.nan if before is None else self._find_rms(c - before)
            pointing = [
                math.nan if t is None else c[self.basis.names.index(t)] * self.beam / math.pi for t in tilts
            ]
            views.append(
                OrderView(
                    o.order,
                    o.chi2_reduced,
                    criterion - lowest,
                    self._find_rms(c),
                    self._find_rms_error(self._hold_above(o.order)),
                    change,
                    float(self._focus_weight @ c),
                    (pointing[0], pointing[1]),
                )
            )
            before = c
        return tuple(views)

    def weigh_above(self, order: int) -> tuple[float, int]:
        """Return what the free terms above an order gain, as in `OrderEvidence`, and their number."""
        covariance = self._covariance_of_coefficients
        above = (np.array(self.basis.orders) > order) & (np.diag(covariance) > 0)
        values = self.coefficients[above]
        chi2 = values @ np.linalg.pinv(covariance[np.ix_(above, above)], hermitian=True) @ values
        return 0.5 * float(chi2), int(np.count_nonzero(above))

    @property
    def cost_of_term(self) -> float:
        """Least gain that asks for one more term of the surface, as in `OrderEvidence`."""
        return 0.5 * math.log(max(self.n_data / self.excess, 1.0))

    def _find_bic(self, order: int) -> float:
        """Information criterion of an order, less that of the last."""
        gain, n_terms = self.weigh_above(order)
        return 2 * (gain - n_terms * self.cost_of_term)

    def _hold_above(self, order: int) -> np.ndarray:
        """Covariance of all coefficients with those above an order held at zero."""
        covariance = self._covariance_of_coefficients
        above = np.array(self.basis.orders) > order
        cross = covariance[:, above]
        return covariance - cross @ np.linalg.pinv(covariance[np.ix_(above, above)], hermitian=True) @ cross.T

    @property
    def surface_rms_estimate(self) -> tuple[float, float]:
        """Rms half-path error without what noise adds to it, and its standard error, metres.

        The mean square of the fitted surface is that of the true one plus the variance of the fit.
        """
        c, covariance, gram = self.coefficients, self._covariance_of_coefficients, self.gram
        by_covariance = gram @ covariance
        square, noise = c @ gram @ c, np.trace(by_covariance)
        variance = 4 * c @ by_covariance @ gram @ c + 2 * np.trace(by_covariance @ by_covariance)
        # Of a small surface the square is known, and not its root: the error is at most that of its size.
        error = math.sqrt(max(variance, 0.0)) / (2 * math.sqrt(max(square, noise, 1e-300)))
        rms = math.sqrt(max(square - noise, 0.0))
        return half_path(rms, self.wavelength), half_path(error, self.wavelength)

    @property
    def _covariance_of_coefficients(self) -> np.ndarray:
        """Covariance of all coefficients of the basis, (n_terms, n_terms); zero for held ones."""
        return self._pick_coefficients(self.covariance)

    def _pick_coefficients(self, of_free: np.ndarray) -> np.ndarray:
        names, free = self.basis.names, self.free_names
        rows = [free.index(name) for name in names if name in free]
        kept = [i for i, name in enumerate(names) if name in free]
        covariance = np.zeros((len(names), len(names)))
        covariance[np.ix_(kept, kept)] = of_free[np.ix_(rows, rows)]
        return covariance

    def _find_rms_error(self, covariance: np.ndarray) -> float:
        return float(np.sqrt(max(np.sum(self.gram * covariance), 0.0)))

    @property
    def focus_shift(self) -> tuple[float, float]:
        """Focus offset that the fitted surface looks most like, and its standard error, metres.

        That of the subreflector or feed, positive away from the primary: moving it by minus this takes the
        offset away, and with it all that it makes on this telescope besides z4. NaN where it is not known.
        """
        weight = self._focus_weight
        variance = weight @ self._covariance_of_coefficients @ weight
        return float(weight @ self.coefficients), float(np.sqrt(np.maximum(variance, 0.0)))

    @property
    def _focus_weight(self) -> np.ndarray:
        """The focus offset per coefficient, (n_terms,), metres per radian."""
        if self.focus is None:
            return np.full(len(self.basis.names), np.nan)
        by_focus = self.gram @ self.focus
        size = float(self.focus @ by_focus)
        return by_focus / size if size > 0 else np.full(len(by_focus), np.nan)

    @property
    def phase_rms_refocused(self) -> float:
        """As `phase_rms`, with `focus_shift` and all that it makes taken out; NaN where it is not known."""
        if self.focus is None:
            return math.nan
        return self._find_rms(self.coefficients - self.focus_shift[0] * self.focus)

    @property
    def phase_error_refocused(self) -> float:
        """As `phase_error`, with the focus taken out; NaN where it is not known."""
        if self.focus is None or np.isnan(self._focus_weight).any():
            return math.nan
        left = np.eye(len(self.focus)) - np.outer(self.focus, self._focus_weight)
        return self._find_rms_error(left @ self._covariance_of_coefficients @ left.T)

    @property
    def gram(self) -> np.ndarray:
        """Matrix of the mean square phase over that disc, (n_terms, n_terms): see `SurfaceBasis.gram`."""
        return self.basis.gram(1.0 if self.stop_radius is None else min(self.stop_radius, 1.0))

    @property
    def beam(self) -> float:
        """Wavelength over diameter, radians."""
        return self.wavelength / (2 * self.aperture.radius)

    @property
    def surface_rms(self) -> float:
        """Rms half-path error, wavelength * phase_rms / (4 pi), metres."""
        return half_path(self.phase_rms, self.wavelength)

    @property
    def ruze_efficiency(self) -> float:
        """On-axis gain over that of a perfect surface, exp(-phase_rms**2) (Ruze 1966, Proc. IEEE 54, 633)."""
        return math.exp(-(self.phase_rms**2))
