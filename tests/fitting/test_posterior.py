"""Objective, information and covariance against independent routes."""

import math

import numpy as np
import pytest
import torch

from ooftorch.fitting.likelihood import Cauchy, Gaussian
from ooftorch.fitting.posterior import Data, Posterior
from ooftorch.optics import telescope
from ooftorch.optics.model import BeamModel, MapGeometry
from ooftorch.optics.parameters import Parameter

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
    model.adopt(layout)
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
    torch.testing.assert_close(posterior.jacobian(x), torch.stack(differences), rtol=1e-6, atol=1e-8)


def test_information_is_the_hessian_where_the_model_is_exact():
    """Without residuals the Gauss-Newton form is the whole Hessian, priors, ties and mask included."""
    posterior, x = problem(Gaussian(), noise_free=False)
    hessian = torch.autograd.functional.hessian(posterior, x).numpy()
    np.testing.assert_allclose(
        posterior.information(x).numpy(), hessian, rtol=1e-8, atol=1e-6 * hessian.max()
    )


@pytest.mark.slow
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
    information = posterior.information(x).numpy()
    gap = np.mean(hessians, axis=0) - information
    error = np.std(hessians, axis=0) / np.sqrt(len(hessians)) + 1e-9 * np.abs(information).max()
    assert np.abs(gap / error).max() < 5
    # ... and the scatter is small enough for that to say something.
    assert (np.diag(error) < 0.1 * np.diag(information)).all()


def test_covariance_inverts_the_information():
    posterior, x = problem(Gaussian(), residual=1.0)
    product = posterior.covariance(x) @ posterior.information(x).numpy()
    np.testing.assert_allclose(product, np.eye(len(x)), atol=1e-6)


def test_cauchy_covariance_knows_the_residuals():
    """Normal residuals under a Cauchy likelihood: its error bars are those of an M-estimator."""
    posterior, x = problem(Cauchy(), residual=1.0)
    r = (posterior.residuals(posterior.complete(x)) / 0.02)[posterior.data.valid].numpy()
    slope = np.mean(2 * (1 - r**2) / (1 + r**2) ** 2)
    spread = np.mean((2 * r / (1 + r**2)) ** 2)
    i = posterior.layout.free.index(posterior.layout.index("z3"))
    fisher = 1 / np.sqrt(np.linalg.inv(posterior.information(x).numpy())[i, i])
    expected = np.sqrt(spread * 0.5) / slope / fisher  # no prior acts on z3, and the others hardly
    assert np.sqrt(posterior.covariance(x)[i, i]) == pytest.approx(expected, rel=0.05)


def test_missing_samples_carry_no_information():
    posterior, x = problem(Gaussian())
    before = posterior.information(x).numpy()
    power = posterior.data.power.clone()
    power[5] = 1e9
    posterior.data = posterior.data._replace(power=power)
    np.testing.assert_array_equal(posterior.information(x).numpy(), before)
    assert posterior.residuals(posterior.complete(x))[5] == 0


# ------------------------------------------------------------------------------ one pass, and batches


def noisy(judge, members=None, seed=3, **kwargs):
    """A posterior with all there is: two groups of samples, holes with nonsense, errors of their own.

    With `members`, each has its own data, errors, holes and anchor. Also points, (members, n_free).
    """
    rng = np.random.default_rng(seed)
    maps = [MapGeometry(-0.05, X, Y), MapGeometry(0.0, X[:20], Y[:20] + 1e-5), MapGeometry(0.05, X, Y)]
    model = BeamModel(telescope.load("paper"), 1.1e-3, maps, order=2, n=32)
    layout = model.layout.added(Parameter("noise", "errors", 1.0, free=True, log=True))
    layout = layout.freed(["x0", "dx", "dz"]).held("gain_1")
    model.adopt(layout)
    batch = () if members is None else (members,)
    u = torch.tensor(layout.coordinates() + 0.1 * rng.normal(size=(*batch, len(layout.names))))
    with torch.no_grad():
        power = model(u)
    errors = 0.02 * torch.tensor(rng.uniform(0.5, 2, power.shape))
    power = power + errors * torch.tensor(rng.standard_cauchy(power.shape))
    valid = torch.tensor(rng.random(power.shape) < 0.8)
    power, errors = (torch.where(valid, t, nothing) for t, nothing in ((power, math.nan), (errors, 1.0)))
    posterior = Posterior(model, layout, Data(power, errors, valid), judge, u, **kwargs)
    return posterior, u[..., posterior.free] + 0.05 * torch.tensor(rng.normal(size=len(layout.free)))


def by_autograd(posterior, x):
    x = x.detach().clone().requires_grad_()
    value = posterior(x)
    return value.detach(), torch.autograd.grad(value.sum(), x)[0]


def assert_same(found, expected):
    (value, gradient), (expected_value, expected_gradient) = found, expected
    assert value.shape == expected_value.shape
    assert gradient.shape == expected_gradient.shape
    torch.testing.assert_close(value, expected_value, rtol=1e-12, atol=0)
    size = expected_gradient.abs().amax(-1, keepdim=True)
    torch.testing.assert_close(gradient / size, expected_gradient / size, rtol=0, atol=1e-12)


JUDGES = pytest.mark.parametrize("judge", [Gaussian(), Cauchy()], ids=["gaussian", "cauchy"])


@JUDGES
@pytest.mark.parametrize("multiplicity", [1.0, 3.7])
def test_value_and_gradient_against_autograd(judge, multiplicity):
    posterior, x = noisy(judge, multiplicity=multiplicity)
    assert posterior.data.power.isnan().sum() > 10
    found = posterior.value_and_gradient(x)
    assert_same(found, by_autograd(posterior, x))
    assert (found[1].abs() > 1e-6).all()
    # A stack of points at the same data, as many dimensions as there are.
    stack = x + 0.1 * torch.tensor(np.random.default_rng(0).normal(size=(2, 3, len(x))))
    assert_same(posterior.value_and_gradient(stack), by_autograd(posterior, stack))
    # The same errors at every sample take a way of their own.
    data = posterior.data._replace(errors=torch.full_like(posterior.data.errors, 0.03))
    for valid in (data.valid, torch.ones_like(data.valid)):
        even = data._replace(power=torch.where(valid, data.power.nan_to_num(0.1), math.nan), valid=valid)
        even = Posterior(
            posterior.model, posterior.layout, even, judge, posterior.anchor, multiplicity=multiplicity
        )
        assert_same(even.value_and_gradient(x), by_autograd(even, x))


@JUDGES
def test_gradient_against_differences(judge):
    posterior, x = noisy(judge)
    _, gradient = posterior.value_and_gradient(x)
    step = 1e-6 * torch.eye(len(x), dtype=x.dtype)
    up, down = (posterior.value_and_gradient(x + s * step)[0] for s in (1, -1))
    size = float(gradient.abs().max())
    torch.testing.assert_close((up - down) / 2e-6, gradient, rtol=1e-6, atol=1e-7 * size)


@JUDGES
def test_each_member_has_its_own_data(judge):
    b = 4
    posterior, x = noisy(judge, members=b)
    assert len(set(posterior.data.valid.sum(-1).tolist())) > 1
    value, gradient = posterior.value_and_gradient(x)
    assert_same((value, gradient), by_autograd(posterior, x))
    for i in range(b):
        data = Data(*(t[i] for t in posterior.data))
        alone = Posterior(posterior.model, posterior.layout, data, judge, posterior.anchor[i])
        assert_same((value[i], gradient[i]), alone.value_and_gradient(x[i]))
        torch.testing.assert_close(posterior.metric(x)[i], alone.metric(x[i]), rtol=1e-9, atol=1e-6)
        torch.testing.assert_close(posterior.information(x)[i], alone.information(x[i]), rtol=1e-9, atol=1e-6)
    # Some of them, by their numbers, in any order and number.
    for members in ([2], [3, 0], [1, 2, 3], [3, 2, 1, 0][:3], list(range(b))):
        found = posterior.value_and_gradient(x[members], torch.tensor(members))
        assert_same(found, (value[members], gradient[members]))


@JUDGES
def test_multiplicity_is_the_data_repeated(judge):
    """Each map taken three times; the priors count once."""
    posterior, x = problem(judge, residual=2.0)
    power, _, valid = posterior.data
    anchor, layout = posterior.anchor, posterior.layout
    # The same directions again and again within each map.
    repeated = [MapGeometry(d, np.tile(X, 3), np.tile(Y, 3)) for d in (-0.05, 0.05)]
    model = BeamModel(telescope.load("paper"), 1.1e-3, repeated, order=2, n=32)
    model.adopt(layout)
    data = Data(
        *(t.unflatten(0, (2, -1)).repeat(1, 3).flatten() for t in (power, torch.ones_like(power), valid))
    )
    longer = Posterior(model, layout, data, judge, anchor)
    heavier = Posterior(posterior.model, layout, posterior.data, judge, anchor, multiplicity=3.0)
    assert_same(heavier.value_and_gradient(x), longer.value_and_gradient(x))
    assert_same((heavier(x), x), (longer(x), x))
    for of in ("information", "metric"):
        found, expected = (getattr(p, of)(x) for p in (heavier, longer))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))
        assert not torch.allclose(found, 3 * getattr(posterior, of)(x), rtol=1e-6)  # with the priors thrice


def hessian(posterior, x):
    return torch.autograd.functional.hessian(posterior, x)


@JUDGES
def test_metric_is_the_hessian_where_the_model_is_exact(judge):
    """Without residuals there is nothing to approximate, and for normal errors it is the information."""
    posterior, x = problem(judge, noise_free=False)
    expected = hessian(posterior, x)
    size = float(expected.abs().max())
    torch.testing.assert_close(posterior.metric(x), expected, rtol=1e-8, atol=1e-9 * size)
    if judge.name == "gaussian":
        torch.testing.assert_close(posterior.metric(x), posterior.information(x), rtol=1e-12, atol=0)


@JUDGES
def test_metric_is_the_hessian_of_offsets_and_noise(judge):
    """The samples are linear in the offsets, and the curvature of the noise is exact, residuals or not."""
    posterior, x = problem(judge, residual=0.6)  # small enough for the Cauchy density to curve the right way
    r = posterior.residuals(posterior.complete(x)) / 0.02
    within = r.abs() < 0.9
    data = posterior.data._replace(valid=posterior.data.valid & within)
    posterior = Posterior(posterior.model, posterior.layout, data, judge, posterior.anchor)
    names = [posterior.layout.names[i] for i in posterior.layout.free]
    exact, metric = hessian(posterior, x).diagonal(), posterior.metric(x).diagonal()
    for name in ("offset_0", "offset_1", "noise"):
        i = names.index(name)
        assert float(metric[i]) == pytest.approx(float(exact[i]), rel=1e-9)


@JUDGES
@pytest.mark.parametrize("residual", [0.1, 1.0, 30.0, 1e3])
def test_metric_is_positive_whatever_the_residuals(judge, residual):
    posterior, x = problem(judge, residual=residual)
    metric = posterior.metric(x)
    torch.testing.assert_close(metric, metric.mT)
    size = metric.diagonal().sqrt()
    assert size.isfinite().all()
    assert float(torch.linalg.eigvalsh(metric / size[:, None] / size).min()) > 1e-6
    if judge.name == "cauchy" and residual > 10:
        # It can fail: the Hessian itself is not.
        assert float(torch.linalg.eigvalsh(hessian(posterior, x)).min()) < 0
