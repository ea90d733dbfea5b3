"""Accuracy against noise and defocus, as in the study of the original software; writes scripts/results/.

    python scripts/accuracy.py            everything, some fifteen minutes on two cores
    python scripts/accuracy.py --quick    two points, to see that it runs; writes nothing

A perfect dish is simulated and fitted. Set-up, noise and measure are those of the study that came with the
original OOF software (oofpy): a dish of 2.8 m radius with its focus at 14.4 m, maps in focus and at -dz and
dz, the central 64 x 64 of 256 x 256 pixels of its sky; every sample wrong by 5 per cent of itself, and by
white noise given per beam, as a fraction of the peak; 50 simulations a point. The measure is the rms of the
fitted phase, tilt included, weighted with the amplitude of the illumination.

Estimators: "ours", the defaults of the package with the centre of the illumination free as well, given the
white part of the noise only; "original", unweighted least squares by MINPACK from the truth, one amplitude
for all maps and no offsets; "weighted", as "ours" but given the true error of every sample. Each has its
prediction to first order in the noise, from the derivatives of the model at the truth.
"""

import itertools
import math
from dataclasses import replace

import numpy as np
import scipy.optimize
import torch
from matplotlib.figure import Figure
from results_page import run, table

import ooftorch
from ooftorch.fitting.likelihood import Gaussian
from ooftorch.fitting.noise_model import IndependentNoise
from ooftorch.fitting.posterior import Posterior
from ooftorch.fitting.samples import Samples
from ooftorch.observation import BeamMap, Observation
from ooftorch.optics import telescopes, zernike
from ooftorch.optics.instrument import MapGeometry
from ooftorch.optics.model import BeamModel
from ooftorch.optics.parameters import Parameter

TELESCOPE = "paper"
MULTIPLICATIVE = 0.05
# Noise of a sample over that of a beam, on the original's pixels.
F = 6.554
# Pixel of the sky of the original software, in wavelength over diameter: the first and the last of its 256
# aperture pixels are eight radii apart.
STEP = 0.25 * 255 / 256
SIDE = 64
# Aperture pixels a side, with as many across the dish as in the original software.
PIXELS = 128
HIGHEST = 8
FREE = ("x0", "y0")
PLAIN = {"likelihood": "gaussian", "nuisance": "none", "amplitude_order": 0}
SIMULATIONS = 50

LAMBDA = 1.1e-3
NOISES = (1e-4, 3e-4, 6e-4, 1e-3, 3e-3, 6e-3, 1e-2, 3e-2, 6e-2)
DZS = (3e-3, 10e-3, 15e-3, 30e-3, 50e-3, 80e-3, 100e-3, 300e-3)
LEVELS = (1e-3, 5e-3, 1e-2)
# Points that are fitted: wavelength, dz, orders, noises, estimators in addition to ours. MINPACK is slow at
# the largest noises.
PLAN = (
    (LAMBDA, 50e-3, (6,), NOISES[:7], ("original", "weighted")),
    (LAMBDA, 50e-3, (6,), NOISES[7:], ("weighted",)),
    (LAMBDA, 50e-3, (4, 8), NOISES[::2], ()),
    (LAMBDA, 100e-3, (6,), NOISES[::2], ()),
    (LAMBDA, 10e-3, (6,), NOISES[::2], ()),
    *((LAMBDA, dz, (6,), LEVELS, ()) for dz in DZS),
    # Not at 300 mm: neighbouring pixels differ by half a turn and more there.
    *((wavelength, dz, (6,), LEVELS[1:2], ()) for wavelength in (0.73e-3, 0.35e-3) for dz in DZS[:-1:2]),
)
QUICK = ((LAMBDA, 50e-3, (6,), (1e-4, 5e-3), ("original", "weighted")),)
# Predicted as well.
ORDERS = (4, 5, 6, 7, 8)
SHOWN = (100e-3, 50e-3, 10e-3)
# Curves against dz: wavelength and noise.
CURVES = (*((LAMBDA, noise) for noise in LEVELS), (0.73e-3, LEVELS[1]), (0.35e-3, LEVELS[1]))
# Beyond this error, rad, first order in the noise is not enough.
LINEAR = 0.2


class Setup:
    """The dish at one wavelength and defocus: simulator, derivatives, and the measure."""

    def __init__(self, wavelength: float, dz: float) -> None:
        self.wavelength, self.dz = wavelength, dz
        self.clean = self._block(self.simulator(ooftorch.Noise()).observe())
        self.maps = [MapGeometry(m.dz, m.x, m.y) for m in self.clean.maps]
        model = BeamModel(telescopes.load(TELESCOPE), wavelength, self.maps, order=HIGHEST, n=PIXELS)
        layout = model.layout.with_added(Parameter("noise", "errors", 1.0, log=True)).with_free(FREE)
        self.model, self.layout = model.with_layout(layout), layout
        power = torch.as_tensor(np.concatenate([m.power for m in self.clean.maps]))
        samples = Samples(power, torch.ones_like(power), torch.ones_like(power, dtype=torch.bool))
        self.start = torch.as_tensor(layout.coordinates())
        posterior = Posterior(self.model, layout, samples, Gaussian(), IndependentNoise(), self.start)
        self.power = power.numpy()
        self.rows = posterior.prior_rows[:, posterior.free].numpy()
        self.jacobian = posterior.jacobian(self.start[posterior.free]).numpy()
        self.names = [layout.names[i] for i in layout.free]
        amplitude, _ = (t.detach().numpy() for t in self.model.aperture())
        z = self.model.parts.surface.matrix.numpy()
        # Of the weighted mean square of the phase.
        self.weight = (z * amplitude) @ z.T / amplitude.sum()

    def simulator(self, noise: ooftorch.Noise, half: int = SIDE // 2) -> ooftorch.Simulator:
        """Of maps that many pixels wide on each side of the source."""
        return ooftorch.Simulator(
            TELESCOPE,
            wavelength=self.wavelength,
            dz=(0.0, -self.dz, self.dz),
            reach=STEP * half,
            step=STEP,
            n=PIXELS,
            noise=noise,
        )

    def observe(self, noise: float, n: int) -> list[Observation]:
        """The perfect dish, n times, with this noise per beam."""
        kinds = ooftorch.Noise(snr=1 / (noise * F), multiplicative=MULTIPLICATIVE)
        simulator = self.simulator(kinds)
        return [self._block(simulator.observe(seed=i)) for i in range(n)]

    @staticmethod
    def _block(observation: Observation) -> Observation:
        """The original's pixels: an even number, with the source beside the middle."""

        def inner(m: BeamMap) -> BeamMap:
            keep = (m.x < m.x.max()) & (m.y < m.y.max())
            sigma = None if m.sigma is None else m.sigma[keep]
            return BeamMap(m.dz, m.x[keep], m.y[keep], m.power[keep], sigma=sigma)

        return replace(observation, maps=tuple(inner(m) for m in observation.maps))

    def wrms(self, z: np.ndarray) -> np.ndarray:
        """Measure of the coefficients z1, z2, ... (..., k), radians: rms weighted with the amplitude."""
        k = z.shape[-1]
        weight = self.weight[1 : k + 1, 1 : k + 1]
        return np.sqrt(np.einsum("...i,ij,...j", z, weight, z))

    def common(self, order: int) -> np.ndarray:
        """The original's parameters (columns) as free ones (rows).

        It has one amplitude for all maps, and no baseline, pointing of a map or scale of the focus.
        """
        ours_alone = ("gain", "offset", "dx", "dy", "dz_scale")
        own = [n for n in self.freedom(order) if not n.startswith(ours_alone)]
        spread = np.zeros((len(self.names), len(own) + 1))
        for i, name in enumerate(self.names):
            if name in own:
                spread[i, own.index(name)] = 1.0
            elif name.startswith("gain"):
                spread[i, -1] = 1.0
        return spread

    def freedom(self, order: int) -> list[str]:
        """Names that are free at an order."""
        numbers = {name: zernike.number(name) for name in self.names}
        return [name for name, k in numbers.items() if k is None or k < zernike.n_terms(order)]

    def predicted(self, order: int, noise: float) -> dict[str, float]:
        """Mean measure of each estimator, to first order in the noise.

        The covariance of an estimator that weighs the samples by other than their true variance V: with H the
        curvature of its objective, inv(H) J' W V W J inv(H) (Huber 1981, section 6.3).
        """
        sigma = noise * F * self.power.max()
        variance = sigma**2 + (MULTIPLICATIVE * self.power) ** 2
        mine = [self.names.index(name) for name in self.freedom(order)]
        spread = self.common(order)
        ours, rows = self.jacobian[mine], self.rows[:, mine]
        cases = {
            "ours": (ours, rows, np.full_like(variance, 1 / sigma**2)),
            "weighted": (ours, rows, 1 / variance),
            "original": (spread.T @ self.jacobian, np.zeros((0, spread.shape[1])), np.ones_like(variance)),
        }
        k = zernike.n_terms(order) - 1
        rng = np.random.default_rng(0)
        found = {}
        for name, (jacobian, prior, weight) in cases.items():
            inverse = np.linalg.inv((jacobian * weight) @ jacobian.T + prior.T @ prior)
            covariance = inverse @ (jacobian * (weight**2 * variance)) @ jacobian.T @ inverse
            draws = rng.multivariate_normal(np.zeros(k), covariance[:k, :k], size=2000)
            found[name] = float(self.wrms(draws).mean())
        return found

    def ours(self, observations: list[Observation], order: int) -> list[np.ndarray]:
        """Coefficients z1, z2, ... that the package finds; NaN where it does not converge."""
        results = ooftorch.fit_many(observations, order=order, n=PIXELS, **PLAIN)
        return [
            r.coefficients[1:] if r.converged else np.full(r.coefficients.size - 1, np.nan) for r in results
        ]

    def weighted(self, observations: list[Observation], order: int) -> list[np.ndarray]:
        """As `ours`, given the true error of every sample."""
        return self.ours([self._with_errors(o) for o in observations], order)

    def _with_errors(self, observation: Observation) -> Observation:
        pairs = zip(observation.maps, self.clean.maps, strict=True)
        return replace(
            observation,
            maps=tuple(replace(m, sigma=np.hypot(m.sigma, MULTIPLICATIVE * c.power)) for m, c in pairs),
        )

    def original(self, observations: list[Observation], order: int) -> list[np.ndarray]:
        """Coefficients that unweighted least squares find from the truth; NaN where MINPACK gives up."""
        spread = self.common(order)
        k, free = zernike.n_terms(order) - 1, self.layout.free
        spread, start = torch.as_tensor(spread), self.start.clone()

        def at(y: np.ndarray):
            u = start.clone()
            u[free] += spread @ torch.as_tensor(y)
            with torch.no_grad():
                return self.model.at(u)

        found = []
        for o in observations:
            power = np.concatenate([m.power for m in o.maps])
            end = scipy.optimize.least_squares(
                lambda y, power=power: at(y).samples.numpy() - power,
                np.zeros(spread.shape[1]),
                jac=lambda y: (spread.T @ at(y).jacobian(free)).numpy().T,
                method="lm",
                x_scale="jac",
            )
            found.append(end.x[:k] if end.status in (1, 2, 3, 4) else np.full(k, np.nan))
        return found


def estimated(setup: Setup, name: str, observations: list[Observation], order: int) -> dict:
    """Mean measure of an estimator over simulations, and its standard error."""
    errors = setup.wrms(np.array(getattr(setup, name)(observations, order)))
    errors = errors[np.isfinite(errors)]
    return {
        "mean": float(errors.mean()),
        "mean_error": float(errors.std(ddof=1) / math.sqrt(errors.size)),
        "accepted": errors.size,
    }


def measure(quick: bool) -> dict:
    """All points: what is predicted, and for those of the plan what is found."""
    plan, n = (QUICK, 6) if quick else (PLAN, SIMULATIONS)
    setups: dict[tuple[float, float], Setup] = {}
    points: dict[tuple, dict] = {}
    for wavelength, dz, orders, noises, others in plan:
        setup = setups.setdefault((wavelength, dz), Setup(wavelength, dz))
        for noise in noises:
            observations = setup.observe(noise, n)
            for order in orders:
                key = (wavelength, dz, order, noise)
                if key in points:
                    continue
                found = {name: estimated(setup, name, observations, order) for name in ("ours", *others)}
                points[key] = {"predicted": setup.predicted(order, noise), "found": found}
                print(*key, *(f"{name} {f['mean']:.4f}" for name, f in found.items()), flush=True)
    if not quick:
        for dz, order, noise in itertools.product(SHOWN, ORDERS, NOISES):
            key = (LAMBDA, dz, order, noise)
            points.setdefault(key, {"predicted": setups[LAMBDA, dz].predicted(order, noise), "found": {}})
    names = ("wavelength", "dz", "order", "noise")
    paper = setups[LAMBDA, 50e-3]
    whole = paper.simulator(ooftorch.Noise(), 128)
    peaks = [float(m.power.max()) for m in paper.clean.maps]
    return {
        "simulations": n,
        "samples_per_beam": whole.samples_per_beam(),
        "defocused_peak": peaks[0] / max(peaks),
        "points": [{**dict(zip(names, key, strict=True)), **point} for key, point in points.items()],
    }


def of(found: dict, **wanted: float) -> list[dict]:
    """Points with these values, by noise and dz."""
    some = [p for p in found["points"] if all(math.isclose(p[k], v) for k, v in wanted.items())]
    return sorted(some, key=lambda p: (p["noise"], p["dz"]))


def microns(point: dict, wrms: float) -> float:
    """Half-path error of a measure."""
    return 1e6 * wrms * point["wavelength"] / (4 * math.pi)


def section(found: dict) -> str:
    """Tables and conclusions."""
    paper = of(found, wavelength=LAMBDA, dz=50e-3, order=6)
    by_noise = [
        [
            f"{p['noise']:g}",
            *(
                cell
                for name in ("ours", "original", "weighted")
                for cell in (_measured(p, name), f"{p['predicted'][name]:.4f}")
            ),
            f"{microns(p, p['found']['ours']['mean']):.2f}",
        ]
        for p in _fitted(paper)
    ]
    head = ["noise per beam"]
    for name in ("ours", "original", "weighted"):
        head += [f"{name}, rad", "predicted"]
    missing = sum(found["simulations"] - f["accepted"] for p in found["points"] for f in p["found"].values())
    text = [
        "Set-up of the original software's study: perfect dish of 2.8 m radius, focus at 14.4 m, order 6, "
        f"maps at 0 and ±50 mm and 1.1 mm wavelength, {SIDE} x {SIDE} samples, every sample wrong by "
        f"{MULTIPLICATIVE:.0%} of itself and by white noise of F = {F} times the noise per beam (whole map "
        f"on its pixels: {math.sqrt(found['samples_per_beam']):.3f}); {found['simulations']} simulations a "
        f"point. The defocused peak is {found['defocused_peak']:.4f} of the one in focus. Error: mean over "
        "the simulations of the rms phase, tilt included and weighted with the illumination's amplitude. "
        '"Ours" has the defaults and x0, y0 free, and is told the white part of the noise; "original" is '
        'unweighted least squares by MINPACK from the truth, one amplitude and no offsets; "weighted" is '
        "ours told the true error of every sample. Predictions are to first order in the noise. Fits that "
        f"did not converge, left out: {missing}.",
        table([*head, "ours, HWFE, µm"], by_noise),
    ]
    both = [p for p in paper if "original" in p["found"]]
    against = [p["found"]["ours"]["mean"] / p["found"]["original"]["mean"] for p in both]
    low, high = both[0], both[-1]
    gain, same = (p["found"]["ours"]["mean"] / p["found"]["weighted"]["mean"] for p in (low, high))
    small = [p for p in _fitted(found["points"]) if p["predicted"]["ours"] < LINEAR]
    off = [p["found"]["ours"]["mean"] / p["predicted"]["ours"] for p in small]
    text.append(
        f"Ours lies {min(against):.2f} to {max(against):.2f} times where theirs does on the same maps: with "
        "equal errors for all samples both are the same least squares, and the gains and offsets that ours "
        "frees for each map cost next to nothing. Where white noise rules, the error grows in proportion to "
        f"it; at the low end the {MULTIPLICATIVE:.0%} take over, which lie on the bright samples, and equal "
        "weights give those too much say: told the true errors the same fit is "
        f"{gain:.1f} times better at {low['noise']:g}, and {same:.2f} times at {high['noise']:g}. Over all "
        f"{len(small)} points predicted below {LINEAR:g} rad ours is {np.mean(off):.3f} times predicted, "
        f"from {min(off):.2f} to {max(off):.2f} (a point's own standard error is some "
        f"{np.mean([_scatter(p) for p in small]):.0%})."
    )
    beyond = [p for p in _fitted(found["points"]) if p["predicted"]["ours"] >= LINEAR]
    large = [p["found"]["ours"]["mean"] / p["predicted"]["ours"] for p in beyond]
    least = _fitted(of(found, wavelength=LAMBDA, dz=DZS[0], order=6))
    if least:
        first, last = least[0], least[-1]
        growth = last["found"]["ours"]["mean"] / first["found"]["ours"]["mean"]
        times = last["noise"] / first["noise"]
        text[-1] += (
            f" Of the {len(large)} beyond that {sum(r < 1 for r in large)} lie below the prediction: a mode "
            "that the maps do not tell of to first "
            f"order is still held to second. At {1e3 * DZS[0]:g} mm and a noise of {first['noise']:g} "
            f"{first['predicted']['ours']:.2f} rad is predicted, {first['found']['ours']['mean']:.2f} found; "
            f"{times:g} times the noise makes {growth:.1f} times the error, more like the square root "
            f"({math.sqrt(times):.1f})."
        )
    curves = {(w, n): p for w, n in CURVES if (p := _fitted(of(found, wavelength=w, noise=n, order=6)))}
    rows = []
    for dz in DZS:
        here = [[p for p in points if math.isclose(p["dz"], dz)] for points in curves.values()]
        cells = [f"{microns(p[0], p[0]['found']['ours']['mean']):.2f}" if p else "" for p in here]
        rows.append([f"{1e3 * dz:g}", *cells])
    head = ["dz, mm", *(f"{1e3 * w:g} mm, noise {n:g}" for w, n in curves)]
    best = {c: min(p, key=lambda p: p["found"]["ours"]["mean"])["dz"] for c, p in curves.items()}
    text += [
        "Half-path error in µm against dz, ours, order 6, by wavelength and noise per beam:\n\n"
        f"{table(head, rows)}",
        "Least at "
        + "; ".join(f"{1e3 * dz:g} mm ({1e3 * w:g} mm, noise {n:g})" for (w, n), dz in best.items())
        + ". Left out of the original's grid, to keep the run short: orders 5 and 7, and every other noise "
        "where the order is not 6 or dz not 50 mm, are predicted but not fitted; the shorter wavelengths "
        "have every other dz and one noise.",
    ]
    return "\n\n".join(text)


def _measured(point: dict, name: str) -> str:
    """Mean and standard error, where it was fitted."""
    f = point["found"].get(name)
    return "" if f is None else f"{f['mean']:.4f} ± {f['mean_error']:.4f}"


def _fitted(points: list[dict]) -> list[dict]:
    return [p for p in points if p["found"]]


def _scatter(point: dict) -> float:
    """Relative standard error of ours."""
    return point["found"]["ours"]["mean_error"] / point["found"]["ours"]["mean"]


def picture(found: dict) -> Figure:
    """Half-path error against noise, and against defocus."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)

    def draw(axes, points: list[dict], against: str, name: str, colour: str, label: str, marker="o") -> None:
        if against == "noise":
            x = [p["noise"] for p in points]
            axes.plot(x, [microns(p, p["predicted"][name]) for p in points], color=colour, lw=1)
        fitted = [p for p in points if name in p["found"]]
        axes.errorbar(
            [p[against] for p in fitted],
            [microns(p, p["found"][name]["mean"]) for p in fitted],
            [microns(p, p["found"][name]["mean_error"]) for p in fitted],
            fmt=marker,
            ls="-" if against == "dz" else "none",
            color=colour,
            ms=4,
            label=label,
        )

    for i, order in enumerate((4, 6, 8)):
        points = of(found, wavelength=LAMBDA, dz=50e-3, order=order)
        draw(left, points, "noise", "ours", f"C{i}", f"ours, order {order}")
    paper = of(found, wavelength=LAMBDA, dz=50e-3, order=6)
    draw(left, paper, "noise", "original", "k", "original, order 6", "x")
    draw(left, paper, "noise", "weighted", "C3", "true errors known, order 6", "s")
    for dz, colour in zip((100e-3, 10e-3), ("C4", "C5"), strict=True):
        points = of(found, wavelength=LAMBDA, dz=dz, order=6)
        draw(left, points, "noise", "ours", colour, f"ours, order 6, dz {1e3 * dz:g} mm", "^")
    left.set_xlabel("noise per beam over the peak")
    left.set_title("1.1 mm, dz 50 mm where nothing else is said; lines: predicted", fontsize=9)
    for (wavelength, noise), colour in zip(CURVES, ("C0", "C1", "C2", "C3", "C4"), strict=True):
        points = of(found, wavelength=wavelength, noise=noise, order=6)
        draw(right, points, "dz", "ours", colour, f"{1e3 * wavelength:g} mm, noise {noise:g}")
    right.set_xlabel("dz (m)")
    right.set_title("ours, order 6", fontsize=9)
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_ylabel("half-path error (µm)")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7, loc="upper left")
    right.set_ylim(top=200)
    return figure


if __name__ == "__main__":
    run("accuracy", measure, section, picture)
