"""Assemble a `FitResult` from the minimum of a fit: estimates, covariance, maps and aperture."""

import math
from collections.abc import Collection

import numpy as np
import torch

from ooftorch.fitting.evaluation import Fitted
from ooftorch.fitting.setup import Setup
from ooftorch.optics import zernike
from ooftorch.optics.basis import fit_plane
from ooftorch.optics.model import BeamModel
from ooftorch.optics.parameters import Layout
from ooftorch.result import Aperture, Estimate, FitResult, MapFit, ScanTerm
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
    covariance = posterior.covariance(u[posterior.free]) * np.outer(derivatives, derivatives)
    left_out = {name for names in setup.bends for name in names if not layout[name].free}
    estimates = _estimate_parameters(layout, u.cpu().numpy(), covariance, left_out)
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
    last, basis = fitted.orders[-1], model.instrument.basis
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
    return FitResult(
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
        maps=tuple(maps),
        orders=fitted.orders,
        aperture=_build_aperture(model, u),
        notes=(*setup.notes(row), *fitted.notes),
        seconds=seconds,
        basis=basis,
        robust=levels.likelihood.robust,
        stop_radius=stop_radius,
        good_surface_rms=model.telescope.good_surface_rms,
        truth=observation.truth,
        amplitude_order=_find_amplitude_order(layout),
        scan_terms=tuple(
            ScanTerm(term.name, term.unit, tuple(rms.tolist()))
            for term, rms in zip(setup.terms, fitted.widths.T, strict=True)
            if rms.any()
        ),
        interrupted=fitted.interrupted,
        focus=_project_focus(model, 1.0 if stop_radius is None else min(stop_radius, 1.0)),
    )


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
    layout: Layout, u: np.ndarray, covariance: np.ndarray, left_out: Collection[str]
) -> dict[str, Estimate]:
    """Estimates of all parameters but those that could have been taken up and were not."""
    sigma = np.zeros(len(u))
    sigma[layout.free] = np.sqrt(np.clip(np.diag(covariance), 0, None))
    values = layout.values(u)
    return {
        p.name: Estimate(values[p.name], float(s), p.unit, p.free)
        for p, s in zip(layout.parameters, sigma, strict=True)
        if p.name not in left_out
    }


def _build_aperture(model: BeamModel, u: torch.Tensor) -> Aperture:
    """Aperture field on the raster of the model, piston and tilt removed from the phase."""
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
    x, y = np.meshgrid(pixels.axis, pixels.axis)
    return Aperture(
        axis=pixels.axis,
        phase=pixels.fill_square(phase, math.nan),
        amplitude=pixels.fill_square(amplitude / amplitude.max(), 0.0),
        open=pixels.fill_square(np.where(dark, 0.0, np.clip(is_open, 0, 1)), 0.0),
        radius=model.telescope.radius,
        normal_factor=model.telescope.surface_normal_factor(x, y),
    )
