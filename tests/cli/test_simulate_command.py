"""`ooftorch simulate`: what it writes, and one line for every request that makes no sense."""

import json

import numpy as np
import pytest
from astropy.io import fits
from command import assert_refused, run, tree

import ooftorch
from ooftorch.simulation import surfaces as surface

ALMA = ["--telescope", "alma", "--reach", 4, "--step", 0.5]


def simulate(folder, *options, out="sim.fits"):
    return run(folder, "simulate", out, *ALMA, *options)


@pytest.mark.slow
def test_a_file_that_marks_its_own_fit(tmp_path):
    ran = simulate(tmp_path, "--order", 3, "--rms", 0.5, "--dz-mm", "-4,0,4", "--snr", 300, "--seed", 1)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.endswith("written to sim.fits\n")
    assert [path.name for path in tmp_path.iterdir()] == ["sim.fits"]
    observation = ooftorch.read(tmp_path / "sim.fits")
    expected = surface.random(3, 0.5, seed=1)
    assert {k: observation.truth.parameters[k].value for k in expected} == expected
    assert [m.dz for m in observation.maps] == [-0.004, 0.0, 0.004]
    fitted = run(tmp_path, "fit", "sim.fits", "--order", 3, "--json")
    truth = json.loads(fitted.out)["truth"]
    assert 0 < truth["actual_phase_error_rad"] < 2 * truth["predicted_rad"] < 0.1
    assert max(map(abs, truth["pulls"].values())) < 4
    told = run(tmp_path, "fit", "sim.fits", "--order", 3, "--out", "again").out
    (line,) = [line for line in told.splitlines() if line.startswith("truth")]
    assert f"{truth['actual_phase_error_rad']:.2g}"[:4] in line


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    options = ["--rms", 0.5, "--snr", 100, "--drift", 0.01, "--glitches", 0.1, "--jitter-arcsec", 0.1]
    for name, seed in (("a.fits", 1), ("b.fits", 1), ("c.fits", 2)):
        assert simulate(tmp_path, *options, "--seed", seed, out=name).status == 0
    found = tree(tmp_path)
    assert found["a.fits"] == found["b.fits"] != found["c.fits"]


def test_parts_of_a_surface_add_up(tmp_path):
    (tmp_path / "surface.txt").write_text("z5 0.5\nz9 0.25\n")
    ran = simulate(
        tmp_path,
        *("--coeffs", "surface.txt", "--gravity", 0.3, "--rms", 0.2, "--order", 4, "--bump", "2,-1,1.5,30"),
        *("--set", "sigma=0.5", "--set", "gain_0=2", "--seed", 7, "--seed-of", "surface=3"),
    )
    assert ran.status == 0, ran.err
    truth = ooftorch.read(tmp_path / "sim.fits").truth
    drawn, gravity = surface.random(4, 0.2, seed=3), surface.gravity(0.3, seed=3)
    assert truth.parameters["z5"].value == pytest.approx(0.5 + drawn["z5"] + gravity["z5"])
    assert truth.parameters["z9"].value == pytest.approx(0.25 + drawn["z9"] + gravity["z9"])
    assert (truth.parameters["sigma"].value, truth.parameters["gain_0"].value) == (0.5, 2.0)
    z = np.array([truth.parameters[f"z{k}"].value for k in range(15)])
    rest = -truth.error(z)
    y, x = np.unravel_index(np.nanargmax(rest), rest.shape)
    assert (truth.axis[x], truth.axis[y]) == pytest.approx((2, -1), abs=0.1)


@pytest.mark.slow
def test_a_fitted_surface_can_be_observed_again(tmp_path):
    simulate(tmp_path, "--rms", 0.4, "--order", 3, "--snr", 500)
    run(tmp_path, "fit", "sim.fits", "--order", 3, "--out", "fit")
    fitted = json.loads((tmp_path / "fit" / "summary.json").read_text())["parameters"]
    for source in ("fit/summary.json", "fit/fit.fits"):
        assert simulate(tmp_path, "--coeffs", source, "--overwrite").status == 0
        true = ooftorch.read(tmp_path / "sim.fits").truth.parameters
        assert all(true[f"z{k}"].value == fitted[f"z{k}"]["value"] for k in range(10))
    as_map = simulate(tmp_path, "--phase-map", "fit/fit.fits", out="map.fits")
    assert as_map.status == 0, as_map.err
    z = np.array([fitted[f"z{k}"]["value"] for k in range(10)])
    assert ooftorch.read(tmp_path / "map.fits").truth.rms_error(z) < 0.01


def test_settings_arrive(tmp_path):
    ran = simulate(
        tmp_path,
        *("--frequency-ghz", 230, "--chop-arcsec", "-5,2", "--disc-arcsec", 3, "--pattern", "otf"),
        *("--illumination", "pedestal", "--peak", 3, "--dz-mm", "1,-1,0"),
    )
    assert ran.status == 0, ran.err
    observation = ooftorch.read(tmp_path / "sim.fits")
    arcsec = np.pi / 180 / 3600
    assert observation.frequency == pytest.approx(230e9)
    receiver = observation.receiver
    assert (receiver.chop_x, receiver.chop_y) == pytest.approx((-5 * arcsec, 2 * arcsec))
    assert receiver.disc_radius == pytest.approx(3 * arcsec)
    assert observation.illumination == "pedestal"
    assert observation.truth.parameters["gain_1"].value == 3
    minus, zero, plus = observation.maps
    assert plus.time[-1] < minus.time[0] < zero.time[0], "in the order given"
    assert plus.smear == 0
    assert np.abs(np.diff(plus.x)).max() < 1.01 * 0.25 * observation.wavelength / 12


def test_nuisances_of_scans_arrive(tmp_path):
    ran = simulate(
        tmp_path,
        *("--slope", 0.02, "--line-gain", 0.03, "--gain-drift", 0.04, "--baseline", 0.05),
        *("--line-pointing-arcsec", 0.5, "--pointing-arcsec", 0.7, "--smear-arcsec", 1.5),
    )
    assert ran.status == 0, ran.err
    assert "scan lines along DX, smeared over 1.5 arcsec" in ran.out
    observation = ooftorch.read(tmp_path / "sim.fits")
    arcsec = np.pi / 180 / 3600
    assert [m.smear for m in observation.maps] == pytest.approx([1.5 * arcsec] * 3, rel=1e-12)
    true = {name: p.value for name, p in observation.truth.parameters.items()}
    assert true["line_pointing_rms_0"] == pytest.approx(0.5 * arcsec, rel=0.5)
    assert true["line_gain_rms_1"] == pytest.approx(0.03, rel=0.5)
    assert true["gain_drift_rms_2"] == pytest.approx(0.04)
    # Over the peak, which with all these is no round number.
    assert true["slope_rms_1"] / true["level_rms_1"] == pytest.approx(0.02 / 0.05, rel=0.7)
    assert 0 < abs(true["dx_0"]) < 4 * arcsec


@pytest.mark.parametrize("layout", ["oof", "pyoof", "image"])
def test_formats(tmp_path, layout):
    assert simulate(tmp_path, "--gravity", 0.3, "--format", layout, "--snr", 100).status == 0
    observation = ooftorch.read(tmp_path / "sim.fits")
    assert observation.format == layout
    assert observation.truth is not None
    with fits.open(tmp_path / "sim.fits") as hdus:
        history = " ".join(hdus[0].header["HISTORY"])
    assert "simulated by ooftorch" in history
    assert "z5" in history


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--telescope", "arecibo"], "no telescope is named 'arecibo'"),
        (["--snr", -5], "snr is -5"),
        (["--snr", "high"], "high"),
        (["--snr", 5, "--snr-per-beam", 5], "one of them"),
        (["--glitches", 2], "fraction"),
        (["--order", 5], "without --rms"),
        (["--rms", 1, "--order", 1], "order 1"),
        (["--rms", -1], "rms of -1"),
        (["--dz-mm", "near"], "--dz-mm 'near'"),
        (["--dz-mm", "0"], "at least two"),
        (["--dz-mm", "5,5"], "different focus"),
        (["--bump", "1,2,3"], "--bump '1,2,3'"),
        (["--bump", "20,0,1,100"], "off the dish"),
        (["--coeffs", "nowhere.txt"], "nowhere.txt: no such file"),
        (["--phase-map", "small.fits"], "off this map"),
        (["--set", "z5"], "--set 'z5'"),
        (["--set", "zz=1"], "no parameter 'zz'"),
        (["--seed", -1], "seed -1"),
        (["--seed", -1, "--rms", 1], "seed -1"),
        (["--seed-of", "surface=-2", "--gravity", 1], "seed -2"),
        (["--rms", 1, "--order", 500], "order 500; the highest is 32"),
        (["--seed-of", "weather=1"], "'weather'"),
        (["--seed-of", "white=0.5"], "whole number"),
        (["--frequency-ghz", 0], "positive"),
        (["--format", "hdf5"], "hdf5"),
        (["--format", "pyoof", "--dz-mm", "1,2,3"], "oof"),
        (["--format", "pyoof", "--chop-arcsec", "5,0"], "oof"),
        (["--format", "image", "--pattern", "daisy"], "oof"),
        (["--disc-arcsec", -1], "out of range"),
        (["--step", "nan"], "positive step"),
    ],
)
def test_refusals(tmp_path, options, message):
    # A surface file off the dish: it ends at half the radius.
    image = fits.PrimaryHDU(np.zeros((61, 61)))
    image.header.update({"CDELT1": 0.1, "CDELT2": 0.1, "CRPIX1": 31, "CRPIX2": 31})
    image.writeto(tmp_path / "small.fits")
    before = tree(tmp_path)
    assert_refused(simulate(tmp_path, *options), message)
    assert tree(tmp_path) == before


def test_a_file_that_exists_stays(tmp_path):
    (tmp_path / "sim.fits").write_text("precious")
    before = tree(tmp_path)
    assert_refused(simulate(tmp_path, "--rms", 0.5), "sim.fits exists")
    assert tree(tmp_path) == before
    assert_refused(simulate(tmp_path, out="nowhere/sim.fits"), "no such directory")
    assert_refused(simulate(tmp_path, out="."), "is a directory")
    assert simulate(tmp_path, "--overwrite").status == 0
    assert ooftorch.read(tmp_path / "sim.fits").truth is not None
