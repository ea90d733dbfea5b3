"""Coverage: how often the truth lies within the error bars, on maps with what real maps have.

python scripts/coverage.py            everything, some twenty minutes on two cores
python scripts/coverage.py --quick    a few surfaces of each, to see that it runs; writes nothing

Effelsberg at 9.37 mm, surfaces of order 5 and 0.5 rad rms, S/N 300, fitted with default options. A pull is
(fit - truth) over the error bar: of the coefficients z3 to z20, of the phase at single points of the dish,
and of the rms of the surface.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from amplitudes import make_shaped
from freedoms import rms
from matplotlib.figure import Figure
from results_page import run, table

import ooftorch
from ooftorch.observation import Observation
from ooftorch.optics import zernike
from ooftorch.optics.illumination.base import Illumination
from ooftorch.result import FitResult
from ooftorch.simulation import surfaces as surface
from ooftorch.simulation.noise import Noise

SURFACES, FEW = 200, 6
ORDER, RMS, SNR = 5, 0.5, 300.0
WAVELENGTH, DZ, BEAM = 9.37e-3, (-0.022, 0.0, 0.022), 9.37e-3 / 100
NAMES = [f"z{k}" for k in range(3, zernike.n_terms(ORDER))]
# Where the rms of the pulls and the share within one error bar shall lie; and the least efficiency.
PULLS, SHARE, EFFICIENCY = (0.9, 1.3), (0.62, 0.75), 0.95
POINTS = 200
KINDS = {"z": "z3 to z20", "points": "points of the dish", "rms": "rms of the surface"}


@dataclass(frozen=True)
class Case:
    """What is in the maps besides white noise, and the options of the fit.

    Attributes
    ----------
    name : in words.
    noise : in addition to the white noise.
    values : parameters in addition to the surface.
    illumination : the true one, of which the file says nothing; the usual one by default.
    options : of the fit.
    """

    name: str
    noise: Noise = field(default_factory=Noise)
    values: Mapping[str, float] = field(default_factory=dict)
    illumination: Illumination | None = None
    options: Mapping = field(default_factory=dict)

    def observe(self, numbers: range) -> list[Observation]:
        simulator = ooftorch.Simulator(
            "effelsberg",
            wavelength=WAVELENGTH,
            dz=DZ,
            reach=6.0,
            step=0.375,
            illumination=self.illumination,
            noise=replace(self.noise, snr=SNR),
        )
        maps = [
            simulator.observe({**surface.random(ORDER, RMS, seed=i), **self.values}, seed=i) for i in numbers
        ]
        return [replace(o, illumination=None) for o in maps]


CASES = (
    Case("white noise"),
    Case("1/f drift of the level, 0.3 %", Noise(drift=0.003)),
    Case("levels of scan lines, 0.5 %", Noise(baseline=0.005)),
    Case("pointing wander, 0.05 beams", Noise(wander=0.05 * BEAM)),
    Case("1/f drift of the gain, 5 %", Noise(gain_drift=0.05)),
    Case("glitches in 5 % of the samples, Cauchy", Noise(glitches=0.05), options={"likelihood": "cauchy"}),
    Case("illumination flat to 0.9 R, then steep", illumination=make_shaped(0.9)),
    Case("legs 1.5 times as wide", values={"legs": 1.5}),
)


def find_pulls(observation: Observation, result: FitResult) -> dict[str, list[float]]:
    """Pulls of one fit, by kind; those of z3 to z20 over the errors of the noise alone; and its error.

    The error is over the whole disc, as the error bar, whatever is blocked.
    """
    true = np.array([observation.truth.parameters[name].value for name in NAMES])
    rows = [result.free_names.index(name) for name in NAMES]
    covariance = result.covariance[np.ix_(rows, rows)]
    difference = result.coefficients[3:] - true
    rng = np.random.default_rng(1)
    r, angle = np.sqrt(rng.uniform(size=POINTS)), rng.uniform(0, 2 * math.pi, POINTS)
    terms = zernike.raster(ORDER, r * np.cos(angle), r * np.sin(angle))[3:]
    sigma = np.sqrt(np.einsum("kp,kl,lp->p", terms, covariance, terms))
    size = math.sqrt(true @ result.gram[3:, 3:] @ true) * result.wavelength / (4 * math.pi)
    estimate, error = result.surface_rms_estimate
    alone = np.sqrt(np.diag(result.noise_covariance)[rows])
    return {
        "error": [math.sqrt(difference @ result.gram[3:, 3:] @ difference)],
        "z": (difference / np.sqrt(np.diag(covariance))).tolist(),
        "points": (difference @ terms / sigma).tolist(),
        "rms": [(estimate - size) / error],
        "noise": (difference / alone).tolist(),
    }


def study(case: Case, surfaces: int) -> dict:
    observations = case.observe(range(surfaces))
    results = ooftorch.fit_many(observations, order=ORDER, **case.options)
    pairs = list(zip(observations, results, strict=True))
    pulls = [find_pulls(o, r) for o, r in pairs]
    joined = {kind: np.concatenate([p[kind] for p in pulls]) for kind in pulls[0]}
    found = {
        "case": case.name,
        "error": rms(joined["error"]),
        "claimed": rms([r.phase_error for r in results]),
        "claimed_noise": rms([r.phase_error_noise for r in results]),
        "rms_of_pulls": {kind: rms(joined[kind]) for kind in (*KINDS, "noise")},
        "within": {kind: float(np.mean(np.abs(joined[kind]) < 1)) for kind in (*KINDS, "noise")},
        "pulls_of_surfaces": [rms(p["z"]) for p in pulls],
        "converged": sum(r.converged for r in results),
        "fits": surfaces,
    }
    found["met"] = all(
        PULLS[0] <= found["rms_of_pulls"][kind] <= PULLS[1] and SHARE[0] <= found["within"][kind] <= SHARE[1]
        for kind in KINDS
    )
    print(f"{case.name}: pulls {found['rms_of_pulls']}, within one error bar {found['within']}")
    return found


def find_bound(surfaces: int) -> float:
    """Cramer-Rao bound of the rms error on white noise, of a fit of the right model without more freedoms."""
    observations = CASES[0].observe(range(surfaces))
    plain = {"likelihood": "gaussian", "nuisance": "none", "amplitude_order": 0}
    return rms([r.phase_error_noise for r in ooftorch.fit_many(observations, order=ORDER, **plain)])


def measure(quick: bool) -> dict:
    surfaces = FEW if quick else SURFACES
    cases = [study(case, surfaces) for case in CASES]
    bound = find_bound(min(surfaces, 20))
    return {"cases": cases, "bound": bound, "efficiency": (bound / cases[0]["error"]) ** 2}


def section(found: dict) -> str:
    head = ["maps", "error, rad", "error bar", "of noise alone"]
    head += [f"{words}: rms pull, within 1" for words in KINDS.values()]
    head += ["z3 to z20 over noise alone", "all within"]
    rows = [
        [
            c["case"],
            f"{c['error']:.4f}",
            f"{c['claimed']:.4f}",
            f"{c['claimed_noise']:.4f}",
            *(f"{c['rms_of_pulls'][kind]:.2f}, {c['within'][kind]:.0%}" for kind in KINDS),
            f"{c['rms_of_pulls']['noise']:.2f}, {c['within']['noise']:.0%}",
            "yes" if c["met"] else "no",
        ]
        for c in found["cases"]
    ]
    met = sum(c["met"] for c in found["cases"])
    efficient = found["efficiency"] >= EFFICIENCY
    return "\n\n".join(
        [
            f"{found['cases'][0]['fits']} surfaces of each kind (Effelsberg at 9.37 mm, order {ORDER}, "
            f"{RMS} rad rms, S/N {SNR:.0f}), fitted with default options. A pull is (fit - truth) over the "
            f"error bar. Target: their rms between {PULLS[0]} and {PULLS[1]}, and {SHARE[0]:.0%} to "
            f"{SHARE[1]:.0%} of the truths within one error bar, for every kind of number: {met} of "
            f"{len(rows)} kinds of maps.",
            table(head, rows),
            f"Efficiency on white noise: {found['efficiency']:.2f} of the Cramer-Rao bound "
            f"({found['bound']:.4f} rad, for a fit that has no other freedoms), as variances. Target "
            f"{EFFICIENCY}: {'met' if efficient else 'missed'}.",
        ]
    )


def picture(found: dict) -> Figure:
    figure = Figure(figsize=(9.0, 4.2), layout="constrained")
    axes = figure.subplots()
    names = [c["case"] for c in found["cases"]]
    places = np.arange(len(names))
    axes.axvspan(*PULLS, color="C2", alpha=0.2, label="target")
    for kind, marker in (*zip(KINDS, "osD", strict=True), ("noise", "x")):
        values = [c["rms_of_pulls"][kind] for c in found["cases"]]
        axes.plot(values, places, marker, label=KINDS.get(kind, "z3 to z20, noise alone"))
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xlabel("rms pull")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure


if __name__ == "__main__":
    run("coverage", measure, section, picture)
