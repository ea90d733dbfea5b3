"""Every method on every problem, and the certified regressions of NIST: answers and counts of evaluations.

    python scripts/methods_table.py [--quick]

The problems and what is expected of each method stand in problems.py; two larger ones, the examples' map of
cities and a beam-map fit, are joined here. `minimize` gets the torch function alone; SciPy gets the
derivatives written by hand. What is not as expected, or has no reason, is marked `?`, and the script says so
and writes nothing.
"""

import argparse
import functools
import json
import re
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nist
import numpy as np
import scipy.optimize
from problems import LOCAL, LOOSE, PROBLEMS, SEARCH_A_BOX, Counted, Problem, by_hand, entry, ours
from results_page import RESULTS, machine, machine_text, table
from scipy.optimize import OptimizeResult

from ooftorch.errors import InputError
from ooftorch.optim.methods import method_names
from ooftorch.optim.scipy_global import GLOBAL

sys.path.insert(0, str(Path(__file__).parent / "examples"))

QUICK = ["bfgs", "trust-exact", "nelder-mead", "sgd"], ["rosenbrock 2", "disc"]


@dataclass
class Large:
    """A problem of an example.

    Attributes
    ----------
    problem : Problem
        Its solution is SciPy's by hand; other points are as good where the problem has a symmetry.
    close : float
        Values as near to the lowest are the same answer.
    second : bool
        Whether there are second derivatives by hand.
    options : dict
        By method, over those of problems.py.
    short, left_out, loose : dict
        Reasons by method: of a wrong answer, of none, and of other counts than SciPy's.
    """

    problem: Problem
    close: float
    second: bool
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    short: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    loose: dict[str, str] = field(default_factory=dict)


def the_cities() -> Large:
    """36 positions from their distances: 72 numbers, three of which, shifts and a turn, change nothing."""
    import cities

    n = cities.N

    def hessian(flat: np.ndarray) -> np.ndarray:
        """Of sum (s.s - d)^2/(4 n) over ordered pairs, with s the difference of positions."""
        x = flat.reshape(n, 2)
        step = x[:, None] - x
        error = (step**2).sum(-1) - (cities.KM / cities.UNIT) ** 2
        blocks = 2 / n * (error[..., None, None] * np.eye(2) + 2 * step[..., :, None] * step[..., None, :])
        blocks[np.diag_indices(n)] = 0
        h = -blocks
        h[np.diag_indices(n)] = blocks.sum(1)
        return h.transpose(0, 2, 1, 3).reshape(2 * n, 2 * n)

    start = cities.random_start(0).numpy().ravel()
    best = scipy.optimize.minimize(cities.stress_by_hand, start, jac=True, options={"gtol": 1e-8})
    problem = Problem(
        torch=lambda x: cities.stress(x.reshape(n, 2)),
        value=lambda x: cities.stress_by_hand(x)[0],
        gradient=lambda x: cities.stress_by_hand(x)[1],
        hessian=hessian,
        start=start,
        solution=best.x,
        box=[(-2.0, 2.0)] * (2 * n),
    )
    return Large(
        problem,
        close=1e-7,
        second=True,
        options={"sgd": {"lr": 0.1}},
        short={
            "nelder-mead": "a simplex of 73 corners gets nowhere in 5000 evaluations",
            "cobyla": "linear models of 72 numbers get nowhere in 400 evaluations",
            "dogleg": "the Hessian is not positive definite at the start",
        },
        left_out={
            "cobyqa": "it would arrive, after 2400 evaluations and half a minute of SciPy's own",
            "shgo": "its sample is of all corners of the box, 2^72",
        },
    )


def oof() -> Large:
    """A surface of order 5 from three beam maps: 27 numbers."""
    import phase_retrieval

    dish = phase_retrieval.problem_of(phase_retrieval.observe())
    start, metric = dish.start, dish.metric()

    @functools.lru_cache(maxsize=4)
    def at(point: bytes) -> tuple[float, np.ndarray]:
        return dish(np.frombuffer(point).copy())

    def of(x: np.ndarray) -> tuple[float, np.ndarray]:
        return at(np.ascontiguousarray(x, dtype=float).tobytes())

    best = scipy.optimize.minimize(of, start.numpy(), jac=True, method="BFGS", options={"gtol": 1e-2})
    problem = Problem(
        torch=dish.value,
        value=lambda x: of(x)[0],
        gradient=lambda x: of(x)[1].copy(),
        hessian=lambda x: None,
        start=start.numpy(),
        solution=best.x,
        box=[(v - 1.5, v + 1.5) for v in start.tolist()],
    )
    gtol = {"gtol": 1e-2}
    no_gradient = "27 correlated parameters are too many without a gradient"
    return Large(
        problem,
        # A hundredth of a unit of log-posterior: a seventh of a standard error.
        close=1e-2,
        second=False,
        options={
            **dict.fromkeys(("cg", "bfgs", "trust-ncg", "trust-exact", "trust-krylov", "dogleg"), gtol),
            "trust-constr": gtol,
            "lbfgs": gtol,
            "l-bfgs-b": {"ftol": 1e-13, "gtol": 1e-2},
            "metric-bfgs": {"metric": metric, "max_step": 1.0},
            "adam": {"lr": 0.03, "maxiter": 700},
            "sgd": {"lr": 3e-8, "maxiter": 100},
            "nelder-mead": {"maxfev": 2000},
            "dual_annealing": {"maxiter": 3},
        },
        short={
            "nelder-mead": no_gradient,
            "powell": "one coordinate after the other makes no way where they are tied to each other",
            "cobyla": no_gradient,
            "dogleg": "the Hessian is not positive definite at the start",
            "sgd": "one step size for all directions: the largest that does not run away hardly moves most",
        },
        left_out={
            "cobyqa": "it would arrive, after 3900 evaluations and 20 s of SciPy's own",
            "shgo": "its sample is of all corners of the box, 2^27",
        },
        loose=dict.fromkeys(("cg", "l-bfgs-b"), "hundreds of line searches amplify the last digit"),
    )


# ------------------------------------------------------------------------------------------------- a cell


@dataclass
class Cell:
    """Outcome of a method on a problem: counts (values, gradients, products), a mark, and the reason."""

    mark: str
    why: str = ""
    counts: tuple[int, int, int] | None = None
    scipy: tuple[int, int, int] | None = None
    seconds: float = 0.0

    def text(self, notes: list[str]) -> str:
        """Text for the table; the reason is added to the notes."""
        if self.why and self.why not in notes:
            notes.append(self.why)
        number = f" ({notes.index(self.why) + 1})" if self.why else ""
        counts = "/".join(map(str, self.counts)) + " " if self.counts else ""
        return f"{counts}{self.mark}{number}"


def scipy_global(method: str, problem: Problem, options: dict) -> tuple[OptimizeResult, tuple[int, int, int]]:
    """A global method of SciPy, its local searches with the gradient by hand; the answer and the counts."""
    value, gradient = Counted(problem.value), Counted(problem.gradient)
    bounds = problem.bounds or (problem.box if method in SEARCH_A_BOX else None)
    local = {"method": "L-BFGS-B" if bounds else "BFGS", "jac": gradient}
    run = getattr(scipy.optimize, method)
    more = dict(options)
    if method in ("differential_evolution", "direct"):
        if method == "differential_evolution":
            more |= {"polish": False, "x0": problem.start}
        answer = run(value, bounds, **more)
        end = scipy.optimize.minimize(value, answer.x, bounds=bounds, **local)
        answer = end if end.fun < answer.fun else answer
    elif method == "basinhopping":
        answer = run(value, problem.start, minimizer_kwargs=local | {"bounds": bounds}, **more)
    elif method == "shgo":
        if problem.by_hand:
            local, more = {"method": "SLSQP", "jac": gradient}, more | {"constraints": list(problem.by_hand)}
        answer = run(value, bounds, minimizer_kwargs=local, **more)
    else:
        more |= {"x0": problem.start}
        answer = run(value, bounds, minimizer_kwargs=local | {"bounds": bounds}, **more)
    # Both evaluate some points again; `minimize` caches the last one.
    return answer, (value.moves, gradient.moves, 0)


def compared(
    method: str, problem: Problem, options: dict
) -> tuple[OptimizeResult, tuple[int, int, int]] | None:
    """SciPy with derivatives by hand; None of a method that is not SciPy's."""
    if method in LOCAL:
        return by_hand(method, problem, options)
    return scipy_global(method, problem, options) if method in GLOBAL else None


def cell(method: str, name: str, large: Large | None) -> Cell:
    """Run a method on a problem, and SciPy beside it."""
    begin = time.perf_counter()
    undecided = False
    if large is None:
        problem, expected = PROBLEMS[name], entry(method, name)
        refused, why, options = expected.kind == "refuses", expected.why, expected.options
        undecided = expected.kind == "undecided"
    else:
        if method in large.left_out:
            return Cell("-", large.left_out[method])
        problem, refused, why = large.problem, False, large.short.get(method, "")
        options = entry(method, "logistic").options | large.options.get(method, {})
    try:
        result = ours(method, problem, options)
    except InputError as refusal:
        if not refused:
            return Cell("?", f"{method} on {name} is refused: {refusal}")
        # The same in one note for all methods and runs.
        message = re.sub(f"^{method} ", "it ", str(refusal))
        return Cell("refused", re.sub(r" after \d+ steps", "", message))
    x = result.x.numpy()
    if large is None:
        arrived = np.abs(x - problem.solution).max() < 2e-3
    else:
        arrived = problem.value(x) - problem.minimum < large.close
    counts = (result.nfev, result.njev, result.nhev)
    if refused or (arrived == bool(why) and not undecided):
        return Cell("?", f"{method} on {name} {'arrives' if arrived else 'ends'} at {result.fun}", counts)
    can_compare = large is None or large.second or not result.nhev
    beside = compared(method, problem, options) if can_compare else None
    theirs = None if beside is None else beside[1]
    seconds = time.perf_counter() - begin
    if not arrived:
        return Cell("short", why, counts, theirs, seconds)
    same = theirs == counts
    if beside is not None:
        above = float(beside[0].fun) - problem.minimum
        if above > (large.close if large else 1e-3):
            return Cell("?", f"{method} on {name}: SciPy itself ends {above:.0e} above", counts, theirs)
        why = "" if same else reason(method, name, large)
        if not (same or why):
            return Cell("?", f"{method} on {name}: {counts}, SciPy's counts are {theirs}", counts, theirs)
    elif not can_compare:
        why = "there are no second derivatives by hand; the answer is that of SciPy's BFGS with the gradient"
    return Cell("=" if same else "~", why, counts, theirs, seconds)


def reason(method: str, name: str, large: Large | None) -> str:
    """Why the counts are not SciPy's."""
    if method in GLOBAL:
        return "its local searches amplify the last digit, in which torch and NumPy differ"
    if large is not None and method in large.loose:
        return large.loose[method]
    found = [LOOSE[key] for key in ((method, name), name, method) if key in LOOSE]
    return found[0] if found else ""


# ------------------------------------------------------------------------------------------------- the page


def measure(quick: bool, report: Callable[[str], None] = print) -> dict:
    """All cells by method and problem, and the regressions."""
    rows, columns = QUICK if quick else (method_names(), list(PROBLEMS))
    large = {} if quick else {"cities": the_cities(), "OOF, order 5": oof()}
    cells: dict[str, dict[str, Cell]] = {}
    with warnings.catch_warnings():
        # Of points outside the domain, where a method tries them, and of constraints' derivatives in vain.
        warnings.simplefilter("ignore")
        for method in rows:
            cells[method] = {name: cell(method, name, large.get(name)) for name in [*columns, *large]}
            slow = max(cells[method], key=lambda name: cells[method][name].seconds)
            report(f"{method}: slowest {slow}, {cells[method][slow].seconds:.1f} s")
    return {"cells": {m: {n: vars(c) for n, c in row.items()} for m, row in cells.items()}}


def regressions() -> dict:
    """Correct digits, relative error of the sum of squares, and evaluations, by problem and start."""
    if not nist.DATA.exists():
        return {}
    found = {}
    for name in nist.MODELS:
        known = nist.certified(name)
        found[name] = []
        for start in (0, 1):
            result = nist.solve(name, start)
            found[name].append(
                {
                    "digits": float(nist.digits(result.x.numpy(), known.values)),
                    "sum": float(abs(2 * result.cost / known.sum_of_squares - 1)),
                    "nfev": int(result.nfev),
                }
            )
    return found


def cells_text(cells: dict) -> str:
    """The table of methods and problems, and its notes."""
    notes: list[str] = []
    columns = list(next(iter(cells.values())))
    rows = [[method, *(Cell(**row[name]).text(notes) for name in columns)] for method, row in cells.items()]
    listed = "\n".join(f"{i}. {note}" for i, note in enumerate(notes, 1))
    return f"{table(['method', *columns], rows)}\n\nNotes:\n\n{listed}"


def regressions_text(found: dict) -> str:
    """The table of the regressions."""
    if not found:
        return "The data of NIST are not beside this repository (`../shared/data/nist_strd`): left out."
    rows = []
    for name, starts in found.items():
        # The certified sum of Lanczos1, 1.4e-25, is below the rounding of residuals in double precision.
        numbers = [
            [f"{s['digits']:.1f}", "-" if name == "Lanczos1" else f"{s['sum']:.0e}", str(s["nfev"])]
            for s in starts
        ]
        rows.append([name, *numbers[0], *numbers[1]])
    digits = [s["digits"] for starts in found.values() for s in starts]
    return (
        f"Runs with at least 6 digits: {sum(d >= 6 for d in digits)} of {len(digits)}; with at least 8: "
        f"{sum(d >= 8 for d in digits)}.\n\n"
        + table(
            [
                "problem",
                "far start: digits",
                "sum",
                "evaluations",
                "near start: digits",
                "sum",
                "evaluations",
            ],
            rows,
        )
    )


def page(found: dict) -> str:
    """The whole page."""
    return f"""# Every method on every problem

A cell holds the evaluations of `minimize`, values/gradients/Hessians (or products with one), and a mark: `=`
the right answer with the counts that SciPy has with derivatives written by hand, `~` the right answer with
other counts (a note says why) or none to compare (the method is not SciPy's), `short` not the right answer,
`refused` an error of one line, `-` not run (notes say why). The problems and the options of the methods are
in [problems.py](../problems.py); the cities have 72 numbers and the beam-map fit (OOF) 27, see
[methods_table.py](../methods_table.py). Powell's and the global methods ask again for points that
they know, which `minimize` remembers: there, SciPy's evaluations at the same point as the last do not count.
On OOF all within 0.01 of the lowest negative log-posterior are the same answer.

{cells_text(found["cells"])}

## Certified regressions of NIST

`least_squares` with one setting (see [nist.py](../nist.py)) on the 27 problems from both starts: correct
digits of the worst parameter, at most the 11 that are certified; relative error of the sum of squares (of
Lanczos1, 1.4e-25, it is rounding); evaluations. Where digits are few, the sum of squares is flat.

{regressions_text(found["nist"])}

`python scripts/methods_table.py`: {found["seconds"]:.0f} s on {machine_text(found["machine"])}.
"""


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="four methods, two problems; write nothing")
    quick = parser.parse_args().quick
    begin = time.perf_counter()
    found = measure(quick)
    if quick or unexpected(found["cells"]):
        print(cells_text(found["cells"]))
        raise SystemExit("\n".join(unexpected(found["cells"])) or 0)
    found |= {"nist": regressions(), "seconds": time.perf_counter() - begin, "machine": machine()}
    (RESULTS / "methods.json").write_text(json.dumps(found, indent=1) + "\n")
    (RESULTS / "methods.md").write_text(page(found))
    print(page(found))


def unexpected(cells: dict) -> list[str]:
    """What is marked so."""
    return [c["why"] for row in cells.values() for c in row.values() if c["mark"] == "?"]


if __name__ == "__main__":
    main()
