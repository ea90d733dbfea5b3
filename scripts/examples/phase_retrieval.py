"""Find the shape of a dish from three beam maps by six methods of minimisation, all on one picture.

    python scripts/examples/phase_retrieval.py [PICTURE]

The function is the package's own: the negative log-posterior of Zernike coefficients up to order 5, taper,
gains and offsets, given maps in and out of focus. Written in torch, it serves any method as it is. The
problem is badly scaled and its parameters are correlated: BFGS builds up the curvature from gradients,
trust-ncg uses the Hessian, and "metric-bfgs", which `ooftorch.fit` uses, starts with the metric of the
posterior. Methods with little memory, CG and L-BFGS-B, need the most evaluations. From a perfect dish all
find the same minimum, for a surface of 0.5 rad rms.
"""

import sys

import torch
from scipy.optimize import OptimizeResult
from torch import Tensor

import ooftorch
from ooftorch import Noise, Problem, Simulator, minimize, plot_convergence
from ooftorch.reporting.plot import save
from ooftorch.simulation import surfaces as surface

TELESCOPE, WAVELENGTH, ORDER, RMS = "paper", 1.1e-3, 5, 0.5
# What is known here, and would be found by default: pointing of the maps, scale of the focus, illumination.
KNOWN = {"dx": 0.0, "dy": 0.0, "dz_scale": 1.0, "x0": 0.0, "y0": 0.0}


def observe(seed: int = 0) -> ooftorch.Observation:
    """Three maps of a random surface, with noise of 1/300 of the peak."""
    simulator = Simulator(
        TELESCOPE, wavelength=WAVELENGTH, dz=[-0.05, 0.0, 0.05], reach=4, step=0.5, noise=Noise(snr=300)
    )
    return simulator.observe(surface.random(ORDER, RMS, seed=seed), seed=seed)


def problem_of(observation: ooftorch.Observation) -> Problem:
    """What `ooftorch.fit` would minimise, on somewhat coarser pixels."""
    return ooftorch.problem(observation, order=ORDER, n=96, likelihood="gaussian", fixed=KNOWN)


def six(problem: Problem) -> dict[str, OptimizeResult]:
    """The minimum by every method, the gradient found by torch."""

    def slower(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 700)

    options = {
        "CG": {"gtol": 1e-2},
        "BFGS": {"gtol": 1e-2},
        "L-BFGS-B": {"ftol": 1e-13, "gtol": 1e-2},
        "trust-ncg": {"gtol": 1e-2},
        "metric-bfgs": {"metric": problem.metric(), "gtol": 1e-5, "max_step": 1.0},
        "adam": {"lr": 0.03, "maxiter": 700, "gtol": 1e-2, "schedule": slower},
    }
    return {
        name: minimize(problem.value, problem.start, method=name, options=more)
        for name, more in options.items()
    }


def by_hand(problem: Problem) -> OptimizeResult:
    """BFGS again, with the gradient that the package has in closed form."""
    return minimize(problem, problem.start, method="BFGS", jac=True, options={"gtol": 1e-2})


def phase_error(problem: Problem, x: Tensor, observation: ooftorch.Observation) -> float:
    """Rms over the dish of what is wrong with the phase, rad, piston and tilt aside."""
    found, basis = problem.values(x), problem.posterior.model.instrument.basis
    return observation.truth.rms_error([found[name] for name in basis.names])


def main(path: str | None = None) -> None:
    """Find the minimum six times."""
    observation = observe()
    problem = problem_of(observation)
    results = six(problem)
    samples = problem.posterior.samples
    print(f"{len(problem.names)} free parameters, {len(samples.power)} samples")
    for name, r in results.items():
        wrong = phase_error(problem, r.x, observation)
        print(
            f"{name:11s} {r.nfev:5d} values, {r.nhev:4d} products with the Hessian, "
            f"{r.history[-1, 0]:5.2f} s: {r.fun:.6f}, phase to {wrong:.4f} rad rms"
        )
    r, same = by_hand(problem), results["BFGS"]
    n = min(len(r.history), len(same.history), 20)
    apart = abs(r.history[:n, 1] / same.history[:n, 1] - 1).max()
    print(
        f"BFGS, gradient in closed form: {r.nfev} values in {r.history[-1, 0]:.2f} s: {r.fun:.6f}; "
        f"the first {n} values differ by {apart:.0e} of themselves"
    )
    if path is not None:
        # A product with the Hessian costs about as much as an evaluation.
        labels = {name: name + (f" (+ {r.nhev} products)" if r.nhev else "") for name, r in results.items()}
        save(plot_convergence({labels[name]: r for name, r in results.items()}), path)


if __name__ == "__main__":
    main(*sys.argv[1:2])
