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
    draws = [telescope.values(seed) for seed in range(400)]

    def check(total, width, dof):
        low, high = stats.chi2.interval(0.999, dof)
        assert low < total / width**2 < high

    def spread(kind):
        """Squares of three about their mean, which have two degrees of freedom."""
        values = np.array([[v[f"{kind}_{i}"] for i in range(3)] for v in draws])
        if kind == "gain":
            values = np.log(values)
        return np.sum((values - values.mean(1, keepdims=True)) ** 2)

    beam = calibration.WAVELENGTH / 100
    for kind, width in (("gain", 0.03), ("dx", 0.25 * beam), ("dy", 0.25 * beam)):
        check(spread(kind), width, 2 * len(draws))
    for name, centre, width in (
        ("sigma", find_width(-14.5), 0.1),
        ("legs", 1.0, 0.3),
        ("shadow", 1.0, 0.3),
        ("dz_scale", 1.0, 0.03),
    ):
        check(np.sum(np.log([v[name] / centre for v in draws]) ** 2), width, len(draws))
    check(np.sum(np.square([v["x0"] for v in draws])), 0.05, len(draws))
    # What the tilts and the surface stand for, and what is held.
    assert max(abs(sum(v[f"dx_{i}"] for i in range(3))) for v in draws) < 0.01 * beam
    assert all(v["dz"] == v["rho"] == 0 for v in draws)
    assert not any("a3" in v for v in draws)


def test_the_illumination_bends_in_its_own_case_alone(calibration):
    telescope = calibration.Telescope(0.75, 300.0, 64)
    bent = [telescope.values(seed, calibration.BENT) for seed in range(400)]
    for name, order in (("a3", 2), ("a14", 4)):
        low, high = stats.chi2.interval(0.999, len(bent))
        assert low < np.sum(np.square([v[name] for v in bent])) / (0.5 / order) ** 2 < high
    assert "a15" not in bent[0]
    observation = telescope.observe(calibration.BENT, 1)
    assert observation.truth.parameters["a3"].value == bent[1]["a3"]
    assert "a3" not in telescope.observe(calibration.DEFAULTS, 1).truth.parameters


def test_the_default_options_claim_what_they_scatter(calibration, found):
    case = found["cases"][2]
    assert case["case"] == calibration.DEFAULTS
    assert case["lost"] == 0
    # Few fits, and error bars from the residuals: the margin of four standard errors, and a tenth.
    assert abs(case["joint"] - 1) < 4 * case["joint_error"] + 0.1


def test_section(calibration, found):
    text = calibration.section(json.loads(json.dumps(found)))
    assert "The control, maps whose file claims half of their noise, fails the same check" in text
    assert text.count("\n| ") == 2 + len(found["cases"])


def test_the_picture_has_every_ratio_with_its_error(calibration, found):
    panels = calibration.picture(found).axes
    # The errors as they are, the control, and the default options.
    for axes, case in zip(panels, found["cases"][:3], strict=True):
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
