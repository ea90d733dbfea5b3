"""The report of a fit for the terminal, in plain ASCII."""

import math
import textwrap
from typing import TYPE_CHECKING

import numpy as np

from ooftorch.optics import zernike
from ooftorch.reporting.chance import estimate_chance
from ooftorch.reporting.checks import verdict
from ooftorch.reporting.derived import (
    compare_with_truth,
    describe_illumination,
    estimate_coefficients,
    find_bend,
    find_pointing,
    measure_bend,
)
from ooftorch.units import ARCSEC, SPEED_OF_LIGHT, half_path

if TYPE_CHECKING:
    from ooftorch.result import Estimate, FitResult, OrderFit

__all__ = ["order_header", "order_line", "report"]

# Parameters of single maps, and degrees of freedom of Student's t above one.
_PER_MAP, _EXCESS = ("gain", "offset", "dx", "dy"), "excess_degrees"
# Columns of a line, and of the label that it begins with.
_WIDTH, _INDENT = 100, 17


def order_header() -> str:
    """Return the line above the rows of `order_line`."""
    return f"{'order':>5} {'objective':>16} {'chi2/dof':>10} {'free':>5} {'evaluations':>11} {'seconds':>8}"


def order_line(order_fit: "OrderFit") -> str:
    """Return one order of a fit as a row below `order_header`."""
    o = order_fit
    chi2 = f"{o.chi2_reduced:.4g}" if math.isfinite(o.chi2_reduced) else "-"
    return f"{o.order:5d} {o.objective:16.2f} {chi2:>10} {o.n_free:5d} {o.n_eval:11d} {o.seconds:8.1f}"


def report(result: "FitResult", orders: bool = True) -> str:
    """Return the report: the observation and the model, the parameters, the maps, the surface, the verdict.

    Parameters
    ----------
    result : FitResult
    orders : bool
        With the table of orders; not needed where its rows were printed during the fit.

    Returns
    -------
    str
        Lines without a newline at the end.
    """
    word, *reasons = verdict(result)
    blocks = [
        _opening(result),
        *([[order_header(), *(order_line(o) for o in result.orders)]] if orders else []),
        _coefficients(result),
        _other_parameters(result),
        _map_table(result),
        *_pointing_table(result),
        *_order_table(result),
        _main_numbers(result),
        [
            *_line("VERDICT", word),
            *_chance(result),
            *(line for reason in reasons for line in _wrapped(reason, "  - ")),
        ],
    ]
    return "\n\n".join("\n".join(block) for block in blocks)


def _chance(result: "FitResult") -> list[str]:
    """Return the line of the chance that applying the result helps, where there is one."""
    chance = estimate_chance(result)
    if math.isnan(chance):
        return []
    return _line("chance", f"{min(max(chance, 0.01), 0.99):.0%} that applying it makes the telescope better")


def _opening(result: "FitResult") -> list[str]:
    what = ", ".join(filter(None, (result.object, result.date_obs)))
    offsets = ", ".join(f"{1e3 * m.dz:+.4g}" for m in result.maps)
    frequency = 1e-9 * SPEED_OF_LIGHT / result.wavelength
    return [
        *_line("observation", what or "-"),
        f"{'file':{_INDENT}}{result.input or '-'}",  # in one piece, to be copied
        *_line("telescope", f"{result.telescope}, dish radius {result.aperture.radius:.4g} m"),
        *_line("wavelength", f"{1e3 * result.wavelength:.5g} mm, {frequency:.5g} GHz"),
        *_line("maps", f"{len(result.maps)} at dz {offsets} mm"),
        *_line("samples", f"{result.n_data}, and {result.n_missing} missing"),
        *_line(
            "model",
            f"order {result.order}, {describe_illumination(result)}, {result.likelihood} likelihood, "
            f"{result.n_free} free parameters",
        ),
        *_bend(result),
        *_scan_lines(result),
        *_tails(result),
        *(line for note in result.notes for line in _line("note", note)),
        *_line("fit", result.message if result.interrupted else f"{_converged(result)}: {result.message}"),
    ]


def _converged(result: "FitResult") -> str:
    return "converged" if result.converged else "NOT CONVERGED"


def _bend(result: "FitResult") -> list[str]:
    """Return the lines of how far the illumination departs from its model, where it does."""
    bend = find_bend(result)
    if not bend:
        return []
    first, *_, last = bend
    worst = max(bend, key=lambda name: abs(bend[name].value))
    largest = f"{worst}, {zernike.label(int(worst[1:]))}, {bend[worst].value:+.3f} +- {_sigma(bend[worst])}"
    text = f"{measure_bend(result):.2g} dB rms over the dish, {first} to {last}; largest {largest}"
    return _line("bend", text)


def _tails(result: "FitResult") -> list[str]:
    """Return the line of the degrees of freedom of Student's t, where that is the likelihood."""
    excess = result.parameters.get(_EXCESS)
    if excess is None:
        return []
    degrees = 1 + excess.value
    words = next(words for least, words in _TAILS if degrees >= least)
    digits = 1 if degrees < 10 else 0
    error = f"+- {excess.sigma:.{digits}f}" if excess.free else "(held)"
    text = f"Student's t, {degrees:.{digits}f} {error} degrees of freedom: {words}"
    return _line("noise", text)


# Degrees of freedom of Student's t, from which on its tails are told in these words.
_TAILS = ((20.0, "like normal noise"), (5.0, "tails a little longer than normal"), (0.0, "long tails"))
# What the rms of each error of scan lines is called, and its unit in words and factor.
_SCAN_TERMS = {
    "level": ("levels", 100.0, "% of peak"),
    "slope": ("slopes", 100.0, "% of peak from middle to end"),
    "gain": ("gains", 100.0, "%"),
    "pointing": ("pointing", 1.0, "beams"),
    "pointing_drift": ("pointing drift", 1.0, "beams from middle to end"),
}


def _scan_lines(result: "FitResult") -> list[str]:
    """Return the lines of the errors of scan lines that were found, rms over the lines of all maps."""
    found = []
    for term in result.scan_terms:
        word, factor, unit = _SCAN_TERMS[term.name]
        found.append(f"{word} {factor * math.sqrt(np.mean(np.square(term.rms))):.2g} {unit}")
    return _line("scan lines", f"{', '.join(found)} (rms), integrated out") if found else []


def _coefficients(result: "FitResult") -> list[str]:
    rows = [f"{'coefficient':35} {'rad':>9} {'+-':>9} {'um half-path':>13}"]
    for name, p in estimate_coefficients(result).items():
        if p.free:
            um = 1e6 * half_path(p.value, result.wavelength)
            rows.append(
                f"{name:>4}  {result.basis.label(name):29} {p.value:+9.4f} {p.sigma:9.2g} {um:+13.1f}"
            )
    return rows


def _other_parameters(result: "FitResult") -> list[str]:
    """Return the free parameters that stand nowhere else, then all held ones."""
    surface = estimate_coefficients(result)
    of_maps = {f"{kind}_{i}" for kind in _PER_MAP for i in range(len(result.maps))}
    elsewhere = {*of_maps, *surface, *find_bend(result), _EXCESS}
    others = {name: p for name, p in result.parameters.items() if name not in elsewhere}
    rows = [f"{'parameter':35} {'value':>9} {'+-':>9}  unit"]
    rows += [f"{name:35} {p.value:9.4g} {p.sigma:9.2g}  {p.unit}" for name, p in others.items() if p.free]
    held = {name: p for name, p in (surface | others).items() if not p.free and name != result.basis.piston}
    if held:
        values = (f"{name} = {p.value:.4g} {p.unit}".rstrip() for name, p in held.items())
        rows += _wrapped(", ".join(values), "held: ")
    return [row.rstrip() for row in rows]


def _map_table(result: "FitResult") -> list[str]:
    head = [f"{kind:>10} {'+-':>8}" for kind in ("gain", "offset")]
    rows = [" ".join([f"{'dz/mm':>7}", *head, "    noise  peak/noise  residual/noise  residual/peak"])]
    for i, m in enumerate(result.maps):
        cells = [
            f"{p.value:10.5g} {_sigma(p):>8}"
            for p in (result.parameters[f"{kind}_{i}"] for kind in ("gain", "offset"))
        ]
        peak, rms = m.peak, float(np.sqrt(np.nanmean(m.residual**2)))
        in_noise = [f"{value / m.noise:.1f}" if m.noise > 0 else "-" for value in (peak, rms)]
        cells.append(f"{m.noise:9.3g} {in_noise[0]:>11} {in_noise[1]:>15} {m.residual_rms_over_peak:14.2%}")
        rows.append(" ".join([f"{1e3 * m.dz:+7.4g}", *cells]))
    return rows


def _pointing_table(result: "FitResult") -> list[list[str]]:
    """Return the pointing of each map; nothing where it was held at zero."""
    pointing = [[result.parameters[f"{kind}_{i}"] for kind in ("dx", "dy")] for i in range(len(result.maps))]
    if not any(p.free or p.value for pair in pointing for p in pair):
        return []
    rows = [f"{'dz/mm':>7} {'dx/arcsec':>10} {'+-':>8} {'dy/arcsec':>10} {'+-':>8} {'beams':>7}"]
    for m, pair in zip(result.maps, pointing, strict=True):
        cells = [f"{p.value / ARCSEC:+10.3f} {_sigma(p, 1 / ARCSEC):>8}" for p in pair]
        beams = math.hypot(*(p.value for p in pair)) / result.beam
        rows.append(" ".join([f"{1e3 * m.dz:+7.4g}", *cells, f"{beams:7.3f}"]))
    return [rows]


def _order_table(result: "FitResult") -> list[list[str]]:
    """Return what each order says of the telescope; nothing where that is not known."""
    views = result.order_views
    if not views:
        return []
    rows = [
        f"{'order':>5} {'chi2/dof':>9} {'BIC':>9} {'phase/rad':>10} {'+-':>8} {'change':>7} {'focus/mm':>9} "
        f"{'DX/arcsec':>10} {'DY/arcsec':>10}"
    ]
    for v in views:
        x, y = (p / ARCSEC for p in v.pointing)
        rows.append(
            f"{v.order:5d} {v.chi2_reduced:9.4g} {v.bic:9.4g} {v.phase_rms:10.3f} {v.phase_error:8.2g} "
            f"{v.change:7.3f} {1e3 * v.focus_shift:+9.3g} {x:+10.3g} {y:+10.3g}".replace("nan", "  -")
        )
    return [rows]


def _sigma(p: "Estimate", unit: float = 1.0) -> str:
    return f"{p.sigma * unit:.2g}" if p.free else "held"


def _main_numbers(result: "FitResult") -> list[str]:
    estimate, error = (1e6 * value for value in result.surface_rms_estimate)
    return [
        *_line("phase rms", f"{result.phase_rms:.3f} rad, over the dish, piston and tilt removed"),
        *_phase_error(result),
        *_truth(result),
        *_line("surface rms", f"{1e6 * result.surface_rms:.0f} um, half-path error: lambda phase/(4 pi)"),
        *_line("  less error", f"{estimate:.0f} +- {error:.2g} um, without what the errors add to it"),
        *_line(
            "Ruze efficiency",
            f"{result.ruze_efficiency:.3f}, exp(-phase rms^2), about the gain over that of a perfect dish",
        ),
        *_focus(result),
        *_pointing(result),
    ]


def _phase_error(result: "FitResult") -> list[str]:
    """Return the lines of the error of the phase, and of what its two kinds are."""
    if math.isnan(result.phase_error_noise):
        return _line("phase error", f"{result.phase_error:.2g} rad rms, from the noise alone")
    return [
        *_line(
            "phase error",
            f"{result.phase_error:.2g} rad rms, as all +- here: from the noise, widened by how the residuals "
            "of neighbouring samples and scan lines go together",
        ),
        *_line("  noise alone", f"{result.phase_error_noise:.2g} rad rms, were all samples independent"),
        *_line(
            "  wider model",
            f"{result.phase_error_model:.2g} rad rms that the next orders of surface and amplitude would "
            "move it, beyond their noise",
        ),
        *_order(result),
    ]


def _order(result: "FitResult") -> list[str]:
    """Return the lines of what the last order and the next are worth, and the order to use."""
    e, n = result.order_evidence, result.order
    found = [
        f"order {order} gains {gain:.3g} (asked for above {cost:.2g})"
        for order, gain, cost in ((n, e.gain_last, e.cost_last), (n + 1, e.gain_next, e.cost_next))
        if math.isfinite(gain)
    ]
    return _line("order", f"{', '.join(found)}: use order {result.recommended_order}") if found else []


def _focus(result: "FitResult") -> list[str]:
    """Return the lines of the focus offset in the surface, and of the surface without it."""
    shift, sigma = result.focus_shift
    if math.isnan(shift):
        return []
    rms, error = (
        1e6 * half_path(phase, result.wavelength)
        for phase in (result.phase_rms_refocused, result.phase_error_refocused)
    )
    return [
        *_line("focus", f"{1e3 * shift:+.3g} +- {1e3 * sigma:.2g} mm of dz are in the surface"),
        *_line(
            "refocused",
            f"surface rms {rms:.0f} +- {error:.2g} um, phase rms {result.phase_rms_refocused:.3f} +- "
            f"{result.phase_error_refocused:.2g} rad, with that taken out",
        ),
    ]


def _pointing(result: "FitResult") -> list[str]:
    """Return the line of the pointing, where the basis has tilts."""
    (x, x_sigma), (y, y_sigma) = find_pointing(result)
    if math.isnan(x):
        return []
    tilts = f"{result.basis.x_tilt} and {result.basis.y_tilt}"
    text = f"DX {x:+.2f} +- {x_sigma:.2g}, DY {y:+.2f} +- {y_sigma:.2g} arcsec, from {tilts}"
    return _line("pointing offset", text)


def _truth(result: "FitResult") -> list[str]:
    """Return the line that compares a fit of simulated maps with the truth."""
    found = compare_with_truth(result)
    if found is None:
        return []
    text = (
        f"off by {found['actual_phase_error_rad']:.3g} rad rms over the dish (predicted: "
        f"{found['predicted_rad']:.3g}), {found['surface_error_um']:.1f} um half-path"
    )
    pulls = found["pulls"]
    if pulls:
        worst = max(pulls, key=lambda name: abs(pulls[name]))
        text += f"; worst {worst}, {abs(pulls[worst]):.1f} sigma"
    return _line("truth", text)


# ------------------------------------------------------------------------------------------- lines


def _line(label: str, text: str) -> list[str]:
    """Return a labelled text, in as many lines as it takes."""
    return _wrapped(text, f"{label:{_INDENT}}")


def _wrapped(text: str, first: str) -> list[str]:
    indent = " " * len(first)
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
