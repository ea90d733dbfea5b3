"""Time to solution of the package and of other programs, on the problem of the paper; writes results/.

    python scripts/benchmark.py            everything, some ten minutes on two cores
    python scripts/benchmark.py --quick    small grids only, to see that it runs; writes nothing

The problem is that of Nikolic (2018): a dish of 2.8 m radius with its focus at 14.4 m, three maps at 1.1 mm
and defocuses of 0, -50 and 50 mm, N x N pixels over 4 dish radii each way, Zernikes up to a given order free
with centre and amplitude of the illumination. For a fair comparison the start (a perfect dish) is not the
truth (0.5 rad rms), all methods minimise the same function, and all are timed to the same accuracy in it.

Methods: "numpy", full-grid FFTs in NumPy under SciPy's BFGS with finite differences; "published", the
paper's: full-grid torch with autograd under SciPy's BFGS; "ooftorch", on the CPU and, where there is one, a
GPU; "solvephase", where installed, on three 64 x 64 and 128 x 128 maps.
"""

import argparse
import contextlib
import functools
import importlib.metadata
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.optimize
import torch
from results_page import RESULTS, machine, machine_text, table, write_section

from ooftorch.device import OO
from ooftorch.fitting import search
from ooftorch.fitting.likelihood import Gaussian
from ooftorch.fitting.noise_model import IndependentNoise
from ooftorch.fitting.posterior import Posterior
from ooftorch.fitting.resolution import Level, Resolutions, build_resolutions
from ooftorch.fitting.samples import Samples
from ooftorch.optics import illumination, telescopes, zernike
from ooftorch.optics.basis import ZernikeBasis
from ooftorch.optics.farfield import DirectTransform
from ooftorch.optics.instrument import Instrument, MapGeometry
from ooftorch.optics.model import BeamModel
from ooftorch.optics.parameters import Layout, Parameter
from ooftorch.optics.parts import declare_layout
from ooftorch.optics.receiver import Receiver
from ooftorch.optim.bfgs import bfgs

README = Path(__file__).parent.parent / "README.md"
WAVELENGTH, SIGMA, DZ = 1.1e-3, 0.72, (0.0, -0.05, 0.05)
OVERSAMPLE = 4.0  # half side of the grid in dish radii
TELESCOPE = telescopes.load("paper")
BEAM = WAVELENGTH / (2 * TELESCOPE.radius)
# Relative accuracy of the objective to which all methods are timed.
ACCURACY = 1e-8
# A measurement that would take longer is replaced by cost of an evaluation times evaluations needed.
PATIENCE = 60.0


# ---------------------------------------------------------------------------------------- problem


class Problem:
    """The paper's problem on an N x N grid: directions, data and the answer.

    Parameters p: z1..zK (rad), x0, y0 (dish radii), and the amplitude.
    """

    def __init__(self, n: int, order: int, full: bool, rms: float = 0.5, seed: int = 1) -> None:
        self.n, self.order, self.full = n, order, full
        side = n if full else n // 4
        self.block = slice(n // 2 - side // 2, n // 2 - side // 2 + side)
        self.axis = (np.arange(side) - side // 2) * WAVELENGTH / (2 * OVERSAMPLE * TELESCOPE.radius)
        x, y = (a.ravel() for a in np.meshgrid(self.axis, self.axis))
        self.maps = [MapGeometry(dz, x, y) for dz in DZ]
        self.n_z = zernike.n_terms(order) - 1
        rng = np.random.default_rng(seed)
        z = rng.normal(size=self.n_z + 1)
        weight = zernike.mean_square(order)
        z[:3] = 0.0
        z *= rms / np.sqrt(np.sum(z**2 * weight))
        self.truth = np.concatenate([z[1:], [0.02, -0.03, 1.05]])
        self.start = np.concatenate([np.zeros(self.n_z), [0.0, 0.0, 1.0]])
        beams = Published(self).power(torch.as_tensor(self.truth)).numpy()
        # Errors as in the paper's figures: one per cent, and 0.3 per cent of the peak in each beam.
        self.sigma = 0.003 * 8.0 * float(beams.max())
        noisy = beams * (1 + 0.01 * rng.normal(size=beams.shape))
        self.data = noisy + self.sigma * rng.normal(size=beams.shape)


class Published:
    """The paper's method: the whole grid, autograd, and SciPy's BFGS."""

    def __init__(self, problem: Problem) -> None:
        n = problem.n
        pitch = 2 * OVERSAMPLE * TELESCOPE.radius / n
        axis = (np.arange(n) - n // 2) * pitch
        x, y = np.meshgrid(axis, axis)
        mask = TELESCOPE.coverage(x, y, pitch)
        lit = mask > 0
        cube = np.zeros((problem.n_z, n, n))
        cube[:, lit] = zernike.raster(problem.order, x[lit] / TELESCOPE.radius, y[lit] / TELESCOPE.radius)[1:]
        path = np.zeros((n, n))
        path[lit] = TELESCOPE.path_powers(x[lit], y[lit])[0]
        self.problem, self.n_z = problem, problem.n_z
        self.last = problem.start  # where a fit has come to
        self.x, self.y, self.mask, self.cube = map(
            torch.as_tensor, (x / TELESCOPE.radius, y / TELESCOPE.radius, mask, cube)
        )
        k = 2 * math.pi / WAVELENGTH
        self.defocus = torch.as_tensor(np.stack([-k * dz * path for dz in DZ]))
        amplitude = mask * np.exp(-(self.x**2 + self.y**2).numpy() / (2 * SIGMA**2))
        self.scale = 1 / float(amplitude.sum()) ** 2  # the perfect telescope's peak is 1

    def power(self, p: torch.Tensor) -> torch.Tensor:
        """Maps (3, side, side) at the parameters p."""
        z, x0, y0, amp = p[: self.n_z], p[-3], p[-2], p[-1]
        amplitude = self.mask * amp * torch.exp(-((self.x - x0) ** 2 + (self.y - y0) ** 2) / (2 * SIGMA**2))
        phase = torch.tensordot(z, self.cube, 1) + self.defocus
        field = torch.complex(amplitude * torch.cos(phase), amplitude * torch.sin(phase))
        far = torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(field, (-2, -1))), (-2, -1))
        block = self.problem.block
        return self.scale * torch.view_as_real(far[:, block, block]).square().sum(-1)

    def fit(self, watch: "Watch") -> None:
        """Minimise until `watch` stops it."""
        data = torch.as_tensor(self.problem.data)

        def fun(p: np.ndarray) -> tuple[float, np.ndarray]:
            self.last = p
            t = torch.as_tensor(p).requires_grad_()
            loss = 0.5 * ((self.power(t) - data) / self.problem.sigma).square().sum()
            (gradient,) = torch.autograd.grad(loss, t)
            return watch(loss.item()), gradient.numpy()

        scipy_bfgs(fun, self.problem.start, jac=True)


class PlainNumPy:
    """The same function in NumPy, its gradient by finite differences."""

    def __init__(self, problem: Problem) -> None:
        same = Published(problem)
        self.problem, self.n_z, self.scale = problem, same.n_z, same.scale
        self.x, self.y, self.mask, self.cube, self.defocus = (
            t.numpy() for t in (same.x, same.y, same.mask, same.cube, same.defocus)
        )

    def loss(self, p: np.ndarray) -> float:
        """Half the chi-square at the parameters p."""
        z, x0, y0, amp = p[: self.n_z], p[-3], p[-2], p[-1]
        amplitude = self.mask * amp * np.exp(-((self.x - x0) ** 2 + (self.y - y0) ** 2) / (2 * SIGMA**2))
        phase = np.tensordot(z, self.cube, 1) + self.defocus
        far = np.fft.fftshift(
            np.fft.fft2(np.fft.ifftshift(amplitude * np.exp(1j * phase), (-2, -1))), (-2, -1)
        )
        block = self.problem.block
        power = self.scale * np.abs(far[:, block, block]) ** 2
        return float(0.5 * np.sum(((power - self.problem.data) / self.problem.sigma) ** 2))

    def fit(self, watch: "Watch") -> None:
        """Minimise until `watch` stops it."""
        scipy_bfgs(lambda p: watch(self.loss(p)), self.problem.start, jac=None)


def scipy_bfgs(fun: Callable, start: np.ndarray, jac: bool | None) -> None:
    """SciPy's BFGS with default options, until `fun` stops it."""
    with contextlib.suppress(Enough):
        scipy.optimize.minimize(fun, start, jac=jac, method="BFGS", options={"gtol": 0.0, "maxiter": 10000})


class Enough(Exception):
    """The objective is as low as it needs to be."""


class Watch:
    """Count evaluations, and stop at a target value or when the time is over."""

    def __init__(self, target: float, patience: float = math.inf) -> None:
        self.target, self.n_eval, self.lowest = target, 0, math.inf
        self.end = time.perf_counter() + patience

    def __call__(self, value: float) -> float:
        """Count an evaluation with this value; raises `Enough` at the target."""
        self.n_eval += 1
        self.lowest = min(self.lowest, value)
        if value <= self.target or time.perf_counter() > self.end:
            raise Enough
        return value


def declare(order: int) -> Layout:
    """The package's parameters for this problem, where pointing and focus are known, as the noise is."""
    gaussian = illumination.choose("gaussian")
    instrument = Instrument(TELESCOPE, WAVELENGTH, Receiver(), gaussian, ZernikeBasis(order), len(DZ), 1.0)
    layout = declare_layout(instrument).with_added(Parameter("noise", "errors", 1.0, log=True))
    return layout.with_fixed({"dx": 0.0, "dy": 0.0, "dz_scale": 1.0})


def build(problem: Problem, power: torch.Tensor, layout: Layout, oo: OO) -> Resolutions:
    """The package's models of this problem, for data (b, n_samples)."""

    def make(maps: list[MapGeometry], n: int) -> BeamModel:
        return BeamModel(
            TELESCOPE, WAVELENGTH, maps, order=problem.order, n=n, oversample=OVERSAMPLE, layout=layout, oo=oo
        )

    samples = Samples(power, torch.full_like(power, problem.sigma), torch.ones_like(power, dtype=torch.bool))
    return build_resolutions(
        make, problem.maps, samples, Gaussian(), IndependentNoise(), problem.n, OVERSAMPLE
    )


def go_down(levels: Resolutions, layout: Layout, start: torch.Tensor) -> search.Minima:
    """The package's search from one start for each row of data."""
    rows = torch.arange(len(start), device=start.device)
    minima, numbers, _ = search.search(levels, layout, rows, [start], search.Silence())
    minima, _ = search.settle(levels, layout, rows[numbers], minima, search.Silence())
    lowest = [search.sort_lowest_first(minima, numbers, i)[0] for i in range(len(rows))]
    return search.polish(levels, layout, rows, search.Minima(*(t[lowest] for t in minima)), search.Silence())[
        0
    ]


class Ours:
    """The package on the same function: its models of several resolutions, its metric, its BFGS.

    The package has a gain for each map where the paper has one amplitude for all: a linear map from the
    paper's parameters to the package's coordinates makes them one.
    """

    def __init__(self, problem: Problem, device: str = "cpu") -> None:
        self.problem, oo = problem, OO(device)

        layout = declare(problem.order).with_free(["x0", "y0"]).with_fixed({"offset": 0.0, "sigma": SIGMA})
        without = (replace(p, prior=None) for p in layout.parameters)
        self.layout = replace(layout, parameters=tuple(without), ties=())
        self.levels = build(problem, oo(problem.data.reshape(1, -1)), self.layout, oo)
        # The gains follow one.
        free = [self.layout.names[i] for i in self.layout.free]
        common = [name for name in free if not name.startswith("gain")]
        self.spread = oo(np.zeros((len(free), len(common) + 1)))
        for i, name in enumerate(free):
            self.spread[i, common.index(name) if name in common else len(common)] = 1.0
        self.rows = torch.zeros(1, dtype=torch.long, device=oo.device)
        self.anchor = oo(self.layout.coordinates())[None]
        # What the reference's objective leaves out.
        self.constant = problem.data.size * math.log(problem.sigma * math.sqrt(2 * math.pi))

    def posterior(self, level: Level) -> Posterior:
        """Objective at one level."""
        return self.levels.posterior(level, self.layout, self.rows, self.anchor)

    def fit(self, gtol: float = 2e-3) -> tuple[float, np.ndarray, list[int]]:
        """Objective, z1.. at the end, and evaluations at each level."""
        search, coarse, exact = (self.posterior(level) for level in self.levels[:3])
        y = self.spread.new_zeros((1, self.spread.shape[1]))
        n_eval = []
        for stage, stop in ((coarse, 1.0), (exact, gtol)):
            if stage is coarse and self.levels.coarse is self.levels.exact:
                continue
            found = bfgs(functools.partial(self._fun, stage), y, self._metric(search, y), gtol=stop)
            y = found.x
            n_eval.append(int(found.n_eval[0]))
        return float(found.value[0]) - self.constant, y[0, : self.problem.n_z].cpu().numpy(), n_eval

    def _fun(self, stage: Posterior, y: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        value, gradient = stage.value_and_gradient(y @ self.spread.mT)
        return value, gradient @ self.spread

    def _metric(self, stage: Posterior, y: torch.Tensor) -> torch.Tensor:
        return self.spread.mT @ stage.metric(y @ self.spread.mT) @ self.spread


# ------------------------------------------------------------------------------------ time to solution


def timed(fun: Callable[[], object], seconds: float = 0.5, least: int = 3) -> list[float]:
    """Wall times of repeated calls, after one to warm up."""
    fun()
    times: list[float] = []
    while len(times) < least or sum(times) < seconds:
        begin = time.perf_counter()
        fun()
        times.append(time.perf_counter() - begin)
    return times


def spread_of(times: list[float]) -> dict:
    """Median and quartiles."""
    low, high = np.percentile(times, [25, 75])
    return {"seconds": statistics.median(times), "quartiles": [low, high], "repeats": len(times)}


def to_solution(n: int, order: int, full: bool, patience: float) -> dict:
    """All methods on one problem."""
    problem = Problem(n, order, full)
    row: dict = {"n": n, "order": order, "parameters": len(problem.start), "samples": problem.data.size}
    build = timed(lambda: Ours(problem), least=2)
    ours = Ours(problem)
    lowest, z, _ = ours.fit(gtol=1e-5)
    value, _, n_eval = ours.fit()
    assert value - lowest <= ACCURACY * abs(lowest), f"stopped {value - lowest:g} above the minimum"
    target = lowest * (1 + ACCURACY)
    # Timed before, between and after the others, because the speed of the machine varies.
    times = timed(ours.fit, 0.7, 5)
    row["ooftorch"] = {
        "n_eval": n_eval,
        "setup_seconds": statistics.median(build),
        "way": ours.levels.exact.model.parts.groups.beams[0].beams[0].transform.way,
    }
    row["fractions"] = fractions(ours)
    if torch.cuda.is_available():
        there = Ours(problem, "cuda")
        row["ooftorch_cuda"] = spread_of(timed(there.fit, 1.0, 5))

    published = Published(problem)
    watch = Watch(target, patience)
    begin = time.perf_counter()
    published.fit(watch)
    seconds = time.perf_counter() - begin
    solved = watch.lowest <= target
    row["published"] = {
        "seconds": seconds if solved else None,
        "n_eval": watch.n_eval,
        "solved": solved,
        "seconds_per_evaluation": seconds / watch.n_eval,
    }
    # Few samples have several minima. If methods find different ones, a ratio of times means nothing.
    lower = watch.lowest < lowest - ACCURACY * abs(lowest)
    away = float(np.abs(published.last[: problem.n_z] - z).max())
    row["same"] = not lower and (seconds >= patience or (solved and away < 0.01))
    times += timed(ours.fit, 0.7, 5)
    plain = PlainNumPy(problem)
    one = statistics.median(timed(lambda: plain.loss(problem.start), 0.5))
    row["numpy"] = {"seconds_per_evaluation": one}
    times += timed(ours.fit, 0.7, 5)
    row["ooftorch"] |= spread_of(times)
    return row


def fractions(ours: Ours) -> dict[str, float]:
    """Share of the time that goes into transforms, the likelihood, the rest of the model, the optimiser."""
    spent = {"transforms": 0.0, "likelihood": 0.0, "evaluations": 0.0}

    def watched(owner: type, name: str, share: str) -> Callable[[], None]:
        original = getattr(owner, name)

        def wrapper(*args, **kwargs):
            begin = time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                spent[share] += time.perf_counter() - begin

        setattr(owner, name, wrapper)
        return lambda: setattr(owner, name, original)

    restore = [
        watched(DirectTransform, "__call__", "transforms"),
        watched(DirectTransform, "adjoint", "transforms"),
        watched(Gaussian, "sum_and_score", "likelihood"),
        watched(Posterior, "value_and_gradient", "evaluations"),
        watched(Posterior, "metric", "evaluations"),
    ]
    begin = time.perf_counter()
    ours.fit()
    total = time.perf_counter() - begin
    for undo in restore:
        undo()
    return {
        "transforms": spent["transforms"] / total,
        "likelihood": spent["likelihood"] / total,
        "rest of the model": (spent["evaluations"] - spent["transforms"] - spent["likelihood"]) / total,
        "optimiser": 1 - spent["evaluations"] / total,
    }


def project(rows: list[dict]) -> None:
    """Fill in the methods that would have taken too long: evaluations needed times the cost of one."""
    solved = [r for r in rows if r["published"]["solved"] and r["same"]]
    for row in rows:
        published = row["published"]
        if not published["solved"]:
            near = min(solved, key=lambda r: (abs(r["order"] - row["order"]), -r["n"]))
            published["n_eval"] = near["published"]["n_eval"]
            published["seconds"] = published["n_eval"] * published["seconds_per_evaluation"]
        published["projected"] = not published["solved"]
        # A gradient by differences is as many evaluations as there are parameters, and one.
        plain = row["numpy"]
        plain["n_eval"] = published["n_eval"] * (row["parameters"] + 1)
        plain["seconds"] = plain["n_eval"] * plain["seconds_per_evaluation"]
        plain["projected"] = True
        for name in ("published", "numpy"):
            ratio = row[name]["seconds"] / row["ooftorch"]["seconds"]
            row[name]["ratio"] = ratio if row["same"] else None


def check_projection(rows: list[dict], full: bool) -> dict:
    """Run plain NumPy to the end where it takes minutes, to check the projection."""
    row = min((r for r in rows if r["same"]), key=lambda r: r["numpy"]["seconds"])
    problem = Problem(row["n"], row["order"], full)
    ours = Ours(problem)
    watch = Watch(ours.fit(gtol=1e-5)[0] * (1 + ACCURACY), 5 * PATIENCE)
    begin = time.perf_counter()
    PlainNumPy(problem).fit(watch)
    return {
        "n": row["n"],
        "order": row["order"],
        "solved": watch.lowest <= watch.target,
        "measured_seconds": time.perf_counter() - begin,
        "projected_seconds": row["numpy"]["seconds"],
    }


# ------------------------------------------------------------------------------------ one evaluation


def evaluation(n: int, full: bool, order: int = 8) -> dict:
    """One value and gradient of three maps against six bare FFTs of the whole grid."""
    ours = Ours(Problem(n, order, full))
    exact = ours.posterior(ours.levels.exact)
    x = ours.anchor[:, exact.free]
    grid = torch.randn(3, n, n, dtype=torch.complex128)
    pair = [
        (
            statistics.median(timed(lambda: torch.fft.ifft2(torch.fft.fft2(grid)), 0.3)),
            statistics.median(timed(lambda: exact.value_and_gradient(x), 0.3)),
        )
        for _ in range(5)
    ]
    transform = ours.levels.exact.model.parts.groups.beams[0].beams[0].transform
    return {
        "n": n,
        "full": full,
        "six_ffts_seconds": statistics.median(p[0] for p in pair),
        "value_and_gradient_seconds": statistics.median(p[1] for p in pair),
        "ratio": statistics.median(p[1] / p[0] for p in pair),
        "way": transform.way,
        "model_multiplications": transform.costs,
    }


def growth() -> list[dict]:
    """How the cost of an evaluation grows with each size of the problem, the others held."""
    base = {"n": 256, "order": 6, "maps": 3, "side": 64}
    scans = {
        "n": [256, 512, 1024],
        "order": [2, 4, 8, 12],
        "maps": [2, 4, 8],
        "side": [64, 128, 256],
    }
    found = []
    for name, values in scans.items():
        rows = []
        for value in values:
            size = base | {name: value}
            axis = np.linspace(-8, 8, size["side"]) * BEAM
            x, y = (a.ravel() for a in np.meshgrid(axis, axis))
            dz = np.linspace(-0.05, 0.05, size["maps"])
            maps = [MapGeometry(float(d), x, y) for d in dz]
            model = BeamModel(
                TELESCOPE, WAVELENGTH, maps, order=size["order"], n=size["n"], oversample=OVERSAMPLE
            )
            u = torch.as_tensor(model.layout.coordinates())[None]

            def once(model: BeamModel = model, u: torch.Tensor = u) -> None:
                with torch.no_grad():
                    at = model.at(u)
                    at.vjp(at.samples)

            rows.append(
                {
                    name: value,
                    "seconds": statistics.median(timed(once)),
                    "bytes": model.nbytes(),
                    "pixels_times_terms": model.parts.surface.matrix.numel(),
                }
            )
        logs = [np.log([r[key] for r in rows]) for key in (name, "seconds")]
        found.append({"against": name, "exponent": float(np.polyfit(*logs, 1)[0]), "rows": rows})
    return found


# -------------------------------------------------------------------------------------------- batches


def batch(members: int, device: str, order: int = 8) -> dict:
    """Fits per second, many surfaces side by side: 64-pixel dish, three 64 x 64 maps."""
    problem = Problem(256, order, full=False)
    published = Published(problem)
    rng = np.random.default_rng(7)
    powers = []
    for _ in range(members):
        z = problem.truth.copy()
        z[2 : problem.n_z] = rng.permutation(z[2 : problem.n_z])
        beams = published.power(torch.as_tensor(z)).numpy()
        powers.append((beams + problem.sigma * rng.normal(size=beams.shape)).ravel())
    oo, layout = OO(device), declare(order)
    levels = build(problem, oo(np.stack(powers)), layout, oo)
    start = oo(layout.coordinates()).repeat(members, 1)
    begin = time.perf_counter()
    end = go_down(levels, layout, start)
    seconds = time.perf_counter() - begin
    return {
        "device": device,
        "members": members,
        "order": order,
        "seconds": seconds,
        "fits_per_second": members / seconds,
        "converged": int((end.distance < 0.01).sum()),
    }


# -------------------------------------------------------------------------------------- other programs


def solvephase(side: int, modes: int = 44) -> dict | None:
    """The package `solvephase` on three maps, and ours on the same with the same freedom."""
    try:
        import solvephase as sp
    except ImportError:
        return None
    order = zernike.order_of(modes)
    n = 4 * side
    problem = Problem(n, order, full=False)
    data = problem.data.reshape(3, side, side)
    # solvephase takes the illumination as known: it is held at the truth here too.
    x0, y0 = problem.truth[problem.n_z : problem.n_z + 2]
    layout = replace(declare(order).with_fixed({"sigma": SIGMA, "x0": x0, "y0": y0}), ties=())
    oo = OO("cpu")
    levels = build(problem, oo(data.reshape(1, -1)), layout, oo)
    model, start = levels.exact.model, oo(layout.coordinates())[None]

    def ours() -> float:
        return float(go_down(levels, layout, start).objective[0])

    amplitude, _ = (t.detach().numpy() for t in model.aperture(start[0]))

    pixels = model.pixels
    pupil = sp.Pupil(pixels.fill_square(amplitude, 0.0), pitch=pixels.pitch, diameter=2 * TELESCOPE.radius)
    path = pixels.fill_square(TELESCOPE.path(pixels.x, pixels.y, 1.0), 0.0)
    # The sign does not matter: it changes that of the surface, not the time.
    diversity = np.stack([-dz * path for dz in DZ])
    counts = data / problem.sigma  # errors of 1

    def theirs():
        return sp.retrieve(
            counts,
            pupil,
            WAVELENGTH,
            sampling=2 * OVERSAMPLE / 2,
            diversity=diversity,
            basis=modes,
            method="lm",
            loss="gaussian",
            fit_background=True,
        )

    constant = data.size * math.log(problem.sigma * math.sqrt(2 * math.pi))
    result = theirs()
    images = np.asarray(result.images if hasattr(result, "images") else result.model_images)
    residual = 0.5 * float(np.sum((images.reshape(data.shape) - counts) ** 2))
    pairs = [(timed(theirs, 0.0, 1)[0], timed(ours, 0.0, 1)[0]) for _ in range(5)]
    return {
        "version": importlib.metadata.version("solvephase"),
        "side": side,
        "modes": modes,
        "solvephase_seconds": statistics.median(a for a, _ in pairs),
        "ooftorch_seconds": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(a / b for a, b in pairs),
        "solvephase_half_chi2": residual,
        "ooftorch_half_chi2": ours() - constant,
        "half_samples": data.size / 2,
    }


# Runs of the whole command, each in a new process.
_RUNS = 10
_PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, flush=True)
"""


def command(observation: str, options: list[str]) -> dict:
    """The whole command in a new process: time to the report and to the files, the fit's, and peak memory."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "fit"
        line = [sys.executable, "-m", "ooftorch", "fit", observation, *options, "--out", str(out)]
        # Of a small process's only child: a fork of this one would count this one's memory.
        watched = [sys.executable, "-c", _PEAK, *line, "--overwrite"]
        usual = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
        report, whole, fit = [], [], []
        for _ in range(_RUNS):
            begin = time.perf_counter()
            with subprocess.Popen(watched, env=usual, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                for text in process.stdout:
                    if text.startswith("VERDICT"):
                        report.append(time.perf_counter() - begin)
                    elif text.startswith("written to"):
                        whole.append(time.perf_counter() - begin)
            fit.append(json.loads((out / "summary.json").read_text())["seconds"]["fit"])
    return {
        "observation": Path(observation).parent.name + "/" + Path(observation).name,
        "options": options,
        "report_seconds": statistics.median(report),
        "seconds": statistics.median(whole),
        "fit_seconds": statistics.median(fit),
        "peak_bytes": 1024 * int(text),
    }


def startup() -> dict:
    """`ooftorch --help` against the import of the library that reads its command line."""
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}

    def run(*line: str) -> float:
        return statistics.median(
            timed(
                lambda: subprocess.run(
                    [sys.executable, *line], check=True, stdout=subprocess.DEVNULL, env=environment
                ),
                1.0,
            )
        )

    return {"help_seconds": run("-m", "ooftorch", "--help"), "click_seconds": run("-c", "import click")}


# ---------------------------------------------------------------------------------------------- report


def picture(rows: list[dict], against: str, path: Path, title: str) -> None:
    """Time to solution of every method; open symbols are projected."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4.4), layout="constrained")
    labels = {
        "numpy": "NumPy, finite differences",
        "published": "torch, full grid (as published)",
        "ooftorch": "ooftorch, CPU",
        "ooftorch_cuda": "ooftorch, CUDA",
    }
    for (name, label), colour in zip(labels.items(), ("C3", "C1", "C0", "C2"), strict=True):
        some = [
            (r[against], r[name]["seconds"], r[name].get("projected", False))
            for r in rows
            if name in r and r["same"]
        ]
        if not some:
            continue
        axes.plot([s[0] for s in some], [s[1] for s in some], color=colour, label=label)
        for x, y, projected in some:
            axes.plot(x, y, "o", color=colour, markerfacecolor="white" if projected else colour)
    axes.set_yscale("log")
    if against == "n":
        axes.set_xscale("log", base=2)
    axes.set_xlabel({"n": "pixels along each side of the grid", "order": "highest Zernike order"}[against])
    axes.set_ylabel("seconds to solution")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    figure.legend(title="open: projected", loc="outside lower center", ncols=3)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def seconds_text(seconds: float, projected: bool = False) -> str:
    """Format a time."""
    text = (
        f"{seconds * 1e3:.3g} ms"
        if seconds < 1
        else f"{seconds:.3g} s"
        if seconds < 600
        else f"{seconds / 3600:.3g} h"
    )
    return f"({text})" if projected else text


def ratio_text(ratio: float | None) -> str:
    """A ratio to three figures, without an exponent, if there is one."""
    return "other minimum" if ratio is None else f"{float(f'{ratio:.3g}'):g}"


def headline(found: dict) -> str:
    """The six lines of the README."""

    def against(row: dict) -> str:
        published, numpy = (ratio_text(row[name]["ratio"]) for name in ("published", "numpy"))
        return f"{published} times the published method, {numpy} times NumPy"

    by_size = {(key, r["n"]): r for key in ("block", "grid") for r in found[key] if r["order"] == 8}
    rows = []
    for key, n, what in (
        ("block", 256, "64 x 64 samples a map, N = 256"),
        ("block", 1024, "256 x 256 samples a map, N = 1024"),
        ("grid", 256, "the whole grid of N = 256"),
    ):
        row = by_size[key, n]
        rows.append([f"three maps, order 8, {what}", seconds_text(row["ooftorch"]["seconds"]), against(row)])
    last = found["solvephase"][-1]
    rows.append(
        [
            f"three maps of {last['side']} x {last['side']}, {last['modes']} modes",
            seconds_text(last["ooftorch_seconds"]),
            f"{last['ratio']:.1f} times `solvephase` {last['version']}",
        ]
    )
    b = found["batch"][-1]
    each = f"{b['fits_per_second']:.0f} fits a second"
    rows.append([f"{b['members']} fits of order 8 side by side", seconds_text(b["seconds"]), each])
    c = found["commands"][0]
    rows.append(
        [
            f"`ooftorch fit {c['observation']}`, a new process",
            f"{seconds_text(c['report_seconds'])} to the report",
            f"{seconds_text(c['seconds'])} to all files, of which the fit {seconds_text(c['fit_seconds'])}",
        ]
    )
    return f"Measured on {machine_text(found['machine'])}.\n\n{table(['problem', 'time', ''], rows)}"


def page(found: dict) -> str:
    """Everything that was measured, for the page beside the figures."""
    m = found["machine"]
    gpu = m["gpu"] or "no GPU, so no GPU figure was measured"
    parts = [
        "# Benchmark",
        "Written by `python scripts/benchmark.py`. The problem is the paper's: a prime-focus dish, three "
        "maps, N x N pixels over four dish radii each way; the start is not the truth, the objective is the "
        "same for everyone, and everyone is timed to 1e-8 of it.",
        "![Time to solution against the grid](benchmark_grid.png)",
        "![Time to solution against the order](benchmark_order.png)",
        f"Measured on {machine_text(m)}, {gpu}. Times in brackets are projected: cost of one evaluation "
        "times the evaluations that the published method needed. Ratios are within this run.",
    ]
    for key, title in (
        ("block", "central block, N/4 x N/4 samples a map"),
        ("grid", "whole grid, N x N samples"),
    ):
        rows = [
            [
                str(r["n"]),
                str(r["order"]),
                seconds_text(r["ooftorch"]["seconds"]),
                seconds_text(r["published"]["seconds"], r["published"]["projected"]),
                ratio_text(r["published"]["ratio"]),
                seconds_text(r["numpy"]["seconds"], r["numpy"]["projected"]),
                ratio_text(r["numpy"]["ratio"]),
            ]
            for r in found[key]
        ]
        head = ["N", "order", "ooftorch", "as published", "ratio", "NumPy", "ratio"]
        parts.append(f"Time to solution, {title}:\n\n{table(head, rows)}")
    rows = [
        [
            str(r["n"]),
            "whole grid" if r["full"] else "central block",
            seconds_text(r["value_and_gradient_seconds"]),
            seconds_text(r["six_ffts_seconds"]),
            f"{r['ratio']:.2f}",
            r["way"],
        ]
        for r in found["evaluation"]
    ]
    head = ["N", "samples", "value and gradient", "six bare FFTs", "ratio", "transform"]
    parts.append(f"One evaluation of three maps, order 8:\n\n{table(head, rows)}")
    for r in (r for r in found["block"] if r["n"] in (256, 1024) and r["order"] == 8):
        shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in r["fractions"].items())
        parts.append(f"Where the time goes at N = {r['n']}, order 8, central block: {shares}.")
    exponents = ", ".join(f"{g['against']} {g['exponent']:.2f}" for g in found["growth"])
    sizes = [r for g in found["growth"] if g["against"] in ("n", "order") for r in g["rows"]]
    memory = ""
    if sizes:
        low, high = np.percentile([r["bytes"] / r["pixels_times_terms"] for r in sizes], [0, 100])
        memory = f"The model holds {low:.0f} to {high:.0f} bytes for each dish pixel and term."
    parts.append(
        "Fitted exponents of the cost of an evaluation (order 6, N = 256, three 64 x 64 maps where "
        f"nothing else is said): {exponents}. {memory}"
    )
    for b in found["batch"]:
        parts.append(
            f"Side by side on the {b['device'].upper()}, order 8, 64-pixel dish, three 64 x 64 maps: "
            f"{b['members']} fits at {b['fits_per_second']:.0f} a second, {b['converged']} converged."
        )
    if not m["gpu"]:
        parts.append("Side by side on a GPU: not measured; the same code runs on the CPU in the tests.")
    for s in found["solvephase"]:
        parts.append(
            f"`solvephase` {s['version']}, three {s['side']} x {s['side']} maps, {s['modes']} modes: "
            f"{seconds_text(s['solvephase_seconds'])} against {seconds_text(s['ooftorch_seconds'])}, ratio "
            f"{s['ratio']:.1f}; half chi-square at the end {s['solvephase_half_chi2']:.1f} against "
            f"{s['ooftorch_half_chi2']:.1f}."
        )
    for c in found["commands"]:
        line = " ".join(["ooftorch fit", c["observation"], *c["options"]])
        parts.append(
            f"`{line}` in a new process, medians of {_RUNS} runs: {seconds_text(c['report_seconds'])} to the "
            f"report, {seconds_text(c['seconds'])} to all files, of which the fit "
            f"{seconds_text(c['fit_seconds'])}; {c['peak_bytes'] / 1e6:.0f} MB at the most."
        )
    up = found["startup"]
    parts.append(
        f"`ooftorch --help`: {seconds_text(up['help_seconds'])} (`import click` alone "
        f"{seconds_text(up['click_seconds'])})."
    )
    return "\n\n".join(parts)


def write_pages(found: dict) -> None:
    """Write the page of tables, and the six lines of the README."""
    (RESULTS / "benchmark.md").write_text(page(found) + "\n")
    write_section(README, "performance", "benchmark.py", headline(found))


def main() -> None:
    """Measure, and write the page of tables, the pictures and the README's section."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small grids only; write nothing")
    parser.add_argument("--observation", nargs="+", default=[], help="time the command on this, with options")
    parser.add_argument("--readme", action="store_true", help="only write the pages again")
    options, rest = parser.parse_known_args()
    target = RESULTS / "benchmark.json"
    if options.readme:
        write_pages(json.loads(target.read_text()))
        return
    sizes, orders, patience = (32, 64, 128, 256, 512, 1024, 2048), (2, 3, 4, 5, 6, 7, 8, 9), PATIENCE
    if options.quick:
        sizes, orders, patience = (32, 64), (2, 3), 5.0
    found: dict = {"machine": machine()}
    for key, full in (("block", False), ("grid", True)):
        cases = [(n, orders[-2]) for n in sizes if not (full and n > 1024)]
        cases += [(sizes[3 if len(sizes) > 3 else 0], order) for order in orders if order != orders[-2]]
        rows = []
        for n, order in cases:
            rows.append(to_solution(n, order, full, patience))
            print(key, n, order, f"{rows[-1]['ooftorch']['seconds']:.4f} s", flush=True)
        project(rows)
        found[key] = rows
        found[f"{key}_projection"] = check_projection(rows, full)
    found["evaluation"] = [evaluation(n, full) for full in (False, True) for n in sizes[-4:-1] or sizes]
    found["growth"] = growth() if not options.quick else []
    found["batch"] = [batch(4 if options.quick else 64, "cpu")]
    if torch.cuda.is_available():
        found["batch"].append(batch(1024, "cuda"))
    found["solvephase"] = [s for side in ((64,) if options.quick else (64, 128)) if (s := solvephase(side))]
    found["startup"] = startup()
    cases = [("data/gbt_3mm.fits", [])]
    if options.observation:
        cases.append((options.observation[0], [*options.observation[1:], *rest]))
    found["commands"] = [command(path, more) for path, more in cases]
    print(page(found))
    if options.quick:
        return
    RESULTS.mkdir(exist_ok=True)
    target.write_text(json.dumps(found, indent=1) + "\n")
    by_n = [r for r in found["block"] if r["order"] == orders[-2]]
    by_order = sorted((r for r in found["block"] if r["n"] == sizes[3]), key=lambda r: r["order"])
    picture(by_n, "n", RESULTS / "benchmark_grid.png", f"order {orders[-2]}, central block")
    picture(by_order, "order", RESULTS / "benchmark_order.png", f"N = {sizes[3]}, central block")
    write_pages(found)


if __name__ == "__main__":
    main()
