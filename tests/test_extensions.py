"""A basis, a noise model and an illumination of one's own, through the public objects alone."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import ooftorch
from ooftorch.fitting.noise_model import NoiseModel, Whitening
from ooftorch.observation import BeamMap, Observation
from ooftorch.optics.basis import SurfaceBasis
from ooftorch.optics.illumination.base import Illumination, declare_amplitude
from ooftorch.optics.parameters import Parameter

SMALL = {"reach": 5.0, "step": 0.5, "n": 256, "wavelength": 3e-3}

# ------------------------------------------------------------------------------- a ring of twelve panels


class Petals(SurfaceBasis):
    """Twelve sectors of the dish, each with a piston of its own."""

    name = "petals"
    names = tuple(f"petal{i}" for i in range(12))
    orders = (1,) * 12
    prior = 1.0  # a piston common to all of them shows in no beam

    def label(self, name):
        return f"from {30 * self.names.index(name)} deg"

    def evaluate(self, x, y):
        sector = np.floor(np.arctan2(y, x) % (2 * np.pi) / (np.pi / 6))
        return (sector == np.arange(12).reshape(12, *[1] * np.ndim(x))).astype(float)


@pytest.fixture(scope="module")
def panels():
    """Misaligned petals, and the fit of their maps."""
    pistons = np.random.default_rng(3).normal(scale=0.5, size=12)
    pistons -= pistons.mean()

    def shape(x, y):
        return pistons @ Petals().evaluate(x, y)

    simulator = ooftorch.Simulator("alma", shapes=[shape], noise=ooftorch.Noise(snr=300), **SMALL)
    observation = simulator.observe(seed=1)
    return pistons, observation, ooftorch.fit(observation, basis=Petals())


def test_petals_are_found(panels):
    pistons, observation, result = panels
    assert result.converged
    found = np.array([result.parameters[name].value for name in Petals.names])
    sigma = np.array([result.parameters[name].sigma for name in Petals.names])
    error = found - found.mean() - pistons
    assert np.abs(error).max() < 0.05
    # Pixels are cut differently at the petals' edges, which costs about as much as the noise.
    assert np.sqrt(np.mean((error / sigma) ** 2)) < 3
    assert observation.truth.rms_error(result.coefficients, basis=Petals()) < 0.05
    # Zernikes of as many terms have nothing like it.
    zernikes = ooftorch.fit(observation, order=4)
    assert observation.truth.rms_error(zernikes.coefficients) > 4 * observation.truth.rms_error(
        result.coefficients, basis=Petals()
    )


def test_a_result_in_petals_is_reported_written_read_and_drawn(panels, tmp_path):
    _, _, result = panels
    text = ooftorch.report(result)
    assert "petal11  from 330 deg" in text
    assert "pointing offset" not in text  # the basis has no tilts
    numbers = ooftorch.summary(result)
    assert numbers["basis"] == "petals"
    assert numbers["pointing_arcsec"] == {"dx": None, "dy": None}
    # The rms of the report is that of the picture.
    phase, shown = result.aperture.phase, result.aperture.open > 0.99
    assert result.phase_rms == pytest.approx(np.sqrt(np.nanmean(phase[shown] ** 2)), rel=0.03)
    ooftorch.write_fit(result, tmp_path / "fit.fits")
    again = ooftorch.read_fit(tmp_path / "fit.fits")
    assert again.phase_rms == result.phase_rms
    assert again.phase_error == result.phase_error
    assert [line for line in ooftorch.report(again).splitlines() if "deg " in line] == [
        line for line in text.splitlines() if "deg " in line
    ]
    ooftorch.plot_aperture(again)


# ------------------------------------------------------------------------------- a drift of all samples


class LinearDrift(NoiseModel):
    """Independent errors, and one line in the order of the samples, of unknown height, under all maps.

    Its covariance is scale**2 (errors**2 + width**2 t t^T): the height is integrated out.
    """

    name = "drift"

    def __init__(self, width):
        self.width = width

    def whitening(self, samples):
        return DriftWhitening(samples.errors, samples.valid, samples.time, self.width)


class DriftWhitening(Whitening):
    """Division by the errors, then the line u is shrunk: (1 - b u u^T) with |u| = 1."""

    def __init__(self, errors, valid, time, width):
        self._parts = errors, valid, time, width
        self._inverse_errors = torch.where(valid, 1 / errors, 0.0)
        line = width * (2 * (time - time.min()) / (time.max() - time.min()) - 1) * self._inverse_errors
        norm = torch.linalg.vector_norm(line, dim=-1, keepdim=True)
        self._line, self._shrink = line / norm, 1 - 1 / torch.sqrt(1 + norm**2)
        self.n_valid = valid.sum(-1)
        of_errors = torch.where(valid, torch.log(errors), 0.0).sum(-1)
        self.log_determinant = of_errors + 0.5 * torch.log1p(norm**2)[..., 0]

    def _without_line(self, r):
        return r - self._shrink * torch.linalg.vecdot(r, self._line)[..., None] * self._line

    def whiten(self, residuals, scale=1.0):
        return self._without_line(residuals * self._inverse_errors) / scale

    def transpose(self, whitened, scale=1.0):
        return self._without_line(whitened) * self._inverse_errors / scale

    def select(self, rows):
        errors, valid, time, width = self._parts
        return DriftWhitening(errors[rows], valid[rows], time[rows], width)


def test_the_whitening_is_of_the_covariance_it_says():
    rng = np.random.default_rng(0)
    errors, time = torch.as_tensor(rng.uniform(0.5, 2, 9)), torch.arange(9.0, dtype=torch.float64)
    whitening = DriftWhitening(errors, torch.ones(9, dtype=torch.bool), time, 3.0)
    w = torch.stack([whitening.whiten(e) for e in torch.eye(9, dtype=torch.float64)], -1)
    line = 3.0 * (time / 4 - 1)
    covariance = torch.diag(errors**2) + torch.outer(line, line)
    torch.testing.assert_close(w.mT @ w, torch.linalg.inv(covariance))
    assert float(whitening.log_determinant) == pytest.approx(0.5 * float(torch.logdet(covariance)))
    torch.testing.assert_close(
        torch.stack([whitening.transpose(e) for e in torch.eye(9, dtype=torch.float64)], -1), w.mT
    )


def test_a_drift_is_integrated_out():
    surface = {"z3": 0.4, "z5": -0.3, "z7": 0.3}
    simulator = ooftorch.Simulator("alma", noise=ooftorch.Noise(snr=300), **SMALL)
    clean = simulator.observe(surface, seed=2)
    last = max(m.time[-1] for m in clean.maps)
    sigma = clean.maps[0].sigma[0]

    def drifting(m):
        line = 2 * m.time / last - 1
        return BeamMap(m.dz, m.x, m.y, m.power + 20 * sigma * line, sigma=m.sigma, time=m.time)

    observation = Observation(
        tuple(map(drifting, clean.maps)), clean.wavelength, clean.telescope, clean.receiver, truth=clean.truth
    )
    # Offsets would take up most of it; without them the drift is all there is to explain it.
    options = {
        "order": 3,
        "fixed": {"offset": 0.0},
        "likelihood": "gaussian",
        "nuisance": "none",
        "amplitude_order": 0,
    }
    naive = ooftorch.fit(observation, **options)
    result = ooftorch.fit(observation, noise=LinearDrift(20 * sigma), **options)
    best = ooftorch.fit(clean, **options)
    errors = [clean.truth.rms_error(r.coefficients) for r in (naive, result, best)]
    assert errors[0] > 4 * errors[1]
    assert errors[1] < 2 * result.phase_error
    assert result.phase_error < 1.5 * best.phase_error
    assert result.chi2_reduced == pytest.approx(1, abs=0.1) != pytest.approx(naive.chi2_reduced, abs=1)
    pulls = clean.truth.pulls(result)
    assert np.sqrt(np.mean(np.square(list(pulls.values())))) < 2


# --------------------------------------------------------------------------------------- a cosine taper


class Cosine(Illumination):
    """``amp cos(pi/2 width r)``: one parameter that matters."""

    name = "cosine"

    def declare(self, usual, dish_radius):
        return [Parameter("width", "", 0.7, free=True, prior=0.1), declare_amplitude()]

    def amplitude(self, x, y, pitch, *, width, amp):
        return amp * torch.cos(0.5 * math.pi * width * torch.hypot(x, y))

    def log_derivatives(self, x, y, pitch, *, width, amp):
        r = 0.5 * math.pi * torch.hypot(x, y)
        return {"width": lambda: -r * torch.tan(width * r), "amp": lambda: (1 / amp).expand_as(r)}


def test_an_illumination_of_ones_own():
    surface = {"z3": 0.4, "z4": -0.5, "z8": 0.3}
    simulator = ooftorch.Simulator("alma", illumination=Cosine(), noise=ooftorch.Noise(snr=300), **SMALL)
    observation = simulator.observe(surface | {"width": 0.85}, seed=3)
    assert observation.illumination == "cosine"
    result = ooftorch.fit(observation, order=3, illumination=Cosine())
    assert result.converged
    assert result.illumination == "cosine"
    width = result.parameters["width"]
    assert width.value == pytest.approx(0.85, abs=4 * width.sigma)
    assert width.sigma < 0.02
    assert observation.truth.rms_error(result.coefficients) < 2 * result.phase_error
    # The name alone means nothing to the package.
    with pytest.raises(ooftorch.InputError, match="unknown illumination 'cosine'; known are gaussian"):
        ooftorch.fit(observation, order=3)


# ------------------------------------------------------------------------------------ the way in


@pytest.fixture(scope="module")
def maps():
    simulator = ooftorch.Simulator(
        "alma", noise=ooftorch.Noise(snr=300), reach=4.0, step=0.6, wavelength=3e-3
    )
    return simulator.observe({"z3": 0.4, "z5": -0.3, "z7": 0.3}, seed=4)


@pytest.fixture(scope="module")
def problem(maps):
    return ooftorch.problem(maps, order=3, n=96, likelihood="gaussian")


def test_the_problem_is_what_fit_minimises(maps, problem):
    result = ooftorch.fit(maps, order=3, n=96, likelihood="gaussian")
    x = problem.coordinates({name: p.value for name, p in result.parameters.items()})
    value, gradient = problem(x)
    assert float(value) == pytest.approx(result.objective, rel=1e-12)
    metric = problem.metric(x)
    assert float(gradient @ torch.linalg.solve(metric, gradient)) < 0.01**2
    assert problem.names == result.free_names
    assert problem.units == [result.parameters[name].unit for name in problem.names]
    again = problem.result(x)
    assert again.converged
    for name, p in result.parameters.items():
        assert again.parameters[name].value == p.value
        assert again.parameters[name].sigma == pytest.approx(p.sigma, rel=1e-9)
    np.testing.assert_allclose(again.covariance, result.covariance)
    # Only a fit asks what may be wrong.
    assert ooftorch.verdict(again) == ooftorch.verdict(replace(result, causes=()))
    assert set(problem.priors) == {"sigma", "x0", "y0", "dz_scale"}
    assert problem.priors["sigma"].log
    assert [(tie.names[0], tie.instead) for tie in problem.ties] == [
        ("gain_0", None),
        ("dx_0", "z2"),
        ("dy_0", "z1"),
    ]
    values = problem.values(x)
    assert values["z3"] == result.parameters["z3"].value
    assert values["dz"] == 0.0  # held


@pytest.mark.parametrize("method", ["BFGS", "L-BFGS-B", "metric-bfgs"])
def test_any_minimiser_works_on_it(maps, problem, method):
    options = {"metric": problem.metric()} if method == "metric-bfgs" else {"gtol": 1e-2}
    end = ooftorch.minimize(problem, problem.start, method=method, jac=True, options=options)
    found = problem.result(end.x)
    assert maps.truth.rms_error(found.coefficients) < 2 * found.phase_error
    # ... and SciPy itself.
    if method == "BFGS":
        from scipy.optimize import minimize

        value, gradient = problem(problem.start.numpy())
        assert isinstance(value, float)
        assert isinstance(gradient, np.ndarray)
        theirs = minimize(problem, problem.start.numpy(), jac=True, method="BFGS", options={"gtol": 1e-2})
        assert theirs.fun == pytest.approx(float(end.fun), rel=1e-9)


def test_torch_differentiates_it_as_often_as_one_likes(problem):
    x = (problem.start + 0.05).requires_grad_()
    value, gradient = problem(x)
    assert not value.requires_grad
    loss = problem.value(x)
    torch.testing.assert_close(loss.detach(), value)
    loss.backward()
    torch.testing.assert_close(x.grad, gradient, rtol=1e-9, atol=1e-9 * float(gradient.abs().max()))
    end = ooftorch.minimize(problem.value, problem.start, method="trust-ncg", options={"gtol": 1e-2})
    assert end.nhev > 0
    assert problem.result(end.x).converged


def test_a_loop_of_ones_own(problem):
    """A damped Newton iteration: value, gradient and metric are plain tensors."""
    x, values = problem.start.clone(), []
    for _ in range(25):
        value, gradient = problem(x)
        values.append(float(value))
        x -= 0.5 * torch.linalg.solve(problem.metric(x), gradient)
    assert values[-1] < values[0] - 1000
    assert values[-1] == pytest.approx(values[-2], abs=1e-3)
    assert problem.result(x).converged
