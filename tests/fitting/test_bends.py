"""An illumination that bends: taken up where it does, as far as it does, and left alone where it does not."""

import math

import numpy as np
import pytest
import torch

import ooftorch
from ooftorch.fitting import refinement
from ooftorch.fitting.bends import find_bends
from ooftorch.fitting.refinement import finish
from ooftorch.fitting.search import Minima, approach
from ooftorch.fitting.setup import FitOptions, set_up
from ooftorch.optics.illumination.base import Illumination, declare_amplitude
from ooftorch.simulation import surfaces

SETUP = {"wavelength": 3e-3, "reach": 5.0, "step": 0.4, "n": 256}


def fit(observation, **options):
    return ooftorch.fit(observation, order=4, n=128, device="cpu", **options)


def simulate(values=None, seed=1, **more):
    simulator = ooftorch.Simulator("alma", noise=ooftorch.Noise(snr=300), **SETUP, **more)
    return simulator.observe({**surfaces.random(4, 0.5, seed=seed), **(values or {})}, seed=seed)


def test_a_bend_is_found_and_the_surface_with_it():
    bend = {"a5": 0.25, "a8": -0.2, "a12": 0.15}
    observation = simulate(bend)
    result, straight = fit(observation), fit(observation, amplitude_order=0)
    assert result.amplitude_order >= 4
    for name, value in bend.items():
        p = result.parameters[name]
        assert p.value == pytest.approx(value, abs=4 * p.sigma)
        assert p.sigma < 0.05
    assert observation.truth.rms_error(result.coefficients) < 2 * result.phase_error
    off = observation.truth.rms_error(straight.coefficients)
    assert 1.7 * straight.phase_error_noise < off < 2 * straight.phase_error
    assert straight.amplitude_order == 0
    assert not any(name in straight.parameters for name in bend)


def test_none_is_found_where_there_is_none():
    assert [fit(simulate(seed=seed)).amplitude_order for seed in range(6)] == [0] * 6


class Flat(Illumination):
    """Flat, and steep beyond 0.85 of the radius: that of a shaped dish."""

    name = "flat"

    def declare(self, usual, dish_radius):
        return [declare_amplitude()]

    def amplitude(self, x, y, pitch, *, amp):
        return amp / (1 + torch.exp((torch.hypot(x, y) - 0.85) / 0.06))

    def log_derivatives(self, x, y, pitch, *, amp):
        return {"amp": lambda: (1 / amp).expand_as(x)}


def test_an_illumination_that_no_model_has():
    found, bars, straight = [], [], []
    for seed in range(4):
        observation = simulate(seed=seed, illumination=Flat())
        # The file names an illumination that only the simulation knows.
        seen = ooftorch.Observation(
            observation.maps, observation.wavelength, "alma", observation.receiver, truth=observation.truth
        )
        result = fit(seen, illumination="gaussian")
        found.append(observation.truth.rms_error(result.coefficients))
        bars.append(result.phase_error)
        bare = fit(seen, illumination="gaussian", amplitude_order=0, nuisance="none")
        straight.append(observation.truth.rms_error(bare.coefficients))
        assert result.amplitude_order == 8
    rms = [math.sqrt(np.mean(np.square(errors))) for errors in (found, bars, straight)]
    assert rms[0] < 2 * rms[1]
    assert rms[0] < 0.7 * rms[2]


def test_what_the_user_holds_is_held():
    result = fit(simulate({"a5": 0.25}), fixed={"a5": 0.1})
    assert not result.parameters["a5"].free
    assert result.parameters["a5"].value == 0.1
    freed = fit(simulate(), free=["a5"])
    assert freed.parameters["a5"].free
    assert freed.parameters["a5"].value == pytest.approx(0, abs=4 * freed.parameters["a5"].sigma)


def test_side_by_side_as_alone():
    night = [simulate(seed=1), simulate({"a5": 0.25, "a8": -0.2}, seed=2), simulate(seed=3)]
    together = ooftorch.fit_many(night, order=4, n=128, device="cpu")
    assert [r.amplitude_order > 0 for r in together] == [False, True, False]
    for observation, result in zip(night, together, strict=True):
        alone = fit(observation)
        assert alone.amplitude_order == result.amplitude_order
        np.testing.assert_allclose(result.coefficients, alone.coefficients, atol=1e-3 * alone.phase_error)


def test_a_bright_neighbour_changes_nothing():
    """One observation of much higher S/N: the others are judged by their own noise, in any order."""
    bent = simulate({"a5": 0.25, "a4": -0.15}, seed=4)
    quiet = ooftorch.Simulator("alma", noise=ooftorch.Noise(snr=3000), **SETUP)
    bright = quiet.observe(surfaces.random(4, 0.5, seed=5), seed=5)
    alone = fit(bent)
    assert alone.amplitude_order > 0
    for night in ([bright, bent], [bent, bright]):
        results = ooftorch.fit_many(night, order=4, n=128, device="cpu")
        assert results[night.index(bent)].amplitude_order == alone.amplitude_order
        assert results[night.index(bright)].amplitude_order == 0


def test_the_metric_of_a_bend_is_that_of_its_parameters():
    """Not that of all the terms that were tried, nor in another order."""
    setup = set_up([simulate({"a5": 0.25})], None, FitOptions(order=4, n=128, device="cpu"))
    rows, levels = torch.arange(1), setup.levels
    posterior = levels.posterior(levels.coarse, setup.layout, rows, setup.starts)
    ((layout, gain, metric),) = find_bends(setup, posterior, rows, setup.starts)
    assert gain > 0
    assert len(setup.layout.free) < len(layout.free)
    expected = levels.metric(layout, rows, setup.starts)[0]
    torch.testing.assert_close(metric, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


def test_candidates_that_settle_at_one_minimum_are_asked_about_once(monkeypatch):
    observations = [simulate({"a5": 0.25}, seed=s) for s in range(2)]
    setup = set_up(observations, None, FitOptions(order=4, n=128, device="cpu", likelihood="gaussian"))
    rows, asked, evaluated = torch.arange(2), [], []

    def find(setup, posterior, rows, u):
        asked.append(rows.tolist())
        return find_bends(setup, posterior, rows, u)

    monkeypatch.setattr(refinement, "find_bends", find)
    minima = approach(setup.levels, setup.layout, rows, setup.starts, lambda *_: None)
    numbers = torch.tensor([0, 1, 0])
    twice = Minima(*(t[numbers] for t in minima))._replace(n_eval=torch.zeros(3, dtype=torch.long))
    twice.coordinates[2, setup.layout.index("z5")] += 0.01
    fits = finish(setup, rows, twice, numbers, lambda members, _: evaluated.append(members))
    assert asked[0] == [0, 1]
    assert sum(int(fit.minimum.n_eval) for fit in fits) == sum(evaluated)
