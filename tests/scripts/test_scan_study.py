"""The study of scans: what is compared with what, and that its words follow its numbers."""

import json

import numpy as np
import pytest
from figures import shown

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scans():
    import scans

    return scans


@pytest.fixture(scope="module")
def found(scans):
    return scans.measure(quick=True)


def test_the_same_white_noise_is_under_what_is_compared(scans):
    case = scans.CASES[1]
    (spoilt,), (white,) = (
        case.setup.observe(noise, range(1)) for noise in (scans.Noise(drift=0.003), scans.Noise())
    )
    (clean,) = case.setup.observe(scans.Noise(), range(1))
    for a, b, c in zip(spoilt.maps, white.maps, clean.maps, strict=True):
        np.testing.assert_array_equal(b.power, c.power)
        difference = a.power - b.power
        # A drift alone: steps from sample to sample below its rms; those of white noise are 1.41 times that.
        assert 0 < np.diff(difference).std() < difference.std()
    assert spoilt.truth.parameters["z5"] == white.truth.parameters["z5"]


def test_levels_of_lines_are_taken_up(found):
    alma = found["cases"][0]
    default, without = alma["fits"][:2]
    assert (default["fit"], without["fit"]) == ("default", "no terms of lines")
    assert default["found"]["error"] < 0.8 * without["found"]["error"]
    assert default["found"]["scan_terms"] > 0.002
    assert without["found"]["scan_terms"] == 0
    # Nothing is to be found in white noise alone.
    assert default["white"]["scan_terms"] < 0.1 * default["found"]["scan_terms"]


def test_ratios_are_those_of_the_rms_errors(found):
    for case in found["cases"]:
        for f in case["fits"]:
            errors = [np.sqrt(np.mean(np.square(f[kind]["errors"]))) for kind in ("found", "white")]
            assert f["ratio"] == pytest.approx(errors[0] / errors[1])
    for row in found["clean"]:
        assert row["everything"]["ratio"] == pytest.approx(row["everything"]["error"] / row["known"]["error"])
        # The fit that knows has no freedom; every freedom means the bend, too.
        assert set(row["known"]["amplitude_orders"]) == {0}
        assert set(row["everything"]["amplitude_orders"]) == {8}


def test_its_words(scans, found):
    stored = json.loads(json.dumps(found))
    assert stored["cases"][0]["target"] == 1.25
    text = scans.section(stored)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 4 + sum(len(c["fits"]) for c in found["cases"]) + 3 * len(found["clean"])
    for met, word in ((True, "Met"), (False, "Missed")):
        for case in stored["cases"]:
            case["met"] = met
        assert scans.section(stored).count(f"white noise alone. {word}: ") == 1
        assert scans.section(stored).count(f"rad. {word}: ") == 1


def test_its_picture_has_every_surface(scans, found):
    panels = scans.picture(found).axes
    for axes, case in zip(panels, found["cases"], strict=True):
        for line, f in zip(axes.lines[:2], case["fits"][:2], strict=True):
            assert list(line.get_xdata()) == f["white"]["errors"]
            assert list(line.get_ydata()) == f["found"]["errors"]
    shown(panels[0], "default")
    assert panels[0].get_ylabel() == "error (rad)"
