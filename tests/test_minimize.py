"""SciPy's BFGS under torch gradients: values, whitening, counts, and trial steps into nowhere."""

import numpy as np
import pytest
import scipy.optimize
import torch

from ooftorch.minimize import Objective, bfgs, newton_decrement


def rosenbrock(x):
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def objective(fun, n, **kwargs):
    return Objective(fun, torch.zeros(n, dtype=torch.float64), **kwargs)


def test_objective_value_and_gradient():
    x = np.array([0.3, -1.2, 0.7, 2.0])
    f, g = objective(rosenbrock, 4)(x)
    assert f == pytest.approx(scipy.optimize.rosen(x), rel=1e-14)
    np.testing.assert_allclose(g, scipy.optimize.rosen_der(x), rtol=1e-13)
    assert g.dtype == np.float64


def test_objective_counts_and_tells():
    seen = []
    o = objective(rosenbrock, 3, callback=lambda n, f: seen.append((n, f)))
    values = [o(np.full(3, v))[0] for v in (0.0, 0.5, 1.0)]
    assert o.n_eval == 3
    assert seen == list(enumerate(values, 1))


def test_objective_works_inside_no_grad():
    with torch.no_grad():
        _, g = objective(rosenbrock, 2)(np.array([0.0, 0.0]))
    np.testing.assert_allclose(g, [-2, 0])


def test_objective_gives_the_tensor_its_dtype():
    kinds = set()

    def fun(x):
        kinds.add(x.dtype)
        return (x**2).sum()

    _, g = Objective(fun, torch.zeros(2, dtype=torch.float32))(np.ones(2))
    assert kinds == {torch.float32}
    assert g.dtype == np.float64


def test_unit_information_is_scipy_itself():
    x0 = np.array([-1.2, 1.0, 0.3])
    o = objective(rosenbrock, 3)
    ours = bfgs(o, x0, np.eye(3), gtol=1e-6)
    theirs = scipy.optimize.minimize(
        scipy.optimize.rosen, x0, jac=scipy.optimize.rosen_der, method="BFGS", options={"gtol": 1e-6}
    )
    np.testing.assert_allclose(ours.x, theirs.x, atol=1e-9)
    assert o.n_eval == theirs.nfev


def test_whitened_quadratic_is_round():
    """With its own Hessian as information even a badly scaled quadratic takes a step or two."""
    rng = np.random.default_rng(0)
    q, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    hessian = q @ np.diag(10.0 ** np.arange(-4, 8, 2)) @ q.T
    minimum = rng.normal(size=6)
    h, m = torch.tensor(hessian), torch.tensor(minimum)

    def fun(x):
        return 0.5 * (x - m) @ h @ (x - m)

    good = objective(fun, 6)
    found = bfgs(good, np.zeros(6), hessian, gtol=1e-8)
    np.testing.assert_allclose(found.x, minimum, atol=1e-7)
    # `jac` is the gradient in the caller's coordinates, not the whitened ones.
    np.testing.assert_allclose(found.jac, good(found.x)[1], atol=1e-8)
    plain = objective(fun, 6)
    bfgs(plain, np.zeros(6), np.eye(6), gtol=1e-8)
    assert good.n_eval < 10 < plain.n_eval


def test_gtol_is_in_standard_deviations():
    """Scaling the problem changes neither the path nor where it stops, in units of its own error bars."""
    scale = np.array([1e-6, 1.0, 1e5])

    def fun(s):
        return lambda x: torch.cosh((x - 1) / s).sum()

    ends = []
    for s in (np.ones(3), scale):
        o = objective(fun(torch.tensor(s)), 3)
        start = 1 + 2 * s
        ends.append((bfgs(o, start, np.diag(1 / s**2), gtol=0.1).x - 1) / s)
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-6)


def test_a_trial_step_into_nowhere_is_survived():
    """log x from the right of its minimum: the first trial lands where the function is not a number."""

    def fun(x):
        return (x - 3 * torch.log(x)).sum()

    found = bfgs(objective(fun, 1), np.array([40.0]), np.array([[1e-4]]), gtol=1e-6)
    assert found.x == pytest.approx([3.0], abs=1e-3)


def test_unconstrained_directions_do_no_harm():
    def fun(x):
        return 0.5 * (x[0] - 2) ** 2 + 0 * x[1]

    found = bfgs(objective(fun, 2), np.zeros(2), np.diag([1.0, 0.0]), gtol=1e-8)
    assert np.isfinite(found.x).all()
    assert found.x[0] == pytest.approx(2.0)


def test_newton_decrement_is_the_squared_distance():
    hessian = np.array([[4.0, 1.0], [1.0, 9.0]])
    step = np.array([0.3, -0.2])
    assert newton_decrement(hessian @ step, hessian) == pytest.approx(step @ hessian @ step)
