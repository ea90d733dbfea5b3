"""Error bars: groups of samples, and the sandwich estimate against what simulated fits do."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import ooftorch
from ooftorch.fitting.errors import estimate_covariances, group_samples
from ooftorch.fitting.likelihood import Cauchy, Gaussian
from ooftorch.fitting.noise_model import IndependentNoise
from ooftorch.fitting.posterior import Posterior
from ooftorch.fitting.samples import Samples
from ooftorch.optics import telescopes, zernike
from ooftorch.optics.instrument import MapGeometry
from ooftorch.optics.model import BeamModel
from ooftorch.optics.parameters import Parameter
from ooftorch.simulation import surfaces
from ooftorch.simulation.noise import Noise

BEAM = 1.1e-3 / 5.6


def make_samples(n=16, step=0.4, maps=2, lined=True, power=None, valid=None):
    """Square rasters of n x n samples in rows, one after the other."""
    axis = (np.arange(n) - (n - 1) / 2) * step * BEAM
    x, y = (np.tile(a.ravel(), maps) for a in np.meshgrid(axis, axis))
    number = np.repeat(np.arange(maps), n * n)
    line = np.repeat(np.arange(maps * n), n)
    return Samples(
        torch.zeros(len(x)) if power is None else power,
        torch.ones(len(x), dtype=torch.float64),
        torch.ones(len(x), dtype=torch.bool) if valid is None else valid,
        torch.tensor(number),
        torch.tensor(x),
        torch.tensor(y),
        line=torch.tensor(line) if lined else None,
        phase=torch.zeros(len(x)) if lined else None,
    )


def test_groups_are_the_scan_lines_and_runs_are_a_beam_wide():
    samples = make_samples(step=0.4)
    groups = group_samples(samples, BEAM)
    torch.testing.assert_close(groups.number, samples.line)
    assert groups.runs == (3, 3)  # 0.4 beams apart
    # Never fewer than two lines together, and never much of a map.
    assert group_samples(make_samples(step=1.5), BEAM).runs == (2, 2)
    assert group_samples(make_samples(step=0.01), BEAM).runs == (4, 4)


def test_groups_without_scan_lines_are_cells_of_a_beam():
    samples = make_samples(step=0.25, lined=False)
    groups = group_samples(samples, BEAM)
    assert groups.runs == (1, 1)
    # 16 samples a quarter of a beam apart lie in 4 cells a side; nothing is in one cell with the other map.
    assert torch.bincount(groups.number).tolist() == [16] * 32
    for n in range(32):
        here = groups.number == n
        assert float(np.ptp(samples.x[here].numpy())) < BEAM
        assert len(set(samples.map[here].tolist())) == 1


def test_samples_that_do_not_count_are_in_no_group():
    valid = torch.ones(512, dtype=torch.bool)
    valid[16:32] = False  # the second line of the first map
    groups = group_samples(make_samples(valid=valid), BEAM)
    assert (groups.number[16:32] == -1).all()
    assert torch.bincount(groups.number[valid]).tolist() == [16] * 31


def build(likelihood=None, valid=None, n=16):
    """A posterior of two maps at its truth, without noise in the data; and its free coordinates."""
    samples = make_samples(n, valid=valid)
    here = [samples.map.numpy() == i for i in range(2)]
    geometry = [
        MapGeometry(d, samples.x.numpy()[h], samples.y.numpy()[h])
        for d, h in zip((-0.05, 0.05), here, strict=True)
    ]
    model = BeamModel(telescopes.load("paper"), 1.1e-3, geometry, order=2, n=32)
    noise = Parameter("noise", "data", 0.02, 1.0, free=True, log=True)
    kept = {"z3", "z4", "z5", "gain_0", "gain_1", "noise"}
    layout = model.layout.with_added(noise)
    layout = layout.with_held(p.name for p in layout.parameters if p.name not in kept)
    model = model.with_layout(layout)
    u = torch.tensor(layout.coordinates())
    for name, value in {"z3": 0.2, "z4": -0.3, "z5": 0.1, "noise": math.log(0.02)}.items():
        u[layout.index(name)] = value
    with torch.no_grad():
        power = model(u)
    samples = samples._replace(power=power)
    return Posterior(model, layout, samples, likelihood or Gaussian(), IndependentNoise(), u), u[layout.free]


def scatter(posterior, x, draws, spoil=0.0, seed=0):
    """Covariances of many noise realisations, and the estimates of each: one Newton step from the truth."""
    rng = np.random.default_rng(seed)
    exact, n = posterior.samples.power, posterior.samples.power.numel()
    linear = posterior.linearise(x)
    bread = torch.linalg.inv(posterior.find_information(linear, torch.tensor(1.0, dtype=torch.float64)))
    found, estimates = [], []
    for _ in range(draws):
        noise = rng.normal(size=n) + spoil * np.repeat(rng.normal(size=n // 16), 16)
        drawn = posterior.samples._replace(power=exact + 0.02 * torch.tensor(noise))
        here = replace(posterior, samples=drawn)
        _, gradient = here.value_and_gradient(x)
        step = -(bread @ gradient)
        step[-1] = 0.0  # the scale of the noise stays
        estimates.append(step.numpy())
        found.append(estimate_covariances(here, here.linearise(x + step), group_samples(drawn, BEAM)))
    return found, np.array(estimates)


def test_independent_noise_gives_the_errors_of_the_noise_on_average():
    """The part that each line has in the fit is made up for; without that they are too small."""
    posterior, x = build()
    found, estimates = scatter(posterior, x, 150)
    noise, robust = (np.mean([np.diag(c[k].numpy())[:3] for c in found], axis=0) for k in range(2))
    np.testing.assert_allclose(noise, np.var(estimates, axis=0)[:3], rtol=0.35)  # 12 % of scatter each
    # No variance is taken below that of the noise, which costs some per cent.
    ratio = np.sqrt(robust / noise)
    assert (ratio > 1 - 1e-9).all()
    assert (ratio < 1.25).all()


def test_noise_common_to_a_line_widens_the_errors_to_the_scatter_of_fits():
    posterior, x = build()
    found, estimates = scatter(posterior, x, 150, spoil=1.0)
    noise, robust = (np.sqrt(np.mean([np.diag(c[k].numpy())[:3] for c in found], axis=0)) for k in range(2))
    true = estimates.std(axis=0)[:3]
    assert np.sqrt(np.mean((true / noise) ** 2)) > 1.5  # the error bars of independent noise are wrong here
    assert 0.8 < np.sqrt(np.mean((true / robust) ** 2)) < 1.25


@pytest.mark.parametrize("likelihood", [Gaussian(), Cauchy()])
def test_neither_missing_samples_nor_their_order_matter(likelihood):
    rng = np.random.default_rng(4)
    valid = torch.tensor(rng.uniform(size=512) > 0.1)
    posterior, x = build(likelihood, valid)
    noisy = posterior.samples.power + 0.02 * torch.tensor(rng.normal(size=512))
    spoilt = torch.where(valid, noisy, 1e6)
    here = replace(posterior, samples=posterior.samples._replace(power=noisy))
    other = replace(posterior, samples=posterior.samples._replace(power=spoilt))
    groups = group_samples(here.samples, BEAM)
    reversed_lines = group_samples(here.samples._replace(line=31 - here.samples.line), BEAM)
    expected = estimate_covariances(here, here.linearise(x), groups)
    for changed, grouping in ((other, groups), (here, reversed_lines)):
        for a, b in zip(estimate_covariances(changed, changed.linearise(x), grouping), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-12)


def test_the_scale_of_the_noise_keeps_its_error():
    posterior, x = build()
    groups = group_samples(posterior.samples, BEAM)
    noise, robust = estimate_covariances(posterior, posterior.linearise(x), groups)
    assert float(robust[-1, -1]) == float(noise[-1, -1]) > 0


# ------------------------------------------------------------------------------------- of a whole fit


@pytest.fixture(scope="module")
def drifting():
    """Fits of maps with a drift of which the fit is told nothing."""
    simulator = ooftorch.Simulator(
        "effelsberg",
        wavelength=9.37e-3,
        dz=(-0.022, 0.0, 0.022),
        reach=6.0,
        step=0.5,
        n=96,
        noise=Noise(snr=300.0, drift=0.005),
    )
    observations = [simulator.observe(surfaces.random(3, 0.5, seed=i), seed=i) for i in range(40)]
    return observations, ooftorch.fit_many(observations, order=3, n=96, nuisance="none", amplitude_order=0)


def test_pulls_under_a_drift(drifting):
    observations, results = drifting
    names = [f"z{k}" for k in range(3, 10)]
    errors = np.array(
        [
            [r.parameters[name].value - o.truth.parameters[name].value for name in names]
            for o, r in zip(observations, results, strict=True)
        ]
    )
    sigma, noise = (
        np.array([[getattr(r.parameters[name], kind) for name in names] for r in results])
        for kind in ("sigma", "sigma_noise")
    )
    assert np.sqrt(np.mean((errors / noise) ** 2)) > 1.5
    assert 0.8 < np.sqrt(np.mean((errors / sigma) ** 2)) < 1.3


def test_the_error_map_is_that_of_the_coefficients(drifting):
    """Its mean square over the dish is that of `phase_error`; at one pixel it is the sum written out."""
    result = drifting[1][0]
    a = result.aperture
    r = np.hypot(a.axis, a.axis[:, None])
    inside = np.isfinite(a.phase_error) & (r < a.radius)
    assert (np.isfinite(a.phase_error) == np.isfinite(a.phase)).all()
    mean_square = np.mean(a.phase_error[inside] ** 2)
    assert math.sqrt(mean_square) == pytest.approx(
        result.phase_error, rel=0.06
    )  # blocked pixels are not in it
    row, column = (int(np.argmin(np.abs(a.axis / a.radius - at))) for at in (0.4, -0.55))
    terms = zernike.raster(3, a.axis[column] / a.radius, a.axis[row] / a.radius)
    names = [f"z{k}" for k in range(3, 10)]
    rows = [result.free_names.index(name) for name in names]
    shape = terms[3:] @ result.covariance[np.ix_(rows, rows)] @ terms[3:]
    assert a.phase_error[row, column] == pytest.approx(math.sqrt(shape), rel=1e-9)


def test_the_rms_of_noise_is_no_surface(drifting):
    observations, results = drifting
    to_um = 1e6 * results[0].wavelength / (4 * math.pi)
    true = [
        to_um * math.sqrt(c @ r.gram @ c)
        for o, r in zip(observations, results, strict=True)
        for c in [
            np.array([o.truth.parameters[n].value if n in o.truth.parameters else 0 for n in r.basis.names])
        ]
    ]
    estimates = 1e6 * np.array([r.surface_rms_estimate for r in results])
    assert 0.6 < np.sqrt(np.mean(((estimates[:, 0] - true) / estimates[:, 1]) ** 2)) < 1.4
    assert all(e < 1e6 * r.surface_rms for (e, _), r in zip(estimates, results, strict=True))


def test_a_surface_smaller_than_its_error_has_no_rms(drifting):
    result = drifting[1][0]
    sizes = np.array([result.parameters[name].sigma for name in result.basis.names])
    parameters = dict(result.parameters)
    for name, size in zip(result.basis.names, 0.3 * sizes, strict=True):
        parameters[name] = parameters[name]._replace(value=float(size))
    rms, error = replace(result, parameters=parameters).surface_rms_estimate
    assert rms == 0
    assert 0 < error < result.wavelength / (4 * math.pi) * result.phase_error


def test_parameters_that_the_maps_do_not_fix_have_the_errors_of_the_noise():
    """Two gains that stand for each other: no bread for a sandwich, and no traceback."""
    posterior, x = build()
    linear = posterior.linearise(x)
    rows = linear.rows.clone()
    rows[1] = rows[0]
    held = replace(posterior, layout=posterior.layout)
    object.__setattr__(held, "prior_rows", torch.zeros_like(posterior.prior_rows))
    noise, robust = estimate_covariances(
        held, linear._replace(rows=rows, whitened=rows), group_samples(posterior.samples, BEAM)
    )
    torch.testing.assert_close(robust, noise)


def test_cells_of_a_wide_map_are_wider():
    samples = make_samples(n=60, step=1.5, maps=1, lined=False)
    cells = group_samples(samples, BEAM).number
    assert len(torch.unique(cells)) <= 26**2
