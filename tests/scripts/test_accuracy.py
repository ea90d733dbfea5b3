"""The accuracy study: the original's set-up, errors as they are predicted, and what rules where."""

import math

import accuracy
import numpy as np
import pytest
from figures import points, shown

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found():
    return accuracy.measure(quick=True)


@pytest.fixture(scope="module")
def setup():
    return accuracy.Setup(accuracy.LAMBDA, 50e-3)


def test_the_set_up_is_the_original_one(found, setup):
    # Both figures are the original program's.
    assert math.sqrt(found["samples_per_beam"]) == pytest.approx(6.554, rel=0.01)
    assert found["defocused_peak"] == pytest.approx(0.0919, rel=0.01)
    assert setup.power.shape == (3 * 64 * 64,)
    assert setup.power.max() == pytest.approx(1)
    block = setup.clean.maps[0]
    beam = accuracy.LAMBDA / (2 * 2.8)
    assert (block.x.min() / beam, block.x.max() / beam) == pytest.approx((-8, 7.75), rel=0.01)


def test_estimators_scatter_as_predicted(found, monkeypatch):
    for point in found["points"]:
        for name, estimate in point["found"].items():
            assert estimate["accepted"] == found["simulations"]
            assert estimate["mean"] == pytest.approx(
                point["predicted"][name], abs=5 * estimate["mean_error"]
            ), name
    # The same check refuses a prediction that does not know of the multiplicative noise.
    low = found["points"][0]
    monkeypatch.setattr(accuracy, "MULTIPLICATIVE", 0.0)
    ignorant = accuracy.Setup(accuracy.LAMBDA, 50e-3).predicted(6, low["noise"])
    estimate = low["found"]["ours"]
    assert abs(estimate["mean"] - ignorant["ours"]) > 8 * estimate["mean_error"]


def test_who_is_better_and_where(found):
    low, high = found["points"]
    assert low["noise"] < high["noise"]
    for point in found["points"]:
        assert point["found"]["ours"]["mean"] == pytest.approx(point["found"]["original"]["mean"], rel=0.15)
    # Knowing the errors pays where they differ from sample to sample.
    assert low["found"]["weighted"]["mean"] < 0.7 * low["found"]["ours"]["mean"]
    assert high["found"]["weighted"]["mean"] == pytest.approx(high["found"]["ours"]["mean"], rel=0.1)
    # Fifty times the noise, but not fifty times the error: the five per cent hold the low end.
    assert 3 < high["found"]["ours"]["mean"] / low["found"]["ours"]["mean"] < 20


def test_white_noise_rules_at_one_end_and_not_at_the_other(setup):
    order = 4
    errors = [setup.predicted(order, noise)["original"] for noise in (1e-6, 1e-5, 1e-2, 1e-1)]
    assert errors[1] / errors[0] == pytest.approx(1, abs=0.05)
    assert errors[3] / errors[2] == pytest.approx(10, rel=0.01)
    best = [setup.predicted(order, noise)["weighted"] for noise in (1e-6, 1e-5)]
    assert best[0] < 0.8 * best[1]
    assert best[1] < 0.3 * errors[1]
    assert setup.predicted(6, 1e-2)["ours"] > 1.2 * setup.predicted(4, 1e-2)["ours"]


def test_the_measure_is_weighted_with_the_amplitude(setup):
    amplitude, _ = (t.detach().numpy() for t in setup.model.aperture())
    z = np.random.default_rng(0).normal(size=9)
    phase = z @ setup.model.parts.surface.matrix.numpy()[1:10]
    direct = math.sqrt(np.sum(phase**2 * amplitude) / amplitude.sum())
    assert setup.wrms(z) == pytest.approx(direct)
    assert setup.wrms(z) != pytest.approx(math.sqrt(np.mean(phase**2)), rel=0.02)


def test_its_words(found):
    assert "did not converge, left out: 0" in accuracy.section(found)


def test_its_picture_has_the_errors_over_the_noise(found):
    left, right = accuracy.picture(found).axes
    noise = [p["noise"] for p in found["points"]]
    names = {
        "ours, order 6": "ours",
        "original, order 6": "original",
        "true errors known, order 6": "weighted",
    }
    for label, name in names.items():
        x, y = shown(left, label)
        assert x == pytest.approx(noise)
        # Half of the path: lambda/(4 pi) of the phase, in microns.
        means = [1.1e-3 / (4 * math.pi) * 1e6 * p["found"][name]["mean"] for p in found["points"]]
        assert y == pytest.approx(means, rel=1e-9)
    lines = [points(line) for line in left.lines if line.get_xdata().size]
    for name in names.values():
        predicted = [1.1e-3 / (4 * math.pi) * 1e6 * p["predicted"][name] for p in found["points"]]
        assert any(len(y) == 2 and y == pytest.approx(predicted, rel=1e-9) for _, y in lines), name
    for axes, x in ((left, "noise per beam over the peak"), (right, "dz (m)")):
        assert (axes.get_xlabel(), axes.get_ylabel()) == (x, "half-path error (µm)")
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
