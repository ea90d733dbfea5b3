"""Problems with a known answer: each as a torch function, and with derivatives written by hand in NumPy.

The hand-written ones are the other route to every answer: SciPy runs on them without us. What every method is
expected to do on every problem stands below them; the tests hold it to that, and methods_table.py shows it.
"""

import itertools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import scipy.optimize
import torch
from numpy.typing import NDArray
from scipy.optimize import LinearConstraint, NonlinearConstraint, brentq

import ooftorch
from ooftorch.optim.scipy_local import uses

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """A function to minimise, and the answer.

    Attributes
    ----------
    torch : callable
        Of one vector of doubles.
    value, gradient, hessian : callable
        The same in NumPy, by hand.
    start, solution : ndarray, (n,)
    box : list of (float, float)
        Where the global methods search.
    bounds : list of (float, float), optional
        Part of the problem; the solution lies on one.
    constraints : sequence
        Part of the problem, of tensors; the solution lies on one.
    by_hand : sequence
        The same constraints of NumPy's vectors, with derivatives.
    smooth : bool
        Whether there is a Hessian.
    """

    torch: Callable[[torch.Tensor], torch.Tensor]
    value: Callable[[Array], float]
    gradient: Callable[[Array], Array]
    hessian: Callable[[Array], Array]
    start: Array
    solution: Array
    box: list[tuple[float, float]]
    bounds: list[tuple[float, float]] | None = None
    constraints: tuple = ()
    by_hand: tuple = ()
    smooth: bool = True

    def hessp(self, x: Array, direction: Array) -> Array:
        """Hessian at x times a direction."""
        return self.hessian(x) @ direction

    @property
    def minimum(self) -> float:
        """Value at the solution."""
        return self.value(self.solution)

    def rounding(self, x: Array) -> float:
        """By how much two ways to compute the value at x may differ: each errs as a sum of n products does.

        The terms d H d of the second order can be far greater than what their sum leaves of them.
        """
        d = np.abs(x - self.solution)
        return float((d.size + 1) * np.finfo(float).eps * (d @ np.abs(self.hessian(x)) @ d))

    def in_torch(self) -> "Problem":
        """The same for SciPy in torch's own arithmetic, to the last digit; the gradient by plain autograd."""

        def gradient(x: Array) -> Array:
            leaf = torch.tensor(x, requires_grad=True)
            return torch.autograd.grad(self.torch(leaf), leaf)[0].numpy()

        return replace(self, value=lambda x: self.torch(torch.tensor(x)).item(), gradient=gradient)


# ------------------------------------------------------------------------------------------- Rosenbrock


def rosenbrock(x: torch.Tensor) -> torch.Tensor:
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def _rosenbrock(x):
    return float(np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2))


def _rosenbrock_gradient(x):
    bend = x[1:] - x[:-1] ** 2
    g = np.zeros_like(x)
    g[:-1] = -400 * x[:-1] * bend - 2 * (1 - x[:-1])
    g[1:] += 200 * bend
    return g


def _rosenbrock_hessian(x):
    h = np.diag(-400 * x[:-1], 1)
    h += h.T
    h[np.diag_indices(len(x) - 1)] += 1200 * x[:-1] ** 2 - 400 * x[1:] + 2
    h[np.arange(1, len(x)), np.arange(1, len(x))] += 200
    return h


def _of_rosenbrock(start, solution=None, **more):
    n = len(start)
    return Problem(
        rosenbrock,
        _rosenbrock,
        _rosenbrock_gradient,
        _rosenbrock_hessian,
        np.array(start, float),
        np.ones(n) if solution is None else np.array(solution, float),
        [(-2.0, 2.5)] * n,
        **more,
    )


# ---------------------------------------------------------------------------- badly scaled quadratic form


def _of_quadratic(eigenvalues, centre, start, box, **more):
    """Quadratic form with these eigenvalues in a rotated basis."""
    n = len(eigenvalues)
    basis = np.linalg.qr(np.random.default_rng(5).normal(size=(n, n)))[0]
    a = basis * np.asarray(eigenvalues) @ basis.T
    a = (a + a.T) / 2
    centre = np.asarray(centre, float)
    matrix, there = torch.from_numpy(a), torch.from_numpy(centre)
    more = {"solution": centre, **more}
    return Problem(
        torch=lambda x: 0.5 * (x - there) @ (matrix @ (x - there)),
        value=lambda x: float(0.5 * (x - centre) @ (a @ (x - centre))),
        gradient=lambda x: a @ (x - centre),
        hessian=lambda x: a,
        start=np.asarray(start, float),
        box=[box] * n,
        **more,
    )


# ------------------------------------------------------------------------------------------------ Beale


def beale(x: torch.Tensor) -> torch.Tensor:
    a, b = x
    return (1.5 - a + a * b) ** 2 + (2.25 - a + a * b**2) ** 2 + (2.625 - a + a * b**3) ** 2


def _beale_parts(x):
    a, b = x
    r = np.array([1.5, 2.25, 2.625]) - a * (1 - b ** np.arange(1, 4))
    j = np.array([[b - 1, a], [b**2 - 1, 2 * a * b], [b**3 - 1, 3 * a * b**2]])
    return r, j


def _beale_hessian(x):
    a, b = x
    r, j = _beale_parts(x)
    cross = r @ np.array([1, 2 * b, 3 * b**2])
    bend = r @ np.array([0, 2 * a, 6 * a * b])
    return 2 * (j.T @ j + np.array([[0, cross], [cross, bend]]))


def _beale_gradient(x):
    r, j = _beale_parts(x)
    return 2 * j.T @ r


# ---------------------------------------------------------------------------------- logistic regression


def _of_logistic():
    """Two overlapping clouds of points in three dimensions and an intercept, with a ridge."""
    rng = np.random.default_rng(11)
    label = rng.integers(0, 2, 80) * 2.0 - 1
    data = np.column_stack([np.ones(80), rng.normal(size=(80, 3)) + 0.7 * label[:, None] * [1, -0.5, 0]])
    signed, ridge = label[:, None] * data, 0.01
    tensor = torch.from_numpy(signed)

    def value(w):
        return float(np.mean(np.logaddexp(0.0, -signed @ w)) + 0.5 * ridge * w @ w)

    def share(w):
        return 1 / (1 + np.exp(signed @ w))

    def gradient(w):
        return -signed.T @ share(w) / len(signed) + ridge * w

    def hessian(w):
        s = share(w)
        return (signed.T * (s * (1 - s))) @ signed / len(signed) + ridge * np.eye(4)

    solution = np.zeros(4)
    for _ in range(20):  # Newton's steps, for the function is convex
        solution = solution - np.linalg.solve(hessian(solution), gradient(solution))
    return Problem(
        torch=lambda w: torch.logaddexp(w.new_zeros(()), -tensor.to(w) @ w).mean() + 0.5 * ridge * w @ w,
        value=value,
        gradient=gradient,
        hessian=hessian,
        start=np.array([1.0, -1.0, 1.0, 1.0]),
        solution=solution,
        box=[(-4.0, 4.0)] * 4,
    )


# --------------------------------------------------------------------------------------------- with limits


def _on_circle():
    """Lowest point of Rosenbrock's function on the unit circle, by the root of its angular derivative."""

    def derivative(t):
        g = _rosenbrock_gradient(np.array([np.cos(t), np.sin(t)]))
        return g @ [-np.sin(t), np.cos(t)]

    t = brentq(derivative, 0.4, 1.0, xtol=1e-15)
    return [np.cos(t), np.sin(t)]


def _disc():
    """Rosenbrock's function inside the unit disc, in the form of SciPy's newer methods."""
    kinds = [
        NonlinearConstraint(lambda x: (x**2).sum(), -np.inf, 1.0),
        NonlinearConstraint(
            lambda x: x @ x, -np.inf, 1.0, jac=lambda x: 2 * x, hess=lambda x, v: 2 * v[0] * np.eye(2)
        ),
    ]
    return _of_rosenbrock([0.1, 0.2], _on_circle(), constraints=(kinds[0],), by_hand=(kinds[1],))


def _half_disc():
    """The same disc as a dict, beside a straight line that does not matter at the answer."""
    line = LinearConstraint(np.array([[1.0, -1.0]]), -1.0, np.inf)
    mine = {"type": "ineq", "fun": lambda x, r: r - (x**2).sum(), "args": (1.0,)}
    hand = {"type": "ineq", "fun": lambda x: 1.0 - x @ x, "jac": lambda x: -2 * x}
    return _of_rosenbrock([0.1, 0.2], _on_circle(), constraints=(mine, line), by_hand=(hand, line))


def _half_plane():
    """A quadratic form beyond a plane: x = c + A^-1 n s, with s such that n x = b (Karush, Kuhn, Tucker)."""
    free = _of_quadratic([1.0, 4.0, 9.0], [1.0, -1.0, 0.5], [2.0, 2.0, 2.0], (-3.0, 3.0))
    normal, level = np.array([1.0, 2.0, 2.0]), 3.0
    step = np.linalg.solve(free.hessian(free.start), normal)
    solution = free.solution + step * (level - normal @ free.solution) / (normal @ step)
    tensor = torch.from_numpy(normal)
    mine = {"type": "ineq", "fun": lambda x: tensor.to(x) @ x - level}
    hand = {"type": "ineq", "fun": lambda x: normal @ x - level, "jac": lambda x: normal}
    return _of_quadratic(
        [1.0, 4.0, 9.0],
        [1.0, -1.0, 0.5],
        [2.0, 2.0, 2.0],
        (-3.0, 3.0),
        solution=solution,
        constraints=(mine,),
        by_hand=(hand,),
    )


def _kink():
    centre = np.array([1.0, -0.5])
    there = torch.from_numpy(centre)
    return Problem(
        torch=lambda x: (x - there.to(x)).abs().sum(),
        value=lambda x: float(np.abs(x - centre).sum()),
        gradient=lambda x: np.sign(x - centre),
        hessian=lambda x: np.zeros((2, 2)),
        start=np.array([0.3, 0.4]),
        solution=centre,
        box=[(-2.0, 2.5)] * 2,
        smooth=False,
    )


PROBLEMS: dict[str, Problem] = {
    "rosenbrock 2": _of_rosenbrock([-1.2, 1.0]),
    "rosenbrock 5": _of_rosenbrock([1.3, 0.7, 0.8, 1.9, 1.2]),
    "rosenbrock 10": _of_rosenbrock([1.1, 1.3] * 5),
    # Axes of the ellipsoid 10000 : 1.
    "badly scaled": _of_quadratic(
        np.logspace(0, 8, 5), [1.0, -1.0, 0.5, 0.0, 2.0], [2.0, 1.0, -1.0, 0.5, 1.0], (-3.0, 3.0)
    ),
    "beale": Problem(
        beale,
        lambda x: float(np.sum(_beale_parts(x)[0] ** 2)),
        _beale_gradient,
        _beale_hessian,
        np.array([1.0, 0.2]),
        np.array([3.0, 0.5]),
        [(-4.5, 4.5)] * 2,
    ),
    "logistic": _of_logistic(),
    # With x below 1/2 the minimum is at (1/2, 1/4).
    "bounded": _of_rosenbrock([-1.2, 1.0], [0.5, 0.25], bounds=[(-2.0, 0.5), (-2.0, 2.0)]),
    "disc": _disc(),
    "disc, dict": _half_disc(),
    "half plane": _half_plane(),
    "kink": _kink(),
}


# ------------------------------------------------------------------------------------ methods by problems

# Options of each method, for every problem; empty for SciPy's defaults.
OPTIONS = {
    "nelder-mead": {"adaptive": True, "maxiter": 5000, "maxfev": 5000},
    "powell": {},
    "cg": {},
    "bfgs": {},
    "newton-cg": {},
    "l-bfgs-b": {},
    "tnc": {"maxfun": 500},
    "cobyla": {"rhobeg": 0.2, "tol": 1e-7, "maxiter": 400},
    "cobyqa": {},
    "slsqp": {"ftol": 1e-9, "maxiter": 300},
    "trust-constr": {},
    "dogleg": {},
    "trust-ncg": {},
    "trust-exact": {},
    "trust-krylov": {},
    # Few rounds: the local search at the end of each does the rest.
    "basinhopping": {"niter": 2, "seed": 1},
    "differential_evolution": {"maxiter": 5, "popsize": 4, "seed": 1},
    "shgo": {},
    "dual_annealing": {"maxiter": 20, "seed": 1},
    "direct": {"maxfun": 300},
    "adam": {"lr": 0.1, "maxiter": 500},
    "sgd": {"lr": 0.5, "maxiter": 200},
    "lbfgs": {"maxiter": 100},
    "metric-bfgs": {},
}
LOCAL = list(itertools.takewhile(lambda name: name != "basinhopping", OPTIONS))
KEEP_BOUNDS = {"nelder-mead", "powell", "l-bfgs-b", "tnc", "cobyla", "cobyqa", "slsqp", "trust-constr"} | {
    "basinhopping",
    "differential_evolution",
    "shgo",
    "dual_annealing",
    "direct",
}
KEEP_CONSTRAINTS = {"cobyla", "cobyqa", "slsqp", "trust-constr", "shgo"}
TAKE_A_HESSIAN = {"newton-cg", "dogleg", "trust-ncg", "trust-exact", "trust-krylov"}
NO_DERIVATIVES = {"nelder-mead", "powell", "cobyla", "cobyqa"}
DENSE = {"dogleg", "trust-exact"}
SEARCH_A_BOX = {"differential_evolution", "shgo", "dual_annealing", "direct"}

_VALLEY = "its linear models crawl along a narrow valley: 12000 evaluations in two dimensions"
_NO_SMALL_GRADIENT = "the gradient does not get small at a kink, so no line search ends well"
_STEPS = "one step size for all directions: thousands of steps here"
# Where a method does not come to the answer, for its own reasons; SciPy with hand-written derivatives
# does not either, where it is SciPy's.
SHORT = {
    ("nelder-mead", "badly scaled"): "the simplex collapses before it has turned into the long axis",
    ("powell", "badly scaled"): "one coordinate after the other makes no way along a rotated axis",
    ("powell", "bounded"): "one coordinate after the other makes no way in a curved valley at a bound",
    ("tnc", "badly scaled"): "products with the Hessian by differences drown in rounding",
    ("cobyla", "rosenbrock 2"): _VALLEY,
    ("cobyla", "rosenbrock 5"): _VALLEY,
    ("cobyla", "rosenbrock 10"): _VALLEY,
    ("cobyla", "badly scaled"): _VALLEY,
    ("cobyla", "beale"): _VALLEY,
    ("cobyqa", "badly scaled"): "it would, after 800 evaluations that cost SciPy a millisecond each",
    ("dogleg", "rosenbrock 5"): "the Hessian is not positive definite at the start",
    ("dogleg", "rosenbrock 10"): "the Hessian is not positive definite on the way",
    ("shgo", "badly scaled"): "its sample misses the valley, and SLSQP's default tolerance ends in it",
    ("adam", "rosenbrock 2"): _STEPS,
    ("adam", "rosenbrock 5"): _STEPS,
    ("adam", "rosenbrock 10"): _STEPS,
    ("adam", "badly scaled"): _STEPS,
    ("adam", "kink"): "a step of one length never ends on a kink: it takes a schedule",
    ("sgd", "kink"): "a step of one length never ends on a kink: it takes a schedule",
}
# Whether these arrive is decided by the last digit of the method's own arithmetic, which is the processor's.
UNDECIDED = dict.fromkeys(
    [(method, "kink") for method in ("tnc", "l-bfgs-b", "cg", "bfgs", "metric-bfgs", "basinhopping")],
    _NO_SMALL_GRADIENT,
)
# A step of 1/2 is right for the logistic regression and too long for these; the methods report it.
RUNS_AWAY = {
    ("sgd", name) for name in ("rosenbrock 2", "rosenbrock 5", "rosenbrock 10", "badly scaled", "beale")
}
# Where a method that comes short would only waste time.
FEWER = {
    **{("cobyla", name): {"maxiter": 60} for name in ("rosenbrock 2", "rosenbrock 5", "rosenbrock 10")},
    ("cobyla", "badly scaled"): {"maxiter": 60},
    ("cobyla", "beale"): {"maxiter": 60},
    ("cobyqa", "badly scaled"): {"maxfev": 60},
    ("adam", "kink"): {"maxiter": 100},
    ("sgd", "kink"): {"maxiter": 100},
    ("lbfgs", "kink"): {"maxiter": 20},
    **{("adam", name): {"maxiter": 100} for name in ("rosenbrock 2", "rosenbrock 5", "rosenbrock 10")},
    ("adam", "badly scaled"): {"maxiter": 100},
    # The sample is of all corners of the box, a thousand here, and its bookkeeping takes seconds.
    ("shgo", "rosenbrock 10"): {"n": 16, "sampling_method": "halton"},
}
# Torch and NumPy add up in different orders, and so do two processors; where the last digit matters, counts
# are not determined. (Found by SciPy on these problems with noise of 2e-16 in arguments and values.)
LOOSE = {
    "badly scaled": "rounding of the gradient, 1e-16 x 1e8, decides about the last steps",
    "tnc": "its products with the Hessian are differences of gradients, which amplify the last digit",
    ("trust-constr", "kink"): "it comes back to points that SciPy evaluates again and we remember",
    ("trust-constr", "bounded"): "at its end the last digit decides whether one more step is tried",
    ("cg", "rosenbrock 5"): "hundreds of line searches amplify the last digit",
    ("cg", "rosenbrock 10"): "hundreds of line searches amplify the last digit",
    **dict.fromkeys(NO_DERIVATIVES, "hundreds of comparisons of values amplify the last digit"),
}
# Products of matrices, whose order of adding up is the processor's and may change from call to call.
PRODUCTS = {"badly scaled", "logistic", "half plane"}


@dataclass
class Entry:
    """What is expected of a method on a problem, and why: "arrives", "short", "undecided", or "refuses".

    `rival` is the problem on which SciPy alone takes the very same path, evaluation by evaluation: with the
    derivatives written by hand, or in torch's arithmetic where the last digit matters; None where no two runs
    agree.
    """

    kind: str
    why: str = ""
    rival: Problem | None = None
    options: dict = field(default_factory=dict)


def entry(method, name):
    problem = PROBLEMS[name]
    if method not in OPTIONS:
        return None
    if problem.bounds and method not in KEEP_BOUNDS:
        return Entry("refuses", f"{method} cannot keep bounds; take L-BFGS-B, or leave the bounds out")
    if problem.constraints and method not in KEEP_CONSTRAINTS:
        return Entry("refuses", f"{method} cannot keep constraints; take SLSQP or trust-constr")
    if not problem.smooth and method in TAKE_A_HESSIAN:
        return Entry("refuses", "the Hessian of this function is zero where it starts")
    if (method, name) in RUNS_AWAY:
        return Entry("refuses", "sgd ran away after", options=OPTIONS[method])
    loose = {method, name, (method, name)} & LOOSE.keys()
    options = OPTIONS[method] | FEWER.get((method, name), {})
    why = SHORT.get((method, name), "") or UNDECIDED.get((method, name), "")
    kind = "undecided" if (method, name) in UNDECIDED else "short" if why else "arrives"
    rival = None
    if method in LOCAL:
        if not loose:
            rival = problem
        elif not (name in PRODUCTS or problem.constraints or method == "trust-constr"):
            rival = problem.in_torch()
    return Entry(kind, why, rival, options)


class Counted:
    """A function that counts its calls, and those at another place than the last."""

    def __init__(self, fun):
        self.fun, self.calls, self.moves, self.last = fun, 0, 0, None

    def __call__(self, x, *more):
        self.calls += 1
        self.moves += not np.array_equal(x, self.last)
        self.last = np.array(x)
        return self.fun(x, *more)


def by_hand(method, problem, options):
    """SciPy's own answer with hand-written derivatives, and the counts (values, gradients, products)."""
    can = uses(method)
    value, gradient = Counted(problem.value), Counted(problem.gradient)
    second = Counted(problem.hessp if can.hessp else problem.hessian)
    derivatives = {"jac": gradient} if can.jac else {}
    if can.hess or can.hessp:
        derivatives["hessp" if can.hessp else "hess"] = second
    with warnings.catch_warnings():
        # SLSQP has no use for the constraints' Hessians.
        warnings.simplefilter("ignore", scipy.optimize.OptimizeWarning)
        answer = scipy.optimize.minimize(
            value,
            problem.start,
            method=method,
            bounds=problem.bounds,
            constraints=list(problem.by_hand),
            options=options,
            **derivatives,
        )
    # Line searches of Powell come back to where they began, which SciPy evaluates again and we do not.
    values = value.moves if method == "powell" else value.calls
    return answer, (values, gradient.calls, second.calls)


def ours(method, problem, options, device="cpu"):
    box = problem.box if method in SEARCH_A_BOX else None
    return ooftorch.minimize(
        problem.torch,
        torch.tensor(problem.start, device=device),
        method=method,
        bounds=problem.bounds or box,
        constraints=problem.constraints,
        options=options,
    )
