"""What the next order would change, against fits of that order; and the order that is recommended."""

import math

import numpy as np
import pytest

import ooftorch
from ooftorch.errors import InputError
from ooftorch.simulation import surfaces
from ooftorch.simulation.noise import Noise

PLAIN = {"likelihood": "gaussian", "nuisance": "none", "amplitude_order": 0, "n": 96}


def simulate(order, *, rms=0.4, seed=0, extra=None, noise=None):
    simulator = ooftorch.Simulator(
        "effelsberg",
        wavelength=9.37e-3,
        dz=(-0.022, 0.0, 0.022),
        reach=6.0,
        step=0.5,
        n=96,
        noise=noise or Noise(snr=300.0),
    )
    return simulator.observe({**surfaces.random(order, rms, seed=seed), **(extra or {})}, seed=seed)


def test_the_step_is_that_of_a_fit_of_the_next_order():
    """Of a term small enough for the model to be linear in it."""
    observation = simulate(3, extra={"z10": 0.2, "z12": -0.2})
    here, there = (ooftorch.fit(observation, order=order, **PLAIN) for order in (3, 4))
    assert here.recommended_order == there.recommended_order == 4
    # In units of the noise, which what is missing makes wider in the lower order.
    scale = (here.phase_error / here.phase_error_noise) ** 2
    lower = here.objective - there.objective
    assert scale * here.order_evidence.gain_next == pytest.approx(lower, rel=0.25)
    moved = there.coefficients[: len(here.coefficients)] - here.coefficients
    change = math.sqrt(moved @ here.gram @ moved)
    assert here.phase_error_model == pytest.approx(change, rel=0.3)
    assert change > 0.005


def test_the_step_is_small_where_nothing_is_missing():
    results = ooftorch.fit_many([simulate(3, seed=i) for i in range(12)], order=3, **PLAIN)
    gains = np.array([r.order_evidence.gain_next for r in results])
    # Half of chi-squared with the five terms of order 4: 2.5 on average.
    assert 1.0 < gains.mean() < 4.0
    assert np.median([r.phase_error_model / r.phase_error for r in results]) < 1


@pytest.mark.parametrize("fitted", [2, 3, 4])
def test_the_order_of_the_surface_is_recommended(fitted):
    for seed in (1, 2):
        noise = Noise(snr=300.0, drift=0.001)
        result = ooftorch.fit(simulate(3, seed=seed, noise=noise), order=fitted, n=96)
        assert result.recommended_order == 3
        text = " ".join(ooftorch.verdict(result))
        assert ("Order 2 is too low" in text) == (fitted == 2)
        assert ("--order 3 is enough" in text) == (fitted == 4)


def test_auto_finds_the_order_from_above_and_below():
    observations = [simulate(order, seed=order) for order in (3, 6)]
    results = ooftorch.fit_many(observations, order="auto", n=96)
    assert [r.order for r in results] == [3, 6]
    assert [o.order for o in results[0].orders] == [1, 2, 3]


def test_another_word_for_the_order_is_refused():
    with pytest.raises(InputError, match="order 'best'; expected a whole number"):
        ooftorch.fit(simulate(2), order="best")


def test_derivatives_by_any_phase_and_amplitude_are_those_of_the_terms():
    """The Jacobian's rows of two terms, by another route."""
    import torch

    from ooftorch.optics import telescopes, zernike
    from ooftorch.optics.instrument import MapGeometry
    from ooftorch.optics.model import BeamModel

    axis = np.linspace(-3, 3, 7) * 1.1e-3 / 5.6
    x, y = (a.ravel() for a in np.meshgrid(axis, axis))
    model = BeamModel(
        telescopes.load("paper"),
        1.1e-3,
        [MapGeometry(-0.05, x, y), MapGeometry(0.05, x, y)],
        order=3,
        n=32,
        amplitude_order=2,
    )
    u = torch.tensor(model.layout.coordinates())
    u[model.layout.index("z7")] = 0.3
    at = model.at(u)
    terms = torch.tensor(zernike.raster(3, model.pixels.x / 2.8, model.pixels.y / 2.8))
    found = at.differentiate(terms[[7]], terms[[4]])
    expected = at.jacobian([model.layout.index("z7"), model.layout.index("a4")])
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_each_order_is_told_with_what_it_says():
    result = ooftorch.fit(simulate(3), order=4, n=96)
    views = result.order_views
    assert [v.order for v in views] == [1, 2, 3, 4]
    last = views[-1]
    assert (last.phase_rms, last.phase_error) == pytest.approx((result.phase_rms, result.phase_error))
    assert last.focus_shift == pytest.approx(result.focus_shift[0])
    assert min(views, key=lambda v: v.bic).order == 3
    # Held terms take error away, and tilts alone are no shape.
    errors = [v.phase_error for v in views]
    assert errors == sorted(errors)
    assert (views[0].phase_rms, views[0].focus_shift) == (0, 0)
    assert views[0].phase_error < 1e-6
    below, above = (np.array(o.coefficients) for o in result.orders[1:3])
    d = above - below
    assert views[2].change == pytest.approx(math.sqrt(d @ result.gram @ d))
    tilt = result.wavelength / (2 * math.pi * 50) * above[2]
    assert views[2].pointing[0] == pytest.approx(tilt)
    told = ooftorch.summary(result)["orders"][2]
    assert told["bic"] == 0
    assert told["pointing_arcsec"]["dx"] == pytest.approx(np.rad2deg(tilt) * 3600)
