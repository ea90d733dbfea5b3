"""What wrong assumptions cost: the error of a surface fitted with a model that is not the telescope's.

Effelsberg at 9.37 mm (32 GHz), maps at dz -22, 0 and +22 mm of 33 x 33 samples out to 6 beams, surfaces of
order 5 and 0.5 rad rms, noise of a sample 1/300 of the peak. The truth is simulated on 512 aperture pixels a
side and fitted on the usual 256, with one thing assumed wrong: by the default fit, and by one whose freedom
against that mistake is held.
"""

import collections
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from amplitudes import make_shaped
from freedoms import DEFAULT, describe_taken, find_widths, rms
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from results_page import run, table

import ooftorch
from ooftorch.observation import Observation
from ooftorch.optics import telescopes
from ooftorch.optics.illumination.base import Illumination
from ooftorch.optics.illumination.gaussian import find_width
from ooftorch.optics.telescope import Telescope
from ooftorch.reporting.checks import verdict
from ooftorch.result import FitResult
from ooftorch.simulation import surfaces as surface
from ooftorch.simulation.noise import Noise

ORDER, RMS, SNR, WAVELENGTH, DZ = 5, 0.5, 300.0, 9.37e-3, (-0.022, 0.0, 0.022)
TELESCOPE = telescopes.load("effelsberg")
BEAM = WAVELENGTH / (2 * TELESCOPE.radius)
TAPER = TELESCOPE.illumination.taper_db
RIGHT = "nothing wrong"
HELD, FREE, DZ_FREED = "held", "by default", "dz freed"
# Error bars that a mistake may cost.
TARGET = 2.0


@dataclass(frozen=True)
class Case:
    """One wrong assumption.

    Attributes
    ----------
    mistake, size : what is wrong, and by how much.
    remedy : what the fit does about it.
    values : true parameters in addition to the surface.
    illumination : the true illumination, if not the usual one.
    smear : true smearing, of which the file says nothing, beams.
    noise : noise in addition to white noise.
    recorded : function from the true observation to the one in the file.
    assumed : the telescope that the fit assumes.
    options : of the fit, in addition to the default ones.
    """

    mistake: str
    size: str
    remedy: str = FREE
    values: Mapping[str, float] = field(default_factory=dict)
    illumination: str | Illumination | None = None
    smear: float = 0.0
    noise: Noise = Noise()  # noqa: RUF009  (frozen)
    recorded: Callable[[Observation], Observation] = lambda observation: observation
    assumed: Telescope = TELESCOPE
    options: Mapping = field(default_factory=dict)


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


def both(mistake: str, size: str, held: Mapping, **case) -> list[Case]:
    """Return a case by default, and with the freedom against it held by these options."""
    return [Case(mistake, size, FREE, **case), Case(mistake, size, HELD, options=held, **case)]


def cases(quick: bool) -> list[Case]:
    width, centre = {"sigma": find_width(TAPER)}, {"x0": 0.0, "y0": 0.0}
    shape = {"fixed": width, "amplitude_order": 0}
    bend = {"fixed": centre, "amplitude_order": 0}
    blocked = {"fixed": dict.fromkeys(find_widths(TELESCOPE), 1.0)}
    lines = {"nuisance": "none"}
    found = [Case(RIGHT, "")]
    for change in (1, 3) if quick else (1, 2, 3):
        found += both("taper", f"{change} dB", shape, values={"sigma": find_width(TAPER + change)})
    for percent in (1, 10) if quick else (1, 3, 10):
        scaled = focus(factor=1 + percent / 100)
        found += both("all defocuses scaled", f"{percent} %", {"fixed": {"dz_scale": 1.0}}, recorded=scaled)
    for percent in (3,) if quick else (1, 3):
        size, recorded = f"{percent} % of the defocus", focus(shift=percent / 100 * max(DZ))
        found += [
            Case("common shift of the focus", size, FREE, recorded=recorded),
            Case("common shift of the focus", size, DZ_FREED, recorded=recorded, options={"free": ("dz",)}),
        ]
    for percent in (1,) if quick else (0.1, 1, 3):
        found.append(Case("wavelength", f"{percent:g} %", recorded=wavelength(1 + percent / 100)))
    found.append(Case("legs", "none at all", assumed=legs(0)))
    for factor in (1.5,) if quick else (0.5, 1.5):
        found += both("legs", f"{factor:g} times the true width", blocked, assumed=legs(factor))
    if quick:
        return found
    off, beams = {"dx_2": 0.1 * BEAM}, "0.05 beams rms"
    of_maps = {"fixed": {"dx": 0.0, "dy": 0.0}}
    found += both("illumination model", "a pedestal, not a Gaussian", bend, illumination="pedestal")
    found += both("illumination model", "flat to 0.9 R, not a Gaussian", bend, illumination=make_shaped())
    found += both("centre of the illumination", "0.1 R", bend, values={"x0": 0.1})
    found += both("pointing of one map", "0.1 beams", of_maps, values=off)
    found += both("slow pointing wander", beams, lines, noise=Noise(wander=0.05 * BEAM))
    found += both("pointing of scan lines", beams, lines, noise=Noise(line_pointing=0.05 * BEAM))
    found += both("1/f drift of the level", "0.3 % of the peak rms", lines, noise=Noise(drift=0.003))
    found += both("levels of scan lines", "0.5 % of the peak rms", lines, noise=Noise(baseline=0.005))
    found += both("1/f drift of the gain", "5 % rms", lines, noise=Noise(gain_drift=0.05))
    return [
        *found,
        Case("pointing jitter of samples", beams, noise=Noise(jitter=0.05 * BEAM)),
        Case("gain from map to map", "5 % rms", noise=Noise(gain=0.05)),
        Case("gain from map to map", "20 % rms", noise=Noise(gain=0.2)),
        Case("smearing not told of", "0.375 beams", smear=0.375),
        Case("smearing not told of", "0.75 beams", smear=0.75),
    ]


@functools.cache
def simulator(
    illumination: str | Illumination | None, noise: Noise, smear: float = 0.0
) -> ooftorch.Simulator:
    return ooftorch.Simulator(
        TELESCOPE,
        wavelength=WAVELENGTH,
        dz=DZ,
        reach=6.0,
        step=0.375,
        illumination=illumination,
        noise=noise,
        smear=smear * BEAM,
    )


def recorded(observation: Observation, rng: np.random.Generator) -> Observation:
    """The observation with noise of 1/SNR of its peak, and told nothing of smearing or illumination."""
    sigma = max(np.abs(m.power).max() for m in observation.maps) / SNR
    return replace(
        observation,
        illumination=None,
        maps=tuple(
            replace(
                m,
                power=m.power + rng.normal(scale=sigma, size=m.power.shape),
                sigma=np.full(m.power.shape, sigma),
                smear=0.0,
            )
            for m in observation.maps
        ),
    )


def fit(case: Case, seeds: range) -> tuple[list[Observation], list[FitResult]]:
    """Fit a case, once for each seed; the noise of a seed is the same in every case."""
    sim = simulator(case.illumination, case.noise, case.smear)
    clean = [
        case.recorded(sim.observe({**case.values, **surface.random(ORDER, RMS, seed=seed)}, seed=seed))
        for seed in seeds
    ]
    maps = [recorded(o, np.random.default_rng([seed, 1])) for o, seed in zip(clean, seeds, strict=True)]
    return maps, ooftorch.fit_many(maps, case.assumed, order=ORDER, **{**DEFAULT, **case.options})


def find_surface(result: FitResult) -> np.ndarray:
    """Coefficients at the true wavelength: it is the surface in metres that is corrected."""
    return result.wavelength / WAVELENGTH * result.coefficients


def study(case: Case, seeds: range, right: list[FitResult]) -> dict:
    """Fit a case, and compare with the truth, and with the fits of the same maps with nothing wrong."""
    maps, results = fit(case, seeds)
    changes = [find_surface(r) - find_surface(o) for r, o in zip(results, right, strict=True)]
    cost = rms([math.sqrt(c @ r.gram @ c) for c, r in zip(changes, right, strict=True)])
    errors = [o.truth.rms_error(find_surface(r)) for o, r in zip(maps, results, strict=True)]
    claimed = rms([r.phase_error for r in results])
    return {
        "mistake": case.mistake,
        "size": case.size,
        "remedy": case.remedy,
        "cost_rad": cost,
        "cost_um": 1e6 * WAVELENGTH * cost / (4 * math.pi),
        "error_rad": rms(errors),
        "errors_rad": errors,
        "claimed_rad": claimed,
        "bars": rms(errors) / claimed,
        "chi2_reduced": float(np.mean([r.chi2_reduced for r in results])),
        "verdicts": collections.Counter(verdict(r)[0] for r in results),
        "taken_up": describe_taken(results, case.assumed),
        "converged": sum(r.converged for r in results),
        "fits": len(results),
    }


def measure(quick: bool) -> dict:
    seeds = range(1 if quick else 6)
    wrong = cases(quick)
    _, right = fit(wrong[0], seeds)
    found = [study(case, seeds, right) for case in wrong]
    return {"surfaces": len(seeds), "cases": sorted(found, key=lambda c: -c["error_rad"])}


def named(case: dict) -> str:
    """The mistake, with its size and what was done about it."""
    return f"{case['mistake']}: {case['size']} ({case['remedy']})" if case["size"] else case["mistake"]


def verdicts(case: dict) -> str:
    """The verdict of all surfaces, or the number of surfaces with each verdict."""
    words = case["verdicts"]
    if len(words) == 1:
        return next(iter(words))
    return ", ".join(f"{number} {word}" for word, number in words.items())


# What the data cannot tell, or the model does not have, and why.
_REASONS = {
    "common shift of the focus": "the maps cannot tell it from a surface that is out of focus (z4, and a "
    "little z12), and only a prior decides between the two; that part of the correction can go to the "
    "subreflector",
    "wavelength": "it scales the beam as another dish would and the surface in metres, which no map "
    "contradicts where width of the illumination and scale of dz are free",
    "legs": "a telescope without legs in its file has none to widen: give it those of a sketch",
    "pointing jitter of samples": "no two samples have it in common, so nothing but the noise can take it up",
    "smearing not told of": "it is data of the observation, and not guessed: give its length",
}
# Why a freedom works, or what to do where it does not.
_REMARKS = {
    "taper": "Width and bend of the illumination are found with the surface.",
    "all defocuses scaled": "The scale of dz is free under the prior of the telescope; calibrate the "
    "travel of the subreflector once all the same.",
    "legs": "Their width is free where the telescope has any; a sketch of them will do.",
    "illumination model": "The base model matters little once it bends.",
    "pointing of one map": "Each map has a pointing of its own; what is common stays in the tilts.",
    "slow pointing wander": "Offset and slope for each scan line take up what is slower than a line.",
}


def lessons(cases: list[dict]) -> list[str]:
    """For each mistake, what it costs held and by default."""
    found = []
    for mistake in dict.fromkeys(c["mistake"] for c in cases):
        held = {c["size"]: c for c in cases if c["mistake"] == mistake and c["remedy"] == HELD}
        free = {c["size"]: c for c in cases if c["mistake"] == mistake and c["remedy"] == FREE}
        costs = [
            f"{size} costs {micrometres(held[size])} um held and {micrometres(free[size])} by default"
            for size in free
            if size in held
        ]
        if costs:
            found.append(
                f"- **{mistake.capitalize()}.** {'; '.join(costs)}. {_REMARKS.get(mistake, '')}".rstrip()
            )
    return found


def micrometres(case: dict) -> str:
    """Cost of a mistake."""
    return f"{case['cost_um']:.1g}" if case["cost_um"] < 10 else f"{case['cost_um']:.0f}"


def rounded(value: float) -> str:
    """To three decimals, or to the first digit of something small."""
    return f"{value:.3f}" if value >= 0.01 else f"{value:.1g}"


def explain(case: dict) -> str:
    """One line about a case that costs more than it may."""
    reason = _REASONS.get(case["mistake"], "taken up in part only")
    return f"- {named(case)}: {case['bars']:.1f} error bars; {reason}."


def section(found: dict) -> str:
    rows = [
        [
            case["mistake"],
            case["size"],
            case["remedy"],
            rounded(case["cost_rad"]),
            micrometres(case),
            rounded(case["error_rad"]),
            rounded(case["claimed_rad"]),
            f"{case['bars']:.1f}",
            f"{case['chi2_reduced']:.2f}",
            verdicts(case),
            case["taken_up"],
        ]
        for case in found["cases"]
    ]
    head = ["wrong", "by", "in the fit", "cost, rad", "cost, um", "error, rad", "error bar, rad"]
    head += ["error over bar", "chi-square", "verdict", "taken up"]
    harmful = [c for c in found["cases"] if c["remedy"] != HELD and c["bars"] > TARGET]
    silent = [c for c in harmful if set(c["verdicts"]) == {"good"}]
    unexplained = [c for c in harmful if c["mistake"] not in _REASONS]
    parts = [
        f"{found['surfaces']} surface{'s' * (found['surfaces'] > 1)} of order {ORDER} and {RMS:g} rad rms "
        f"on Effelsberg at 9.37 mm (dz -22, 0, +22 mm, 33 x 33 samples out to 6 beams, S/N {SNR:g} in a "
        "sample), simulated on 512 aperture pixels a side and fitted on 256 with one thing assumed wrong. "
        "Cost: difference from the default fit of the same maps, with the same noise and nothing wrong. "
        "Error: difference from the truth, noise and all. Both are rms over the surfaces; micrometres are "
        'half-path. "Held": without the freedom against this mistake. Taken up: parameters that are more '
        "than three error bars from their start.",
        table(head, rows),
        "\n".join(lessons(found["cases"])),
        f"Target: no row by default is off by more than {TARGET:g} error bars, but for what the data "
        "cannot tell. "
        f"{'Missed' if unexplained else 'Met'}"
        + (f" in {len(unexplained)} row{'s' * (len(unexplained) > 1)}." if unexplained else "."),
        "\n".join(explain(c) for c in harmful),
        f'Does anything warn? Of {len(harmful)} such rows {len(silent)} get the verdict "good" on every '
        "surface.",
    ]
    return "\n\n".join(filter(None, parts))


def picture(found: dict) -> Figure:
    shown, per_rad = found["cases"][::-1], 1e6 * WAVELENGTH / (4 * math.pi)
    colours = {"good": "C0", "usable with care": "C1", "do not apply": "C3"}
    # Of two verdicts with equal counts, the more serious one.
    words = [max(reversed(colours), key=lambda word: c["verdicts"].get(word, 0)) for c in shown]
    errors = [per_rad * c["error_rad"] for c in shown]
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
