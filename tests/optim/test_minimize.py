"""`minimize`: every method on every problem, and what a user may ask or get wrong."""

import contextlib
import gc
import io
import itertools
import re
import time

import numpy as np
import pytest
import scipy.optimize
import torch
from problems import (
    DENSE,
    FEWER,
    LOCAL,
    LOOSE,
    NO_DERIVATIVES,
    OPTIONS,
    PROBLEMS,
    RUNS_AWAY,
    SEARCH_A_BOX,
    SHORT,
    TAKE_A_HESSIAN,
    UNDECIDED,
    by_hand,
    entry,
    ours,
    rosenbrock,
)
from scipy.optimize import LinearConstraint, NonlinearConstraint, OptimizeResult

import ooftorch
from ooftorch.errors import InputError
from ooftorch.optim.methods import method_names
from ooftorch.optim.objective import Objective, Pack
from ooftorch.optim.scipy_local import uses
from ooftorch.optim.vector_function import VectorFunction

DOUBLE = torch.float64
CUDA = pytest.param(
    "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
)


def tensor(*numbers, **more):
    return torch.tensor(numbers, **{"dtype": DOUBLE, **more})


def bowl(x):
    """Sum of squares, whatever the shapes: the simplest function with a minimum."""
    leaves = [x] if isinstance(x, torch.Tensor) else x.values() if isinstance(x, dict) else x
    return sum((leaf.double() ** 2).sum() for leaf in leaves)


# ------------------------------------------------------------------------------------ methods by problems


def test_every_method_of_scipy_and_no_other_is_in_the_table():
    assert method_names() == list(OPTIONS)
    assert {m.lower() for m in scipy.optimize._minimize.MINIMIZE_METHODS} == set(LOCAL)


def test_no_pair_of_method_and_problem_is_without_an_entry():
    pairs = set(itertools.product(method_names(), PROBLEMS))
    assert all(entry(*pair) is not None for pair in pairs)
    named = {
        key
        for table in (SHORT, UNDECIDED, RUNS_AWAY, FEWER, LOOSE)
        for key in table
        if isinstance(key, tuple)
    }
    assert named <= pairs


# These spend seconds on the larger problems in SciPy's own Python.
SLOW = {"powell", "cobyla", "cobyqa", "trust-constr", "shgo"}


# SciPy says so of a constraint in a dict, whose Hessian it estimates, when that is linear.
@pytest.mark.filterwarnings("ignore:delta_grad == 0.0:UserWarning")
@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize(
    "method", [pytest.param(m, marks=pytest.mark.slow) if m in SLOW else m for m in OPTIONS]
)
def test_method_on_problem(method, name):
    problem, expected = PROBLEMS[name], entry(method, name)
    if expected.kind == "refuses":
        with pytest.raises(InputError, match=re.escape(expected.why)) as refusal:
            ours(method, problem, expected.options)
        assert "\n" not in str(refusal.value)
        return
    result = ours(method, problem, expected.options)
    x = result.x.numpy()
    distance = np.abs(x - problem.solution).max()
    assert result.fun == pytest.approx(problem.value(x), rel=1e-9, abs=1e-12 + problem.rounding(x))
    assert len(result.history) == result.nfev
    if expected.kind == "arrives":
        assert distance < 2e-3
        assert result.fun == pytest.approx(problem.minimum, abs=2e-6 if problem.smooth else 1e-3)
    elif expected.kind == "short":
        assert distance > 5e-3, "it arrives now: take it out of the table"
    if expected.rival is not None:
        answer, counts = by_hand(method, expected.rival, expected.options)
        assert (result.nfev, result.njev, result.nhev) == counts
        assert result.success == answer.success
        assert result.message == answer.message
        np.testing.assert_allclose(x, answer.x, rtol=0, atol=1e-6)


def test_dogleg_says_why_it_stops():
    result = ours("dogleg", PROBLEMS["rosenbrock 5"], {})
    assert not result.success
    assert "non-psd Hessian" in result.message
    np.testing.assert_array_equal(result.x, PROBLEMS["rosenbrock 5"].start)


def test_a_linear_function_of_a_disc_has_no_hessian_and_a_minimum():
    """The curvature that trust-constr needs is the constraint's."""
    disc = NonlinearConstraint(lambda x: (x**2).sum(), -np.inf, 1.0)
    result = ooftorch.minimize(lambda x: x.sum(), tensor(0.1, 0.2), method="trust-constr", constraints=disc)
    np.testing.assert_allclose(result.x, [-(0.5**0.5)] * 2, atol=1e-4)


def test_points_that_a_trust_region_returns_to_are_not_evaluated_again():
    """A, then B and C refused, then the Hessian at A."""
    objective = Objective(rosenbrock, tensor(0.5, 0.5))
    objective.prepare(2)
    a, b, c = np.array([0.5, 0.5]), np.array([1.0, 3.0]), np.array([0.0, 2.0])
    for refused in (b, c, b + 1):
        objective.gradient(a)
        objective.hessp(a, np.ones(2))
        objective.value(refused)
    objective.hessp(a, np.ones(2))
    assert (objective.nfev, objective.njev, objective.nhev) == (4, 1, 4)


# --------------------------------------------------------------------------- names, defaults, structures


def test_the_method_is_chosen_as_scipy_chooses():
    assert ooftorch.minimize(bowl, tensor(1.0)).method == "bfgs"
    assert ooftorch.minimize(bowl, tensor(1.0), bounds=[(0.5, 2)]).method == "l-bfgs-b"
    line = LinearConstraint([[1.0]], 0.5, np.inf)
    assert ooftorch.minimize(bowl, tensor(1.0), constraints=line).method == "slsqp"
    assert ooftorch.minimize(bowl, tensor(1.0), method="Newton-CG").method == "newton-cg"


STRUCTURES = {
    "one": torch.full((2, 3), 0.5, dtype=DOUBLE),
    "number": tensor(2.0)[0],
    "tuple": (tensor(1.0, 2.0), tensor(3.0)),
    "list": [tensor(1.0), torch.ones(2, 2, dtype=DOUBLE)],
    "dict": {"b": tensor(1.0), "a": torch.ones(2, 2, dtype=DOUBLE)},
    "single precision": torch.ones(3),
    "mixed": {"half": torch.ones(2, dtype=torch.float16), "single": torch.ones(2), "double": tensor(3.0)},
    "with an empty one": (tensor(1.0), torch.zeros(0, dtype=DOUBLE)),
}


@pytest.mark.parametrize("method", ["bfgs", "trust-exact", "newton-cg", "nelder-mead", "adam"])
@pytest.mark.parametrize("x0", STRUCTURES.values(), ids=STRUCTURES)
def test_x_comes_back_as_it_was_given(x0, method):
    seen = []

    def fun(x):
        seen.append(x)
        return bowl(x)

    result = ooftorch.minimize(fun, x0, method=method, options={"lr": 0.2} if method == "adam" else None)

    def same(x):
        assert type(x) is (tuple if isinstance(x0, list) else type(x0))
        pairs = [(x, x0)] if isinstance(x0, torch.Tensor) else None
        if isinstance(x0, dict):
            assert list(x) == list(x0)
            pairs = zip(x.values(), x0.values(), strict=True)
        for got, given in pairs or zip(x, x0, strict=True):
            assert (got.shape, got.dtype, got.device) == (given.shape, given.dtype, given.device)

    same(result.x)
    same(seen[0])
    assert not any(leaf.requires_grad for leaf in Pack(x0).list_leaves(result.x))
    assert bowl(result.x) < 1e-3


def test_single_precision_is_the_functions_and_double_is_scipys():
    """Values have the rounding of float32; x0 is met exactly, and the answer is as good as that allows."""
    result = ooftorch.minimize(lambda x: ((x - 1 / 3) ** 2).sum(), torch.zeros(2))
    np.testing.assert_allclose(result.x, 1 / 3, atol=1e-6)
    assert result.jac.dtype == np.float64


def test_an_array_is_a_tensor_of_doubles():
    result = ooftorch.minimize(bowl, np.array([1.0, 2.0]))
    assert result.x.dtype == DOUBLE
    np.testing.assert_allclose(result.x, 0, atol=1e-6)


def test_a_tensor_that_the_function_does_not_use_stays():
    result = ooftorch.minimize(lambda x: (x["a"] - 1).pow(2).sum(), {"a": tensor(0.0), "b": tensor(5.0)})
    assert result.x["a"].item() == pytest.approx(1)
    assert result.x["b"].item() == 5.0


def test_args_reach_the_function_and_the_gradient():
    def fun(x, centre, scale):
        return scale * ((x - centre) ** 2).sum()

    def gradient(x, centre, scale):
        return 2 * scale * (x - centre)

    for jac in (None, gradient):
        result = ooftorch.minimize(fun, tensor(0.0), (2.0, 3.0), jac=jac)
        assert result.x.item() == pytest.approx(2)


# ------------------------------------------------------------------------------------------- refusals


def refused(match, *args, **kwargs):
    with pytest.raises(InputError, match=match) as refusal:
        ooftorch.minimize(*args, **kwargs)
    assert "\n" not in str(refusal.value)


def absolute(x):
    return x.abs().sum()


def test_what_cannot_be_a_start_is_refused():
    refused("x0 is complex", bowl, torch.zeros(2, dtype=torch.complex128))
    refused("x0.1. is of torch.int64, whole numbers", bowl, (tensor(1.0), torch.ones(2, dtype=torch.int64)))
    refused("x0 is of torch.bool", bowl, torch.ones(2, dtype=torch.bool))
    refused("x0.'b'. is a str", bowl, {"a": tensor(1.0), "b": "one"})
    for empty in (torch.zeros(0), (), {}, [torch.zeros(2, 0)]):
        refused("x0 holds no number", bowl, empty)


@pytest.mark.parametrize("method", ["bfgs", "trust-ncg", "trust-exact", "nelder-mead", "direct", "sgd"])
def test_what_cannot_be_a_value_is_refused(method):
    more = {"method": method, "bounds": [(-1, 2)] * 2 if method == "direct" else None}
    refused("tensor of shape .2,.; expected a real tensor with one", lambda x: x**2, tensor(1.0, 1.0), **more)
    refused("returned None", lambda x: None, tensor(1.0, 1.0), **more)
    refused("returned 1.0", lambda x: 1.0, tensor(1.0, 1.0), **more)
    refused("real", lambda x: (x * 1j).sum(), tensor(1.0, 1.0), **more)


@pytest.mark.parametrize("method", sorted({*OPTIONS} - NO_DERIVATIVES - SEARCH_A_BOX))
def test_a_function_without_a_gradient_is_refused(method):
    more = {"method": method, "options": OPTIONS[method]}
    refused("no gradient|zero", lambda x: (x.detach() ** 2).sum(), tensor(1.0, 1.0), **more)


@pytest.mark.parametrize("method", sorted(NO_DERIVATIVES))
def test_methods_without_derivatives_need_no_gradient(method):
    result = ooftorch.minimize(lambda x: (x.detach() ** 2).sum(), tensor(1.0, 1.0), method=method)
    np.testing.assert_allclose(result.x, 0, atol=1e-3)
    assert (result.njev, result.nhev) == (0, 0)


def test_methods_are_refused_with_what_they_cannot_use():
    x0 = tensor(1.0, 1.0)
    refused(
        "unknown method 'newton'; known are nelder-mead, powell, .*metric-bfgs", bowl, x0, method="newton"
    )
    refused("CG cannot keep bounds", bowl, x0, method="CG", bounds=[(0, 1)] * 2)
    refused("adam cannot keep bounds", bowl, x0, method="adam", bounds=[(0, 1)] * 2)
    line = LinearConstraint([[1.0, 1.0]], 0.0, np.inf)
    refused("L-BFGS-B cannot keep constraints", bowl, x0, method="L-BFGS-B", constraints=line)
    refused("direct cannot keep constraints", bowl, x0, method="direct", constraints=[line], bounds=[(0, 1)])
    for method in SEARCH_A_BOX:
        refused(f"{method} searches a box; give bounds", bowl, x0, method=method)


@pytest.mark.parametrize("method", sorted(TAKE_A_HESSIAN))
def test_methods_with_a_hessian_refuse_what_has_none(method):
    refused("Hessian of this function is zero", absolute, tensor(1.0, -1.0), method=method)
    refused("Hessian of this function is zero", lambda x: x.sum(), tensor(1.0, -1.0), method=method)


@pytest.mark.parametrize("method", [*sorted(TAKE_A_HESSIAN), "trust-constr"])
def test_methods_with_a_hessian_refuse_a_gradient_of_ones_own(method):
    hint = "needs torch's own gradient; leave jac out"
    refused(hint, bowl, tensor(1.0, -1.0), method=method, jac=lambda x: 2 * x)
    refused(hint, lambda x: (bowl(x), 2 * x), tensor(1.0, -1.0), method=method, jac=True)


# ------------------------------------------------------------------------------------------- callbacks

BRIEF = {
    "cobyla": {"maxiter": 30},
    "cobyqa": {"maxfev": 30},
    "sgd": {"lr": 1e-4, "maxiter": 20},
    "adam": {"maxiter": 20},
}


def run_with(callback, method, **more):
    return ooftorch.minimize(
        lambda x: rosenbrock(x["a"]),
        {"a": tensor(-1.2, 1.0)},
        method=method,
        bounds=[(-2.0, 2.5)] * 2 if method in SEARCH_A_BOX else None,
        options=OPTIONS[method] | BRIEF.get(method, {}),
        callback=callback,
        **more,
    )


@pytest.mark.parametrize("method", OPTIONS)
def test_callbacks_of_both_styles_get_tensors(method):
    old, new = [], []

    def with_result(intermediate_result):
        new.append(intermediate_result)

    plain = run_with(None, method)
    first = run_with(lambda x, *more, **named: old.append(x), method)
    second = run_with(with_result, method)
    assert old
    assert len(old) == len(new)
    for x, seen in zip(old, new, strict=True):
        assert isinstance(seen, OptimizeResult)
        torch.testing.assert_close(x["a"], seen.x["a"], rtol=0, atol=0)
        assert seen.fun == pytest.approx(rosenbrock(x["a"]).item(), rel=1e-12)
    # Looking changes nothing.
    for other in (first, second):
        torch.testing.assert_close(other.x["a"], plain.x["a"], rtol=0, atol=0)
        assert (other.nfev, other.njev, other.nhev) == (plain.nfev, plain.njev, plain.nhev)


@pytest.mark.parametrize("style", ["old", "new"])
@pytest.mark.parametrize("method", OPTIONS)
def test_a_callback_can_end_it(method, style):
    seen = []

    def at(x):
        seen.append(x["a"].clone())
        if len(seen) == 2:
            raise StopIteration

    def with_result(intermediate_result):
        at(intermediate_result.x)

    result = run_with(at if style == "old" else with_result, method)
    # A global method may end before it calls back twice, and polishes what it has when it is stopped.
    assert len(seen) == 2 or method in (*SEARCH_A_BOX, "basinhopping")
    assert len(seen) <= 2
    assert not result.interrupted
    assert rosenbrock(result.x["a"]).item() == pytest.approx(result.fun)
    assert result.nfev < run_with(None, method).nfev or method in SEARCH_A_BOX


# ------------------------------------------------------------------------------------------- Ctrl-C


@pytest.mark.parametrize("method", OPTIONS)
def test_ctrl_c_gives_the_best_point_so_far(method):
    """As the system delivers it: inside some call of the function, here the tenth."""
    calls = []

    def fun(x):
        calls.append(1)
        if len(calls) == 10:
            raise KeyboardInterrupt
        return rosenbrock(x)

    box = [(-2.0, 2.5)] * 2 if method in SEARCH_A_BOX else None
    options = OPTIONS[method] | BRIEF.get(method, {})
    result = ooftorch.minimize(fun, tensor(-1.2, 1.0), method=method, bounds=box, options=options)
    assert result.interrupted
    assert not result.success
    assert "interrupted" in result.message
    assert result.fun == rosenbrock(result.x).item() == result.history[:, 1].min()
    assert result.nfev == len(result.history)
    # A dense Hessian calls the function once more.
    assert result.nfev + (result.nhev if method in DENSE else 0) == 9


def test_ctrl_c_in_the_first_evaluation_gives_the_start():
    def fun(x):
        raise KeyboardInterrupt

    result = ooftorch.minimize(fun, tensor(-1.2, 1.0))
    assert result.interrupted
    assert result.history.shape == (0, 2)
    np.testing.assert_array_equal(result.x, [-1.2, 1.0])


def test_other_exceptions_of_the_function_pass():
    def fun(x):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        ooftorch.minimize(fun, tensor(1.0))


# --------------------------------------------------------------------------------- history and counts


@pytest.mark.parametrize("method", OPTIONS)
def test_history_and_counts_are_true(method):
    values = []

    def fun(x):
        value = PROBLEMS["logistic"].torch(x)
        values.append(value.detach())
        return value

    box = [(-4.0, 4.0)] * 4 if method in SEARCH_A_BOX else None
    start = torch.tensor(PROBLEMS["logistic"].start)
    result = ooftorch.minimize(fun, start, method=method, bounds=box, options=OPTIONS[method])
    times, history = result.history.T
    assert result.nfev == len(history)
    # A dense Hessian calls the function once more, on tensors without a number in them.
    assert len(values) == result.nfev + (result.nhev if method in DENSE else 0)
    if method not in DENSE:
        np.testing.assert_array_equal(history, values)
    assert times[0] >= 0
    assert np.all(np.diff(times) >= 0)
    can = uses(method) if method in LOCAL else None
    if can is None or can.jac:
        assert 0 < result.njev <= result.nfev
    else:
        assert result.njev == 0
    assert (result.nhev > 0) == (can is not None and (can.hess or can.hessp))
    assert result.fun <= history.min() + 1e-3


def test_a_gradient_at_the_same_place_costs_no_second_value():
    objective = Objective(rosenbrock, tensor(1.0, 2.0))
    objective.prepare(1)
    x = np.array([0.3, 0.4])
    for _ in range(3):
        objective.value(x)
        objective.gradient(x)
    assert (objective.nfev, objective.njev) == (1, 1)
    objective.value(x + 1)
    assert (objective.nfev, objective.njev) == (2, 1)


def test_what_scipy_does_to_its_arrays_does_not_reach_the_function():
    """Values are remembered by a copy of the point, not by the array, which minimisers change in place."""
    objective = Objective(rosenbrock, tensor(1.0, 2.0))
    objective.prepare(1)
    x = np.array([0.3, 0.4])
    objective.value(x)
    x += 1
    assert objective.value(x) == pytest.approx(PROBLEMS["rosenbrock 2"].value(x))
    np.testing.assert_allclose(objective.gradient(x), PROBLEMS["rosenbrock 2"].gradient(x))


# ------------------------------------------------------------------------------------------- hygiene


@pytest.mark.parametrize(
    "method", ["bfgs", "newton-cg", "trust-exact", "trust-constr", "nelder-mead", "lbfgs"]
)
@pytest.mark.parametrize("enabled", [True, False])
def test_gradients_are_switched_on_inside_and_left_as_they_were(method, enabled):
    x0 = tensor(-1.2, 1.0, requires_grad=True)
    x0.grad = tensor(7.0, 8.0)
    with torch.set_grad_enabled(enabled):
        result = ooftorch.minimize(rosenbrock, x0, method=method)
        assert torch.is_grad_enabled() == enabled
    np.testing.assert_allclose(result.x, 1, atol=1e-3)
    assert x0.requires_grad
    assert x0.is_leaf
    np.testing.assert_array_equal(x0.detach(), [-1.2, 1.0])
    np.testing.assert_array_equal(x0.grad, [7.0, 8.0])


def test_gradients_inside_inference_mode_are_refused_or_found():
    with torch.inference_mode(), contextlib.suppress(InputError, RuntimeError):
        result = ooftorch.minimize(rosenbrock, tensor(-1.2, 1.0))
        np.testing.assert_allclose(result.x, 1, atol=1e-3)


@pytest.mark.parametrize("method", ["bfgs", "newton-cg", "trust-constr"])
def test_a_result_holds_no_graph(method):
    gc.freeze()  # what was there before is not looked at
    try:
        result = ooftorch.minimize(rosenbrock, tensor(-1.2, 1.0), method=method, options=OPTIONS[method])
        gc.collect()
        left = [t for t in gc.get_objects() if type(t) is torch.Tensor]
    finally:
        gc.unfreeze()
    assert any(t is result.x for t in left)
    assert [t for t in left if t.requires_grad] == []
    assert result.x.grad_fn is None
    assert not result.x.requires_grad


def test_options_and_bounds_are_left_as_they_were():
    options, bounds = {"lr": 0.1, "maxiter": 5}, [(0.0, 1.0)]
    ooftorch.minimize(bowl, tensor(1.0), method="adam", options=options)
    assert options == {"lr": 0.1, "maxiter": 5}
    inner = {"minimizer_kwargs": {"method": "L-BFGS-B"}, "niter": 1}
    ooftorch.minimize(bowl, tensor(1.0), method="basinhopping", bounds=bounds, options=inner)
    assert inner == {"minimizer_kwargs": {"method": "L-BFGS-B"}, "niter": 1}
    assert bounds == [(0.0, 1.0)]


# ------------------------------------------------------------------------------------------- derivatives


@pytest.mark.parametrize("name", [name for name, p in PROBLEMS.items() if p.smooth])
def test_derivatives_are_those_written_by_hand(name):
    problem = PROBLEMS[name]
    objective = Objective(problem.torch, torch.tensor(problem.start))
    objective.prepare(2)
    rng = np.random.default_rng(3)
    for _ in range(3):
        x, direction = problem.start + 0.1 * rng.normal(size=(2, problem.start.size))
        exact = {"rtol": 1e-9, "atol": 1e-9 * np.abs(problem.hessian(x)).max()}
        assert objective.value(x) == pytest.approx(problem.value(x), rel=1e-12)
        np.testing.assert_allclose(objective.gradient(x), problem.gradient(x), **exact)
        np.testing.assert_allclose(objective.hessian(x), problem.hessian(x), **exact)
        np.testing.assert_allclose(objective.hessp(x, direction), problem.hessp(x, direction), **exact)


def test_the_hessian_of_several_tensors_has_all_blocks():
    """f = sum (a_i)^2 b + c b^3, by hand."""
    x0 = {
        "a": torch.tensor([[1.0, 2.0]], dtype=DOUBLE),
        "b": torch.tensor(3.0, dtype=DOUBLE),
        "c": torch.ones(1),
    }
    objective = Objective(lambda x: (x["a"] ** 2).sum() * x["b"] + x["c"].double().sum() * x["b"] ** 3, x0)
    objective.prepare(2)
    here = objective.pack.start
    right = np.array([[6, 0, 2, 0], [0, 6, 4, 0], [2, 4, 18, 27], [0, 0, 27, 0]])
    np.testing.assert_allclose(objective.hessian(here), right)
    np.testing.assert_allclose(np.stack([objective.hessp(here, e) for e in np.eye(4)]), right)


def test_a_constraint_has_the_hessian_of_its_weighted_sum():
    """g = (x0^2 x1, x1^3): v.g has the Hessian [[2 v0 x1, 2 v0 x0], [2 v0 x0, 6 v1 x1]]."""
    pack = Pack(tensor(2.0, 3.0))
    vector = VectorFunction(lambda x: torch.stack([x[0] ** 2 * x[1], x[1] ** 3]), pack)
    x, v = pack.start, np.array([0.5, -2.0])
    np.testing.assert_allclose(vector.value(x), [12, 27])
    np.testing.assert_allclose(vector.jacobian(x), [[12, 4], [0, 27]])
    right = [[2 * v[0] * x[1], 2 * v[0] * x[0]], [2 * v[0] * x[0], 6 * v[1] * x[1]]]
    np.testing.assert_allclose(vector.hessian(x, v), right)


# As above: SciPy says so of the linear constraint.
@pytest.mark.filterwarnings("ignore:delta_grad == 0.0:UserWarning")
@pytest.mark.parametrize("method", ["slsqp", "trust-constr", "cobyqa"])
def test_constraints_of_a_dict_of_tensors(method):
    """Nearest point of the plane a + b = 1 to the origin, and an inequality that does not matter."""
    constraints = [
        {"type": "eq", "fun": lambda x: x["a"].sum() + x["b"] - 1},
        NonlinearConstraint(lambda x: torch.stack([x["b"], x["a"][0]]), -5, np.inf),
    ]
    x0 = {"a": tensor(1.0, 2.0), "b": torch.tensor(-1.0, dtype=DOUBLE)}
    result = ooftorch.minimize(bowl, x0, method=method, constraints=constraints)
    np.testing.assert_allclose(result.x["a"], 1 / 3, atol=1e-4)
    np.testing.assert_allclose(result.x["b"], 1 / 3, atol=1e-4)


@pytest.mark.parametrize(
    "method", ["bfgs", "l-bfgs-b", "cg", "slsqp", "tnc", "adam", "lbfgs", "basinhopping"]
)
def test_a_gradient_of_ones_own_is_used(method):
    calls = []

    def gradient(x):
        calls.append(x)
        assert not any(leaf.requires_grad for leaf in x.values())
        return {"a": 4 * (x["a"] - 1) ** 3, "b": 2 * x["b"]}

    def fun(x):
        return ((x["a"].detach() - 1) ** 4).sum() + (x["b"].detach() ** 2).sum()

    x0 = {"a": tensor(1.5, 0.7), "b": tensor(1.0)}
    options = OPTIONS[method] | ({"maxiter": 200} if method == "adam" else {})
    own = ooftorch.minimize(fun, x0, method=method, jac=gradient, options=options)
    assert own.njev == len(calls)
    both = ooftorch.minimize(lambda x: (fun(x), gradient(x)), x0, method=method, jac=True, options=options)
    found = ooftorch.minimize(
        lambda x: ((x["a"] - 1) ** 4).sum() + (x["b"] ** 2).sum(), x0, method=method, options=options
    )
    for result in (own, both):
        for key in x0:
            torch.testing.assert_close(result.x[key], found.x[key], atol=1e-6, rtol=0)


# ------------------------------------------------------------------------------------------- torch's methods


def test_gradient_descent_on_a_quadratic_is_a_geometric_series():
    """f = |x|^2/2: x_k = (1 - lr)^k x_0; and the product, where a schedule halves the rate."""

    def half(x):
        return 0.5 * (x**2).sum()

    for k in (1, 7):
        options = {"lr": 0.3, "maxiter": k, "gtol": 0.0}
        result = ooftorch.minimize(half, tensor(2.0, -1.0), method="sgd", options=options)
        np.testing.assert_allclose(result.x, np.array([2.0, -1.0]) * 0.7**k, rtol=1e-12)
        assert result.nfev == k + 1
        options["schedule"] = lambda optimiser: torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.5)
        result = ooftorch.minimize(half, tensor(2.0, -1.0), method="sgd", options=options)
        factor = np.prod(1 - 0.3 * 0.5 ** np.arange(k))
        np.testing.assert_allclose(result.x, np.array([2.0, -1.0]) * factor, rtol=1e-12)


def test_a_schedule_ends_on_a_kink():
    problem = PROBLEMS["kink"]
    options = {"lr": 0.1, "maxiter": 300}
    rough = ours("adam", problem, options)

    def schedule(optimiser):
        return torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.97)

    fine = ours("adam", problem, options | {"schedule": schedule})
    assert np.abs(fine.x.numpy() - problem.solution).max() < 1e-3
    assert rough.fun > 3 * fine.fun


def test_adam_takes_the_steps_of_torchs_own_loop():
    x = tensor(-1.2, 1.0, requires_grad=True)
    optimiser = torch.optim.Adam([x], lr=0.05)
    for _ in range(20):
        optimiser.zero_grad()
        rosenbrock(x).backward()
        optimiser.step()
    result = ooftorch.minimize(
        rosenbrock, tensor(-1.2, 1.0), method="adam", options={"lr": 0.05, "maxiter": 20}
    )
    torch.testing.assert_close(result.x, x.detach(), rtol=1e-12, atol=0)
    assert (result.nit, result.nfev, result.success) == (20, 21, False)


def test_a_metric_that_is_the_hessian_needs_few_evaluations():
    problem = PROBLEMS["badly scaled"]
    start = torch.tensor(problem.start)
    hessian = problem.hessian(problem.start)
    with_it = ooftorch.minimize(problem.torch, start, method="metric-bfgs", options={"metric": hessian})
    without = ooftorch.minimize(problem.torch, start, method="metric-bfgs")
    assert with_it.success
    np.testing.assert_allclose(with_it.x, problem.solution, atol=1e-6)
    # One step, and a few for the rounding of a matrix of condition 1e8.
    assert with_it.nfev <= 6
    assert without.nfev > 5 * with_it.nfev


# ------------------------------------------------------------------------------------------- progress


def drawn(monkeypatch, watching, solve):
    err, out = io.StringIO(), io.StringIO()
    err.isatty = lambda: watching
    monkeypatch.setattr("sys.stderr", err)
    monkeypatch.setattr("sys.stdout", out)
    solve()
    assert out.getvalue() == ""
    return err.getvalue()


def slowly(fun):
    """A bar is drawn anew ten times a second."""
    return lambda x: (time.sleep(0.02), fun(x))[1]


SOLVE = {
    "minimize": lambda **more: ooftorch.minimize(
        slowly(rosenbrock), tensor(-1.2, 1.0), options={"maxiter": 8}, **more
    ),
    "least_squares": lambda **more: ooftorch.least_squares(
        slowly(lambda x: torch.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])),
        tensor(-1.2, 1.0),
        max_nfev=4,
        **more,
    ),
}


@pytest.mark.parametrize("solve", SOLVE.values(), ids=SOLVE)
def test_a_bar_is_drawn_for_a_person(solve, monkeypatch):
    assert drawn(monkeypatch, False, solve) == ""
    assert re.search(r"[1-9]\d* evaluations.*lowest [\d.]+", drawn(monkeypatch, True, solve))
    assert "lowest" in drawn(monkeypatch, False, lambda: solve(progress=True))
    assert drawn(monkeypatch, True, lambda: solve(progress=False)) == ""


# ------------------------------------------------------------------------------------------- on a device


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("name", ["rosenbrock 5", "logistic"])
@pytest.mark.parametrize("method", OPTIONS)
def test_main_methods_where_the_parameters_live(method, name, device):
    expected = entry(method, name)
    if device == "cpu" or expected.kind != "arrives":
        # The table above has run it.
        assert expected is not None
        return
    result = ours(method, PROBLEMS[name], expected.options, device)
    assert result.x.device.type == device
    np.testing.assert_allclose(result.x.cpu(), PROBLEMS[name].solution, atol=2e-3)


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_tensors_of_different_devices_together(device):
    x0 = {"here": tensor(1.0, 2.0), "there": torch.ones(3, device=device)}
    for method in ("bfgs", "trust-exact", "newton-cg"):
        result = ooftorch.minimize(
            lambda x: ((x["here"] - 1) ** 2).sum() + ((x["there"].cpu() - 2) ** 2).sum(), x0, method=method
        )
        assert result.x["there"].device.type == device
        np.testing.assert_allclose(result.x["here"], 1, atol=1e-4)
        np.testing.assert_allclose(result.x["there"].cpu(), 2, atol=1e-4)


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_constraints_and_least_squares_on_a_device(device):
    problem = PROBLEMS["disc"]
    for method in ("slsqp", "trust-constr"):
        result = ours(method, problem, {}, device)
        np.testing.assert_allclose(result.x.cpu(), problem.solution, atol=1e-4)
    result = ooftorch.least_squares(lambda x: x - 3, torch.zeros(2, device=device))
    assert result.x.device.type == device
    np.testing.assert_allclose(result.x.cpu(), 3)
