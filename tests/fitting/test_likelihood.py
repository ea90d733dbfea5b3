"""Likelihoods: against SciPy's densities, with missing samples, and their information by quadrature."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from ooftorch.errors import InputError
from ooftorch.fitting.likelihood import LIKELIHOODS, Cauchy, Gaussian, Student, choose

DENSITIES = {"gaussian": stats.norm, "cauchy": stats.cauchy, "student": stats.t(3)}
LAWS = {"gaussian": Gaussian(), "cauchy": Cauchy(), "student": Student(torch.tensor([2.0]).double())}
NAMES = sorted(LIKELIHOODS)


def test_every_likelihood_has_its_density_here():
    assert DENSITIES.keys() == LIKELIHOODS.keys()


@pytest.mark.parametrize("name", NAMES)
def test_value_is_minus_the_log_density(name):
    r = torch.as_tensor(np.random.default_rng(0).standard_cauchy((2, 3, 30)))
    found = LAWS[name].per_sample(r)
    np.testing.assert_allclose(found, -DENSITIES[name].logpdf(r), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_score_is_the_derivative(name):
    r = torch.linspace(-5, 5, 41, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(LAWS[name].per_sample(r).sum(), r)
    torch.testing.assert_close(LAWS[name].score(r).detach(), slope, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", NAMES)
def test_curvature_is_the_derivative_of_the_score(name):
    r = torch.linspace(-5, 5, 41, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(LAWS[name].score(r).sum(), r)
    torch.testing.assert_close(LAWS[name].curvature(r).detach(), slope, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1,), (7,), (3, 7), (2, 3, 7)])
def test_sum_and_score_are_both_in_one(name, shape):
    r = torch.as_tensor(np.random.default_rng(1).standard_cauchy(shape))
    before = r.clone()
    value, score = LAWS[name].sum_and_score(r)
    assert value.shape == shape[:-1]
    torch.testing.assert_close(value, LAWS[name].per_sample(r).sum(-1), rtol=1e-13, atol=0)
    torch.testing.assert_close(score, LAWS[name].score(r), rtol=1e-12, atol=0)
    assert torch.equal(r, before)


def expectation(name, function):
    """Mean of function(r), r drawn from the unit density."""

    def integrand(r):
        return float(function(torch.tensor(r, dtype=torch.float64))) * DENSITIES[name].pdf(r)

    return 2 * integrate.quad(integrand, 0, math.inf)[0]  # both functions below are even


@pytest.mark.parametrize("name", NAMES)
def test_information(name):
    law = LAWS[name]
    mean = expectation(name, lambda r: law.score(r) ** 2)
    # By log s: per_sample(r/s) + log s has the slope 1 - r score(r) at s = 1.
    scale = expectation(name, lambda r: (1 - r * law.score(r)) ** 2)
    assert law.mean_information == pytest.approx(mean, rel=1e-6)
    assert law.scale_information == pytest.approx(scale, rel=1e-6)


# Standard deviation of log(scale) times sqrt(n): of the rms of normal deviates, and of the median of |r| of
# Cauchy deviates, whose density there is 1/pi.
SCATTER = {"gaussian": math.sqrt(0.5), "cauchy": math.pi / 2}


@pytest.mark.parametrize("name", sorted(SCATTER))
def test_scale_is_recovered(name):
    n, true = 400, 3.7
    rng = np.random.default_rng(11)

    def pulls(drawn_from):
        draws = DENSITIES[drawn_from].rvs(scale=true, size=(200, n), random_state=rng)
        found = [LAWS[name].estimate_scale(torch.as_tensor(d)) for d in draws]
        return np.log(np.array(found) / true) * math.sqrt(n) / SCATTER[name]

    def accepted(p):
        # The mean of 200 pulls and their spread, each to four standard deviations.
        return abs(p.mean()) < 4 / math.sqrt(200) and abs(p.std() - 1) < 4 / math.sqrt(400)

    assert accepted(pulls(name))
    # It can fail: deviates of the other law, and a scale that is 5 % wrong.
    (other,) = set(SCATTER) - {name}
    assert not accepted(pulls(other))
    assert not accepted(pulls(name) + math.log(1.05) * math.sqrt(n) / SCATTER[name])


def test_refusal():
    with pytest.raises(InputError, match="'normal'; known are auto, cauchy, gaussian, student"):
        choose("normal")
    for name in NAMES:
        assert choose(name).name == name
    assert choose("auto").name == "student"


@pytest.mark.parametrize("degrees", [1.02, 1.5, 4.0, 60.0])
def test_the_ends_of_student_and_its_parameter(degrees):
    """The density, the derivative by its parameter, and the information on that and on the scale."""
    law = Student(torch.tensor([degrees - 1], dtype=torch.float64))
    r = torch.linspace(-6, 6, 25, dtype=torch.float64)
    np.testing.assert_allclose(law.per_sample(r), -stats.t(degrees).logpdf(r), rtol=1e-12)
    log_excess = torch.tensor([math.log(degrees - 1)], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(Student(log_excess.exp()).per_sample(r).sum(), log_excess)
    torch.testing.assert_close(law.log_parameter_score(r).sum(), slope[0], rtol=1e-9, atol=1e-12)

    def mean(function):
        def integrand(x):
            at = torch.tensor([x], dtype=torch.float64)
            return float(function(at)) * stats.t(degrees).pdf(x)

        return 2 * integrate.quad(integrand, 0, math.inf)[0]

    own, cross = (float(t) for t in law.log_parameter_information())
    assert own == pytest.approx(mean(lambda x: law.log_parameter_score(x) ** 2), rel=1e-4)
    assert cross == pytest.approx(
        mean(lambda x: law.log_parameter_score(x) * (1 - x * law.score(x))), rel=1e-4
    )


def test_student_is_cauchy_and_gaussian_at_its_ends():
    r = torch.linspace(-6, 6, 25, dtype=torch.float64)
    torch.testing.assert_close(Student(torch.zeros(1).double()).per_sample(r), Cauchy().per_sample(r))
    torch.testing.assert_close(
        Student(torch.tensor([1e7]).double()).per_sample(r), Gaussian().per_sample(r), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("degrees", [1.5, 3.0, 10.0])
def test_scale_and_degrees_are_estimated_together(degrees):
    """To their standard errors, which follow from the information; and not those of other residuals."""
    n, rng = 4000, np.random.default_rng(3)
    law = Student(torch.tensor([degrees - 1], dtype=torch.float64))
    own, cross = (float(t) for t in law.log_parameter_information())
    information = n * np.array([[float(law.scale_information), cross], [cross, own]])
    pulls = []
    for _ in range(40):
        draws = torch.as_tensor(stats.t(degrees).rvs(n, random_state=rng) * 2.5)
        scale, (excess,) = law.estimate(draws)
        off = np.array([math.log(scale / 2.5), math.log(excess / (degrees - 1))])
        pulls.append(off @ information @ off)
    # Chi-squared with two degrees of freedom: the mean of 40 is 2 +- 0.32; the prior draws it in a little.
    assert 1.0 < np.mean(pulls) < 3.3
    scale, (excess,) = law.estimate(torch.as_tensor(rng.normal(size=n)))
    assert excess > 15
