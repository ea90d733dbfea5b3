"""Objective, information and covariance against independent routes."""

import numpy as np
import pytest
import torch

from ooftorch import telescope
from ooftorch.likelihood import Cauchy, Gaussian
from ooftorch.model import BeamModel, MapGeometry, Parameter
from ooftorch.posterior import Data, Posterior

AXIS = np.linspace(-3, 3, 7) * 1.1e-3 / 5.6
X, Y = (a.ravel() for a in np.meshgrid(AXIS, AXIS))


def problem(judge, noise_free=True, residual=0.0, seed=0):
    """A small posterior and its free coordinates, none at zero; data `residual` noises off the model."""
    rng = np.random.default_rng(seed)
    model = BeamModel(
        telescope.load("paper"), 1.1e-3, [MapGeometry(d, X, Y) for d in (-0.05, 0.05)], order=2, n=32
    )
    noise = Parameter("noise", "data", 0.02, 1.0, free=noise_free, log=True)
    layout = model.layout.added(noise).freed(["x0", "dx"])
    u = torch.tensor(layout.coordinates())
    u[layout.free] += torch.tensor(rng.normal(size=len(layout.free)) * 0.1)
    u[layout.index("noise")] = np.log(0.02)
    with torch.no_grad():
        power = model(u)
    power = power + 0.02 * residual * torch.tensor(rng.normal(size=len(power)))
    valid = torch.ones(len(power), dtype=torch.bool)
    valid[5] = False
    posterior = Posterior(model, layout, Data(power, torch.ones_like(power), valid), judge, u)
    return posterior, u[posterior.free]


def test_value_is_likelihood_plus_priors():
    posterior, x = problem(Gaussian(), residual=1.0)
    u = posterior.complete(x)
    r = (posterior.data.power - posterior.model(u))[posterior.data.valid].detach().numpy()
    expected = np.sum(0.5 * (r / 0.02) ** 2 + np.log(0.02 * np.sqrt(2 * np.pi)))
    values = posterior.layout.values(u.numpy())
    for p in posterior.layout.parameters:
        if p.free and p.prior is not None:
            gap = np.log(values[p.name] / p.start) if p.log else values[p.name] - p.start
            expected += 0.5 * (gap / p.prior) ** 2
    gains = np.log([values["gain_0"], values["gain_1"]])
    expected += 0.5 * np.sum((gains - gains.mean()) ** 2) / 0.03**2
    assert posterior(x).item() == pytest.approx(expected, rel=1e-12)


def test_jacobian_against_differences():
    posterior, x = problem(Gaussian())
    step = 1e-6
    with torch.no_grad():
        differences = [
            (posterior.model(posterior.complete(x + e)) - posterior.model(posterior.complete(x - e)))
            / (2 * step)
            for e in step * torch.eye(len(x), dtype=x.dtype)
        ]
    torch.testing.assert_close(posterior.jacobian(x), torch.stack(differences, 1), rtol=1e-6, atol=1e-8)


def test_information_is_the_hessian_where_the_model_is_exact():
    """Without residuals the Gauss-Newton form is the whole Hessian, priors, ties and mask included."""
    posterior, x = problem(Gaussian(), noise_free=False)
    hessian = torch.autograd.functional.hessian(posterior, x).numpy()
    np.testing.assert_allclose(posterior.information(x), hessian, rtol=1e-8, atol=1e-6 * hessian.max())


@pytest.mark.parametrize("judge", [Gaussian(), Cauchy()])
def test_information_is_the_mean_hessian(judge):
    """Over data drawn from the model, the Hessian averages to the information, that of the noise included."""
    posterior, x = problem(judge)
    exact = posterior.data.power
    rng = np.random.default_rng(1)
    draw = rng.normal if judge.name == "gaussian" else rng.standard_cauchy
    hessians = []
    for _ in range(60):
        posterior.data = posterior.data._replace(power=exact + 0.02 * torch.tensor(draw(size=len(exact))))
        hessians.append(torch.autograd.functional.hessian(posterior, x).numpy())
    information = posterior.information(x)
    gap = np.mean(hessians, axis=0) - information
    error = np.std(hessians, axis=0) / np.sqrt(len(hessians)) + 1e-9 * np.abs(information).max()
    assert np.abs(gap / error).max() < 5
    # ... and the scatter is small enough for that to say something.
    assert (np.diag(error) < 0.1 * np.diag(information)).all()


def test_covariance_inverts_the_information():
    posterior, x = problem(Gaussian(), residual=1.0)
    product = posterior.covariance(x) @ posterior.information(x)
    np.testing.assert_allclose(product, np.eye(len(x)), atol=1e-6)


def test_cauchy_covariance_knows_the_residuals():
    """Normal residuals under a Cauchy likelihood: its error bars are those of an M-estimator."""
    posterior, x = problem(Cauchy(), residual=1.0)
    r = (posterior.residuals(posterior.complete(x)) / 0.02)[posterior.data.valid].numpy()
    slope = np.mean(2 * (1 - r**2) / (1 + r**2) ** 2)
    spread = np.mean((2 * r / (1 + r**2)) ** 2)
    i = posterior.layout.free.index(posterior.layout.index("z3"))
    fisher = 1 / np.sqrt(np.linalg.inv(posterior.information(x))[i, i])
    expected = np.sqrt(spread * 0.5) / slope / fisher  # no prior acts on z3, and the others hardly
    assert np.sqrt(posterior.covariance(x)[i, i]) == pytest.approx(expected, rel=0.05)


def test_missing_samples_carry_no_information():
    posterior, x = problem(Gaussian())
    before = posterior.information(x)
    power = posterior.data.power.clone()
    power[5] = 1e9
    posterior.data = posterior.data._replace(power=power)
    np.testing.assert_array_equal(posterior.information(x), before)
    assert posterior.residuals(posterior.complete(x))[5] == 0
