"""The study of illuminations that the fit does not have."""

import amplitudes
import numpy as np
import pytest
import torch

import ooftorch

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found():
    return amplitudes.measure(quick=True)


def points(*pairs):
    return torch.tensor(pairs, dtype=torch.float64).T


def test_the_illuminations_are_what_their_names_say():
    shaped, off_axis, elliptical = (i.shape for i in amplitudes.ILLUMINATIONS.values())
    x, y = points((0, 0), (0.9, 0), (0, -0.95), (1, 0))
    decibels = 20 * torch.log10(shaped(x, y))
    assert decibels.tolist() == pytest.approx([0, 0, -15 / 4, -15])
    x, y = points((0.15, -0.075), (-0.15, 0.075), (-0.4, 0.2))
    centre, opposite, shadow = off_axis(x, y).tolist()
    assert centre > opposite > 2 * shadow
    turn = amplitudes._ANGLE
    x, y = points((np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn)))
    assert (20 * torch.log10(elliptical(x, y))).tolist() == pytest.approx([-7, -17])


def test_the_fit_has_another_illumination_than_the_maps():
    true = amplitudes.make_shaped()
    simulator = ooftorch.Simulator("alma", illumination=true, reach=5.0, step=0.5, wavelength=3e-3)
    assert simulator.observe({"z5": 0.3}).illumination == true.name
    with pytest.raises(ooftorch.InputError, match="unknown illumination"):
        ooftorch.fit(simulator.observe({"z5": 0.3}), order=3)


def test_the_bend_finds_the_surface_that_the_file_does_not(found):
    assert {row["illumination"] for row in found["rows"]} == set(amplitudes.ILLUMINATIONS)
    for row in found["rows"]:
        default, held = row["default"], row["as in the file"]
        assert default["error"] < held["error"]
        assert min(default["amplitude_orders"]) > 0 == max(held["amplitude_orders"])
        assert default["error"] < 2 * default["claimed"]


def test_its_words(found):
    errors = {
        fit: [e for row in found["rows"] for e in row[fit]["errors"]] for fit in ("default", "as in the file")
    }
    sums = [np.sum(np.square(e)) for e in errors.values()]
    assert found["ratio"] == pytest.approx(np.sqrt(sums[0] / sums[1]))
    assert "Met: 0.39 ±" in amplitudes.section({**found, "ratio": 0.39})
    assert "Missed: 0.41 ±" in amplitudes.section({**found, "ratio": 0.41})
    assert "Missed: 2.10 error bars" in amplitudes.section({**found, "bars": 2.1})


def test_its_picture_has_every_surface(found):
    (axes,) = amplitudes.picture(found).axes
    drawn = [pair for line in axes.lines[:3] for pair in zip(*line.get_data(), strict=True)]
    pairs = [
        pair
        for row in found["rows"]
        for pair in zip(row["as in the file"]["errors"], row["default"]["errors"], strict=True)
    ]
    assert sorted(drawn) == sorted(pairs)
    low, high = axes.get_xlim()
    assert all(low < x < high and low < y < high for x, y in pairs)
