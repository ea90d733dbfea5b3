"""The verdict on a fit: a table of checks, each a condition on numbers of the result, and a sentence."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ooftorch.reporting.derived import find_illumination, find_pointing, measure_bend
from ooftorch.units import ARCSEC

if TYPE_CHECKING:
    from ooftorch.result import Cause, FitResult, MapFit

__all__ = ["STOP", "find_numbers", "verdict"]

STOP, _CARE, _HINT = "do not apply", "usable with care", ""


class _Check(NamedTuple):
    """One row of the table.

    Attributes
    ----------
    grade : str
        What the verdict is at best where the check fails; empty if it changes nothing.
    fails : callable
        Whether it fails, from the numbers of `_fit_numbers` and the functions below it.
    text : str
        The sentence, with the names of those numbers in braces.
    """

    grade: str
    fails: Callable[[Any], bool]
    text: str


# "GBT guide" is the AutoOOF guide of the Green Bank Observatory for its operators; thresholds without a
# source are our own.
_CHECKS = (
    _Check(
        STOP,
        lambda f: f.interrupted,
        "The fit was {message}: run it to its end.",
    ),
    _Check(
        STOP,
        lambda f: not (f.interrupted or (f.converged and math.isfinite(f.phase_rms))),
        "The fit did not converge ({message}): try a lower order, and look for glitches in the maps.",
    ),
    _Check(
        STOP,
        lambda f: f.n_clear < 2,
        "{n_clear} of {n_maps} maps with a clear signal (peak over noise above 10), and it takes two (GBT "
        "guide): map a brighter source.",
    ),
    _Check(
        STOP,
        lambda f: f.unexplained > 0.4,
        "The model misses {unexplained:.0%} of the signal (rms) in the map at dz {unexplained_dz}: check "
        "telescope, frequency, dz and the orientation of the maps.",
    ),
    _Check(
        STOP,
        lambda f: f.largest > 15,
        "The phase reaches {largest:.0f} rad: an artefact, not a surface (GBT guide); fit a lower order.",
    ),
    _Check(
        _HINT,
        lambda f: f.beyond > 0.02,
        "The phase is beyond +-1.5 rad on {beyond:.0%} of the dish (largest {largest:.1f} rad), more than a "
        "good solution shows (GBT guide): if you apply it, map again to confirm.",
    ),
    _Check(
        _HINT,
        lambda f: f.surface_um > f.good_surface_um,
        "The surface rms of {surface_um:.0f} um is above the {good_surface_um:.0f} um of a good solution for "
        "this telescope.",
    ),
    _Check(
        _HINT,
        lambda f: f.rim_share > 0.6 and f.rim_largest > 1.5,
        "The outer tenth of the radius carries {rim_share:.0%} of the squared phase, and the maps see it "
        "least: fit a lower order and compare.",
    ),
    _Check(
        _CARE,
        lambda f: f.rim_db <= -30 or f.rim_db >= 0,
        "The illumination at the rim came out as {rim_db:.0f} dB, which no feed has: hold it with --fix, or "
        "--amplitude-order 0.",
    ),
    _Check(
        _CARE,
        lambda f: f.phase_error > 0.2,
        "The phase is uncertain by {phase_error:.2f} rad rms: fit a lower order, or map a brighter source.",
    ),
    _Check(
        _CARE,
        lambda f: f.residual > 0.05 and f.residual_noise > 2,
        "The residual of the map at dz {residual_dz} is {residual:.1%} of its peak (rms, without its largest "
        "tenth): look at beams.png for what the model misses.",
    ),
    _Check(
        _CARE,
        lambda f: f.misfit > 3,
        "The residuals of the map at dz {misfit_dz} are {misfit:.0f} times the noise (without the largest "
        "tenth): the model does not hold everything in the maps.",
    ),
    _Check(
        _CARE,
        lambda f: not f.robust and f.outlying > 3,
        "The map at dz {outlying_dz} has outliers, which bias a fit with this likelihood: leave "
        "--likelihood at auto.",
    ),
    _Check(
        _CARE,
        lambda f: f.gain_next > f.cost_next,
        "Order {order} is too low: the maps ask for order {order_up} (gain {gain_next:.0f}, and "
        "{cost_next:.0f} is enough), which would change the phase by some {phase_error_model:.2f} rad rms: "
        "use --order {order_up}, or --order auto.",
    ),
    _Check(
        _HINT,
        lambda f: f.gain_off > 0.1,
        "The gain of the map at dz {gain_dz} is {gain_off:.0%} off the median: weather, focus or "
        "pointing changed between the maps.",
    ),
    _Check(
        _HINT,
        lambda f: f.snr < 10 and f.n_clear >= 2,
        "The map at dz {snr_dz} has a peak of only {snr:.1f} times its noise and adds little.",
    ),
    _Check(
        _HINT,
        lambda f: f.missing > 0.1,
        "{missing:.0%} of the samples are missing.",
    ),
    _Check(
        _HINT,
        lambda f: f.pointing_beams > 1,
        "The beam lies {pointing_beams:.1f} lambda/D from the centre of the maps: correct the pointing, and "
        "see in beams.png that no map cuts it off.",
    ),
    _Check(
        _HINT,
        lambda f: f.centre > 0.15,
        "The illumination is centred {centre:.2f} R off the axis of the dish: check the alignment of the "
        "feed, or hold x0 and y0 with --fix.",
    ),
    _Check(
        _CARE,
        lambda f: abs(f.dz_scale - 1) > 0.06 and "dz_scale" not in f.causes,
        "All focus offsets came out {dz_scale:.3f} times as large as the file has them: check dz, and the "
        "travel of the subreflector.",
    ),
    _Check(
        _HINT,
        lambda f: f.line_share > 0.95,
        "The {line_term} errors of the scan lines came out as large as a fit allows in the map at dz "
        "{line_dz}: look for bad lines in beams.png, and for what else the model may miss.",
    ),
    _Check(
        _HINT,
        lambda f: f.width_factor > 1.8,
        "The {width_name} came out {width:.2f} times as wide as in the file of the telescope: its [blockage] "
        "may be wrong.",
    ),
    _Check(
        _HINT,
        lambda f: f.amplitude_order >= 8 and f.bend_db > 1,
        "The illumination departs from its model by {bend_db:.1f} dB rms, with Zernikes to order "
        "{amplitude_order}: see the amplitude in aperture.png, and try another --illumination.",
    ),
    _Check(
        _HINT,
        lambda f: f.gain_last < f.cost_last and f.order > 1,
        "The maps do not ask for order {order} (gain {gain_last:.1f}, and it takes {cost_last:.0f}): --order "
        "{order_down} is enough.",
    ),
)

# The largest errors of scan lines that a fit takes up, in the units of `ScanTerm`.
_LARGEST_ON_LINES = {"level": 0.05, "slope": 0.05, "gain": 0.1, "pointing": 0.1, "pointing_drift": 0.1}
# What the parameters of the blockage's widths are called.
_WIDTHS = {"legs": "legs", "shadow": "shadows behind the feet of the legs"}


# What the verdict is at best with a named cause: where the maps fit so much better with it put right, and
# where it shows in the samples alone, and the fit may have coped.
_CAUSES = {
    "dz_sign": (STOP, STOP),
    "dz_scale": (STOP, _CARE),
    "beam_size": (STOP, STOP),
    "flipped": (STOP, STOP),
    "swapped": (STOP, STOP),
    "dz_of_one_map": (STOP, _CARE),
    "displaced": (STOP, _HINT),
    "extended": (_CARE, _CARE),
    "smeared": (_CARE, _CARE),
    "saturated": (_CARE, _CARE),
    "changed": (_CARE, _CARE),
    "clipped": (_HINT, _HINT),
    "stripes": (_CARE, _CARE),
    "glitches": (_HINT, _HINT),
    "drift": (_HINT, _HINT),
    "wander": (_HINT, _HINT),
}


# Share of the samples of a map that count where outliers must not, and the mean square of a standard normal
# variable within that share about zero.
_KEPT, _MEAN_SQUARE_KEPT = 0.9, 0.6230
# A cause that moves the surface by less than this, rad or a fraction of its rms, does not forbid its use.
_MOVED, _MOVED_FRACTION = 0.15, 0.3


def verdict(result: "FitResult") -> list[str]:
    """Say whether a result can be used, and which checks failed.

    Parameters
    ----------
    result : FitResult

    Returns
    -------
    list of str
        First "good", "usable with care" or "do not apply"; then one sentence for each check that failed, the
        most serious first.
    """
    numbers = SimpleNamespace(**find_numbers(result))
    named = [(_grade(cause, result.phase_rms), cause.text) for cause in result.causes]
    failed = [(c.grade, c.text.format(**vars(numbers))) for c in _CHECKS if c.fails(numbers)]
    reasons = sorted(named + failed, key=lambda reason: (STOP, _CARE, _HINT).index(reason[0]))
    return [reasons[0][0] or "good" if reasons else "good", *(text for _, text in reasons)]


def _grade(cause: "Cause", phase_rms: float) -> str:
    tried, seen = _CAUSES[cause.name]
    if math.isnan(cause.factor):
        return seen
    return _CARE if tried == STOP and cause.change < max(_MOVED, _MOVED_FRACTION * phase_rms) else tried


def find_numbers(result: "FitResult") -> dict[str, Any]:
    """Return the numbers that the checks are conditions on, by name.

    Parameters
    ----------
    result : FitResult

    Returns
    -------
    dict
        Numbers and words; a number that does not exist is NaN.
    """
    parts = (_fit_numbers, _order_numbers, _model_numbers, _line_numbers, _map_numbers, _dish_numbers)
    return {name: value for part in parts for name, value in part(result).items()}


# A number that does not exist is NaN: every comparison with it is false, so the check does not fail.


def _fit_numbers(result: "FitResult") -> dict[str, Any]:
    """Numbers of the fit as a whole."""
    (x, _), (y, _) = find_pointing(result)
    return {
        "causes": [cause.name for cause in result.causes],
        "robust": result.robust,
        "converged": result.converged,
        "interrupted": result.interrupted,
        "message": result.message,
        "phase_rms": result.phase_rms,
        "phase_error": result.phase_error,
        "surface_um": 1e6 * result.surface_rms,
        "good_surface_um": math.nan if result.good_surface_rms is None else 1e6 * result.good_surface_rms,
        "chi2": result.chi2_reduced,
        "missing": result.n_missing / max(result.n_missing + result.n_data, 1),
        "pointing_beams": math.hypot(x, y) * ARCSEC / result.beam,
    }


def _order_numbers(result: "FitResult") -> dict[str, Any]:
    """Numbers of the last order and the next: what they are worth."""
    return {
        **result.order_evidence._asdict(),
        "order": result.order,
        "order_up": result.order + 1,
        "order_down": result.order - 1,
        "phase_error_model": result.phase_error_model,
    }


def _model_numbers(result: "FitResult") -> dict[str, Any]:
    """Numbers of what is known of the telescope beforehand, and was fitted with the surface."""
    values = {name: p.value for name, p in result.parameters.items()}
    widths = {name: values[name] for name in _WIDTHS if name in values}
    widest = max(widths, key=lambda name: abs(math.log(widths[name])), default="")
    width = widths.get(widest, math.nan)
    return {
        "centre": math.hypot(values.get("x0", 0.0), values.get("y0", 0.0)),
        "dz_scale": values.get("dz_scale", math.nan),
        "width": width,
        "width_factor": max(width, 1 / width),
        "width_name": _WIDTHS.get(widest, ""),
        "amplitude_order": result.amplitude_order,
        "bend_db": measure_bend(result),
    }


def _line_numbers(result: "FitResult") -> dict[str, Any]:
    """Numbers of the largest errors of scan lines, over the size at which they are suspicious."""
    found = [
        (rms / _LARGEST_ON_LINES[term.name], term.name.replace("_", " "), f"{1e3 * m.dz:+.4g} mm")
        for term in result.scan_terms
        for rms, m in zip(term.rms, result.maps, strict=True)
    ]
    share, term, dz = max(found, key=lambda each: each[0], default=(math.nan, "", ""))
    return {"line_share": share, "line_term": term, "line_dz": dz}


def _map_numbers(result: "FitResult") -> dict[str, Any]:
    """Numbers of the worst map in each respect, with its focus offset."""
    maps = result.maps
    gains = np.array([result.parameters[f"gain_{i}"].value for i in range(len(maps))])
    gain_off = np.abs(gains / np.median(gains) - 1)
    snr = [m.peak / m.noise if m.noise > 0 else math.inf for m in maps]
    left = [_measure_residual(m) for m in maps]
    residual = [rms / m.peak for rms, m in zip(left, maps, strict=True)]
    misfit = [rms / m.noise if m.noise > 0 else math.nan for rms, m in zip(left, maps, strict=True)]
    unexplained = [_unexplained(m) for m in maps]
    outlying = [_outlying(m) for m in maps]
    weakest = int(np.argmin(snr))
    by_misfit = int(np.nanargmax(misfit)) if np.isfinite(misfit).any() else 0
    by_gain, by_residual, by_unexplained, by_outlying = (
        int(np.argmax(values)) for values in (gain_off, residual, unexplained, outlying)
    )
    dz = [f"{1e3 * m.dz:+.4g} mm" for m in maps]
    return {
        "n_maps": len(maps),
        "n_clear": sum(s > 10 for s in snr),
        "snr": snr[weakest],
        "snr_dz": dz[weakest],
        "gain_off": gain_off[by_gain],
        "gain_dz": dz[by_gain],
        "residual": residual[by_residual],
        "residual_noise": residual[by_residual] * snr[by_residual],
        "residual_dz": dz[by_residual],
        "misfit": misfit[by_misfit],
        "misfit_dz": dz[by_misfit],
        "unexplained": unexplained[by_unexplained],
        "unexplained_dz": dz[by_unexplained],
        "outlying": outlying[by_outlying],
        "outlying_dz": dz[by_outlying],
    }


def _dish_numbers(result: "FitResult") -> dict[str, float]:
    """Numbers of the phase and the illumination across the dish; the rim is the outer tenth of the radius."""
    a = result.aperture
    r = np.hypot(a.axis, a.axis[:, None]) / a.radius
    seen = np.isfinite(a.phase) & (a.open > 0.5)
    phase = np.where(seen, np.abs(a.phase), 0.0)
    rim = seen & (r > 0.9)
    with np.errstate(divide="ignore", invalid="ignore"):
        rim_db = float(20 * np.log10(find_illumination(a)[rim].sum() / rim.sum()))
        rim_share = float(np.sum(phase[rim] ** 2) / np.sum(phase**2))
    return {
        "largest": float(phase.max()),
        "beyond": float(np.sum(phase > 1.5) / max(float(np.sum(seen)), 1.0)),
        "rim_share": rim_share,
        "rim_largest": float(phase[rim].max(initial=0.0)),
        # An illumination with an edge of its own has no taper: 0 dB at the rim is right.
        "rim_db": rim_db if result.stop_radius is None else math.nan,
    }


def _measure_residual(m: "MapFit") -> float:
    """Return the rms of the residual without its largest tenth, as that of the normal law it would be."""
    squares = np.sort(m.residual[np.isfinite(m.data)] ** 2)
    kept = squares[: max(math.ceil(_KEPT * squares.size), 1)]
    return math.sqrt(np.mean(kept) / _MEAN_SQUARE_KEPT)


def _unexplained(m: "MapFit") -> float:
    """Return the rms of the residual over that of the signal, the variance of the noise taken from both.

    Of the samples where the model has power, without the tenth with the largest residuals: glitches, which
    a robust likelihood allows for, must not decide.
    """
    beam, seen = np.abs(m.model - m.offset), np.isfinite(m.data)
    bright = seen & (beam > 0.02 * np.nanmax(beam))
    used = bright if bright.any() else seen
    squares = m.residual[used] ** 2, (m.data - m.offset)[used] ** 2
    kept = squares[0] <= np.quantile(squares[0], 0.9)
    missed, signal = (np.mean(square[kept]) - m.noise**2 for square in squares)
    return math.sqrt(missed / signal) if missed > 0 and signal > 0 else 0.0


def _outlying(m: "MapFit") -> float:
    """Return the rms of the residual over its robust estimate: 1 for normal errors, more with outliers."""
    r = np.abs(m.residual)
    robust = 1.4826 * np.nanmedian(r)  # the standard deviation of a normal distribution
    return float(np.sqrt(np.nanmean(r**2)) / robust) if robust > 0 else 1.0
