"""`least_squares`: Jacobians by both modes, SciPy's answers, bounds, losses, and what is refused."""

import numpy as np
import pytest
import scipy.optimize
import torch
from problems import rosenbrock

import ooftorch
from ooftorch.errors import InputError
from ooftorch.optim.objective import Pack
from ooftorch.optim.vector_function import VectorFunction

DOUBLE = torch.float64


def tensor(*numbers):
    return torch.tensor(numbers, dtype=DOUBLE)


def powers(x, m=7):
    """Residuals with the Jacobian written beside: r_i = x_0^i + x_1^2/i + i x_2 - 1."""
    i = torch.arange(1, m + 1, dtype=DOUBLE)
    return x[0] ** i + x[1] ** 2 / i + i * x[2] - 1


def powers_by_hand(x, m=7):
    i = np.arange(1, m + 1)
    return np.column_stack([i * x[0] ** (i - 1), 2 * x[1] / i, i])


@pytest.mark.parametrize(("m", "mode"), [(7, "jacfwd"), (3, "jacfwd"), (2, "jacrev")])
def test_the_jacobian_is_forward_where_that_is_cheaper_and_right_both_ways(m, mode, monkeypatch):
    used = []
    for name in ("jacfwd", "jacrev"):
        original = getattr(torch.func, name)

        def spy(*args, name=name, original=original):
            used.append(name)
            return original(*args)

        monkeypatch.setattr(torch.func, name, spy)
    vector = VectorFunction(powers, Pack(tensor(0.7, 0.4, -0.3)), (m,))
    x = np.array([0.7, 0.4, -0.3])
    np.testing.assert_allclose(vector.jacobian(x), powers_by_hand(x, m), rtol=1e-12)
    assert used == [mode]


@pytest.mark.parametrize("method", ["trf", "dogbox", "lm"])
def test_least_squares_are_scipys(method):
    start = np.array([0.5, 0.8, 0.3])
    ours = ooftorch.least_squares(powers, torch.tensor(start), method=method)
    hand = scipy.optimize.least_squares(
        lambda x: powers(torch.from_numpy(x)).numpy(), start, jac=powers_by_hand, method=method
    )
    np.testing.assert_allclose(ours.x, hand.x, atol=1e-7)
    np.testing.assert_allclose(ours.jac, hand.jac, atol=1e-6)
    assert ours.cost == pytest.approx(hand.cost, abs=1e-15)
    assert len(ours.history) == ours.nfev
    # For lm SciPy counts in other ways.
    if method != "lm":
        assert (ours.nfev, ours.njev) == (hand.nfev, hand.njev)


def test_least_squares_keep_bounds_and_structure():
    x0 = {"slope": tensor(0.1), "level": torch.zeros((), dtype=torch.float32)}
    t = torch.linspace(0, 1, 20, dtype=DOUBLE)
    result = ooftorch.least_squares(
        lambda x: (x["slope"] * t + x["level"].double() - 3 * t - 1).reshape(4, 5),
        x0,
        bounds=([-10, -10], [2, 10]),
    )
    assert list(result.x) == ["slope", "level"]
    assert result.x["level"].dtype == torch.float32
    assert result.x["level"].shape == ()
    assert result.x["slope"].item() == pytest.approx(2, abs=1e-6)
    # With the slope held at 2 the best level is the mean of 1 + t.
    assert result.x["level"].item() == pytest.approx(1.5, abs=1e-5)


def test_a_robust_loss_forgives_an_outlier():
    y = tensor(1.0, 1.0, 1.0, 1.0, 101.0)
    plain = ooftorch.least_squares(lambda x: x - y, tensor(0.0))
    robust = ooftorch.least_squares(lambda x: x - y, tensor(0.0), loss="cauchy", f_scale=0.1)
    assert plain.x.item() == pytest.approx(21)
    assert robust.x.item() == pytest.approx(1, abs=1e-3)


def test_least_squares_refuse():
    for x0, match in ((torch.zeros(2, dtype=torch.int32), "whole numbers"), (torch.zeros(0), "no number")):
        with pytest.raises(InputError, match=match):
            ooftorch.least_squares(lambda x: x, x0)
    with pytest.raises(InputError, match="expected a tensor"):
        ooftorch.least_squares(lambda x: 1.0, tensor(1.0))


def test_ctrl_c_in_least_squares_gives_the_best_point_so_far():
    calls = []

    def residuals(x):
        calls.append(1)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return torch.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])

    result = ooftorch.least_squares(residuals, tensor(-1.2, 1.0))
    assert result.interrupted
    assert not result.success
    assert result.cost == min(result.history[:, 1])
    assert result.cost == pytest.approx(0.5 * rosenbrock(result.x).item(), rel=1e-12)
    assert len(result.history) == result.nfev
