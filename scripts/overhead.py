"""Overhead of `minimize` per evaluation, compared with SciPy and a closure written by hand.

    python scripts/overhead.py

Both run SciPy's BFGS on the same torch function from the same start, so both take the same path; one after
the other in turn, because the speed of the machine varies. Two functions: Rosenbrock's of three numbers,
where the difference is the overhead of one evaluation of value and gradient; and the paper's problem (see
benchmark.py) at N = 256 and order 5, where it is a share.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
import scipy.optimize
import torch
from benchmark import Problem, Published
from results_page import machine, machine_text
from torch import Tensor

from ooftorch import minimize


def rosenbrock(x: Tensor) -> Tensor:
    """A few operations, and a path of some forty evaluations."""
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def by_hand(fun: Callable[[Tensor], Tensor]) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """The closure to write for SciPy without `minimize`."""

    def closure(vector: np.ndarray) -> tuple[float, np.ndarray]:
        x = torch.tensor(vector, requires_grad=True)
        value = fun(x)
        value.backward()
        return value.item(), x.grad.numpy()

    return closure


def beams(n: int = 256, order: int = 5) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Half the chi-square of the paper's problem, and its start."""
    problem = Problem(n, order, full=False)
    power, data = Published(problem).power, torch.as_tensor(problem.data)

    def chi2(p: Tensor) -> Tensor:
        return 0.5 * ((power(p) - data) / problem.sigma).square().sum()

    return chi2, torch.as_tensor(problem.start)


def compare(fun: Callable[[Tensor], Tensor], start: Tensor, rounds: int, maxiter: int) -> dict:
    """Seconds of an evaluation by hand and by `minimize`: medians over rounds, and of their difference."""
    options = {"maxiter": maxiter, "gtol": 1e-9}

    def scipys() -> tuple[float, int]:
        begin = time.perf_counter()
        r = scipy.optimize.minimize(by_hand(fun), start.numpy(), jac=True, method="BFGS", options=options)
        return (time.perf_counter() - begin) / r.nfev, r.nfev

    def ours() -> tuple[float, int]:
        begin = time.perf_counter()
        r = minimize(fun, start, method="BFGS", options=options, progress=False)
        return (time.perf_counter() - begin) / r.nfev, r.nfev

    scipys(), ours()
    pairs = [(scipys(), ours()) for _ in range(rounds)]
    counts = {n for pair in pairs for _, n in pair}
    assert len(counts) == 1, f"not the same path: {counts} evaluations"
    return {
        "by_hand": statistics.median(a for (a, _), _ in pairs),
        "ours": statistics.median(b for _, (b, _) in pairs),
        "more": statistics.median(b - a for (a, _), (b, _) in pairs),
        "share": statistics.median(b / a - 1 for (a, _), (b, _) in pairs),
        "evaluations": counts.pop(),
    }


def main() -> None:
    """Measure both, and print."""
    small = compare(rosenbrock, torch.zeros(3, dtype=torch.float64), rounds=201, maxiter=100)
    print(
        f"three numbers, {small['evaluations']} evaluations: {1e6 * small['by_hand']:.1f} us by hand, "
        f"{1e6 * small['ours']:.1f} us by minimize, {1e6 * small['more']:+.1f} us an evaluation (at most 60)"
    )
    large = compare(*beams(), rounds=11, maxiter=10)
    print(
        f"beams at N = 256, order 5, {large['evaluations']} evaluations: {1e3 * large['by_hand']:.2f} ms by "
        f"hand, {1e3 * large['ours']:.2f} ms by minimize, {100 * large['share']:+.1f} % (at most 10)"
    )
    print(machine_text(machine()))


if __name__ == "__main__":
    main()
