"""What `info` and `telescopes` print: every number against one worked out here."""

import math
from dataclasses import replace

import numpy as np
import pytest

from ooftorch.observation import BeamMap, Observation
from ooftorch.optics import telescopes
from ooftorch.optics.receiver import Receiver
from ooftorch.reporting.describe import describe_observation, describe_telescope

C = 299792458.0
ARCSEC = math.pi / 180 / 3600


def raster(dz, power=1.0, nx=15, ny=11, missing=(), **columns):
    """nx by ny samples, x to +-30 arcsec about 2, y to +-20 about -1, those `missing` never observed."""
    x, y = np.meshgrid(np.linspace(-28, 32, nx) * ARCSEC, np.linspace(-21, 19, ny) * ARCSEC)
    p = power * np.exp(-(x**2 + y**2) / (2 * (10 * ARCSEC) ** 2)).ravel()
    p[list(missing)] = np.nan
    return BeamMap(dz, x.ravel(), y.ravel(), p, **columns)


@pytest.fixture
def observation():
    return Observation(
        maps=(raster(0.0125, 2.0), raster(-0.005, missing=(3, 40)), raster(0.0)),
        wavelength=C / 43.1e9,
        telescope="effelsberg",
        receiver=Receiver(),
        object="3C 84",
        date_obs="2020-02-03",
        mean_el_deg=41.25,
        source="night/maps.fits",
        format="oof",
        notes=("one thing assumed", "another"),
    )


def rows(text):
    """Fields of the line of every map."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if "dz/mm" in line)
    found = [line.split() for line in lines[start + 1 :]]
    return [fields for fields in found if fields[0].isdigit()]


def line(text, label):
    return next(row for row in text.splitlines() if row.split()[0] == label)


# ------------------------------------------------------------------------------------- observations


def test_facts_of_an_observation(observation):
    text = describe_observation(observation)
    assert text.isascii()
    assert text.splitlines()[0] == "night/maps.fits (oof)"
    assert "effelsberg" in line(text, "telescope")
    assert "43.1 GHz" in line(text, "frequency")
    assert "6.95574 mm" in line(text, "frequency")  # 299792458/43.1e9
    for fact in ("3C 84", "2020-02-03", "41.2 deg"):
        assert fact in line(text, "source")
    assert "single beam" in line(text, "receiver")
    # 6.95574 mm over 100 m is 6.95574e-5 rad.
    assert line(text, "wavelength/diameter").split()[1:] == ["14.35", "arcsec"]
    assert [row.strip() for row in text.splitlines() if "note:" in row] == [
        "note: one thing assumed",
        "note: another",
    ]


def test_rows_of_the_maps(observation):
    found = rows(describe_observation(observation))
    assert [row[0] for row in found] == ["0", "1", "2"]
    assert [float(row[1]) for row in found] == [-5.0, 0.0, 12.5]
    assert [int(row[2]) for row in found] == [163, 165, 165]
    assert [int(row[3]) for row in found] == [2, 0, 0]
    assert [row[4:7] for row in found] == [["15", "x", "11"]] * 3
    assert [[float(v) for v in row[7:11]] for row in found] == [[-28, 32, -21, 19]] * 3
    peak = math.exp(-(2**2 + 1**2) / 200)  # of the sample nearest to the source, at x 2, y -1 arcsec
    assert [float(row[11]) for row in found] == pytest.approx([peak, peak, 2 * peak], rel=1e-3)
    assert [row[12] for row in found] == ["none"] * 3


def test_scan_lines_of_the_maps(observation):
    along_x = raster(-0.01)
    along_y = replace(along_x, dz=0.0, scans="columns", smear=2.5 * ARCSEC)
    text = describe_observation(replace(observation, maps=(along_x, along_y, raster(0.01, scans="none"))))
    ends = [line.rpartition("none  ")[2] for line in text.splitlines() if line.split()[0] in "012"]
    assert ends == [
        "11 scan lines along DX",
        "15 scan lines along DY, smeared over 2.5 arcsec",
        "no scan lines",
    ]


def test_errors_are_their_median_over_what_was_observed(observation):
    sigma = np.concatenate([np.full(84, 0.25), np.full(81, 7.0)])
    sigma[:2] = 1e9
    maps = (raster(0.0, missing=(0, 1), sigma=sigma), raster(0.01, sigma=np.full(165, 0.125)))
    found = rows(describe_observation(replace(observation, maps=maps)))
    assert [float(row[12]) for row in found] == [0.25, 0.125]  # 82 of 163 samples


def test_scattered_samples_are_no_raster(observation):
    x, y, p = np.random.default_rng(1).normal(size=(3, 50)) * ARCSEC
    scattered = BeamMap(0.02, x, y, p)
    found = rows(describe_observation(replace(observation, maps=(raster(0.0), scattered))))
    assert found[0][4:7] == ["15", "x", "11"]
    assert found[1][4] == "scattered"
    assert float(found[1][5]) == pytest.approx(x.min() / ARCSEC, abs=0.05)


def test_a_position_that_was_never_observed_does_not_count(observation):
    m = raster(0.0, missing=(0,))
    x = m.x.copy()
    x[0] = np.nan
    maps = (BeamMap(0.0, x, m.y, m.power), raster(0.01))
    assert rows(describe_observation(replace(observation, maps=maps)))[0][4:7] == ["15", "x", "11"]


def test_receivers_in_words(observation):
    chopped = Receiver(chop_x=-57.8 * ARCSEC, chop_y=3.5 * ARCSEC, gain_ratio=0.92)
    text = line(describe_observation(replace(observation, receiver=chopped)), "receiver")
    for fact in ("two beams", "(-57.8, +3.5) arcsec", "gain ratio 0.92"):
        assert fact in text
    assert "single" not in text
    disc = replace(observation, receiver=Receiver(disc_radius=8.9 * ARCSEC), illumination="tophat")
    text = line(describe_observation(disc), "receiver")
    assert "disc of radius 8.9 arcsec" in text
    assert "illumination tophat" in text


def test_what_is_not_known_is_said(observation):
    bare = replace(observation, telescope=None, object="", date_obs="", mean_el_deg=None)
    text = describe_observation(bare)
    assert "--telescope" in line(text, "telescope")
    for word in ("not named", "date unknown", "elevation unknown"):
        assert word in line(text, "source")
    assert "wavelength/diameter" not in text
    assert "None" not in text


def test_an_unknown_telescope_leaves_the_rest(observation):
    text = describe_observation(replace(observation, telescope="effelsbreg"))
    assert "nearest: effelsberg" in line(text, "telescope")
    assert len(rows(text)) == 3
    assert "wavelength/diameter" not in text


# --------------------------------------------------------------------------------------- telescopes


def number(text, label, before):
    """The number that stands before a word in the line of that label."""
    words = line(text, label).replace(",", "").split()
    return float(words[words.index(before) - 1])


@pytest.mark.parametrize("name", telescopes.names())
def test_every_telescope_can_be_described(name):
    text = describe_telescope(telescopes.load(name))
    assert text.isascii()
    assert text.startswith(f"{name}: ")
    assert "None" not in text
    assert "nan" not in text
    assert len(text.splitlines()) == 10


def test_what_a_simulation_takes():
    assert "43.1 GHz, 35 mm out of focus" in describe_telescope(telescopes.load("gbt"))
    own = replace(telescopes.load("gbt"), frequency=None)
    assert "simulated at   no usual frequency" in describe_telescope(own)


def test_focus_of_two_mirrors():
    # Each paraboloid, the primary and the equivalent one: cos t falls by 2 a^2/(1 + a^2), a = R/2F.
    text = describe_telescope(telescopes.load("effelsberg"))
    change = sum(2 * a * a / (1 + a * a) for a in (50 / 60, 50 / (2 * 387.39435)))
    assert number(text, "focus", "um") == pytest.approx(1000 * change, abs=0.6)
    assert number(text, "radius", "m") == 50
    assert line(text, "radius").endswith("focal length 30 m")


def test_focus_of_a_feed():
    a = 2.8 / 28.8
    text = describe_telescope(telescopes.load("paper"))
    assert number(text, "focus", "um") == pytest.approx(2000 * a * a / (1 + a * a), abs=0.6)


def test_blockage():
    alma = describe_telescope(telescopes.load("alma"))
    assert "centre to 0.375 m" in line(alma, "blockage")
    assert number(alma, "open", "%") == pytest.approx(100 * (1 - (0.375 / 6) ** 2), abs=0.051)
    assert "none" in line(describe_telescope(telescopes.load("gbt")), "blockage")
    assert number(describe_telescope(telescopes.load("gbt")), "open", "%") == 100
    effelsberg = line(describe_telescope(telescopes.load("effelsberg")), "blockage")
    assert "four legs as 'plus' with shadows of 10 deg" in effelsberg
    assert "holes: 1" in line(describe_telescope(telescopes.load("alma-tp")), "blockage")


def test_open_aperture_with_legs(tmp_path):
    """A cross of half width w on a dish of radius R hides 2 (a + b) - 4 w^2 of pi R^2, a = b its bars."""
    file = tmp_path / "cross.toml"
    file.write_text(
        'radius_m = 10\n[optics]\ntype = "prime-focus"\nfocal_length_m = 4\n'
        '[blockage.legs]\nshape = "plus"\nhalf_width_m = 1.5\n'
        '[illumination]\nmodel = "tophat"\nradius_m = 9.5\n'
    )
    text = describe_telescope(telescopes.load(file))
    bar = 2 * (1.5 * math.sqrt(100 - 1.5**2) + 100 * math.asin(0.15))
    hidden = (2 * bar - 9) / (math.pi * 100)
    assert text.startswith("cross: ")
    assert number(text, "open", "%") == pytest.approx(100 * (1 - hidden), abs=0.06)
    assert line(text, "illumination").split()[1:] == ["tophat,", "cold", "stop", "9.5", "m"]


def test_illumination():
    text = describe_telescope(telescopes.load("effelsberg"))
    assert line(text, "illumination").split()[1:] == ["gaussian,", "edge", "taper", "-14.5", "dB"]
