"""The study of glitches: which likelihood bears them, and what that costs without any."""

import glitches
import numpy as np
import pytest


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


def test_its_words_and_its_picture(found, tmp_path):
    assert "Met" in glitches.section(found)
    worse = {**found, "rows": [dict(r) for r in found["rows"]]}
    worse["rows"][1]["cauchy"] = {**found["rows"][1]["cauchy"], "ratio": 1.31}
    assert "Missed" in glitches.section(worse)
    glitches.picture(found, tmp_path / "glitches.png")
    assert (tmp_path / "glitches.png").stat().st_size > 5000
