"""Likelihoods: against SciPy's densities, with missing samples, and their information by quadrature."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from ooftorch.errors import InputError
from ooftorch.fitting.likelihood import LIKELIHOODS, choose

DENSITIES = {"gaussian": stats.norm, "cauchy": stats.cauchy}
NAMES = sorted(LIKELIHOODS)


def test_every_likelihood_has_its_density_here():
    assert DENSITIES.keys() == LIKELIHOODS.keys()


@pytest.mark.parametrize("name", NAMES)
def test_value_is_minus_the_log_density(name):
    r = torch.as_tensor(np.random.default_rng(0).standard_cauchy((2, 3, 30)))
    found = choose(name).per_sample(r)
    np.testing.assert_allclose(found, -DENSITIES[name].logpdf(r), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_score_is_the_derivative(name):
    r = torch.linspace(-5, 5, 41, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(choose(name).per_sample(r).sum(), r)
    torch.testing.assert_close(choose(name).score(r).detach(), slope, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", NAMES)
def test_curvature_is_the_derivative_of_the_score(name):
    r = torch.linspace(-5, 5, 41, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(choose(name).score(r).sum(), r)
    torch.testing.assert_close(choose(name).curvature(r).detach(), slope, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1,), (7,), (3, 7), (2, 3, 7)])
def test_sum_and_score_are_both_in_one(name, shape):
    r = torch.as_tensor(np.random.default_rng(1).standard_cauchy(shape))
    before = r.clone()
    value, score = choose(name).sum_and_score(r)
    assert value.shape == shape[:-1]
    torch.testing.assert_close(value, choose(name).per_sample(r).sum(-1), rtol=1e-13, atol=0)
    torch.testing.assert_close(score, choose(name).score(r), rtol=1e-12, atol=0)
    assert torch.equal(r, before)


def expectation(name, function):
    """Mean of function(r), r drawn from the unit density."""

    def integrand(r):
        return float(function(torch.tensor(r, dtype=torch.float64))) * DENSITIES[name].pdf(r)

    return 2 * integrate.quad(integrand, 0, math.inf)[0]  # both functions below are even


@pytest.mark.parametrize("name", NAMES)
def test_information(name):
    law = choose(name)
    mean = expectation(name, lambda r: law.score(r) ** 2)
    # By log s: per_sample(r/s) + log s has the slope 1 - r score(r) at s = 1.
    scale = expectation(name, lambda r: (1 - r * law.score(r)) ** 2)
    assert law.mean_information == pytest.approx(mean, rel=1e-6)
    assert law.scale_information == pytest.approx(scale, rel=1e-6)


# Standard deviation of log(scale) times sqrt(n): of the rms of normal deviates, and of the median of |r| of
# Cauchy deviates, whose density there is 1/pi.
SCATTER = {"gaussian": math.sqrt(0.5), "cauchy": math.pi / 2}


@pytest.mark.parametrize("name", NAMES)
def test_scale_is_recovered(name):
    n, true = 400, 3.7
    rng = np.random.default_rng(11)

    def pulls(drawn_from):
        draws = DENSITIES[drawn_from].rvs(scale=true, size=(200, n), random_state=rng)
        found = [choose(name).estimate_scale(torch.as_tensor(d)) for d in draws]
        return np.log(np.array(found) / true) * math.sqrt(n) / SCATTER[name]

    def accepted(p):
        # The mean of 200 pulls and their spread, each to four standard deviations.
        return abs(p.mean()) < 4 / math.sqrt(200) and abs(p.std() - 1) < 4 / math.sqrt(400)

    assert accepted(pulls(name))
    # It can fail: deviates of the other law, and a scale that is 5 % wrong.
    (other,) = set(NAMES) - {name}
    assert not accepted(pulls(other))
    assert not accepted(pulls(name) + math.log(1.05) * math.sqrt(n) / SCATTER[name])


def test_refusal():
    with pytest.raises(InputError, match="'student'; known are cauchy, gaussian"):
        choose("student")
    for name in NAMES:
        assert choose(name).name == name
