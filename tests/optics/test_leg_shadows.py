"""Widths of the legs and of their shadows: coverage against counted points, and its derivative."""

import dataclasses

import numpy as np
import pytest
import torch

from ooftorch.optics import telescopes
from ooftorch.optics.amplitude import OpenFraction
from ooftorch.optics.instrument import MapGeometry
from ooftorch.optics.leg_shadows import FACTORS
from ooftorch.optics.model import BeamModel

LEGGED = ["alma-dv", "alma-tp", "effelsberg", "srt", "vla"]
WAVELENGTH = 9e-3


def build(name, n=128):
    scope = telescopes.load(name)
    beam = WAVELENGTH / (2 * scope.radius)
    axis = beam * np.linspace(-2, 3, 9)
    x, y = (a.ravel() for a in np.meshgrid(axis, axis))
    return BeamModel(scope, WAVELENGTH, [MapGeometry(2e-3, x, y)], order=2, n=n, oversample=1.25)


def open_fraction(model, **widths):
    part = model.parts.open_fraction
    values = torch.tensor([widths.get(p.name, 1.0) for p in part.parameters], dtype=torch.float64)
    return part.evaluate(values).numpy()


def counted(model, n=32, **widths):
    """Open fraction of the pixels by counting n x n points in each, one at random in every small square."""
    pixels, corners = model.pixels, np.arange(n) / n - 0.5
    random, count = np.random.default_rng(0), np.zeros(len(pixels.x))
    for cy in corners:
        for cx in corners:
            dx, dy = random.uniform(0, 1 / n, (2, len(count)))
            x, y = pixels.x + pixels.pitch * (cx + dx), pixels.y + pixels.pitch * (cy + dy)
            count += model.telescope.open_at(x, y, widths=widths)
    return count / n**2


def test_the_widths_are_those_that_the_telescope_has():
    def declared(name):
        instrument = build(name, 32).instrument
        return {p.name: (p.start, p.free, p.log, p.prior) for p in OpenFraction.declare(instrument)}

    width = (1.0, True, True, 0.3)
    assert declared("gbt") == {}
    assert declared("srt") == {"legs": width}
    assert declared("effelsberg") == {"legs": width, "shadow": width}


@pytest.mark.parametrize("name", LEGGED)
def test_nominal_widths_are_the_coverage_of_the_telescope(name):
    model = build(name)
    pixels = model.pixels
    expected = model.telescope.coverage(pixels.x, pixels.y, pixels.pitch)
    np.testing.assert_allclose(open_fraction(model), expected, rtol=0, atol=1e-11)
    # ... and every pixel of the dish that is not here stays covered however narrow the legs are.
    x, y = np.meshgrid(pixels.axis, pixels.axis)
    narrow = model.telescope.open_at(x, y, widths={"legs": FACTORS[1], "shadow": FACTORS[1]})
    assert set(np.flatnonzero(narrow)) <= set(pixels.index)


@pytest.mark.parametrize("factor", [0.5, 1.1, 2.4])
@pytest.mark.parametrize("name", ["alma-dv", "effelsberg", "srt"])
def test_other_widths_cover_what_points_say(name, factor):
    """The change of the covered area, in all and in each quarter of the dish, to a few per cent."""
    model = build(name)
    for width in model.telescope.blockage.legs.widths:
        found = open_fraction(model, **{width: factor}) - open_fraction(model)
        expected = counted(model, **{width: factor}) - counted(model)
        for part in (found < 2, (model.pixels.x > 0) & (model.pixels.y > 0), model.pixels.x > 0.5):
            assert abs(expected[part].sum()) > 0.5
            assert found[part].sum() == pytest.approx(expected[part].sum(), rel=0.04)
        # Pixel by pixel the table is no worse than counting few points.
        assert np.sqrt(np.mean((found - expected) ** 2)) < 0.03


@pytest.mark.parametrize("name", ["alma-dv", "srt"])
def test_wider_legs_are_those_of_a_telescope_with_wider_legs(name):
    """Change of the beams by two routes: the parameter, and a telescope whose file has the other width."""
    model = build(name)
    legs = model.telescope.blockage.legs

    def fine(factor):
        other = dataclasses.replace(legs, half_width=tuple(factor * w for w in legs.half_width))
        blockage = dataclasses.replace(model.telescope.blockage, legs=other)
        scope = dataclasses.replace(model.telescope, blockage=blockage)
        with torch.no_grad():
            return BeamModel(scope, WAVELENGTH, model.maps, order=2, n=1024, oversample=1.25)().numpy()

    with torch.no_grad():
        nominal = model().numpy()
        model.set(legs=1.5)
        change = model().numpy() - nominal
    expected = fine(1.5) - fine(1.0)
    assert np.abs(change - expected).max() < 0.07 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["alma-dv", "effelsberg"])
def test_slope_is_continuous_and_that_of_the_fraction(name):
    part = build(name, 64).parts.open_fraction
    names = [p.name for p in part.parameters]
    places = np.concatenate([FACTORS, FACTORS + 1e-9, FACTORS - 1e-9, [0.1, 0.95, 1.04, 5.0]])
    for i, width in enumerate(names):
        values = torch.ones(len(places), len(names), dtype=torch.float64)
        values[:, i] = torch.as_tensor(places)
        slope = part.evaluate(values) * part.log_derivatives(values)[width]()
        step = torch.zeros(len(names), dtype=torch.float64)
        step[i] = 1e-6
        differences = (part.evaluate(values + step) - part.evaluate(values - step)) / 2e-6
        torch.testing.assert_close(slope, differences, rtol=0, atol=2e-4)
        n = len(FACTORS)
        assert float(slope[:n][FACTORS == 1].abs().sum()) > 0.1 * len(slope[0]) ** 0.5
        # Beyond the table nothing changes, and at its ends the slope is zero already.
        assert float(slope[[0, n - 1, -4, -1]].abs().max()) < 1e-12
        # Both sides of every node of the table.
        torch.testing.assert_close(slope[n : 2 * n], slope[2 * n : 3 * n], rtol=0, atol=1e-6)


def test_every_fraction_has_a_logarithm():
    """Covered pixels, and those that wider legs cover: the derivative of the amplitude stays finite."""
    part = build("effelsberg", 64).parts.open_fraction
    for factor in (0.3, 1.0, 1.37, 3.0):
        values = torch.full((2,), factor, dtype=torch.float64)
        assert bool((part.evaluate(values).abs() >= 1e-12).all())
        for derivative in part.log_derivatives(values).values():
            assert bool(derivative().isfinite().all())
