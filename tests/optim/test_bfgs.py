"""Batched BFGS: against SciPy, whitening, each member on its own path, counts, ends, steps into nowhere."""

import math

import numpy as np
import pytest
import scipy.optimize
import torch

from ooftorch.optim.bfgs import bfgs, inverse_root


def double(values):
    return torch.as_tensor(np.asarray(values, float))


def unit(b, n):
    return torch.eye(n, dtype=torch.float64).repeat(b, 1, 1)


class Watched:
    """A function of points (k, n) with its gradient by autograd, that remembers how it was called.

    `function` takes points (k, n), and the members' rows of `given`.
    """

    def __init__(self, function, *given):
        self.function, self.given, self.calls = function, given, []

    def __call__(self, x, members):
        with torch.inference_mode(False), torch.enable_grad():
            at = x.clone().requires_grad_()
            value = self.function(at, *(g[members] for g in self.given))
            (gradient,) = torch.autograd.grad(value.sum(), at)
        self.calls.append((members.clone(), at.detach(), value.detach()))
        return value.detach(), gradient

    def n_eval(self, member):
        return sum(int((members == member).sum()) for members, _, _ in self.calls)


def rosenbrock(x):
    return (100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(-1)


def valley(x, centre, steepness):
    """A curved valley, another for every member."""
    a, b = x[:, :-1] - centre[:, :-1], x[:, 1:] - centre[:, 1:]
    return (steepness * (b - a**2) ** 2 + a**2).sum(-1) + 0.1 * (x - centre).pow(4).sum(-1)


# ------------------------------------------------------------------------------------ the minimum


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_same_minimum_as_scipy(n):
    x0 = np.tile([0.2, 1.4, 0.6], n)[:n]  # the side without the other minimum, near (-1, 1, 1, ...)
    fun = Watched(rosenbrock)
    ours = bfgs(fun, double([x0]), unit(1, n), gtol=1e-7, max_step=10.0)
    theirs = scipy.optimize.minimize(
        scipy.optimize.rosen, x0, jac=scipy.optimize.rosen_der, method="BFGS", options={"gtol": 1e-7}
    )
    np.testing.assert_allclose(ours.x[0], theirs.x, atol=1e-6)
    assert ours.value[0] == pytest.approx(scipy.optimize.rosen(ours.x[0].numpy()), abs=1e-15)
    assert not ours.stuck
    # A quasi-Newton method, and no slower than the usual one: steepest descent takes thousands.
    assert int(ours.n_eval) == len(fun.calls) < 3 * theirs.nfev


def test_whitened_quadratic_is_round():
    """With its own Hessian as information even a badly scaled quadratic takes a step or two."""
    rng = np.random.default_rng(0)
    q, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    hessian, minimum = double(q @ np.diag(10.0 ** np.arange(-4, 8, 2)) @ q.T), double(rng.normal(size=6))

    def fun(x, members):
        gradient = (x - minimum) @ hessian
        return 0.5 * ((x - minimum) * gradient).sum(-1), gradient

    x0 = torch.zeros(1, 6, dtype=torch.float64)
    good = bfgs(fun, x0, hessian[None], gtol=1e-8, max_step=100.0)
    # The tolerance is in standard deviations, up to a hundred here, and for each of six.
    off = good.x[0] - minimum
    assert (off @ hessian @ off).sqrt() < math.sqrt(6) * 1e-8
    plain = bfgs(fun, x0, unit(1, 6), gtol=1e-8, max_step=100.0)
    assert int(good.n_eval) < 5 < 10 < int(plain.n_eval)


def test_a_descent_goes_on_with_the_metric_of_the_last():
    """Nearer to the Hessian than the first: not that one again, nor the inverse, nor another member's."""
    rng = np.random.default_rng(3)
    q, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    hessian = double([q @ np.diag(10.0 ** np.linspace(-1, 2, 6)) @ q.T, np.diag([5.0, 4, 3, 2, 1, 0.5])])
    minimum = double(rng.normal(size=(2, 6)))

    def fun(x, members):
        away = x - minimum[members]
        gradient = (hessian[members] @ away[..., None])[..., 0]
        return 0.5 * (away * gradient).sum(-1), gradient

    first = bfgs(fun, torch.zeros_like(minimum), unit(2, 6), gtol=1e-6)
    assert int(first.n_eval[0]) != int(first.n_eval[1])
    torch.testing.assert_close(first.metric @ first.inverse_hessian, unit(2, 6), rtol=0, atol=1e-6)
    start, minimum = minimum, minimum + double(rng.normal(size=(2, 6)))
    again = bfgs(fun, start, first.metric, gtol=1e-3)
    afresh = bfgs(fun, start, unit(2, 6), gtol=1e-3)
    assert (2 * again.n_eval < afresh.n_eval).all()


def test_gtol_is_in_standard_deviations():
    """Scaling the problem changes neither the path nor where it stops, in units of its own error bars."""
    ends, counts = [], []
    for s in (double([1e-3, 1.0, 1e2]), torch.ones(3, dtype=torch.float64)):

        def fun(x, members, s=s):
            r = (x - 1) / s
            return torch.cosh(r).sum(-1), torch.sinh(r) / s

        found = bfgs(fun, (1 + 2 * s)[None], torch.diag(s**-2)[None], gtol=0.1, max_step=1e6)
        ends.append((found.x - 1) / s)
        counts.append(int(found.n_eval))
        # One unit of the gradient in whitened coordinates is one standard deviation.
        assert torch.sinh(ends[-1]).abs().max() < 0.1
        assert float(found.distance) == pytest.approx(float(torch.sinh(ends[-1]).norm()), rel=1e-9)
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-6, atol=0)
    assert counts[0] == counts[1] > 2


def test_distance_is_that_to_the_minimum_in_standard_deviations():
    hessian, step = double([[4.0, 1.0], [1.0, 9.0]]), double([0.3, -0.2])

    def fun(x, members):
        return 0.5 * ((x @ hessian) * x).sum(-1), x @ hessian

    found = bfgs(fun, step[None], hessian[None], max_eval=1)
    assert float(found.distance) == pytest.approx(math.sqrt(float(step @ hessian @ step)), rel=1e-12)
    assert found.stuck


def test_a_start_at_the_minimum_costs_one_evaluation():
    fun = Watched(lambda x: torch.cosh(x).sum(-1))
    found = bfgs(fun, torch.zeros(3, 2, dtype=torch.float64), unit(3, 2))
    assert found.n_eval.tolist() == [1, 1, 1]
    assert len(fun.calls) == 1
    assert not found.stuck.any()
    assert not found.distance.any()
    assert found.value.tolist() == [2, 2, 2]


def test_nothing_is_written_into_the_start():
    x0 = double([[-1.2, 1.0], [0.3, 0.2]])
    before = x0.clone()
    found = bfgs(Watched(rosenbrock), x0, unit(2, 2), gtol=1e-3)
    assert torch.equal(x0, before)
    assert not torch.equal(found.x, x0)


# ------------------------------------------------------------------------------------- the batch


def batch(b=7, n=4):
    """Starts, information and what makes the members different: valleys, their places, and distances."""
    rng = np.random.default_rng(3)
    centre, steepness = double(rng.normal(size=(b, n))), double(10 ** rng.uniform(0, 1.5, (b, 1)))
    x0 = centre + double(rng.normal(size=(b, n)) * np.geomspace(0.02, 1.0, b)[:, None])
    root = double(rng.normal(size=(b, n, n)))
    return x0, 5 * unit(b, n) + root @ root.mT, (centre, steepness)


def test_each_member_takes_the_path_it_takes_alone():
    x0, information, given = batch()
    together = bfgs(Watched(valley, *given), x0, information, gtol=1e-5)
    assert not together.stuck.any()
    assert (together.distance < 4 * 1e-5).all()
    for i in range(len(x0)):
        alone = bfgs(
            Watched(valley, *(g[i : i + 1] for g in given)), x0[i : i + 1], information[i : i + 1], gtol=1e-5
        )
        assert int(alone.n_eval) == int(together.n_eval[i])
        torch.testing.assert_close(together.x[i], alone.x[0], rtol=0, atol=1e-12)
        torch.testing.assert_close(together.value[i], alone.value[0], rtol=0, atol=1e-12)
        torch.testing.assert_close(together.distance[i], alone.distance[0], rtol=1e-6, atol=1e-12)


def test_only_members_still_under_way_are_evaluated():
    x0, information, given = batch()
    fun = Watched(valley, *given)
    found = bfgs(fun, x0, information, gtol=1e-5)
    assert fun.calls[0][0].tolist() == list(range(len(x0)))
    for (before, _, _), (after, points, _) in zip(fun.calls, fun.calls[1:], strict=False):
        assert set(after.tolist()) <= set(before.tolist())  # who has ended is not called again
        assert len(after) == len(points) > 0
    assert len(set(found.n_eval.tolist())) >= 4  # at different times
    assert found.n_eval.tolist() == [fun.n_eval(i) for i in range(len(x0))]
    # The end is a point that was looked at, with the value found there, and the lowest of its member.
    for i in range(len(x0)):
        seen = [(v[m == i][0], p[m == i][0]) for m, p, v in fun.calls if i in m]
        lowest = min(seen, key=lambda s: float(s[0]))
        assert torch.equal(found.value[i], lowest[0])
        assert torch.equal(found.x[i], lowest[1]) or (found.x[i] - lowest[1]).abs().max() < 1e-14


def test_members_that_are_done_change_nothing_for_the_others():
    """Two members, one at its minimum: the gradient of the other is that of its own row."""
    x0 = double([[0.0, 0.0], [2.0, -3.0]])
    centre = double([[0.0, 0.0], [1.0, 1.0]])
    found = bfgs(Watched(lambda x, c: torch.cosh(x - c).sum(-1), centre), x0, unit(2, 2), gtol=1e-6)
    torch.testing.assert_close(found.x, centre, rtol=0, atol=1e-5)
    assert found.n_eval[0] == 1 < found.n_eval[1]


# ---------------------------------------------------------------------------------- how it ends


def test_stuck_where_nothing_lowers_the_function_further():
    """Members with a minimum to be reached, one whose tolerance is below its rounding, in one batch."""

    def fun(x, height):
        return (torch.exp(x) - 3 * x).sum(-1) + height[:, 0]

    found = bfgs(
        Watched(fun, double([[0.0], [0.0]])), double([[0.0, 2.0], [1.0, 1.5]]), unit(2, 2), gtol=1e-5
    )
    assert found.stuck.tolist() == [False, False]
    assert (found.distance < 2e-5).all()
    watched = Watched(fun, double([[1e6], [1e6]]))
    found = bfgs(watched, double([[0.0, 2.0], [1.0, 1.5]]), unit(2, 2), gtol=1e-15)
    assert found.stuck.tolist() == [True, True]
    assert (found.distance >= 1e-15).all()
    torch.testing.assert_close(found.x, torch.full_like(found.x, math.log(3)), rtol=0, atol=1e-3)
    assert found.n_eval.tolist() == [watched.n_eval(0), watched.n_eval(1)]
    assert int(found.n_eval.max()) < 100  # ... and it is noticed


@pytest.mark.parametrize("limit", [1, 2, 7])
def test_the_limit_of_evaluations(limit):
    fun = Watched(rosenbrock)
    start = double([[-1.2, 1.0], [1.0, 1.0], [2.0, 2.0]])
    found = bfgs(fun, start, unit(3, 2), gtol=1e-9, max_eval=limit)
    assert found.n_eval.tolist() == [limit, 1, limit]
    assert found.stuck.tolist() == [True, False, True]
    assert len(fun.calls) == limit
    # What it has so far is given, and is no worse than the start.
    torch.testing.assert_close(found.value, rosenbrock(found.x), rtol=1e-12, atol=1e-12)
    assert (found.value <= rosenbrock(start)).all()


@pytest.mark.parametrize("information", [1e-3, 500.0])
@pytest.mark.parametrize("max_step", [0.05, 0.3])
def test_no_coordinate_goes_farther_than_max_step_at_once(max_step, information):
    """An information far too small asks for steps far too long; one too large, for a search farther out."""
    centre = double([[3.0, -2.0, 0.1], [0.2, 0.0, -4.0]])
    fun = Watched(lambda x, c: torch.cosh(0.5 * (x - c)).sum(-1), centre)
    found = bfgs(
        fun,
        torch.zeros(2, 3, dtype=torch.float64),
        information * unit(2, 3),
        gtol=1e-4,
        max_step=max_step,
    )
    torch.testing.assert_close(found.x, centre, rtol=0, atol=0.01)
    for i in range(2):
        path = [(float(v[m == i][0]), p[m == i][0]) for m, p, v in fun.calls if i in m]
        steps = []
        best, here = path[0]
        for value, point in path[1:]:
            steps.append(float((point - here).abs().max()))
            # The lowest point so far lies on the same ray as the trial, no farther back than its start.
            if value < best:
                best, here = value, point
        assert max(steps) <= max_step * (1 + 1e-12)
        assert sum(s > 0.999 * max_step for s in steps) > 4  # the limit acts


def test_a_start_in_nowhere_stays_there_and_harms_nobody():
    x0 = double([[-1.0], [2.0]])
    found = bfgs(Watched(lambda x: (x - 3 * torch.log(x)).sum(-1)), x0, unit(2, 1), gtol=1e-6)
    assert found.x[0] == -1
    assert not found.value[0].isfinite()
    assert found.n_eval[0] == 1
    assert float(found.x[1]) == pytest.approx(3.0, abs=1e-4)
    assert not found.stuck[1]


def test_a_maximum_on_the_way_is_passed():
    """Where the function curves the other way the metric learns nothing and stays positive."""
    fun = Watched(lambda x: (torch.cos(x) + 0.01 * x**2).sum(-1))
    found = bfgs(fun, double([[0.1, 0.2, -0.3]]), unit(1, 3), gtol=1e-8)
    assert not found.stuck
    x = found.x
    assert (found.value < 3 * -0.8).all()
    torch.testing.assert_close(torch.sin(x), 0.02 * x, rtol=0, atol=1e-7)
    assert (torch.cos(x) < 0.02).all()


# ------------------------------------------------------------------------------------- the metric


def test_inverse_root_is_one_of_the_inverse():
    rng = np.random.default_rng(1)
    root = rng.normal(size=(5, 4, 4))
    scale = 10.0 ** np.array([-6, 0, 3, 8])
    information = double(root @ root.swapaxes(-1, -2) * scale[:, None] * scale)
    t = inverse_root(information)
    # Taken in units of the diagonal: the numbers span 28 orders of magnitude.
    size = information.diagonal(dim1=-2, dim2=-1).sqrt()
    product = (t @ t.mT @ information) / size[:, None, :] * size[:, :, None]
    torch.testing.assert_close(product, unit(5, 4), rtol=0, atol=1e-8)
    # One of a batch is the same alone; what counts of it is the product, for eigenvectors may change sign.
    alone = inverse_root(information[2:3])[0]
    torch.testing.assert_close(alone @ alone.T, t[2] @ t[2].T, rtol=1e-9, atol=0)


def test_inverse_root_is_bounded_where_nothing_constrains():
    """Two parameters of which only the sum matters, and a matrix with a rounding below zero."""
    sum_alone = double([[1.0, 1.0], [1.0, 1.0]])
    scaled = double([1e-4, 1e3])[:, None] * sum_alone * double([1e-4, 1e3])
    below = sum_alone - 1e-14 * double([[0.0, -1.0], [-1.0, 0.0]])
    for information in (sum_alone, scaled, below):
        t = inverse_root(information[None])[0]
        assert t.isfinite().all()
        size = information.diagonal().sqrt()
        inverse = (t @ t.T) * size[:, None] * size
        assert float(torch.linalg.eigvalsh(inverse).max()) < 1.1e12
        # What is constrained is so by as much as ever: (1, 1) has an information of 2 per unit.
        assert float(torch.linalg.eigvalsh(inverse).min()) == pytest.approx(0.5, rel=1e-4)


def test_unconstrained_directions_do_no_harm():
    """Only x + y is known; the difference stays where it was, and its flatness costs no evaluation."""

    def fun(x, members):
        gap = x.sum(-1) - 2
        return 0.5 * gap**2, gap[:, None].expand_as(x)

    found = bfgs(fun, double([[3.0, -2.0]]), torch.ones(1, 2, 2, dtype=torch.float64), gtol=1e-8)
    torch.testing.assert_close(found.x, double([[3.5, -1.5]]), rtol=0, atol=1e-4)
    assert float(found.x.sum()) == pytest.approx(2.0, abs=1e-8)
    assert int(found.n_eval) <= 3
    assert not found.stuck


def test_a_trial_step_into_nowhere_is_stepped_back_from():
    """Across a wall where the function is not finite there is no way; before it, the minimum is found.

    The first step is short enough to stay before the wall, the next ones are not.
    """
    for nothing in (math.nan, math.inf):

        def fun(x, members, nothing=nothing):
            inside = (x < 1).all(-1)
            value = (0.5 * x**2 - torch.log1p(-x.clamp(max=0.999999)) - 3 * x).sum(-1)
            gradient = x + 1 / (1 - x.clamp(max=0.999999)) - 3
            return torch.where(inside, value, nothing), torch.where(inside[:, None], gradient, nothing)

        x0 = double([[-4.0, -2.0], [-1.0, 0.5]])
        found = bfgs(fun, x0, 5 * unit(2, 2), gtol=1e-8, max_step=100.0)
        # x + 1/(1 - x) = 3
        expected = torch.full_like(x0, 2 - math.sqrt(2))
        torch.testing.assert_close(found.x, expected, rtol=0, atol=1e-7)
        assert not found.stuck.any()


def test_a_parameter_that_nothing_depends_on_does_no_harm():
    """A zero on the diagonal of the information: it stays where it was, and the other gets home."""

    def fun(x, members):
        return 0.5 * (x[:, 0] - 2) ** 2, torch.stack([x[:, 0] - 2, 0 * x[:, 1]], -1)

    information = torch.diag(double([1.0, 0.0]))[None]
    t = inverse_root(information)
    assert (t @ t.mT).isfinite().all()
    found = bfgs(fun, double([[0.0, 0.7]]), information, gtol=1e-8)
    torch.testing.assert_close(found.x, double([[2.0, 0.7]]), rtol=0, atol=1e-6)
    assert not found.stuck


def test_a_start_that_is_not_a_number_is_stuck():
    for f, g in ((math.nan, math.nan), (1.0, math.nan), (math.inf, 1.0)):

        def fun(x, members, f=f, g=g):
            return torch.full_like(x[:, 0], f), torch.full_like(x, g)

        assert bfgs(fun, double([[1.0, 1.0]]), unit(1, 2)).stuck
