"""Bootstrap: the scatter of refits is the error bar, by another road."""

import numpy as np
import pytest
from simulated import altered, observe, surface

import ooftorch
from ooftorch.errors import InputError

Z = surface(2, 0.5, 3)


def case(**kwargs):
    observation = observe(Z, noise=0.01, **kwargs)
    return observation, ooftorch.fit(observation, order=2, n=96)


@pytest.mark.slow
@pytest.mark.parametrize("errors", [True, False])
def test_scatter_of_refits_is_the_error_bar(errors):
    observation, result = case(errors=errors)
    drawn = ooftorch.resample(observation, result, 150, seed=1)
    refits = ooftorch.fit_many(drawn, order=2, n=96)
    scatter = np.std([r.coefficients for r in refits], axis=0, ddof=1)
    bars = [result.parameters[f"z{k}"].sigma for k in range(len(scatter))]
    # The standard error of a standard deviation from 150 draws is 6 per cent.
    np.testing.assert_allclose(scatter[1:] / bars[1:], 1.0, atol=0.25)


def test_residuals_are_the_maps_own_and_missing_samples_stay_missing():
    observation, _ = case()

    def hide(m, i):
        power = m.power.copy()
        power[3 + i] = np.nan
        return type(m)(m.dz, m.x, m.y, power, sigma=m.sigma)

    observation = altered(observation, hide)
    result = ooftorch.fit(observation, order=2, n=96)
    (drawn,) = ooftorch.resample(observation, result, 1)
    for before, after, fitted in zip(observation.maps, drawn.maps, result.maps, strict=True):
        assert np.array_equal(np.isnan(after.power), np.isnan(before.power))
        valid = before.valid
        found, known = (after.power - fitted.model)[valid], (before.power - fitted.model)[valid]
        # Each is one of the map's own, to rounding; and not all are in their old place.
        assert np.abs(found[:, None] - known).min(1).max() < 1e-9 * np.ptp(known)
        assert np.mean(np.abs(found - known) > 1e-9 * np.ptp(known)) > 0.5


def test_seeds():
    observation, result = case()
    first, again, other = (ooftorch.resample(observation, result, 2, seed=s) for s in (1, 1, 2))
    power = [[m.power for m in o.maps] for o in (first[0], again[0], other[0], first[1])]
    assert np.array_equal(power[0], power[1])
    assert not np.array_equal(power[0], power[2])
    assert not np.array_equal(power[0], power[3])


def test_another_observation_is_refused():
    _, result = case()
    with pytest.raises(InputError, match="give the observation that was fitted"):
        ooftorch.resample(observe(Z, samples=9), result, 1)
