"""Assemble a `FitResult` from the minimum of a fit: estimates, covariance, maps and aperture."""

import math
from collections.abc import Collection
from dataclasses import replace

import numpy as np
import torch

from ooftorch.fitting.errors import estimate_covariances, group_samples
from ooftorch.fitting.evaluation import Fitted
from ooftorch.fitting.next_order import Wider, try_wider_model
from ooftorch.fitting.setup import Setup
from ooftorch.optics import zernike
from ooftorch.optics.basis import SurfaceBasis, fit_plane
from ooftorch.optics.model import BeamModel
from ooftorch.optics.parameters import Layout
from ooftorch.result import Aperture, Estimate, FitResult, MapFit, OrderEvidence, ScanTerm
from ooftorch.scans import is_placed

__all__ = ["build_result"]

# Distance to the minimum, in standard deviations, below which a fit counts as converged.
_CONVERGED = 0.01


def build_result(setup: Setup, row: int, fitted: Fitted, seconds: float = 0.0) -> FitResult:
    """Assemble the result of the fit of one observation.

    Parameters
    ----------
    setup : Setup
    row : int
        Number of the observation in the setup.
    fitted : Fitted
        The minimum, and the fits of all orders.
    seconds : float
        Wall time.

    Returns
    -------
    FitResult
    """
    levels, layout, observation = setup.levels, fitted.layout, setup.observations[row]
    model, u, posterior = levels.exact.model, fitted.coordinates, fitted.posterior
    derivatives = layout.derivatives(u.cpu().numpy())[layout.free]
    groups = group_samples(posterior.samples, model.wavelength / (2 * model.telescope.radius))
    scale = np.outer(derivatives, derivatives)
    linear = posterior.linearise(u[posterior.free])
    noise, covariance = (c.cpu().numpy() * scale for c in estimate_covariances(posterior, linear, groups))
    amplitude_order = _find_amplitude_order(layout)
    wider = try_wider_model(posterior, linear, amplitude_order)
    basis = model.instrument.basis
    surface = _pick_surface(layout, covariance, basis)
    left_out = {name for names in setup.bends for name in names if not layout[name].free}
    estimates = _estimate_parameters(layout, u.cpu().numpy(), covariance, noise, left_out)
    maps = [
        MapFit(
            m.dz,
            m.x,
            m.y,
            m.power,
            np.where(is_placed(m), beam, np.nan),
            noise,
            estimates[f"offset_{i}"].value,
            terms,
        )
        for i, (m, beam, terms, noise) in enumerate(
            zip(
                observation.maps,
                model.split(fitted.predicted),
                model.split(fitted.taken_up),
                fitted.noises,
                strict=True,
            )
        )
    ]
    converged = fitted.distance < _CONVERGED and not fitted.interrupted
    last = fitted.orders[-1]
    if fitted.interrupted:
        message = f"interrupted; this is order {last.order} of {basis.order}, as far as it had come"
    elif converged:
        message = f"at a minimum to within {fitted.distance:.1g} standard deviations"
    else:
        message = (
            f"stopped {fitted.distance:.1g} standard deviations from a minimum: nothing lower found in the "
            "evaluations allowed"
        )
    illumination = model.instrument.illumination
    stop_radius = estimates["radius"].value if illumination.has_edge else None
    result = FitResult(
        input=observation.source,
        telescope=model.telescope.name,
        likelihood=levels.likelihood.name,
        illumination=illumination.name,
        object=observation.object,
        date_obs=observation.date_obs,
        wavelength=observation.wavelength,
        order=basis.order,
        converged=converged,
        message=message,
        objective=last.objective,
        chi2_reduced=last.chi2_reduced,
        n_data=int(posterior.samples.valid.sum()),
        n_missing=sum(m.n_missing for m in observation.maps),
        n_free=len(layout.free),
        n_eval=sum(o.n_eval for o in fitted.orders),
        parameters=estimates,
        covariance=covariance,
        noise_covariance=noise,
        maps=tuple(maps),
        orders=fitted.orders,
        aperture=_build_aperture(model, u, surface),
        notes=(*setup.notes(row), *fitted.notes),
        seconds=seconds,
        basis=basis,
        robust=levels.likelihood.robust,
        stop_radius=stop_radius,
        good_surface_rms=model.telescope.good_surface_rms,
        truth=observation.truth,
        amplitude_order=amplitude_order,
        scan_terms=tuple(
            ScanTerm(term.name, term.unit, tuple(rms.tolist()))
            for term, rms in zip(setup.terms, fitted.widths.T, strict=True)
            if rms.any()
        ),
        interrupted=fitted.interrupted,
        focus=_project_focus(model, 1.0 if stop_radius is None else min(stop_radius, 1.0)),
    )
    return _add_wider(result, wider, derivatives)


def _add_wider(result: FitResult, wider: Wider, derivatives: np.ndarray) -> FitResult:
    """Return the result with what a wider model would change.

    `derivatives` (n_free,) are those of the free parameters by their coordinates.
    """
    beyond = (wider.change.square() - result.excess * wider.noise.square()).clamp(min=0.0).sqrt()
    sigmas = dict(zip(result.free_names, (beyond.cpu().numpy() * np.abs(derivatives)).tolist(), strict=True))
    parameters = {
        name: p._replace(sigma_model=sigmas.get(name, 0.0)) for name, p in result.parameters.items()
    }
    gain, n_last = result.weigh_above(result.order - 1)
    evidence = OrderEvidence(
        gain if n_last else math.nan,
        n_last * result.cost_of_term if n_last else math.nan,
        wider.gain / result.excess if wider.n_terms else math.nan,
        wider.n_terms * result.cost_of_term,
    )
    return replace(result, parameters=parameters, order_evidence=evidence)


def _project_focus(model: BeamModel, disc: float) -> np.ndarray:
    """Coefficients (n_terms,) of the phase of a focus offset over a disc, radians per metre."""
    telescope, k = model.telescope, 2 * math.pi / model.wavelength

    def phase(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return -k * telescope.path_powers(telescope.radius * x, telescope.radius * y)[0]

    return model.instrument.basis.project(phase, disc)


def _find_amplitude_order(layout: Layout) -> int:
    """Highest order of the amplitude terms that are free, or held at another value than zero."""
    orders = [
        zernike.order_of(int(p.name[1:]))
        for p in layout.parameters
        if p.name[0] == "a" and p.name[1:].isdigit() and (p.free or p.start)
    ]
    return max(orders, default=0)


def _estimate_parameters(
    layout: Layout,
    u: np.ndarray,
    covariance: np.ndarray,
    noise: np.ndarray,
    left_out: Collection[str],
) -> dict[str, Estimate]:
    """Estimates of all parameters but those that could have been taken up and were not."""
    sigmas = np.zeros((2, len(u)))
    sigmas[:, layout.free] = [np.sqrt(np.clip(np.diag(c), 0, None)) for c in (covariance, noise)]
    values = layout.values(u)
    return {
        p.name: Estimate(values[p.name], sigma, p.unit, p.free, sigma_noise)
        for p, (sigma, sigma_noise) in zip(layout.parameters, sigmas.T.tolist(), strict=True)
        if p.name not in left_out
    }


def _pick_surface(layout: Layout, covariance: np.ndarray, basis: SurfaceBasis) -> np.ndarray:
    """Covariance of all coefficients of the surface; zero for held ones."""
    rows = [layout.free.index(i) if i in layout.free else -1 for i in map(layout.index, basis.names)]
    padded = np.pad(covariance, (0, 1))
    return padded[np.ix_(rows, rows)]


def _find_phase_error(model: BeamModel, covariance: np.ndarray) -> np.ndarray:
    """Standard error of the phase at the pixels, (n_pixels,), piston and tilt removed."""
    basis, pixels = model.instrument.basis, model.pixels
    terms = model.parts.surface.matrix.cpu().numpy()
    if basis.x_tilt is None:
        terms = terms - fit_plane(terms, pixels.x, pixels.y)
    else:
        terms = terms * np.isin(basis.names, basis.shape_names)[:, np.newaxis]
    return np.sqrt(np.clip(np.einsum("kp,kp->p", terms, covariance @ terms), 0, None))


def _build_aperture(model: BeamModel, u: torch.Tensor, covariance: np.ndarray) -> Aperture:
    """Aperture field on the raster of the model, piston and tilt removed from the phase.

    The covariance is that of all coefficients of the surface.
    """
    basis, pixels = model.instrument.basis, model.pixels
    flat = u.clone()
    for name in (basis.piston, basis.x_tilt, basis.y_tilt):
        if name is not None:
            flat[model.layout.index(name)] = 0.0
    with torch.no_grad():
        at = model.at(flat)
        amplitude, phase, is_open = (t.cpu().numpy() for t in (at.amplitude, at.phase, at.open_fraction))
    if basis.x_tilt is None:
        phase = phase - fit_plane(phase[np.newaxis], pixels.x, pixels.y)[0]
    dark = amplitude <= 1e-9 * amplitude.max()
    phase[dark] = math.nan
    error = np.where(dark, math.nan, _find_phase_error(model, covariance))
    x, y = np.meshgrid(pixels.axis, pixels.axis)
    return Aperture(
        axis=pixels.axis,
        phase=pixels.fill_square(phase, math.nan),
        amplitude=pixels.fill_square(amplitude / amplitude.max(), 0.0),
        open=pixels.fill_square(np.where(dark, 0.0, np.clip(is_open, 0, 1)), 0.0),
        radius=model.telescope.radius,
        normal_factor=model.telescope.surface_normal_factor(x, y),
        phase_error=pixels.fill_square(error, math.nan),
    )
