"""Errors of scan lines: found where they are and not elsewhere, with their size, and out of the surface."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import ooftorch
from ooftorch.errors import InputError
from ooftorch.fitting.absorption import index_lines
from ooftorch.fitting.scan_terms import TERMS, build_templates, choose_terms
from ooftorch.fitting.setup import FitOptions, set_up
from ooftorch.simulation import surfaces

WAVELENGTH = 9.37e-3
BEAM = WAVELENGTH / 100
SETUP = {"wavelength": WAVELENGTH, "dz": (-0.022, 0.0, 0.022), "reach": 5.0, "step": 0.4}


def simulate(seed=1, order=3, **noise):
    simulator = ooftorch.Simulator("effelsberg", noise=ooftorch.Noise(snr=300, **noise), n=256, **SETUP)
    return simulator.observe(surfaces.random(order, 0.5, seed=seed), seed=seed)


def rms_of(result, name):
    """Rms of an error over the lines of all maps; 0 where it was not found."""
    found = [term.rms for term in result.scan_terms if term.name == name]
    return float(np.sqrt(np.mean(np.square(found)))) if found else 0.0


def fit(observation, **options):
    return ooftorch.fit(observation, order=3, n=128, device="cpu", **options)


@pytest.mark.parametrize(
    ("kind", "size", "name", "unit"),
    [
        ("baseline", 0.01, "level", 1.0),
        ("slope", 0.01, "slope", None),
        ("line_gain", 0.05, "gain", 1.0),
        ("line_pointing", 0.05 * BEAM, "pointing", BEAM),
    ],
)
def test_an_error_of_lines_is_found_with_its_size(kind, size, name, unit):
    """In three observations; and told apart from what it is not."""
    found = []
    for seed in range(3):
        observation = simulate(seed, **{kind: size})
        result = fit(observation)
        assert result.converged
        assert len({term.name for term in result.scan_terms} - {name}) <= 1
        assert result.chi2_reduced == pytest.approx(1, abs=0.1)
        found.append(rms_of(result, name))
        bare = fit(observation, nuisance="none")
        assert bare.scan_terms == ()
        assert bare.chi2_reduced > 1.08
        assert not any(np.any(m.scan_terms) for m in bare.maps)
    assert min(found) > 0
    if unit is not None:
        # Levels are over the highest power, which the template's unit is near.
        assert np.sqrt(np.mean(np.square(found))) == pytest.approx(size / unit, rel=0.3)


def test_nothing_is_found_in_white_noise():
    """Of twelve clean observations none gets a term; then the fit is the one without any."""
    for seed in range(12):
        observation = simulate(seed)
        result = fit(observation)
        assert result.scan_terms == ()
        assert result.amplitude_order == 0
        if seed < 2:
            plain = fit(observation, nuisance="none", amplitude_order=0)
            np.testing.assert_allclose(result.coefficients, plain.coefficients, atol=1e-6)


def test_drift_and_levels_are_kept_out_of_the_surface():
    """Six surfaces: the terms take at least a third of the error away, and glitches do not change that."""
    errors = {"auto": [], "none": [], "struck": []}
    for seed in range(6):
        observation = simulate(seed, drift=0.005, baseline=0.01)
        for nuisance in ("auto", "none"):
            result = fit(observation, nuisance=nuisance)
            errors[nuisance].append(observation.truth.rms_error(result.coefficients))
        struck = simulate(seed, drift=0.005, baseline=0.01, glitches=0.01)
        errors["struck"].append(struck.truth.rms_error(fit(struck).coefficients))
    rms = {name: np.sqrt(np.mean(np.square(values))) for name, values in errors.items()}
    assert rms["auto"] < 0.67 * rms["none"]
    assert rms["struck"] < 1.4 * rms["auto"]


def test_the_objective_is_that_of_the_dense_covariance():
    """With normal noise: levels and slopes of known widths are integrated out."""
    observation = simulate(baseline=0.01)
    setup = set_up([observation], None, FitOptions(order=2, n=96, likelihood="gaussian", device="cpu"))
    level, u = setup.levels.exact, setup.starts
    bare = setup.levels.posterior(level, setup.layout, torch.tensor([0]), u)
    terms = choose_terms("level,slope")
    templates = build_templates(bare, u, terms)
    widths = torch.tensor([[0.01, 0.0], [0.02, 0.005], [0.0, 0.0]], dtype=torch.float64)
    absorption = templates.select(0).absorb(widths)
    posterior = replace(bare, absorption=absorption.stack([absorption]))
    value = float(posterior.value(u, level.model(u))[0])

    samples = bare.samples
    peak = level.model.instrument.peak
    covariance = torch.diag(samples.errors[0] ** 2)
    for number in range(int(samples.line.max()) + 1):
        on = samples.line == number
        for column, width in zip(
            (torch.ones_like(samples.phase), samples.phase), widths[int(samples.map[on][0])], strict=True
        ):
            template = torch.where(on, peak * width * column, 0.0)
            covariance += torch.outer(template, template)
    normal = torch.distributions.MultivariateNormal(samples.power[0], covariance)
    prior = 0.5 * float(bare.prior_residuals(u).square().sum())
    assert value == pytest.approx(-float(normal.log_prob(level.model(u)[0])) + prior, rel=1e-9)


@pytest.mark.parametrize("likelihood", ["gaussian", "cauchy", "student"])
def test_the_gradient_with_terms_is_that_of_torch(likelihood):
    setup = set_up(
        [simulate(baseline=0.01, glitches=0.02)],
        None,
        FitOptions(order=2, n=96, likelihood=likelihood, device="cpu"),
    )
    u = setup.starts
    bare = setup.levels.posterior(setup.levels.coarse, setup.layout, torch.tensor([0]), u)
    templates = build_templates(bare, u, TERMS)
    widths = torch.full((3, len(TERMS)), 0.01, dtype=torch.float64)
    posterior = replace(bare, absorption=templates.absorb(widths[None]))
    x = (u[:, posterior.free] + 0.01).requires_grad_()
    value = posterior(x)
    (expected,) = torch.autograd.grad(value.sum(), x)
    found, gradient = posterior.value_and_gradient(x.detach())
    torch.testing.assert_close(found, value.detach())
    torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-8 * float(expected.abs().max()))


def test_templates_are_what_the_errors_do():
    """The change of the samples by a small gain or pointing error of each map."""
    setup = set_up([simulate()], None, FitOptions(order=2, n=96, likelihood="gaussian", device="cpu"))
    level, u = setup.levels.exact, setup.starts
    posterior = setup.levels.posterior(level, setup.layout, torch.tensor([0]), u)
    templates = build_templates(posterior, u, TERMS)
    names = [term.name for term in TERMS for _ in range(term.n_templates)]

    def shifted(kind, by):
        moved = u.clone()
        for i in range(3):
            moved[:, setup.layout.index(f"{kind}_{i}")] += by
        return posterior.whitening.whiten(level.model(moved) - level.model(u), 1.0) / by

    for kind, column in (("gain", names.index("gain")), ("dx", names.index("pointing"))):
        expected = templates.lines.gather(0.5 * (shifted(kind, 1e-5) + shifted(kind, -1e-5)))
        found = templates.values[..., column]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    assert templates.values[..., names.index("level")].unique().numel() == 1


def test_lines_of_each_map_are_told_apart():
    setup = set_up([simulate()], None, FitOptions(order=1, n=96, device="cpu"))
    samples = setup.levels.exact.samples
    index = index_lines(samples.line, samples.map)
    assert index.maps.bincount().tolist() == [26] * 3 or len(set(index.maps.bincount().tolist())) == 1


def test_side_by_side_as_alone():
    """One of three has levels and one gains: each takes up its own."""
    night = [simulate(1), simulate(2, baseline=0.01), simulate(3, line_gain=0.05)]
    together = ooftorch.fit_many(night, order=3, n=128, device="cpu")
    for observation, result in zip(night, together, strict=True):
        alone = fit(observation)
        assert [t.name for t in result.scan_terms] == [t.name for t in alone.scan_terms]
        np.testing.assert_allclose(result.coefficients, alone.coefficients, atol=1e-3 * alone.phase_error)
    assert [len(r.scan_terms) > 0 for r in together] == [False, True, True]


def test_words():
    assert choose_terms("auto") == TERMS
    assert choose_terms("none") == ()
    assert [t.name for t in choose_terms("slope,pointing")] == ["slope", "pointing", "pointing_drift"]
    assert choose_terms(["level"]) == TERMS[:1]
    with pytest.raises(InputError, match="nuisance 'levels'; expected auto, none, or some of level, slope"):
        choose_terms("levels")
