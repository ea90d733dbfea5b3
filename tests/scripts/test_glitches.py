"""The study of glitches: which likelihood bears them, and what that costs without any."""

import glitches
import numpy as np
import pytest
from figures import points, shown

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found():
    return glitches.measure(quick=True)


def test_cauchy_bears_glitches_and_gaussian_does_not(found):
    clean, hit = found["rows"]
    assert (clean["fraction"], hit["fraction"]) == (0.0, 0.05)
    assert hit["cauchy"]["ratio"] < 1.3
    assert hit["gaussian"]["ratio"] > 5
    assert hit["gaussian"]["mean"] > 5 * hit["cauchy"]["mean"]
    assert hit["cauchy"]["mean"] == pytest.approx(np.mean(hit["cauchy"]["predicted"]), rel=0.4)


def test_without_glitches_cauchy_is_the_worse(found):
    clean = found["rows"][0]
    assert clean["gaussian"]["mean"] < clean["cauchy"]["mean"]
    assert found["loss"] == pytest.approx(found["loss_expected"], abs=4 * found["loss_error"])
    for name in glitches.LIKELIHOODS:
        assert clean[name]["ratio"] == 1.0
        assert clean[name]["converged"] == len(clean[name]["errors"])


def test_the_loss_is_that_of_many_fits_of_a_mean(found):
    # Location and scale of a Cauchy distribution, most likely for normal samples, by reweighting.
    n, trials = 300, 4000
    x = np.random.default_rng(0).normal(size=(trials, n))
    centre, scale = np.zeros((trials, 1)), np.ones((trials, 1))
    for _ in range(60):
        weight = 1 / (1 + ((x - centre) / scale) ** 2)
        centre = (weight * x).sum(1, keepdims=True) / weight.sum(1, keepdims=True)
        scale = np.sqrt(2 * np.mean(weight * (x - centre) ** 2, axis=1, keepdims=True))
    loss = float(centre.std() * np.sqrt(n))
    assert found["loss_expected"] == pytest.approx(loss, rel=0.04)
    # Neither that with the scale held at the noise, nor the square root of two.
    assert abs(found["loss_expected"] - 1.146) > 0.1
    assert abs(found["loss_expected"] - np.sqrt(2)) > 0.1


def test_its_words(found):
    assert "Met" in glitches.section(found)
    worse = {**found, "rows": [dict(r) for r in found["rows"]]}
    worse["rows"][1]["cauchy"] = {**found["rows"][1]["cauchy"], "ratio": 1.31}
    assert "Missed" in glitches.section(worse)


def test_its_picture_has_every_error_over_the_percentage(found):
    (axes,) = glitches.picture(found).axes
    dashes = [points(line) for line in axes.lines if line.get_marker() == "_"]
    for name in glitches.LIKELIHOODS:
        x, y = shown(axes, f"{name.capitalize()}, mean")
        assert list(x) == [0, 5]
        assert list(y) == [row[name]["mean"] for row in found["rows"]]
        for percent, row in zip(x, found["rows"], strict=True):
            # Every surface, beside the mean.
            assert any(list(e) == row[name]["errors"] and abs(a - percent).max() < 0.2 for a, e in dashes)
    _, target = shown(axes, f"{glitches.TARGET:g} x Cauchy at 0 %")
    assert target == pytest.approx(1.3 * found["rows"][0]["cauchy"]["mean"])
    assert axes.get_yscale() == "log"
    assert "(%)" in axes.get_xlabel()
    assert "(rad rms)" in axes.get_ylabel()
