"""Objective, information and covariance against independent routes."""

import math
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch

from ooftorch import reference
from ooftorch.fitting.likelihood import Cauchy, Gaussian
from ooftorch.fitting.noise_model import IndependentNoise
from ooftorch.fitting.posterior import Posterior
from ooftorch.fitting.samples import Samples
from ooftorch.optics import telescopes
from ooftorch.optics.instrument import MapGeometry
from ooftorch.optics.model import BeamModel
from ooftorch.optics.parameters import Parameter
from ooftorch.optim.bfgs import bfgs


def places(n):
    """Directions x, y of a regular map of n x n samples."""
    axis = np.linspace(-3, 3, n) * 1.1e-3 / 5.6
    return [a.ravel() for a in np.meshgrid(axis, axis)]


X, Y = places(7)


def problem(likelihood, noise_free=True, residual=0.0, seed=0, n=7, freed=("x0", "dx_1", "dy_1")):
    """A small posterior and its free coordinates, none at zero; data `residual` noises off the model.

    Of centre, pointing and focus only what is in `freed` is free.
    """
    rng = np.random.default_rng(seed)
    model = BeamModel(
        telescopes.load("paper"), 1.1e-3, [MapGeometry(d, *places(n)) for d in (-0.05, 0.05)], order=2, n=32
    )
    noise = Parameter("noise", "data", 0.02, 1.0, free=noise_free, log=True)
    held = ("x0", "y0", "dz_scale", *(f"d{axis}_{i}" for axis in "xy" for i in range(2)))
    layout = model.layout.with_added(noise).with_held(held).with_free(freed)
    model = model.with_layout(layout)
    u = torch.tensor(layout.coordinates())
    u[layout.free] += torch.tensor(rng.normal(size=len(layout.free)) * 0.1)
    u[layout.index("noise")] = np.log(0.02)
    with torch.no_grad():
        power = model(u)
    power = power + 0.02 * residual * torch.tensor(rng.normal(size=len(power)))
    valid = torch.ones(len(power), dtype=torch.bool)
    valid[5] = False
    posterior = make(model, layout, Samples(power, torch.ones_like(power), valid), likelihood, u)
    return posterior, u[posterior.free]


def covariance(posterior, x):
    return posterior.noise_covariance(posterior.linearise(x)).numpy()


def make(model, layout, samples, likelihood, anchor, **kwargs):
    return Posterior(model, layout, samples, likelihood, IndependentNoise(), anchor, **kwargs)


@pytest.mark.parametrize(
    ("likelihood", "nll"), [(Gaussian(), reference.gaussian_nll), (Cauchy(), reference.cauchy_nll)]
)
def test_value_is_likelihood_plus_priors(likelihood, nll):
    posterior, x = problem(likelihood, residual=1.0)
    u = posterior.complete(x)
    predicted, valid = posterior.model(u).detach(), posterior.samples.valid
    expected = nll(
        predicted[valid].numpy(), posterior.samples.power[valid].numpy(), np.full(valid.sum(), 0.02)
    )
    values = posterior.layout.values(u.numpy())
    for p in posterior.layout.parameters:
        if p.free and p.prior is not None:
            gap = np.log(values[p.name] / p.start) if p.log else values[p.name] - p.start
            expected += 0.5 * (gap / p.prior) ** 2
    quarter = 0.25 * 1.1e-3 / 5.6  # of a beam
    for kind, of, width in (("gain", np.log, 0.03), ("dx", np.asarray, quarter), ("dy", np.asarray, quarter)):
        tied = of([values[f"{kind}_{i}"] for i in range(2)])
        expected += 0.5 * np.sum((tied - tied.mean()) ** 2) / width**2
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
@pytest.mark.parametrize("likelihood", [Gaussian(), Cauchy()])
def test_information_is_the_mean_hessian(likelihood):
    """Over data drawn from the model, the Hessian averages to the information, that of the noise included."""
    posterior, x = problem(likelihood)
    exact = posterior.samples.power
    rng = np.random.default_rng(1)
    draw = rng.standard_cauchy if likelihood.robust else rng.normal
    hessians = []
    for _ in range(60):
        power = exact + 0.02 * torch.tensor(draw(size=len(exact)))
        drawn = replace(posterior, samples=posterior.samples._replace(power=power))
        hessians.append(torch.autograd.functional.hessian(drawn, x).numpy())
    information = posterior.information(x).numpy()
    gap = np.mean(hessians, axis=0) - information
    error = np.std(hessians, axis=0) / np.sqrt(len(hessians)) + 1e-9 * np.abs(information).max()
    assert np.abs(gap / error).max() < 5
    # ... and the scatter is small enough for that to say something.
    assert (np.diag(error) < 0.1 * np.diag(information)).all()


def test_covariance_inverts_the_information():
    posterior, x = problem(Gaussian(), residual=1.0)
    product = covariance(posterior, x) @ posterior.information(x).numpy()
    np.testing.assert_allclose(product, np.eye(len(x)), atol=1e-6)


@pytest.mark.parametrize("law", ["normal", "cauchy"])
def test_cauchy_covariance_is_the_scatter_of_fits(law):
    """Whatever law the noise follows; the inverse of the information holds for Cauchy noise alone."""
    b, noise = 300, 1e-3  # so little that the model is linear within the error bars
    posterior, x = problem(Cauchy(), n=17, freed=())
    names = [posterior.layout.names[i] for i in posterior.layout.free]
    x[names.index("noise")] = math.log(noise)
    rng = np.random.default_rng(2)
    draw = rng.normal if law == "normal" else rng.standard_cauchy
    exact, errors, valid, *_ = posterior.samples
    power = exact + noise * torch.tensor(draw(size=(b, len(exact))))
    samples = Samples(power, errors.expand(b, -1), valid.expand(b, -1))
    many = replace(posterior, samples=samples, anchor=posterior.anchor.expand(b, -1))
    start = x.expand(b, -1).clone()
    end = bfgs(many.value_and_gradient, start, many.metric(start))
    assert float(end.distance.max()) < 0.01
    scatter = end.x.std(0).numpy()
    surface = [names.index(f"z{k}") for k in range(1, 6)]
    robust, plain = [], []
    for i in range(40):
        one = replace(posterior, samples=Samples(power[i], errors, valid), anchor=posterior.anchor)
        robust.append(np.sqrt(np.diag(covariance(one, end.x[i]))))
        plain.append(np.sqrt(np.diag(np.linalg.inv(one.information(end.x[i]).numpy()))))
    ratio, naive = (np.median(sigma, axis=0)[surface] / scatter[surface] for sigma in (robust, plain))
    # The scatter of 300 is known to 4 %; errors from 577 samples are some per cent small.
    assert np.abs(ratio - 1).max() < 0.2
    assert abs(ratio.mean() - 1) < 0.15
    if law == "normal":
        assert abs(naive.mean() - 1) > 0.3  # it can fail


@pytest.mark.parametrize("likelihood", [Gaussian(), Cauchy()])
def test_a_missing_sample_is_as_if_it_had_never_been(likelihood):
    """Value, gradient, metric, information and covariance are those of maps without the sample."""
    lost = 5
    posterior, x = problem(likelihood, residual=1.0)
    power = posterior.samples.power.clone()
    power[lost] = 1e9
    spoilt = replace(posterior, samples=posterior.samples._replace(power=power))
    kept = torch.arange(len(power)) != lost
    first = np.arange(len(X)) != lost
    maps = [MapGeometry(-0.05, X[first], Y[first]), MapGeometry(0.05, X, Y)]
    layout = posterior.layout
    model = BeamModel(telescopes.load("paper"), 1.1e-3, maps, order=2, n=32, layout=layout)
    samples = Samples(power[kept], torch.ones_like(power)[kept], posterior.samples.valid[kept])
    without = make(model, layout, samples, likelihood, posterior.anchor)
    assert_same(spoilt.value_and_gradient(x), without.value_and_gradient(x))
    assert float(spoilt(x).detach()) == pytest.approx(float(without(x).detach()), rel=1e-12)
    for found, expected in (
        (spoilt.metric(x), without.metric(x)),
        (spoilt.information(x), without.information(x)),
        (torch.tensor(covariance(spoilt, x)), torch.tensor(covariance(without, x))),
    ):
        size = expected.diagonal().abs().sqrt()
        scaled = [m / size[:, None] / size for m in (found, expected)]
        torch.testing.assert_close(*scaled, rtol=0, atol=1e-8)
    assert spoilt.whitened_residuals(spoilt.complete(x))[lost] == 0
    # ... and it would have mattered.
    assert not torch.allclose(
        replace(posterior, samples=posterior.samples._replace(valid=kept | ~kept)).information(x),
        posterior.information(x),
        rtol=1e-4,
    )


def test_a_posterior_cannot_be_changed():
    posterior, x = problem(Gaussian(), residual=1.0)
    with pytest.raises(FrozenInstanceError):
        posterior.samples = posterior.samples._replace(power=posterior.samples.power + 1)
    # Another with other samples agrees with itself.
    other = replace(posterior, samples=posterior.samples._replace(power=posterior.samples.power + 1))
    assert_same(other.value_and_gradient(x), by_autograd(other, x))
    assert float(other(x).detach()) > float(posterior(x).detach()) + 100


# ------------------------------------------------------------------------------ one pass, and batches


def noisy(likelihood, members=None, seed=3, **kwargs):
    """A posterior with all there is: two groups of samples, holes with nonsense, errors of their own.

    With `members`, each has its own data, errors, holes and anchor. Also points, (members, n_free).
    """
    rng = np.random.default_rng(seed)
    maps = [MapGeometry(-0.05, X, Y), MapGeometry(0.0, X[:20], Y[:20] + 1e-5), MapGeometry(0.05, X, Y)]
    model = BeamModel(telescopes.load("paper"), 1.1e-3, maps, order=2, n=32)
    layout = model.layout.with_added(Parameter("noise", "errors", 1.0, free=True, log=True))
    layout = layout.with_free(["x0", "dx", "dz"]).with_held(["gain_1"])
    model = model.with_layout(layout)
    batch = () if members is None else (members,)
    u = torch.tensor(layout.coordinates() + 0.1 * rng.normal(size=(*batch, len(layout.names))))
    with torch.no_grad():
        power = model(u)
    errors = 0.02 * torch.tensor(rng.uniform(0.5, 2, power.shape))
    power = power + errors * torch.tensor(rng.standard_cauchy(power.shape))
    valid = torch.tensor(rng.random(power.shape) < 0.8)
    power, errors = (torch.where(valid, t, nothing) for t, nothing in ((power, math.nan), (errors, 1.0)))
    posterior = make(model, layout, Samples(power, errors, valid), likelihood, u, **kwargs)
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


LIKELIHOODS = pytest.mark.parametrize("likelihood", [Gaussian(), Cauchy()], ids=["gaussian", "cauchy"])


@LIKELIHOODS
@pytest.mark.parametrize("multiplicity", [1.0, 3.7])
def test_value_and_gradient_against_autograd(likelihood, multiplicity):
    posterior, x = noisy(likelihood, multiplicity=multiplicity)
    assert posterior.samples.power.isnan().sum() > 10
    found = posterior.value_and_gradient(x)
    assert_same(found, by_autograd(posterior, x))
    assert (found[1].abs() > 1e-6).all()
    # A stack of points at the same data, as many dimensions as there are.
    stack = x + 0.1 * torch.tensor(np.random.default_rng(0).normal(size=(2, 3, len(x))))
    assert_same(posterior.value_and_gradient(stack), by_autograd(posterior, stack))
    # The same errors at every sample take a way of their own.
    samples = posterior.samples._replace(errors=torch.full_like(posterior.samples.errors, 0.03))
    for valid in (samples.valid, torch.ones_like(samples.valid)):
        even = samples._replace(
            power=torch.where(valid, samples.power.nan_to_num(0.1), math.nan), valid=valid
        )
        even = replace(posterior, samples=even)
        assert_same(even.value_and_gradient(x), by_autograd(even, x))


@LIKELIHOODS
def test_gradient_against_differences(likelihood):
    posterior, x = noisy(likelihood)
    _, gradient = posterior.value_and_gradient(x)
    step = 1e-6 * torch.eye(len(x), dtype=x.dtype)
    up, down = (posterior.value_and_gradient(x + s * step)[0] for s in (1, -1))
    size = float(gradient.abs().max())
    torch.testing.assert_close((up - down) / 2e-6, gradient, rtol=1e-6, atol=1e-7 * size)


@LIKELIHOODS
def test_each_member_has_its_own_data(likelihood):
    b = 4
    posterior, x = noisy(likelihood, members=b)
    assert len(set(posterior.samples.valid.sum(-1).tolist())) > 1
    value, gradient = posterior.value_and_gradient(x)
    assert_same((value, gradient), by_autograd(posterior, x))
    for i in range(b):
        alone = replace(
            posterior, samples=posterior.samples.select_observations(i), anchor=posterior.anchor[i]
        )
        assert_same((value[i], gradient[i]), alone.value_and_gradient(x[i]))
        torch.testing.assert_close(posterior.metric(x)[i], alone.metric(x[i]), rtol=1e-9, atol=1e-6)
        torch.testing.assert_close(posterior.information(x)[i], alone.information(x[i]), rtol=1e-9, atol=1e-6)
    # Some of them, by their numbers, in any order and number.
    for members in ([2], [3, 0], [1, 2, 3], [3, 2, 1, 0][:3], list(range(b))):
        found = posterior.value_and_gradient(x[members], torch.tensor(members))
        assert_same(found, (value[members], gradient[members]))


@LIKELIHOODS
def test_multiplicity_is_the_data_repeated(likelihood):
    """Each map taken three times; the priors count once."""
    posterior, x = problem(likelihood, residual=2.0)
    power, _, valid, *_ = posterior.samples
    anchor, layout = posterior.anchor, posterior.layout
    # The same directions again and again within each map.
    repeated = [MapGeometry(d, np.tile(X, 3), np.tile(Y, 3)) for d in (-0.05, 0.05)]
    model = BeamModel(telescopes.load("paper"), 1.1e-3, repeated, order=2, n=32, layout=layout)
    samples = Samples(
        *(t.unflatten(0, (2, -1)).repeat(1, 3).flatten() for t in (power, torch.ones_like(power), valid))
    )
    longer = make(model, layout, samples, likelihood, anchor)
    heavier = replace(posterior, multiplicity=3.0)
    assert_same(heavier.value_and_gradient(x), longer.value_and_gradient(x))
    torch.testing.assert_close(heavier(x), longer(x), rtol=1e-12, atol=0)
    for of in ("information", "metric"):
        found, expected = (getattr(p, of)(x) for p in (heavier, longer))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))
        assert not torch.allclose(found, 3 * getattr(posterior, of)(x), rtol=1e-6)  # with the priors thrice


def hessian(posterior, x):
    return torch.autograd.functional.hessian(posterior, x)


@LIKELIHOODS
def test_metric_is_the_hessian_where_the_model_is_exact(likelihood):
    """Without residuals there is nothing to approximate, and for normal errors it is the information."""
    posterior, x = problem(likelihood, noise_free=False)
    expected = hessian(posterior, x)
    size = float(expected.abs().max())
    torch.testing.assert_close(posterior.metric(x), expected, rtol=1e-8, atol=1e-9 * size)
    if not likelihood.robust:
        torch.testing.assert_close(
            posterior.metric(x), posterior.information(x), rtol=1e-12, atol=1e-12 * size
        )


@LIKELIHOODS
def test_metric_is_the_hessian_of_offsets_and_noise(likelihood):
    """The samples are linear in the offsets, and the curvature of the noise is exact, residuals or not."""
    posterior, x = problem(
        likelihood, residual=0.6
    )  # small enough for the Cauchy density to curve the right way
    within = posterior.whitened_residuals(posterior.complete(x)).abs() < 0.9
    samples = posterior.samples._replace(valid=posterior.samples.valid & within)
    posterior = replace(posterior, samples=samples)
    names = [posterior.layout.names[i] for i in posterior.layout.free]
    exact, metric = hessian(posterior, x).diagonal(), posterior.metric(x).diagonal()
    for name in ("offset_0", "offset_1", "noise"):
        i = names.index(name)
        assert float(metric[i]) == pytest.approx(float(exact[i]), rel=1e-9)


@LIKELIHOODS
@pytest.mark.parametrize("residual", [0.1, 1.0, 30.0, 1e3])
def test_metric_is_positive_whatever_the_residuals(likelihood, residual):
    posterior, x = problem(likelihood, residual=residual)
    metric = posterior.metric(x)
    torch.testing.assert_close(metric, metric.mT)
    size = metric.diagonal().sqrt()
    assert size.isfinite().all()
    assert float(torch.linalg.eigvalsh(metric / size[:, None] / size).min()) > 1e-6
    if likelihood.robust and residual > 10:
        # It can fail: the Hessian itself is not.
        assert float(torch.linalg.eigvalsh(hessian(posterior, x)).min()) < 0
