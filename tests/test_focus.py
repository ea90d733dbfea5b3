"""The focus offset in a surface, and the surface without it."""

import math
from dataclasses import replace

import numpy as np
import pytest

import ooftorch
from ooftorch.optics import telescopes
from ooftorch.optics.basis import ZernikeBasis
from ooftorch.simulation.noise import Noise
from ooftorch.units import SPEED_OF_LIGHT

SURFACE = {"z3": 0.3, "z5": -0.25, "z9": 0.2, "z10": 0.2}
SHIFT = 2e-3


def observe(scope="gbt", **values):
    noise = Noise(snr=300)
    return ooftorch.simulate(scope, SURFACE | values, noise=noise, seed=1, n=192, step=0.5)


@pytest.fixture(scope="module")
def fits():
    """Maps of one surface with the focus where it should be, and 2 mm too far out."""
    return [ooftorch.fit(observe(dz=dz), order=4, n=128) for dz in (0.0, SHIFT)]


@pytest.mark.parametrize(
    ("ghz", "golden"), [(32, 0.0829), (43, 0.1114), (77, 0.1995), (86, 0.2228), (90, 0.2332)]
)
def test_golden_defocus_of_the_gbt(ghz, golden):
    """Radians of z4 per millimetre, and what else a move of its subreflector makes.

    The published z4 stems from sums over pixels, and is off by 0.3 %: see `tests/optics/test_telescope.py`.
    """
    scope, k = telescopes.load("gbt"), 2 * math.pi * ghz * 1e9 / SPEED_OF_LIGHT

    def phase(x, y):
        return -k * scope.path_powers(50 * x, 50 * y)[0]

    focus = ZernikeBasis(5).project(phase)
    assert 1e-3 * focus[4] == pytest.approx(golden, rel=4e-3)
    path = {4: -0.123317, 5: -0.01185, 6: -0.00162, 7: -0.02351, 12: 0.003275, 13: 0.00292, 17: 0.00139}
    for number, metres in path.items():
        assert -focus[number] / k == pytest.approx(metres, abs=3e-5)
    assert focus[:3] == pytest.approx(0, abs=1e-9)  # piston and tilts
    # Terms that are missing do not change the others: they are orthogonal.
    assert ZernikeBasis(3).project(phase) == pytest.approx(focus[:10], abs=1e-3 * focus[4])
    assert ZernikeBasis(1).project(phase) == pytest.approx(0, abs=1e-9)
    # Over the part that a cold stop leaves: its own best defocus, coefficients of the dish.
    inner = ZernikeBasis(5).project(phase, 0.9)
    assert inner[4] == pytest.approx(focus[4], rel=0.05)


def test_a_focus_error_is_found_in_the_surface(fits):
    """With its sign: the subreflector is to be moved by minus that."""
    good, off = fits
    assert good.focus_shift[0] == pytest.approx(0, abs=4 * good.focus_shift[1])
    shift, sigma = off.focus_shift
    assert sigma < 0.1 * SHIFT
    assert shift == pytest.approx(SHIFT, abs=4 * sigma)
    assert off.phase_rms > 1.05 * off.phase_rms_refocused
    assert off.phase_rms_refocused == pytest.approx(good.phase_rms_refocused, abs=4 * off.phase_error)


def test_what_is_left_has_no_focus_in_it(fits):
    result = fits[1]
    shift, _ = result.focus_shift
    left = result.coefficients - shift * result.focus
    parameters = dict(result.parameters)
    for name, value in zip(result.basis.names, left, strict=True):
        parameters[name] = parameters[name]._replace(value=float(value))
    again = replace(result, parameters=parameters)
    assert again.focus_shift[0] == pytest.approx(0, abs=1e-12)
    assert again.phase_rms == pytest.approx(again.phase_rms_refocused)
    assert again.phase_rms == pytest.approx(result.phase_rms_refocused)
    # It is the smallest that can be had: no other shift leaves less.
    for more in (-1e-4, 1e-4):
        c = left + more * result.focus
        assert c @ result.gram @ c > result.phase_rms_refocused**2


def test_errors_are_the_scatter_of_surfaces_drawn_from_the_covariance(fits):
    result = fits[1]
    free = result.free_names
    rows = [free.index(name) for name in result.basis.names[1:]]
    draws = np.random.default_rng(0).multivariate_normal(
        np.zeros(len(rows)), result.covariance[np.ix_(rows, rows)], size=4000
    )
    draws = np.pad(draws, ((0, 0), (1, 0)))
    focus, gram = result.focus, result.gram
    shifts = draws @ gram @ focus / (focus @ gram @ focus)
    assert np.std(shifts) == pytest.approx(result.focus_shift[1], rel=0.05)
    left = draws - shifts[:, None] * focus
    rms = np.sqrt(np.mean(np.einsum("ni,ij,nj->n", left, gram, left)))
    assert rms == pytest.approx(result.phase_error_refocused, rel=0.05)
    assert result.phase_error_refocused < result.phase_error


def test_report_and_summary_have_both(fits):
    result = fits[1]
    numbers = ooftorch.summary(result)
    assert numbers["focus_shift_mm"] == pytest.approx(1e3 * result.focus_shift[0])
    assert numbers["focus_shift_error_mm"] == pytest.approx(1e3 * result.focus_shift[1])
    assert numbers["phase_rms_refocused_rad"] == result.phase_rms_refocused
    per_radian = numbers["surface_rms_um"] / numbers["phase_rms_rad"]
    assert numbers["surface_rms_refocused_um"] == pytest.approx(per_radian * result.phase_rms_refocused)
    lines = {line.split()[0]: line for line in ooftorch.report(result).splitlines() if line}
    assert f"{1e3 * result.focus_shift[0]:+.3g} +- " in lines["focus"]
    assert f"surface rms {numbers['surface_rms_refocused_um']:.0f} +- " in lines["refocused"]


def test_a_surface_of_tilts_alone_has_no_focus():
    result = ooftorch.fit(observe("alma"), order=1, n=96)
    assert np.isnan(result.focus_shift).all()
    assert math.isnan(result.phase_rms_refocused)
    assert ooftorch.summary(result)["focus_shift_mm"] is None
    assert "refocused" not in ooftorch.report(result)
