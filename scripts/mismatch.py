"""What wrong assumptions cost: the error of a surface fitted with a model that is not the telescope's.

Effelsberg at 9.37 mm (32 GHz), maps at dz -22, 0 and +22 mm of 33 x 33 samples out to 6 beams, surfaces of
order 5 and 0.5 rad rms. The truth is simulated on 512 aperture pixels a side and fitted on the usual 256,
with one thing assumed wrong. Errors are those of the mistake alone: maps without noise, weighted as if a
sample had 1/300 of the peak. Error bar, reduced chi-square and verdict are of the same maps with that noise:
what an observer is shown.
"""

import collections
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from results_page import run, table

import ooftorch
from ooftorch.observation import Observation
from ooftorch.optics import telescopes
from ooftorch.optics.illumination.gaussian import find_width
from ooftorch.optics.telescope import Telescope
from ooftorch.reporting.checks import verdict
from ooftorch.simulation import surfaces as surface
from ooftorch.simulation.noise import Noise

ORDER, RMS, SNR, WAVELENGTH, DZ = 5, 0.5, 300.0, 9.37e-3, (-0.022, 0.0, 0.022)
TELESCOPE = telescopes.load("effelsberg")
BEAM = WAVELENGTH / (2 * TELESCOPE.radius)
TAPER = TELESCOPE.illumination.taper_db
RIGHT = "nothing wrong"


@dataclass(frozen=True)
class Case:
    """One wrong assumption.

    Attributes
    ----------
    mistake, size : what is wrong, and by how much.
    remedy : the option of the fit against it, if any.
    values : true parameters in addition to the surface.
    illumination : the true illumination model, if not the usual one.
    noise : noise in addition to white noise.
    recorded : function from the true observation to the one in the file.
    assumed : the telescope that the fit assumes.
    options : of the fit.
    """

    mistake: str
    size: str
    remedy: str = ""
    values: Mapping[str, float] = field(default_factory=dict)
    illumination: str | None = None
    noise: Noise = Noise()  # noqa: RUF009  (frozen)
    recorded: Callable[[Observation], Observation] = lambda observation: observation
    assumed: Telescope = TELESCOPE
    options: Mapping = field(default_factory=dict)


def taper(change: float, **options) -> dict:
    """Case arguments for a true taper `change` dB weaker than the assumed one."""
    return {
        "values": {"sigma": find_width(TAPER + change)},
        "options": options,
    }


def focus(factor: float = 1.0, shift: float = 0.0) -> Callable[[Observation], Observation]:
    """Function to an observation whose file has dz times a factor, plus a shift in metres."""
    return lambda observation: replace(
        observation, maps=tuple(replace(m, dz=factor * m.dz + shift) for m in observation.maps)
    )


def wavelength(factor: float) -> Callable[[Observation], Observation]:
    """Function to an observation whose file has the wavelength times a factor."""
    return lambda observation: replace(observation, wavelength=factor * observation.wavelength)


def legs(factor: float) -> Telescope:
    """The telescope with the width of the legs times a factor; 0: without legs and shadows."""
    known = TELESCOPE.blockage.legs
    other = replace(known, half_width=tuple(factor * width for width in known.half_width)) if factor else None
    return replace(TELESCOPE, blockage=replace(TELESCOPE.blockage, legs=other))


def cases(quick: bool) -> list[Case]:
    held = {"fixed": {"sigma": find_width(TAPER)}}
    defocus = max(DZ)
    found = [Case(RIGHT, "")]
    for change in (1, 3) if quick else (1, 2, 3):
        found += [
            Case("taper", f"{change} dB", "held", **taper(change, **held)),
            Case("taper", f"{change} dB", "free, as by default", **taper(change)),
        ]
    for percent in (1, 10) if quick else (1, 3, 10):
        size, recorded = f"{percent} %", focus(factor=1 + percent / 100)
        known = {"fixed": {"dz_scale": 1.0}}
        found += [
            Case("all defocuses scaled", size, "held", recorded=recorded, options=known),
            Case("all defocuses scaled", size, "free, as by default", recorded=recorded),
        ]
    for percent in (3,) if quick else (1, 3):
        size, recorded = f"{percent} % of the defocus", focus(shift=percent / 100 * defocus)
        found += [
            Case("common shift of the focus", size, "held, as by default", recorded=recorded),
            Case("common shift of the focus", size, "dz freed", recorded=recorded, options={"free": ("dz",)}),
        ]
    for percent in (1,) if quick else (0.1, 1, 3):
        found.append(Case("wavelength", f"{percent:g} %", recorded=wavelength(1 + percent / 100)))
    for factor in (0,) if quick else (0, 0.5, 1.5):
        size = f"{factor:g} times the true width" if factor else "none at all"
        found.append(Case("legs", size, assumed=legs(factor)))
    if quick:
        return found
    off, wander = {"dx_2": 0.1 * BEAM}, Noise(wander=0.05 * BEAM)
    pointing = {"fixed": {"dx": 0.0, "dy": 0.0}}
    gaussian = {"illumination": "gaussian"}
    return [
        *found,
        Case("illumination model", "a pedestal, not a Gaussian", illumination="pedestal", options=gaussian),
        Case("pointing jitter of samples", "0.05 beams rms", noise=Noise(jitter=0.05 * BEAM)),
        Case("slow pointing wander", "0.05 beams rms", "held", noise=wander, options=pointing),
        Case("slow pointing wander", "0.05 beams rms", "free, as by default", noise=wander),
        Case("pointing of one map", "0.1 beams", "held", values=off, options=pointing),
        Case("pointing of one map", "0.1 beams", "free, as by default", values=off),
        Case("gain from map to map", "5 % rms", noise=Noise(gain=0.05)),
        Case("gain from map to map", "20 % rms", noise=Noise(gain=0.2)),
        Case("1/f drift of the level", "0.3 % of the peak rms", noise=Noise(drift=0.003)),
    ]


@functools.cache
def simulator(illumination: str | None, noise: Noise) -> ooftorch.Simulator:
    return ooftorch.Simulator(
        TELESCOPE, wavelength=WAVELENGTH, dz=DZ, reach=6.0, step=0.375, illumination=illumination, noise=noise
    )


def recorded(observation: Observation, rng: np.random.Generator | None) -> Observation:
    """The observation with errors of 1/SNR of its peak and, given random numbers, noise of that size."""
    sigma = max(np.abs(m.power).max() for m in observation.maps) / SNR
    return replace(
        observation,
        maps=tuple(
            replace(
                m,
                power=m.power if rng is None else m.power + rng.normal(scale=sigma, size=m.power.shape),
                sigma=np.full(m.power.shape, sigma),
            )
            for m in observation.maps
        ),
    )


def study(case: Case, seeds: range) -> dict:
    """Fit a case, once for each seed without noise and once with it."""
    sim = simulator(case.illumination, case.noise)
    clean = [
        case.recorded(sim.observe({**case.values, **surface.random(ORDER, RMS, seed=seed)}, seed=seed))
        for seed in seeds
    ]
    maps = [recorded(o, None) for o in clean]
    maps += [recorded(o, np.random.default_rng([seed, 1])) for o, seed in zip(clean, seeds, strict=True)]
    results = ooftorch.fit_many(maps, case.assumed, order=ORDER, **case.options)
    quiet, noisy = results[: len(clean)], results[len(clean) :]
    # A surface in metres is what is fitted and corrected: a wrong wavelength scales it, too.
    scale = quiet[0].wavelength / WAVELENGTH
    errors = [o.truth.rms_error(scale * r.coefficients) for o, r in zip(clean, quiet, strict=True)]
    error = math.sqrt(np.mean(np.square(errors)))
    return {
        "mistake": case.mistake,
        "size": case.size,
        "remedy": case.remedy,
        "error_rad": error,
        "error_um": 1e6 * WAVELENGTH * error / (4 * math.pi),
        "errors_rad": errors,
        "claimed_rad": math.sqrt(np.mean([r.phase_error**2 for r in noisy])),
        "chi2_reduced": float(np.mean([r.chi2_reduced for r in noisy])),
        "verdicts": collections.Counter(verdict(r)[0] for r in noisy),
        "converged": sum(r.converged for r in results),
        "fits": len(results),
    }


def measure(quick: bool) -> dict:
    seeds = range(1 if quick else 6)
    found = [study(case, seeds) for case in cases(quick)]
    return {"surfaces": len(seeds), "cases": sorted(found, key=lambda c: -c["error_rad"])}


def named(case: dict) -> str:
    """The mistake, with its size and what was done about it."""
    remedy = f" ({case['remedy']})" if case["remedy"] else ""
    return f"{case['mistake']}: {case['size']}{remedy}" if case["size"] else case["mistake"]


def verdicts(case: dict) -> str:
    """The verdict of all surfaces, or the number of surfaces with each verdict."""
    words = case["verdicts"]
    if len(words) == 1:
        return next(iter(words))
    return ", ".join(f"{number} {word}" for word, number in words.items())


# Conclusions: a sentence, and the cases whose errors (um) it contains.
_LESSONS = (
    (
        "**The travel of the subreflector.** Defocuses that are all 3 or 10 % off their nominal values cost "
        "{} or {} um where their scale is held, and {} or {} um with it free, as it is by default.",
        tuple(
            f"all defocuses scaled: {percent} % ({how})"
            for how in ("held", "free, as by default")
            for percent in (3, 10)
        ),
    ),
    (
        "**Blockage.** Legs forgotten cost {} um; legs half as wide again as they are only {} um: a sketch "
        "of them will do.",
        ("legs: none at all", "legs: 1.5 times the true width"),
    ),
    (
        "**Taper.** Held 1 or 3 dB off it costs {} or {} um; free, as it is by default, {} um: leave it "
        "free. A pedestal taken for a Gaussian then costs {} um.",
        (
            "taper: 1 dB (held)",
            "taper: 3 dB (held)",
            "taper: 3 dB (free, as by default)",
            "illumination model: a pedestal, not a Gaussian",
        ),
    ),
    (
        "**Pointing.** 0.05 beams of jitter from sample to sample cost {} um, of slow wander {} um, and {} "
        "with dx and dy of each map free, as by default. One map off as a whole by 0.1 beams costs {} um, "
        "and {} with them free.",
        (
            "pointing jitter of samples: 0.05 beams rms",
            "slow pointing wander: 0.05 beams rms (held)",
            "slow pointing wander: 0.05 beams rms (free, as by default)",
            "pointing of one map: 0.1 beams (held)",
            "pointing of one map: 0.1 beams (free, as by default)",
        ),
    ),
    (
        "**A common shift of the focus** by 3 % of the defocus costs {} um, and freeing dz leaves {} um: a "
        "focus that is off looks like a surface that is out of focus (z4, and a little z12), and only the "
        "prior decides between the two. What freeing dz does is to widen the error bar to what is not "
        "known. Nothing is lost if that part of the correction goes to the subreflector.",
        (
            "common shift of the focus: 3 % of the defocus (held, as by default)",
            "common shift of the focus: 3 % of the defocus (dz freed)",
        ),
    ),
    (
        "**No worry:** the wavelength (1 %: {} um) and gains that change from map to map (20 %: {} um).",
        ("wavelength: 1 %", "gain from map to map: 20 % rms"),
    ),
)


def rounded(value: float) -> str:
    """To three decimals, or to the first digit of something small."""
    return f"{value:.3f}" if value >= 0.01 else f"{value:.1g}"


def section(found: dict) -> str:
    rows = [
        [
            case["mistake"],
            case["size"],
            case["remedy"],
            rounded(case["error_rad"]),
            f"{case['error_um']:.1g}" if case["error_um"] < 10 else f"{case['error_um']:.0f}",
            rounded(case["claimed_rad"]),
            f"{case['chi2_reduced']:.2f}",
            verdicts(case),
        ]
        for case in found["cases"]
    ]
    head = ["wrong", "by", "in the fit", "error, rad", "error, um", "error bar, rad", "chi-square", "verdict"]
    um = {named(case): row[4] for case, row in zip(found["cases"], rows, strict=True)}
    harmful = [c for c in found["cases"] if c["error_rad"] > 2 * c["claimed_rad"]]
    silent = [c for c in harmful if set(c["verdicts"]) == {"good"}]
    lessons = [
        "- " + text.format(*(um[name] for name in names))
        for text, names in _LESSONS
        if um.keys() >= set(names)
    ]
    parts = [
        f"{found['surfaces']} surface{'s' * (found['surfaces'] > 1)} of order 5 and 0.5 rad rms on "
        "Effelsberg at 9.37 mm (dz -22, 0, +22 mm, 33 x 33 samples out to 6 beams), simulated on 512 "
        "aperture pixels a side and fitted on 256 with one thing assumed wrong. Errors (rms over the "
        "surfaces) are those of the mistake alone: maps without noise, weighted as at S/N 300 in a sample. "
        "Error bar, reduced chi-square and verdict are of the same maps with that noise: what the observer "
        "sees. Micrometres are half-path.",
        table(head, rows),
        "\n".join(lessons),
        f"Does anything warn? Of {len(harmful)} mistakes that cost more than twice the error bar, "
        f'{len(silent)} get the verdict "good" on every surface. Reduced chi-square differs from 1 for '
        "most of them if the errors in the file are right, but not for a shift of the focus.",
    ]
    return "\n\n".join(filter(None, parts))


def picture(found: dict) -> Figure:
    shown = found["cases"][::-1]
    colours = {"good": "C0", "usable with care": "C1", "do not apply": "C3"}
    # Of two verdicts with equal counts, the more serious one.
    words = [max(reversed(colours), key=lambda word: c["verdicts"].get(word, 0)) for c in shown]
    errors = [c["error_um"] for c in shown]
    per_rad = 1e6 * WAVELENGTH / (4 * math.pi)
    figure = Figure(figsize=(9.0, 0.25 * len(shown) + 1.2), layout="constrained")
    axes = figure.subplots()
    axes.barh([named(c) for c in shown], errors, color=[colours[word] for word in words])
    for row, error in enumerate(errors):
        text = f"{error:.1g}" if error < 10 else f"{error:.0f}"
        axes.text(1.01, row, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    claimed = [per_rad * c["claimed_rad"] for c in shown]
    (marks,) = axes.plot(claimed, range(len(shown)), "k|", markersize=9, label="error bar of the fit")
    axes.set_xlabel("error of the surface, $\\mu$m half-path rms")
    axes.set_xlim(0, 1.05 * max(errors))
    axes.margins(y=0.01)
    keys = [
        Patch(color=colours[word], label=f'"{word}" on half or more') for word in colours if word in words
    ]
    axes.legend(handles=[*keys, marks], loc="lower right")
    axes.grid(axis="x", alpha=0.3)
    return figure


if __name__ == "__main__":
    run("mismatch", measure, section, picture)
