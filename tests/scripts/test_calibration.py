"""The error bars of simulated fits are right, and the check that says so can fail."""

import json

import numpy as np
import pytest
from figures import points
from scipy import stats

from ooftorch.optics.illumination.gaussian import find_width

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def calibration():
    import calibration

    return calibration


@pytest.fixture(scope="module")
def found(calibration):
    return calibration.measure(quick=True)


def chi_square(calibration, case):
    """Sum of d C^-1 d over all fits, and its degrees of freedom."""
    dof = case["fits"] * len(calibration.NAMES)
    return case["joint"] * dof, dof


def test_the_scatter_is_what_the_error_bars_say(calibration, found):
    case = found["cases"][0]
    assert case["case"] == calibration.RIGHT
    assert case["lost"] == 0
    assert case["converged"] == case["fits"]
    low, high = stats.chi2.interval(0.999, chi_square(calibration, case)[1])
    assert low < chi_square(calibration, case)[0] < high
    # Twenty tests, at a twentieth of the level each (Bonferroni).
    ratios = np.array(list(case["ratios"].values()))
    low, high = np.sqrt(np.array(stats.chi2.interval(1 - 1e-3 / 20, case["fits"])) / case["fits"])
    assert (low < ratios).all()
    assert (ratios < high).all()
    assert abs(case["chi2_reduced"] - 1) < 4 * case["chi2_error"]


def test_the_check_rejects_halved_errors(calibration, found):
    case = found["cases"][1]
    assert case["case"] == calibration.HALVED
    assert not case["passes"]
    assert not calibration.passes(list(case["ratios"].values()))
    assert stats.chi2.sf(*chi_square(calibration, case)) < 1e-30
    assert np.mean(list(case["ratios"].values())) == pytest.approx(2, abs=0.2)
    assert case["chi2_reduced"] == pytest.approx(4, abs=0.2)


def test_one_coefficient_off_is_enough_to_fail(calibration):
    assert calibration.passes([1.0] * 19 + [1.049])
    for wrong in (1.06, 0.94):
        assert not calibration.passes([1.0] * 19 + [wrong])


def test_nuisances_are_drawn_from_the_priors_of_the_fit(calibration):
    telescope = calibration.Telescope(0.75, 300.0, 64)
    usual = find_width(-14.5)
    draws = [telescope.values(seed) for seed in range(400)]
    gains = np.log([[v[f"gain_{i}"] for i in range(3)] for v in draws])
    width = np.log([v["sigma"] for v in draws])
    # Three gains about their mean have two degrees of freedom.
    low, high = stats.chi2.interval(0.999, 2 * len(draws))
    assert low < np.sum((gains - gains.mean(1, keepdims=True)) ** 2) / 0.03**2 < high
    low, high = stats.chi2.interval(0.999, len(draws))
    assert low < np.sum((width - np.log(usual)) ** 2) / 0.1**2 < high
    # ... and so have three pointings, whose mean the tilts stand for.
    quarter = 0.25 * calibration.WAVELENGTH / 100
    dx = np.array([[v[f"dx_{i}"] for i in range(3)] for v in draws])
    low, high = stats.chi2.interval(0.999, 2 * len(draws))
    assert low < np.sum(dx**2) / quarter**2 < high
    assert np.abs(dx.mean(1)).max() < 1e-3 * quarter
    assert all(v["dz"] == v["rho"] == 0 for v in draws)


def test_section(calibration, found):
    text = calibration.section(json.loads(json.dumps(found)))
    assert "The control, maps whose file claims half of their noise, fails the same check" in text
    assert text.count("\n| ") == 2 + len(found["cases"])


def test_the_picture_has_every_ratio_with_its_error(calibration, found):
    panels = calibration.picture(found).axes
    # The errors as they are, and the control.
    for axes, case in zip(panels, found["cases"][:2], strict=True):
        assert axes.get_title() == f"{case['case']}: {case['fits']} fits"
        (bars,) = axes.containers
        k, ratios = points(bars.lines[0])
        assert list(k) == list(range(1, 21))
        assert list(ratios) == list(case["ratios"].values())
        (segments,) = (lines.get_segments() for lines in bars.lines[2])
        lengths = np.array([high - low for (_, low), (_, high) in segments])
        assert lengths == pytest.approx(2 * ratios * case["ratio_error"])
        # The band of what is allowed.
        (band,) = axes.patches
        assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((0.95, 1.05))
    assert panels[0].get_ylabel() == "scatter over error bar"
