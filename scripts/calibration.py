"""Calibration of the errors of noise: scatter of many simulated fits about the truth over `sigma_noise`.

Effelsberg at 9.37 mm (32 GHz), maps at dz -22, 0 and +22 mm of 33 x 33 samples out to 6 beams, white noise
of a sample 1/300 of the peak. Every simulation has a fresh surface of order 5, 0.5 to 1 rad rms, a pointing
error, and gains, taper, centre, pointing of the maps, scale of dz and widths of the legs drawn from the
priors of the fit: a prior is part of the objective, and error bars are right on average over the prior. Fit
and simulation have the same aperture raster, so that only the noise matters.

The ratio is the rms of (fit - truth)/(error of that fit). The negative control is fitted with errors in the
file that are half of the true ones. In both the fit takes up nothing by evidence. Further cases have the
default options, also with an illumination that bends; and the Cauchy likelihood, on normal and on Cauchy
noise, and on four times the samples with half the S/N.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from freedoms import DEFAULT
from matplotlib.figure import Figure
from results_page import run, table

import ooftorch
from ooftorch.observation import Observation
from ooftorch.optics import zernike
from ooftorch.optics.basis import ZernikeBasis
from ooftorch.optics.instrument import Instrument
from ooftorch.optics.parameters import Layout
from ooftorch.optics.parts import declare_layout
from ooftorch.result import FitResult
from ooftorch.simulation import surfaces as surface

ORDER, WAVELENGTH, DZ = 5, 9.37e-3, (-0.022, 0.0, 0.022)
NAMES = [zernike.name(k) for k in range(1, zernike.n_terms(ORDER))]
# Largest allowed deviation of a ratio from 1.
BAND = 0.05
# A fit farther than this from the truth (rad rms) is in another minimum: error bars here are at most a tenth
# of it.
LOST = 0.5
# Fits whose results are held at one time.
CHUNK = 200
RIGHT, HALVED = "errors as they are", "errors halved"
DEFAULTS, BENT = "default options", "default options, bent illumination"
CAUCHY, CAUCHY_NOISE = "Cauchy likelihood", "Cauchy likelihood and noise"
PLAIN: Mapping = {"likelihood": "gaussian", "nuisance": "none", "amplitude_order": 0}
OPTIONS = {RIGHT: PLAIN, HALVED: PLAIN, DEFAULTS: DEFAULT, BENT: DEFAULT}
# Highest order of the Zernikes that bend the illumination.
BENT_ORDER = 4


def passes(ratios: list[float]) -> bool:
    """Whether the scatter of every coefficient agrees with its error bar to 5 %."""
    return all(abs(ratio - 1) <= BAND for ratio in ratios)


class Telescope:
    """A simulated telescope whose surface and other parameters are drawn anew for every seed.

    Parameters
    ----------
    step : float
        Distance of the samples, wavelengths over diameter.
    snr : float
        Peak over the noise of one sample.
    n : int
        Pixels of the aperture raster.
    """

    def __init__(self, step: float, snr: float, n: int) -> None:
        setup = {"wavelength": WAVELENGTH, "dz": DZ, "reach": 6.0, "step": step, "n": n}
        self.n, self.snr = n, snr
        self._noisy = ooftorch.Simulator("effelsberg", noise=ooftorch.Noise(snr=snr), **setup)
        self._quiet = ooftorch.Simulator("effelsberg", **setup)
        self._layouts = {case: self._declare(BENT_ORDER if case == BENT else 0) for case in (RIGHT, BENT)}

    def _declare(self, amplitude_order: int) -> Layout:
        """Parameters, with terms of the amplitude up to an order."""
        sim, basis = self._quiet, ZernikeBasis(ORDER)
        return declare_layout(
            Instrument(
                sim.telescope,
                WAVELENGTH,
                sim.receiver,
                sim.illumination,
                basis,
                len(DZ),
                sim.peak,
                amplitude_order,
            )
        )

    def values(self, seed: int, case: str = RIGHT) -> dict[str, float]:
        """Surface and pointing, and the other parameters drawn from their priors."""
        rng, layout = np.random.default_rng([seed, 1]), self._layouts[BENT if case == BENT else RIGHT]
        rows, _ = layout.prior()
        # Draw from the covariance of the priors; parameters without a prior keep their start values.
        u = layout.coordinates() + np.linalg.pinv(rows) @ rng.normal(size=len(rows))
        z = surface.random(ORDER, rng.uniform(0.5, 1.0), seed=seed)
        return layout.values(u) | z | dict(zip(("z1", "z2"), rng.normal(scale=0.3, size=2), strict=True))

    def observe(self, case: str, seed: int) -> Observation:
        """Observation number `seed` of a case."""
        if case == CAUCHY_NOISE:
            return with_cauchy_noise(self._quiet.observe(self.values(seed)), self.snr, seed)
        observation = self._noisy.observe(self.values(seed, case), seed=seed)
        if case != HALVED:
            return observation
        return replace(observation, maps=tuple(replace(m, sigma=0.5 * m.sigma) for m in observation.maps))


def with_cauchy_noise(observation: Observation, snr: float, seed: int) -> Observation:
    """The observation with Cauchy noise whose half width at half maximum is 1/snr of the peak."""
    width = max(np.abs(m.power).max() for m in observation.maps) / snr
    rng = np.random.default_rng([seed, 2])
    return replace(
        observation,
        maps=tuple(
            replace(
                m,
                power=m.power + width * rng.standard_cauchy(size=m.power.shape),
                sigma=np.full(m.power.shape, width),
            )
            for m in observation.maps
        ),
    )


def whitened(result: FitResult, difference: np.ndarray) -> float:
    """d C^-1 d over the number of coefficients, with the covariance C of the noise: 1 on average."""
    rows = [result.free_names.index(name) for name in NAMES]
    covariance = result.noise_covariance[np.ix_(rows, rows)]
    return float(difference @ np.linalg.solve(covariance, difference)) / len(NAMES)


def study(telescope: Telescope, case: str, n_fits: int) -> dict:
    """Fit this many observations of a case and compare those that are not lost with the truth."""
    pulls, joint, chi2, dof, lost, converged = [], [], [], [], 0, 0
    for first in range(0, n_fits, CHUNK):
        seeds = range(first, min(first + CHUNK, n_fits))
        observations = [telescope.observe(case, seed) for seed in seeds]
        options = OPTIONS.get(case, {"likelihood": "cauchy"})
        results = ooftorch.fit_many(observations, order=ORDER, n=telescope.n, **options)
        for observation, result in zip(observations, results, strict=True):
            converged += result.converged
            if observation.truth.rms_error(result.coefficients) > LOST:
                lost += 1
                continue
            true = np.array([observation.truth.parameters[name].value for name in NAMES])
            difference = np.array([result.parameters[name].value for name in NAMES]) - true
            pulls.append(difference / [result.parameters[name].sigma_noise for name in NAMES])
            joint.append(whitened(result, difference))
            chi2.append(result.chi2_reduced)
            dof.append(result.n_data - result.n_free)
    ratios = np.sqrt(np.mean(np.square(pulls), axis=0)).tolist()
    found = len(pulls)
    return {
        "case": case,
        "samples": len(observations[0].maps[0].power),
        "snr": telescope.snr,
        "fits": n_fits,
        "converged": converged,
        "lost": lost,
        "ratios": dict(zip(NAMES, ratios, strict=True)),
        "ratio_error": (2 * found) ** -0.5,
        "means": dict(zip(NAMES, np.mean(pulls, axis=0).tolist(), strict=True)),
        "joint": float(np.mean(joint)),
        "joint_error": float(np.std(joint) / found**0.5),
        "chi2_reduced": float(np.mean(chi2)),
        "chi2_error": float((2 / np.mean(dof) / found) ** 0.5),
        "largest_pull": float(np.max(np.abs(pulls))),
        "passes": not lost and passes(ratios),
    }


def measure(quick: bool) -> dict:
    if quick:
        telescope = Telescope(0.75, 300.0, 64)
        numbers = {RIGHT: 80, HALVED: 24, DEFAULTS: 40, CAUCHY: 8}
        return {"cases": [study(telescope, case, n) for case, n in numbers.items()]}
    telescope, denser = Telescope(0.375, 300.0, 128), Telescope(0.1875, 150.0, 128)
    cases = [study(telescope, RIGHT, 4000), study(telescope, HALVED, 500)]
    cases += [study(telescope, DEFAULTS, 1000), study(telescope, BENT, 400)]
    cases += [study(telescope, case, 400) for case in (CAUCHY, CAUCHY_NOISE)]
    return {"cases": cases + [study(denser, case, 200) for case in (CAUCHY, CAUCHY_NOISE)]}


def judge_default(case: dict) -> str:
    """What the error bars of the default options are worth."""
    ratios = list(case["ratios"].values())
    return (
        f"With the {case['case']} the ratios lie between {min(ratios):.3f} and {max(ratios):.3f}, each "
        f"known to {case['ratio_error']:.3f}, and joint is {case['joint']:.3f} +- "
        f"{case['joint_error']:.3f}; {case['converged']} of {case['fits']} converged, {case['lost']} were "
        "lost."
    )


def section(found: dict) -> str:
    rows = []
    for c in found["cases"]:
        ratios, side = list(c["ratios"].values()), round(c["samples"] ** 0.5)
        rows.append(
            [
                c["case"],
                f"{side} x {side}, {c['snr']:.0f}",
                str(c["fits"]),
                str(c["lost"]),
                f"{np.mean(ratios):.3f}",
                f"{min(ratios):.3f} to {max(ratios):.3f}",
                f"{c['ratio_error']:.3f}",
                f"{c['joint']:.3f} +- {c['joint_error']:.3f}",
                f"{c['chi2_reduced']:.4f}" if c["case"] != CAUCHY_NOISE else "-",
                "yes" if c["passes"] else "no",
            ]
        )
    head = ["case", "samples, S/N", "fits", "lost", "mean ratio", "ratios", "error of one", "joint"]
    head += ["reduced chi-square", "all within 5 %"]
    right, control, *others = found["cases"]
    defaults = [c for c in others if c["case"] in (DEFAULTS, BENT)]
    cauchy = [c for c in others if c["case"] in (CAUCHY, CAUCHY_NOISE)]
    ratios = right["ratios"]
    worst = max(ratios, key=lambda name: abs(ratios[name] - 1))
    side = round(right["samples"] ** 0.5)
    parts = [
        f"{right['fits']} fits of Effelsberg at 9.37 mm: dz -22, 0 and +22 mm, {side} x {side} samples out "
        f"to 6 beams, S/N {right['snr']:.0f} in a sample. Each has a surface of its own (order 5, 0.5 to 1 "
        "rad rms), and gains, taper, centre of the illumination, pointing of each map, scale of dz and "
        "widths of the legs drawn from their priors. The ratio is the rms of (fit - truth) over the error "
        "bar of that fit; joint is the mean of d C^-1 d over the 20 coefficients, divided by 20, C being "
        "the covariance that the fit claims from the noise alone. Both are 1 where these errors are "
        "right. Fit and "
        "simulation share their aperture raster here: the question is what noise does.",
        f"Target: 1.00 +- 0.05 for each of z1 to z20. {'Met' if right['passes'] else 'Missed'}: the ratios "
        f"lie between {min(ratios.values()):.3f} and {max(ratios.values()):.3f} (the farthest off: {worst}), "
        f"each known to {right['ratio_error']:.3f}. {right['converged']} of the fits converged, "
        f"{right['lost']} were lost, and the largest of {len(ratios) * right['fits']} deviations is "
        f"{right['largest_pull']:.1f} error bars. Mean reduced chi-square: {right['chi2_reduced']:.4f}, "
        f"expected 1 +- {right['chi2_error']:.4f}. The control, maps whose file claims half of their noise, "
        f"{'passes the same check, which it must not' if control['passes'] else 'fails the same check'}.",
        table(head, rows),
        f'"Lost" is a fit that ends more than {LOST} rad rms from the truth; the other columns are of the '
        "rest.",
    ]
    parts += [judge_default(c) for c in defaults]
    if len(cauchy) == 4:
        normal, own, normal_4, own_4 = (c["joint"] for c in cauchy)
        lost = cauchy[1]
        parts.append(
            "The error bars of the Cauchy likelihood come from the residuals themselves (Huber's sandwich), "
            "which is right for many samples, whatever their noise is. Here the bright samples are few for "
            "28 parameters, and the fit takes some of their scatter for its own: joint is "
            f"{normal:.2f} on normal noise and {own:.2f} on Cauchy noise, so error bars are about "
            f"{50 * (normal - 1):.0f} and {50 * (own - 1):.0f} % too small. With four times the samples of "
            f"half the S/N, the same information in all, it is {normal_4:.2f} and {own_4:.2f}. On Cauchy "
            f"noise, which throws single samples far above the peak, {lost['lost']} of {lost['fits']} fits "
            "end in a false minimum."
        )
    return "\n\n".join(parts)


def picture(found: dict) -> Figure:
    figure = Figure(figsize=(13.0, 3.8), layout="constrained")
    panels = figure.subplots(1, 3)
    for axes, case in zip(panels, found["cases"], strict=False):
        k = np.arange(1, len(NAMES) + 1)
        ratios = np.array(list(case["ratios"].values()))
        axes.axhspan(1 - BAND, 1 + BAND, color="C2", alpha=0.2, label="1.00 $\\pm$ 0.05")
        axes.errorbar(k, ratios, ratios * case["ratio_error"], fmt="o", markersize=4, capsize=2)
        axes.axhline(1.0, color="0.5", linewidth=0.8)
        axes.set_title(f"{case['case']}: {case['fits']} fits")
        axes.set_xlabel("coefficient z")
        axes.set_xticks(k[::2])
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("scatter over error bar")
    panels[0].legend()
    return figure


if __name__ == "__main__":
    run("calibration", measure, section, picture)
