"""A fit in words and numbers: the report for the terminal, the verdict, and `summary.json`.

The report is plain ASCII, for terminals of every age.
"""

import math
import textwrap
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from ooftorch import __version__
from ooftorch.optics import zernike

if TYPE_CHECKING:
    from ooftorch.result import Estimate, FitResult, OrderFit

__all__ = ["order_header", "order_line", "report", "summary", "verdict"]

_ARCSEC = math.radians(1 / 3600)
# Parameters that every map has, with what their value is multiplied by for the eye.
_PER_MAP = {"gain": 1.0, "offset": 1.0, "dx": 1 / _ARCSEC, "dy": 1 / _ARCSEC}

# ----------------------------------------------------------------------------------------- summary


def summary(result: "FitResult", seconds: Mapping[str, float] | None = None) -> dict[str, Any]:
    """Return what `summary.json` holds.

    Units are in the names; a number that does not exist is None. `surface_rms_um` is the half-path error,
    `pointing_arcsec` where the tilts z2 and z1 alone put the beam, telescope minus source; `truth` is how far
    the fit is from what was put into simulated maps, `pulls` in standard errors (None where nobody knows).

    Parameters
    ----------
    result : FitResult
    seconds : mapping, optional
        Wall times "read", "fit", "write" and "total", as far as they are known; that of the fit is in the
        result.

    Returns
    -------
    dict
        Of plain Python values: ``json.dumps(..., allow_nan=False)`` accepts it.
    """
    word, *reasons = verdict(result)
    (x, _), (y, _) = _pointing(result)
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
            "order": result.order,
            "converged": result.converged,
            "message": result.message,
            "verdict": word,
            "reasons": reasons,
            "objective": result.objective,
            "chi2_reduced": result.chi2_reduced,
            "n_data": result.n_data,
            "n_missing": result.n_missing,
            "n_free": result.n_free,
            "n_eval": result.n_eval,
            "parameters": {name: p._asdict() for name, p in result.parameters.items()},
            "maps": [
                {
                    "dz_m": m.dz,
                    "n_data": np.count_nonzero(np.isfinite(m.data)),
                    "residual_rms_over_peak": m.residual_rms_over_peak,
                    "noise": m.noise,
                }
                for m in result.maps
            ],
            "phase_rms_rad": result.phase_rms,
            "phase_error_rad": result.phase_error,
            "surface_rms_um": 1e6 * result.surface_rms,
            "surface_rms_kind": "half-path",
            "ruze_efficiency": result.ruze_efficiency,
            "pointing_arcsec": {"dx": x, "dy": y},
            "orders": [
                {
                    "order": o.order,
                    "objective": o.objective,
                    "chi2_reduced": o.chi2_reduced,
                    "n_free": o.n_free,
                    "n_eval": o.n_eval,
                    "seconds": o.seconds,
                }
                for o in result.orders
            ],
            "notes": result.notes,
            "truth": _against_truth(result),
            "seconds": {name: times.get(name) for name in ("read", "fit", "write", "total")},
        }
    )


def _against_truth(result: "FitResult") -> dict[str, Any] | None:
    truth = result.truth
    if truth is None:
        return None
    error = truth.rms_error(result.zernikes, result.aperture.radius)
    return {
        "phase_error_rad": error,
        "surface_error_um": 1e6 * result.wavelength * error / (4 * math.pi),
        "predicted_rad": result.phase_error,
        "pulls": truth.pulls(result),
        "parameters": {name: p.value for name, p in truth.parameters.items()},
    }


def _plain(value: Any) -> Any:
    """The same in types that JSON has; a number that is not finite becomes None."""
    if isinstance(value, Mapping):
        return {name: _plain(v) for name, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _pointing(result: "FitResult") -> tuple[tuple[float, float], tuple[float, float]]:
    """DX and DY of the beam and their errors, arcsec, from z2 and z1 alone (CONVENTIONS 2)."""
    per_rad = result.wavelength / (2 * math.pi * result.aperture.radius) / _ARCSEC
    x, y = result.parameters["z2"], result.parameters["z1"]
    return (x.value * per_rad, x.sigma * per_rad), (y.value * per_rad, y.sigma * per_rad)


def _zernikes(result: "FitResult") -> "dict[str, Estimate]":
    names = [zernike.name(k) for k in range(zernike.n_terms(result.order))]
    return {name: result.parameters[name] for name in names}


# ----------------------------------------------------------------------------------------- verdict

_CARE, _STOP = "usable with care", "do not apply"

# What speaks against a result: how gravely, when, and in which words. "GBT guide" is the AutoOOF guide of
# the Green Bank Observatory for its operators; thresholds without a source are our own judgement.
_CHECKS: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    (
        _STOP,
        lambda f: not (f.converged and math.isfinite(f.phase_rms)),
        "The fit did not converge ({message}): try a lower order, or --likelihood cauchy if the maps have "
        "glitches.",
    ),
    (
        _STOP,
        lambda f: f.n_clear < 2,
        "{n_clear} of {n_maps} maps with a clear signal (peak over noise above 10), and it takes two (GBT "
        "guide): map a brighter source.",
    ),
    (
        _STOP,
        lambda f: f.unexplained > 0.4,
        "The model misses {unexplained:.0%} of the signal (rms) in the map at dz {unexplained_dz}: check "
        "telescope, frequency, dz and the orientation of the maps.",
    ),
    (
        _STOP,
        lambda f: f.largest > 15,
        "The phase reaches {largest:.0f} rad: an artefact, not a surface (GBT guide); fit a lower order.",
    ),
    (
        _CARE,
        lambda f: f.beyond > 0.02,
        "The phase is beyond +-1.5 rad on {beyond:.0%} of the dish (largest {largest:.1f} rad), more than a "
        "good solution shows (GBT guide): if you apply it, map again to confirm.",
    ),
    (
        _CARE,
        lambda f: f.telescope.startswith("gbt") and f.surface_um > 400,
        "The surface rms of {surface_um:.0f} um is above the 400 um of a good solution (GBT guide).",
    ),
    (
        _CARE,
        lambda f: f.rim_share > 0.6 and f.rim_largest > 1.5,
        "The outer tenth of the radius carries {rim_share:.0%} of the squared phase, and the maps see it "
        "least: fit a lower order and compare.",
    ),
    (
        _CARE,
        lambda f: f.rim_db <= -30 or f.rim_db >= 0,
        "The illumination at the rim came out as {rim_db:.0f} dB, which no feed has: hold it with --fix.",
    ),
    (
        _CARE,
        lambda f: f.phase_error > 0.2,
        "Noise alone makes the phase uncertain by {phase_error:.2f} rad rms: fit a lower order, or map a "
        "brighter source.",
    ),
    (
        _CARE,
        lambda f: f.residual > 0.05 and f.residual_noise > 2,
        "The residual of the map at dz {residual_dz} is {residual:.1%} of its peak (rms): look at "
        "beams.png for what the model misses.",
    ),
    (
        _CARE,
        lambda f: f.chi2 > 9,
        "The residuals are {chi_factor:.0f} times the noise (chi2/dof {chi2:.3g}): the model does not hold "
        "everything in the maps, and the error bars are too small.",
    ),
    (
        _CARE,
        lambda f: f.likelihood == "gaussian" and f.outlying > 3,
        "A few samples of the map at dz {outlying_dz} are far off the rest, and pull at the fit: try "
        "--likelihood cauchy.",
    ),
    (
        _CARE,
        lambda f: f.chi2 > 4 and f.chi2_before > 1.25 * f.chi2,
        "Order {order} still lowered chi2/dof from {chi2_before:.3g} to {chi2:.3g}: try --order {order_up}.",
    ),
    (
        _CARE,
        lambda f: f.gain_off > 0.1,
        "The gain of the map at dz {gain_dz} is {gain_off:.0%} off the median: weather, focus or "
        "pointing changed between the maps.",
    ),
    (
        _CARE,
        lambda f: f.snr < 10 and f.n_clear >= 2,
        "The map at dz {snr_dz} has a peak of only {snr:.1f} times its noise and adds little.",
    ),
    (
        _CARE,
        lambda f: f.missing > 0.1,
        "{missing:.0%} of the samples are missing.",
    ),
    (
        _CARE,
        lambda f: f.pointing_beams > 1,
        "The beam lies {pointing_beams:.1f} lambda/D from the centre of the maps: correct the pointing, and "
        "see in beams.png that no map cuts it off.",
    ),
    (
        "",
        lambda f: f.drop < f.added,
        "Order {order} fits no better than order {order_down} (objective lower by {drop:.1f} for {added} "
        "more parameters): --order {order_down} is enough.",
    ),
)


def verdict(result: "FitResult") -> list[str]:
    """Say whether a result can be used, and what speaks against it.

    Parameters
    ----------
    result : FitResult

    Returns
    -------
    list of str
        First "good", "usable with care" or "do not apply"; then one sentence for each finding, the gravest
        first.
    """
    facts = _facts(result)
    found = [(grade, text.format(**vars(facts))) for grade, test, text in _CHECKS if test(facts)]
    grades = [grade for grade, _ in found]
    word = next((grade for grade in (_STOP, _CARE) if grade in grades), "good")
    return [word, *(sentence for _, sentence in found)]


def _facts(result: "FitResult") -> SimpleNamespace:
    """The numbers that the checks look at. One that does not exist is NaN, and passes."""
    maps, a = result.maps, result.aperture
    peaks = [m.peak for m in maps]
    snr = [peak / m.noise if m.noise > 0 else math.inf for peak, m in zip(peaks, maps, strict=True)]
    residual = [m.residual_rms_over_peak for m in maps]
    unexplained = [_unexplained(result, i) for i in range(len(maps))]
    outlying = [_outlying(result, i) for i in range(len(maps))]
    gains = np.array([result.parameters[f"gain_{i}"].value for i in range(len(maps))])
    gain_off = np.abs(gains / np.median(gains) - 1)
    weakest, worst = int(np.argmin(snr)), int(np.argmax(residual))
    missed, odd, far = (int(np.argmax(a)) for a in (unexplained, gain_off, outlying))

    r = np.hypot(a.axis, a.axis[:, None]) / a.radius
    seen = np.isfinite(a.phase) & (a.open > 0.5)
    phase = np.where(seen, np.abs(a.phase), 0.0)
    rim = seen & (r > 0.9)
    lit = np.divide(a.amplitude, a.open, where=seen, out=np.zeros_like(a.open))
    with np.errstate(divide="ignore", invalid="ignore"):
        rim_db = float(20 * np.log10(lit[rim].sum() / rim.sum() / lit.max()))
        rim_share = float(np.sum(phase[rim] ** 2) / np.sum(phase**2))
    if result.illumination == "tophat":
        rim_db = math.nan  # an edge is what it has

    before = result.orders[-2] if len(result.orders) > 1 else None
    last = result.orders[-1]
    (x, _), (y, _) = _pointing(result)
    return SimpleNamespace(
        telescope=result.telescope,
        order=result.order,
        order_up=result.order + 1,
        order_down=result.order - 1,
        converged=result.converged,
        message=result.message,
        n_maps=len(maps),
        n_clear=sum(s > 10 for s in snr),
        snr=snr[weakest],
        snr_dz=_mm(maps[weakest].dz),
        residual=residual[worst],
        residual_noise=residual[worst] * snr[worst],
        residual_dz=_mm(maps[worst].dz),
        likelihood=result.likelihood,
        outlying=outlying[far],
        outlying_dz=_mm(maps[far].dz),
        unexplained=unexplained[missed],
        unexplained_dz=_mm(maps[missed].dz),
        gain_off=gain_off[odd],
        gain_dz=_mm(maps[odd].dz),
        phase_rms=result.phase_rms,
        phase_error=result.phase_error,
        largest=float(phase.max()),
        beyond=float(np.sum(phase > 1.5) / max(float(np.sum(seen)), 1.0)),
        surface_um=1e6 * result.surface_rms,
        rim_share=rim_share,
        rim_largest=float(phase[rim].max(initial=0.0)),
        rim_db=rim_db,
        chi2=result.chi2_reduced,
        chi_factor=math.sqrt(result.chi2_reduced),
        chi2_before=math.nan if before is None else before.chi2_reduced,
        drop=math.nan if before is None else before.objective - last.objective,
        added=math.nan if before is None else last.n_free - before.n_free,
        missing=result.n_missing / max(result.n_missing + result.n_data, 1),
        pointing_beams=math.hypot(x, y) * _ARCSEC * 2 * a.radius / result.wavelength,
    )


def _signal(result: "FitResult", i: int) -> np.ndarray:
    """Data of a map above the fitted offset."""
    return result.maps[i].data - result.maps[i].offset


def _unexplained(result: "FitResult", i: int) -> float:
    """Rms of the residual over that of the signal, the noise taken from both.

    Where the model has power; and the tenth of these samples that it misses most is left out, so that
    glitches, which the Cauchy likelihood forgives, do not speak for the rest.
    """
    m = result.maps[i]
    beam, seen = np.abs(m.model - m.offset), np.isfinite(m.data)
    bright = seen & (beam > 0.02 * np.nanmax(beam))
    missed, signal = (a[bright if bright.any() else seen] ** 2 for a in (m.residual, _signal(result, i)))
    kept = missed <= np.quantile(missed, 0.9)
    missed, signal = (np.mean(square[kept]) - m.noise**2 for square in (missed, signal))
    return math.sqrt(missed / signal) if missed > 0 and signal > 0 else 0.0


def _outlying(result: "FitResult", i: int) -> float:
    """Rms of the residual over what most samples say it is: 1 for normal errors, more for a few far off."""
    r = np.abs(result.maps[i].residual)
    typical = 1.4826 * np.nanmedian(r)
    return float(np.sqrt(np.nanmean(r**2)) / typical) if typical > 0 else 1.0


# ------------------------------------------------------------------------------------------ report


def order_header() -> str:
    """Return the line above the rows of `order_line`."""
    return f"{'order':>5} {'objective':>16} {'chi2/dof':>10} {'free':>5} {'evaluations':>11} {'seconds':>8}"


def order_line(order_fit: "OrderFit") -> str:
    """Return one order of a fit as a row of the table that `order_header` opens."""
    o = order_fit
    chi2 = f"{o.chi2_reduced:.4g}" if math.isfinite(o.chi2_reduced) else "-"
    return f"{o.order:5d} {o.objective:16.2f} {chi2:>10} {o.n_free:5d} {o.n_eval:11d} {o.seconds:8.1f}"


def report(result: "FitResult", orders: bool = True) -> str:
    """Return the report that the terminal shows: what was fitted, how it went, what came out, the verdict.

    Parameters
    ----------
    result : FitResult
    orders : bool
        Whether the table of orders is wanted: not where its rows were printed as the orders ended.

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
        _main_numbers(result),
        [_line("VERDICT", word), *(line for reason in reasons for line in _wrapped(reason, "  - "))],
    ]
    return "\n\n".join("\n".join(block) for block in blocks)


def _opening(result: "FitResult") -> list[str]:
    from ooftorch.units import SPEED_OF_LIGHT  # here, for it brings torch along

    what = ", ".join(filter(None, (result.object, result.date_obs)))
    offsets = ", ".join(f"{1e3 * m.dz:+.4g}" for m in result.maps)
    return [
        _line("observation", what or "-"),
        _line("file", result.input or "-"),
        _line("telescope", f"{result.telescope}, dish radius {result.aperture.radius:.4g} m"),
        _line(
            "wavelength",
            f"{1e3 * result.wavelength:.5g} mm, {1e-9 * SPEED_OF_LIGHT / result.wavelength:.5g} GHz",
        ),
        _line("maps", f"{len(result.maps)} at dz {offsets} mm"),
        _line("samples", f"{result.n_data}, and {result.n_missing} missing"),
        _line(
            "model",
            f"order {result.order}, {result.illumination} illumination, {result.likelihood} likelihood, "
            f"{result.n_free} free parameters",
        ),
        *(_line("note", note) for note in result.notes),
        _line("fit", f"{'converged' if result.converged else 'NOT CONVERGED'}: {result.message}"),
    ]


def _coefficients(result: "FitResult") -> list[str]:
    um = 1e6 * result.wavelength / (4 * math.pi)
    rows = [f"{'coefficient':35} {'rad':>9} {'+-':>9} {'um half-path':>13}"]
    for k, (name, p) in enumerate(_zernikes(result).items()):
        if p.free:
            rows.append(
                f"{name:>4}  {zernike.label(k):29} {p.value:+9.4f} {p.sigma:9.2g} {p.value * um:+13.1f}"
            )
    return rows


def _other_parameters(result: "FitResult") -> list[str]:
    """Neither free coefficients nor of one map; what was held at the end, but for the piston."""
    zernikes = _zernikes(result)
    of_maps = {f"{kind}_{i}" for kind in _PER_MAP for i in range(len(result.maps))}
    others = {name: p for name, p in result.parameters.items() if name not in of_maps | set(zernikes)}
    rows = [f"{'parameter':35} {'value':>9} {'+-':>9}  unit"]
    rows += [f"{name:35} {p.value:9.4g} {p.sigma:9.2g}  {p.unit}" for name, p in others.items() if p.free]
    held = {name: p for name, p in (zernikes | others).items() if not p.free and name != "z0"}
    if held:
        values = (f"{name} = {p.value:.4g} {p.unit}".rstrip() for name, p in held.items())
        rows += _wrapped(", ".join(values), "held: ")
    return [row.rstrip() for row in rows]


def _map_table(result: "FitResult") -> list[str]:
    def own(kind: str) -> "list[Estimate]":
        return [result.parameters[f"{kind}_{i}"] for i in range(len(result.maps))]

    # The pointing of single maps is usually held at nothing.
    shown = {kind: own(kind) for kind in _PER_MAP if any(p.free or p.value for p in own(kind))}
    units = {"dx": "/arcsec", "dy": "/arcsec"}
    head = [f"{kind + units.get(kind, ''):>10} {'+-':>8}" for kind in shown]
    rows = [" ".join([f"{'dz/mm':>7}", *head, "    noise  peak/noise  residual/noise  residual/peak"])]
    for i, m in enumerate(result.maps):
        cells = []
        for kind, estimates in shown.items():
            p, unit = estimates[i], _PER_MAP[kind]
            cells.append(f"{p.value * unit:10.5g} {f'{p.sigma * unit:.2g}' if p.free else 'held':>8}")
        peak, rms = m.peak, float(np.sqrt(np.nanmean(m.residual**2)))
        in_noise = [f"{value / m.noise:.1f}" if m.noise > 0 else "-" for value in (peak, rms)]
        cells.append(f"{m.noise:9.3g} {in_noise[0]:>11} {in_noise[1]:>15} {m.residual_rms_over_peak:14.2%}")
        rows.append(" ".join([f"{1e3 * m.dz:+7.4g}", *cells]))
    return rows


def _main_numbers(result: "FitResult") -> list[str]:
    (x, x_sigma), (y, y_sigma) = _pointing(result)
    return [
        _line("phase rms", f"{result.phase_rms:.3f} rad, over the dish, piston and tilt removed"),
        _line("phase error", f"{result.phase_error:.2g} rad rms, from the noise alone"),
        *_truth(result),
        _line("surface rms", f"{1e6 * result.surface_rms:.0f} um, half-path error: lambda phase/(4 pi)"),
        _line(
            "Ruze efficiency",
            f"{result.ruze_efficiency:.3f}, exp(-phase rms^2), about what is left of the gain",
        ),
        _line(
            "pointing offset",
            f"DX {x:+.2f} +- {x_sigma:.2g}, DY {y:+.2f} +- {y_sigma:.2g} arcsec, from z2 and z1",
        ),
    ]


def _truth(result: "FitResult") -> list[str]:
    """How far a fit of simulated maps is from the truth."""
    found = _against_truth(result)
    if found is None:
        return []
    text = (
        f"off by {found['phase_error_rad']:.3g} rad rms over the dish (noise alone: "
        f"{found['predicted_rad']:.3g}), {found['surface_error_um']:.1f} um half-path"
    )
    pulls = found["pulls"]
    if pulls:
        worst = max(pulls, key=lambda name: abs(pulls[name]))
        text += f"; worst {worst}, {abs(pulls[worst]):.1f} sigma"
    return [_line("truth", text)]


# ------------------------------------------------------------------------------------------- lines


def _line(label: str, text: str) -> str:
    return f"{label:17}{text}"


def _wrapped(text: str, first: str) -> list[str]:
    return textwrap.wrap(text, 96, initial_indent=first, subsequent_indent=" " * len(first))


def _mm(metres: float) -> str:
    return f"{1e3 * metres:+.4g} mm"
