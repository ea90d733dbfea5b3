"""The set of spoilt maps: every way spoils, the file does not tell, and one tunes on another set."""

import json

import numpy as np
import pytest
import spoilt

pytestmark = pytest.mark.slow

ALMA, EFFELSBERG = spoilt.FINAL[2], spoilt.FINAL[1]


@pytest.fixture(scope="module")
def found():
    return spoilt.measure(quick=True)


@pytest.fixture(scope="module")
def sample():
    return spoilt.Sample(EFFELSBERG, 3, 0.5, 300.0)


@pytest.fixture(scope="module")
def clean(sample):
    return spoilt.observe(sample, spoilt.Truth())


@pytest.mark.parametrize("way", spoilt.WAYS, ids=lambda way: way.name)
def test_every_way_spoils_more_the_larger_it_is(way, sample, clean):
    sigma = clean.maps[0].sigma[0]
    changes = []
    for size in (way.sizes[0], way.sizes[-1]):
        true = way.spoil(sample, size)
        o = spoilt.observe(sample, true)
        o.check()
        # What the fit is told is the same as for maps that are not spoilt.
        assert o.receiver == clean.receiver
        assert o.illumination is None
        assert all(m.smear == 0 for m in o.maps)
        pairs = list(zip(o.maps, clean.maps, strict=True))
        kept = [n.valid for n, _ in pairs]
        power = [(n.power - m.power)[k] / sigma for (n, m), k in zip(pairs, kept, strict=True)]
        of_file = [
            abs(o.wavelength / clean.wavelength - 1),
            *(abs(n.dz - m.dz) for n, m in pairs),
            sum(float((~k).sum()) for k in kept),
            float(true.assumed is not None),
        ]
        changes.append((float(np.sqrt(np.mean(np.concatenate(power) ** 2))), sum(of_file)))
    by_power, by_file = zip(*changes, strict=True)
    assert min(by_power) > 0.3 or min(by_file) > 0
    assert by_power[1] > by_power[0] or by_file[1] > by_file[0]


def test_the_set_to_tune_on_is_another_one():
    def seeds(first, n_spoilt, n_good):
        return {*range(first, first + n_spoilt), *range(first + 1000, first + 1000 + n_good)}

    final = seeds(spoilt.FINAL_SEED, spoilt.SPOILT, spoilt.GOOD)
    tune = seeds(spoilt.TUNE_SEED, spoilt.TUNE_SPOILT, spoilt.TUNE_GOOD)
    assert not final & tune
    assert len(final) == spoilt.SPOILT + spoilt.GOOD
    assert not set(spoilt.FINAL) & set(spoilt.TUNE)


def test_the_samples_are_of_the_stated_range():
    samples = spoilt.draw_samples(spoilt.FINAL, range(200))
    assert {s.setup.order for s in samples} == {4, 5, 6}
    for values, low, high in (([s.rms for s in samples], 0.3, 1.0), ([s.snr for s in samples], 100, 500)):
        assert low <= min(values) < 1.1 * low
        assert 0.9 * high < max(values) <= high


def test_good_maps_have_a_little_of_everything(sample):
    true = spoilt.make_good(sample)
    o = spoilt.observe(sample, true)
    parameters = o.truth.parameters
    for name, nominal in (("x0", 0), ("y0", 0), ("legs", 1), ("shadow", 1), ("dz_scale", 1), ("dx_0", 0)):
        assert parameters[name].value != nominal
    assert {f"{kind}_rms_{i}" for kind in ("drift", "level") for i in range(3)} <= parameters.keys()
    # Twice the same.
    np.testing.assert_array_equal(o.maps[1].power, spoilt.observe(sample, true).maps[1].power)


def test_the_fit_that_is_told_holds_the_truth(sample):
    observation, result = spoilt.fit_told(sample)
    for name in ("dx_1", "dy_2", "x0", "sigma", "legs", "dz_scale", "gain_0"):
        assert not result.parameters[name].free
        assert result.parameters[name].value == pytest.approx(observation.truth.parameters[name].value)
    assert observation.truth.rms_error(result.coefficients) < 2 * result.phase_error


def test_a_wrong_wavelength_is_judged_by_the_surface_in_metres(clean):
    class Fitted:
        coefficients = np.array([clean.truth.parameters[f"z{k}"].value for k in range(21)])

    assert spoilt.find_error(clean, Fitted, clean.wavelength) == pytest.approx(0, abs=1e-9)
    # Read from a file with a tenth more wavelength, the same radians are a tenth more surface.
    wrong = spoilt.replace(clean, wavelength=1.1 * clean.wavelength)
    rms = clean.truth.rms_error(np.zeros(3))
    assert spoilt.find_error(wrong, Fitted, clean.wavelength) == pytest.approx(0.1 * rms)


def test_its_words(found):
    stored = json.loads(json.dumps(found))
    text = spoilt.section(stored)
    assert "| all |  | 4 |" in text
    for row in stored["spoilt"]:
        for option in spoilt.OPTIONS:
            assert row[option]["recovered"] == (row[option]["error"] <= max(0.1, 0.25 * row["rms"]))
        row["default"]["recovered"] = False
    stored["ratios"]["default"] = [1.2, 0.1]
    text = spoilt.section(stored)
    assert "Missed: 0%" in text
    assert "Missed: 1.200 times" in text


def test_its_picture_has_every_way(found):
    figure = spoilt.picture(found)
    (axes,) = figure.axes
    ways = list(dict.fromkeys(row["way"] for row in found["spoilt"]))
    assert [label.get_text() for label in axes.get_yticklabels()] == ways[::-1]
    assert len(axes.patches) == len(ways) * len(spoilt.OPTIONS)
    assert all(bar.get_width() <= 1 for bar in axes.patches)
