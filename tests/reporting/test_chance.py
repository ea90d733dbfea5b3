"""The chance of improvement follows error bars, verdict and causes."""

import math
from dataclasses import replace

import numpy as np
import pytest

import ooftorch
from ooftorch.reporting.chance import estimate_chance
from ooftorch.result import Cause
from ooftorch.simulation import surfaces


@pytest.fixture(scope="module")
def result():
    observation = ooftorch.simulate(
        "aca7m",
        surfaces.random(2, 0.5, seed=3),
        reach=4,
        step=0.5,
        n=64,
        noise=ooftorch.Noise(snr=300),
        seed=3,
    )
    return ooftorch.fit(observation, order=2, n=64)


def widened(result, factor):
    """The same surface with error bars so many times as wide."""
    parameters = {
        name: p._replace(sigma=factor * p.sigma, sigma_model=0.0) for name, p in result.parameters.items()
    }
    return replace(result, parameters=parameters, covariance=factor**2 * result.covariance)


def test_a_clear_surface_is_worth_applying(result):
    assert ooftorch.verdict(result)[0] == "good"
    assert 0.98 < estimate_chance(result) <= 1
    assert ooftorch.summary(result)["chance_of_improvement"] == estimate_chance(result)
    assert "\nchance           99% that applying it makes the telescope better" in ooftorch.report(result)


def test_the_wider_the_error_bars_the_smaller_the_chance(result):
    ratio = result.phase_rms / result.phase_error
    chances = [estimate_chance(widened(result, share * ratio)) for share in (0.01, 0.3, 0.6, 1.0, 2.0)]
    assert chances == sorted(chances, reverse=True)
    # A surface as large as its error is as likely to be made worse, and noise alone is nothing to apply.
    assert chances[3] < 0.5
    assert chances[4] < 0.2


def test_a_cause_that_moves_the_surface_takes_trust_away(result):
    def with_cause(change):
        return replace(result, causes=(Cause("flipped", 5.0, "a flip.", change),))

    harmless, half, whole = (estimate_chance(with_cause(f * result.phase_rms)) for f in (0.05, 0.5, 1.5))
    assert harmless > 0.95
    assert whole < half < 0.75


def test_no_surface_has_no_chance(result):
    z3 = result.parameters["z3"]._replace(value=math.nan)
    nothing = replace(result, parameters={**result.parameters, "z3": z3})
    assert np.isnan(estimate_chance(nothing))
