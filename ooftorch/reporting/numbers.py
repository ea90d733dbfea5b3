"""The numbers of a fit, as `summary.json` holds them."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from ooftorch import __version__
from ooftorch.reporting.chance import estimate_chance
from ooftorch.reporting.checks import verdict
from ooftorch.reporting.derived import compare_with_truth, find_pointing, measure_bend
from ooftorch.units import ARCSEC, half_path

if TYPE_CHECKING:
    from ooftorch.result import FitResult

__all__ = ["summary"]


def summary(result: "FitResult", seconds: Mapping[str, float] | None = None) -> dict[str, Any]:
    """Return what `summary.json` holds.

    Units are in the names; a number that does not exist is None. `sigma` of a parameter is its standard error
    with what the residuals show beyond independent noise, `sigma_noise` that from such noise alone,
    `sigma_model` how far a wider model would move it; `phase_error_rad`, `phase_error_noise_rad` and
    `phase_error_model_rad` are what these come to over the dish. `recommended_order` is the order that the
    maps ask for, for the reasons in `order_evidence`. `surface_rms_um` is
    the half-path error of the fitted surface, `surface_rms_estimate_um` that without what noise adds to it,
    with its standard error `surface_rms_error_um`. `pointing_arcsec` is where the tilts z2 and z1
    alone put the beam, telescope minus source, and that of each map what is added to it there, with
    `pointing_beams` in wavelengths over diameter. `focus_shift_mm` is the focus offset (dz) that the surface
    looks most like; what is `refocused` is the surface without it. `amplitude_order` is the highest order of
    the Zernikes that bend the illumination (parameters a3, a4, ...), 0 for none, and `amplitude_bend_db` what
    they amount to, rms over the dish. `scan_terms` has the rms of each error of scan lines that was
    integrated out, map by map, in its `unit`: "peak" of the maps, "" (relative) or "beam". `causes` is what
    may be wrong with the observation: `name`, `factor` by which the maps fit better with that put right (None
    where it shows without a trial) and `text`. `truth` compares
    the fit of simulated maps with what was simulated (`compare_with_truth`), and is None where the truth is
    not known. Of each order `bic` and what follows it: see `OrderView`.

    Parameters
    ----------
    result : FitResult
    seconds : mapping, optional
        Wall times "read", "fit", "write" and "total", as far as they are known; by default that of the fit
        alone, which is in the result.

    Returns
    -------
    dict
        Of plain Python values: ``json.dumps(..., allow_nan=False)`` accepts it.
    """
    word, *reasons = verdict(result)
    (x, _), (y, _) = find_pointing(result)
    shift, shift_error = result.focus_shift
    surface_rms, surface_rms_error = result.surface_rms_estimate
    times = {"fit": result.seconds, **(seconds or {})}
    return _plain(
        {
            "ooftorch": __version__,
            "input": result.input,
            "telescope": result.telescope,
            "object": result.object,
            "date_obs": result.date_obs,
            "wavelength_m": result.wavelength,
            "likelihood": result.likelihood,
            "illumination": result.illumination,
            "amplitude_order": result.amplitude_order,
            "amplitude_bend_db": measure_bend(result),
            "scan_terms": {
                term.name: {"unit": term.unit, "rms": list(term.rms)} for term in result.scan_terms
            },
            "basis": result.basis.name,
            "order": result.order,
            "recommended_order": result.recommended_order,
            "order_evidence": result.order_evidence._asdict(),
            "converged": result.converged,
            "message": result.message,
            "interrupted": result.interrupted,
            "verdict": word,
            "chance_of_improvement": estimate_chance(result),
            "reasons": reasons,
            "causes": [cause._asdict() for cause in result.causes],
            "objective": result.objective,
            "chi2_reduced": result.chi2_reduced,
            "n_data": result.n_data,
            "n_missing": result.n_missing,
            "n_free": result.n_free,
            "n_eval": result.n_eval,
            "parameters": {name: p._asdict() for name, p in result.parameters.items()},
            "maps": [_map_numbers(result, i) for i in range(len(result.maps))],
            "phase_rms_rad": result.phase_rms,
            "phase_error_rad": result.phase_error,
            "phase_error_noise_rad": result.phase_error_noise,
            "phase_error_model_rad": result.phase_error_model,
            "surface_rms_um": 1e6 * result.surface_rms,
            "surface_rms_kind": "half-path",
            "surface_rms_estimate_um": 1e6 * surface_rms,
            "surface_rms_error_um": 1e6 * surface_rms_error,
            "ruze_efficiency": result.ruze_efficiency,
            "focus_shift_mm": 1e3 * shift,
            "focus_shift_error_mm": 1e3 * shift_error,
            "phase_rms_refocused_rad": result.phase_rms_refocused,
            "phase_error_refocused_rad": result.phase_error_refocused,
            "surface_rms_refocused_um": 1e6 * half_path(result.phase_rms_refocused, result.wavelength),
            "pointing_arcsec": {"dx": x, "dy": y},
            "orders": [_order_numbers(result, i) for i in range(len(result.orders))],
            "notes": result.notes,
            "truth": compare_with_truth(result),
            "seconds": {name: times.get(name) for name in ("read", "fit", "write", "total")},
        }
    )


def _order_numbers(result: "FitResult", number: int) -> dict[str, Any]:
    numbers = asdict(result.orders[number])
    views = result.order_views
    if views:
        view = views[number]
        numbers |= {
            "bic": view.bic,
            "phase_rms_rad": view.phase_rms,
            "phase_error_rad": view.phase_error,
            "phase_change_rad": view.change,
            "focus_shift_mm": 1e3 * view.focus_shift,
            "pointing_arcsec": dict(zip(("dx", "dy"), (p / ARCSEC for p in view.pointing), strict=True)),
        }
    return numbers


def _map_numbers(result: "FitResult", number: int) -> dict[str, Any]:
    m = result.maps[number]
    dx, dy = (result.parameters[f"{axis}_{number}"].value for axis in ("dx", "dy"))
    return {
        "dz_m": m.dz,
        "n_data": np.count_nonzero(np.isfinite(m.data)),
        "residual_rms_over_peak": m.residual_rms_over_peak,
        "noise": m.noise,
        "pointing_arcsec": {"dx": dx / ARCSEC, "dy": dy / ARCSEC},
        "pointing_beams": math.hypot(dx, dy) / result.beam,
    }


def _plain(value: Any) -> Any:
    """Convert to types that JSON has; a number that is not finite becomes None."""
    if isinstance(value, Mapping):
        return {name: _plain(v) for name, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
