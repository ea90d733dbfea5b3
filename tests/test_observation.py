"""Observations: what is kept, what is masked, how they mirror, and what is refused."""

import dataclasses

import numpy as np
import pytest

from ooftorch.errors import InputError
from ooftorch.observation import BeamMap, Observation
from ooftorch.optics.receiver import Receiver


def beam_map(dz, n=20, **changed):
    """Valid map of n samples in a slanted line, with any field changed."""
    i = np.arange(n, dtype=float)
    fields = {"x": 1e-5 * i, "y": -2e-5 * i, "power": np.exp(-0.1 * i)}
    return BeamMap(dz, **{**fields, **changed})


def observation(*maps, **changed):
    fields = {"wavelength": 3.5e-3, "telescope": "gbt", "receiver": Receiver()}
    return Observation(maps or (beam_map(-0.01), beam_map(0.01)), **{**fields, **changed})


def test_maps_are_sorted_by_dz_and_equal_dz_keep_their_order():
    names = [(0.02, 1.0), (-0.02, 2.0), (0.02, 3.0), (0.0, 4.0)]
    maps = [beam_map(dz, power=np.linspace(0, mark, 20)) for dz, mark in names]
    found = [(m.dz, m.power[-1]) for m in observation(*maps).maps]
    assert found == [(-0.02, 2.0), (0.0, 4.0), (0.02, 1.0), (0.02, 3.0)]


def test_columns_become_native_doubles_that_are_copies_and_read_only():
    power = np.arange(20, dtype=">f4") / 3
    m = beam_map(0.0, power=power, sigma=np.ones(20, dtype=">f4"))
    for column in (m.x, m.y, m.power, m.sigma):
        assert column.dtype == np.dtype("=f8")
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 1
    power[3] = -1
    assert m.power[3] == np.float32(1.0)


def test_never_observed_is_masked_and_a_zero_is_data():
    power = np.ma.masked_array(np.ones(20), mask=np.arange(20) == 7)
    power[[1, 2]] = np.nan, 0.0
    flags = np.arange(20) != 11
    m = beam_map(0.0, power=power, valid=flags)
    assert list(np.flatnonzero(~m.valid)) == [1, 7, 11]
    assert (m.n_valid, m.n_missing) == (17, 3)
    assert m.power[2] == 0
    assert np.isnan(m.power[~m.valid]).all()


def test_frequency_is_exact():
    assert observation(wavelength=299792458.0 / 32e9).frequency == pytest.approx(32e9, rel=1e-15)


def received(obs, z_sign, aperture, amplitude, phase, path):
    """Power of every map of `obs`, straight from the definition, for the surface `z_sign * phase`."""
    out = []
    for m in obs.maps:
        field = amplitude * np.exp(1j * (z_sign * phase - 2 * np.pi / obs.wavelength * path * m.dz))
        half = 0.5 * np.array([[obs.receiver.chop_x], [obs.receiver.chop_y]])
        g = obs.receiver.gain_ratio
        total = 0
        for weight, centre in ((1 / np.sqrt(g), half), (-np.sqrt(g), -half)):
            kernel = np.exp(-2j * np.pi / obs.wavelength * ((np.array([m.x, m.y]) - centre).T @ aperture))
            total = total + weight * np.abs(kernel @ field) ** 2
        out.append(total)
    return np.array(out)


def test_mirrored_observation_is_that_of_the_negated_surface():
    rng = np.random.default_rng(1)
    aperture = rng.uniform(-50, 50, (2, 200))
    physics = aperture, rng.uniform(0.5, 1, 200), rng.normal(0, 1, 200), rng.uniform(-1, 1, 200)
    xy = rng.uniform(-2e-4, 2e-4, (2, 30))
    maps = [
        BeamMap(dz, *xy, power=np.arange(30), sigma=np.arange(1, 31)) for dz in (-0.003, 0.0, 0.005, 0.009)
    ]
    obs = observation(*maps, receiver=Receiver(chop_x=1e-4, chop_y=-3e-5, gain_ratio=0.8))
    mirror = obs.mirrored()

    assert [m.dz for m in mirror.maps] == [-0.009, -0.005, 0.0, 0.003]
    expected = received(obs, +1, *physics)
    np.testing.assert_allclose(received(mirror, -1, *physics)[::-1], expected, rtol=1e-9)
    # The same with one sign left out is another observation.
    unturned = dataclasses.replace(mirror, receiver=obs.receiver)
    assert not np.allclose(received(unturned, -1, *physics)[::-1], expected, rtol=0.1)

    back = mirror.mirrored()
    assert back.receiver == obs.receiver
    for a, b in zip(back.maps, obs.maps, strict=True):
        assert a.dz == b.dz
        for name in ("x", "y", "power", "sigma", "valid"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_check_accepts_what_can_be_fitted():
    few = np.full(20, np.nan)
    few[:10] = np.arange(10)
    bad_where_missing = np.where(np.arange(20) < 10, 1.0, 0.0)
    observation(
        beam_map(0.01), beam_map(-0.01, power=few, x=few * 1e-5, sigma=bad_where_missing), beam_map(0.01)
    ).check()


def filled(*values):
    """Twenty ones with the first replaced."""
    column = np.ones(20)
    column[: len(values)] = values
    return column


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda: observation(wavelength=0.0), "wavelength is 0 m; it must be positive"),
        (lambda: observation(wavelength=-1e-3), "it must be positive"),
        (lambda: observation(wavelength=np.nan), "wavelength is nan m"),
        (lambda: observation(beam_map(0.0)), "number of maps is 1; at least two"),
        (lambda: observation(beam_map(0.01), beam_map(0.01)), r"all 2 maps are at dz \+10 mm"),
        (lambda: observation(beam_map(-20), beam_map(20)), "focus offset of -20 m; give dz in metres"),
        (lambda: observation(beam_map(0), beam_map(np.nan)), "focus offset of nan m"),
        (
            lambda: observation(beam_map(-0.01), beam_map(0.01, power=np.full(20, np.nan))),
            r"map 2 of 2 \(dz \+10 mm\): all 20 samples are missing",
        ),
        (
            lambda: observation(beam_map(0.01), beam_map(-0.01, n=9)),
            r"map 1 of 2 \(dz -10 mm\): 9 valid samples; at least 10",
        ),
        (
            lambda: observation(beam_map(0), beam_map(0.01, valid=np.arange(20) < 9)),
            "9 valid samples; at least 10",
        ),
        (lambda: observation(beam_map(0), beam_map(0.01, sigma=filled(0, 0))), "2 of 20 errors .* are zero"),
        (lambda: observation(beam_map(0), beam_map(0.01, sigma=filled(-1))), "1 of 20 errors"),
        (lambda: observation(beam_map(0), beam_map(0.01, sigma=filled(np.nan))), "1 of 20 errors"),
        (lambda: observation(beam_map(0), beam_map(0.01, y=filled(np.nan))), "DY is not finite for 1 "),
        (lambda: observation(beam_map(0), beam_map(0.01, x=filled(206.0))), "DX reaches 206 rad; .*radians"),
        (lambda: observation(beam_map(0), beam_map(0.01, power=np.zeros(20))), "all 20 powers are 0"),
        (lambda: observation(receiver=Receiver(chop_x=1e-4, gain_ratio=0.0)), "out of range"),
        (lambda: observation(receiver=Receiver(disc_radius=-1e-4)), "out of range"),
    ],
)
def test_check_refuses(bad, message):
    with pytest.raises(InputError, match=message) as caught:
        bad().check()
    assert "\n" not in str(caught.value)


def test_a_refusal_names_the_file():
    with pytest.raises(InputError, match=r"^maps\.fits: number of maps"):
        observation(beam_map(0.0), source="maps.fits").check()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": np.zeros(19)}, r"x has shape \(19,\); expected \(20,\)"),
        ({"power": np.zeros((4, 5))}, r"power has shape \(4, 5\)"),
        ({"sigma": np.zeros(3)}, r"sigma has shape \(3,\)"),
        ({"valid": np.ones(3, bool)}, r"valid has shape \(3,\)"),
        ({"power": np.ones(20) * 1j}, "power is of type complex128; expected real"),
        ({"y": ["a"] * 20}, "y is of type <U1; expected real"),
    ],
)
def test_columns_that_do_not_belong_together_are_refused(changed, message):
    with pytest.raises(InputError, match=message):
        beam_map(0.0, **changed)
