"""Simulated observations in the three written layouts, and fits that mark themselves against the truth."""

import re
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

import ooftorch
from ooftorch.errors import InputError
from ooftorch.io import read, write
from ooftorch.io.result_file import read_fit, write_fit
from ooftorch.io.surfaces import read_phase_map
from ooftorch.observation import BeamMap, Observation
from ooftorch.optics.receiver import Receiver
from ooftorch.reporting.describe import describe_observation
from ooftorch.scans import find_lines, find_smear
from ooftorch.simulation import scan
from ooftorch.simulation import surfaces as surface
from ooftorch.simulation.noise import Noise
from ooftorch.truth import TrueValue, Truth

LAYOUTS = ("oof", "pyoof", "image")
ARCSEC = np.deg2rad(1 / 3600)
SURFACE = surface.random(3, 0.5, seed=4) | {"z1": 0.3, "z2": -0.2, "gain_1": 1.1}
SMALL = {"n": 128, "reach": 4.0, "step": 0.5}


@pytest.fixture(scope="module")
def simulated():
    """A map of 17 x 17 samples at each focus, some never observed, with everything a header can say."""
    made = ooftorch.simulate("alma", SURFACE, seed=3, noise=Noise(snr=300, dz=2e-5, gain=0.02), **SMALL)
    maps = tuple(replace(m, valid=np.arange(m.power.size) % 40 != i) for i, m in enumerate(made.maps))
    return replace(made, maps=maps, illumination="squashed", object="3C 84", date_obs="2021-02-03")


def written(observation, folder, layout="oof", name="a.fits"):
    write(observation, folder / name, layout=layout)
    return read(folder / name)


def assert_same_maps(a, b, names=("x", "y", "power", "valid")):
    assert len(a.maps) == len(b.maps)
    for m, n in zip(a.maps, b.maps, strict=True):
        assert m.dz == n.dz
        for name in names:
            np.testing.assert_array_equal(getattr(m, name), getattr(n, name), err_msg=name)


def assert_same_truth(a, b):
    assert list(a.parameters) == list(b.parameters)
    for name, (value, unit) in a.parameters.items():
        assert (repr(float(value)), unit) == (repr(b.parameters[name].value), b.parameters[name].unit)
    assert repr(a.radius) == repr(b.radius)
    for name in ("axis", "phase"):
        assert getattr(b, name).dtype.isnative
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


# --- every layout ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_round_trip(tmp_path, simulated, layout):
    again = written(simulated, tmp_path, layout)
    assert again.format == layout
    assert_same_maps(again, simulated)
    assert_same_truth(simulated.truth, again.truth)
    for name in ("telescope", "receiver", "illumination", "object", "date_obs", "mean_el_deg"):
        assert getattr(again, name) == getattr(simulated, name), name
    assert again.wavelength == pytest.approx(simulated.wavelength, rel=1e-15)
    # The truth is no map, and nothing to remark on.
    assert again.notes == ()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_without_a_truth_and_with_little_known(tmp_path, simulated, layout):
    bare = replace(simulated, truth=None, object="", date_obs="", illumination=None, notes=())
    again = written(bare, tmp_path, layout)
    assert_same_maps(again, bare)
    assert (again.truth, again.object, again.date_obs, again.mean_el_deg) == (None, "", "", None)
    known = replace(bare, mean_el_deg=41.7)
    assert written(known, tmp_path, layout, "b.fits").mean_el_deg == 41.7


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_observation_gives_the_same_bytes_and_valid_fits(tmp_path, simulated, layout):
    for name in ("a.fits", "b.fits"):
        write(simulated, tmp_path / name, layout=layout)
    assert (tmp_path / "a.fits").read_bytes() == (tmp_path / "b.fits").read_bytes()
    with fits.open(tmp_path / "a.fits") as hdus:
        hdus.verify("exception")
        assert [hdu.name for hdu in hdus][-3:] == ["TRUTH", "TRUTH_PHASE", "TRUTH_AXIS"]
        assert len(hdus) == 1 + 3 + 3
        history = list(hdus[0].header["HISTORY"])
    assert f"truth: z5 = {SURFACE['z5']:.10g} rad" in history
    assert any(line.startswith("simulated by ooftorch") for line in history)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_errors_and_times_are_kept_where_there_is_a_place_for_them(tmp_path, simulated, layout):
    again = written(simulated, tmp_path, layout)
    if layout == "oof":
        assert_same_maps(again, simulated, ("sigma", "time"))
    else:
        assert all(m.sigma is None and m.time is None for m in again.maps)


def test_the_layout_has_to_be_known_and_nothing_is_overwritten(tmp_path, simulated):
    with pytest.raises(InputError, match="layout 'text'; known are oof, pyoof, image"):
        write(simulated, tmp_path / "a.fits", layout="text")
    for layout in LAYOUTS:
        (tmp_path / "b.fits").write_text("mine")
        with pytest.raises(InputError, match=r"b\.fits exists"):
            write(simulated, tmp_path / "b.fits", layout=layout)
        write(simulated, tmp_path / "b.fits", True, layout)
        with pytest.raises(InputError, match="does not fit a FITS header"):
            write(replace(simulated, object="Größe"), tmp_path / "c.fits", layout=layout)
    assert [path.name for path in tmp_path.iterdir()] == ["b.fits"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("pattern", ["map", "otf", "daisy"])
def test_a_file_has_the_same_scan_lines_and_smearing(tmp_path, layout, pattern):
    if (layout, pattern) == ("image", "daisy"):
        return  # no raster, no image
    made = ooftorch.simulate("alma", SURFACE, pattern=pattern, smear=7.3e-6, **SMALL)
    # The same scanned along y: a file without times and in another order has to be told.
    turned = replace(made, maps=tuple(replace(m, x=m.y, y=m.x) for m in made.maps))
    for i, one in enumerate((made, turned)):
        again = written(one, tmp_path, layout, f"{i}.fits")
        for m, n in zip(one.maps, again.maps, strict=True):
            assert n.smear == 7.3e-6

            def at(b, line):
                return {(*p, k) for *p, k in zip(b.x.round(9), b.y.round(9), line, strict=True)}

            assert at(n, find_lines(n).number) == at(m, find_lines(m).number)
            assert np.unique(find_smear(n), axis=1).tolist() == np.unique(find_smear(m), axis=1).tolist()
    mixed = np.random.default_rng(0).permutation(made.maps[0].x.size)
    lost = tuple(BeamMap(m.dz, m.x[mixed], m.y[mixed], m.power[mixed]) for m in made.maps)
    for n in written(replace(made, maps=lost), tmp_path, layout).maps:
        assert find_lines(n) is None
    by_word = tuple(replace(m, scans="none") for m in lost)
    assert {n.scans for n in written(replace(made, maps=by_word), tmp_path, layout, "w.fits").maps} == {
        "none"
    }


@pytest.mark.parametrize(
    ("card", "message"),
    [({"SCANLINE": "lines"}, "SCANLINE is 'lines'; expected one of"), ({"SMEAR": -1e-5}, "SMEAR is -1e-05")],
)
def test_cards_that_are_no_scan_are_refused(tmp_path, simulated, card, message):
    write(simulated, tmp_path / "a.fits")
    with fits.open(tmp_path / "a.fits", mode="update") as hdus:
        hdus[2].header.update(card)
    with pytest.raises(InputError, match=rf"a\.fits: HDU 2: {message}"):
        read(tmp_path / "a.fits")


# --- the truth -------------------------------------------------------------------------------------------


def test_a_truth_of_hard_numbers(tmp_path, simulated):
    axis = np.arange(-4, 5) * (0.1 + 1e-17) * 7.3
    phase = np.random.default_rng(0).normal(size=(9, 9))
    phase[0, 0] = np.nan
    values = {
        "z1": TrueValue(-1.2345678901234567e-123, "rad"),
        "q": TrueValue(-0.0, ""),
        "dz_0": TrueValue(0.1, "m"),
    }
    truth = Truth(values, axis, phase, 3.3000000000000003)
    assert_same_truth(truth, written(replace(simulated, truth=truth), tmp_path).truth)


def test_the_phase_has_coordinates_in_metres(tmp_path, simulated):
    write(simulated, tmp_path / "a.fits", layout="image")
    truth = simulated.truth
    with fits.open(tmp_path / "a.fits") as hdus:
        hdu = hdus["TRUTH_PHASE"]
        assert hdu.header["BUNIT"] == "rad"
        place = WCS(hdu.header).wcs_pix2world([[101, 31]], 1)[0]
        assert place == pytest.approx([truth.axis[100], truth.axis[30]], abs=1e-12)
        assert np.isfinite(truth.phase[30, 100])
        assert hdu.data[30, 100] == truth.phase[30, 100]


def changed(path, change):
    with fits.open(path) as hdus:
        change(hdus)
        hdus.writeto(path.with_name("changed.fits"), overwrite=True)
    return path.with_name("changed.fits")


@pytest.mark.parametrize("name", ["TRUTH_PHASE", "TRUTH_AXIS", "RADIUS"])
def test_half_a_truth_is_refused(tmp_path, simulated, name):
    write(simulated, tmp_path / "a.fits")

    def remove(hdus):
        (hdus["TRUTH"].header if name == "RADIUS" else hdus).__delitem__(name)

    with pytest.raises(InputError, match=rf"changed\.fits: incomplete truth \(.*{name}"):
        read(changed(tmp_path / "a.fits", remove))


def test_a_truth_of_another_program_is_left_alone(tmp_path, simulated):
    write(replace(simulated, truth=None), tmp_path / "a.fits")
    theirs = fits.BinTableHDU.from_columns([fits.Column("K", "D", array=np.arange(3.0))], name="TRUTH")
    assert read(changed(tmp_path / "a.fits", lambda hdus: hdus.append(theirs))).truth is None


# --- pyoof -----------------------------------------------------------------------------------------------


def test_what_pyoof_finds(tmp_path, simulated):
    """By position, with every key it insists on; source minus telescope."""
    write(simulated, tmp_path / "a.fits", layout="pyoof")
    with fits.open(tmp_path / "a.fits") as hdus:
        header = hdus[0].header
        assert header["FREQ"] == simulated.frequency
        assert header["WAVEL"] == simulated.wavelength
        assert (header["OBJECT"], header["DATE_OBS"]) == ("3C 84", "2021-02-03")
        assert isinstance(header["MEANEL"], int | float)
        assert [hdu.name for hdu in hdus[1:4]] == ["MINUS OOF", "ZERO OOF", "PLUS OOF"]
        for hdu, m in zip(hdus[1:4], simulated.maps, strict=True):
            assert hdu.header["DZ"] == m.dz
            assert hdu.columns.names == ["U", "V", "BEAM"]
            np.testing.assert_array_equal(hdu.data["U"], -m.x)
            np.testing.assert_array_equal(hdu.data["V"], -m.y)
            np.testing.assert_array_equal(hdu.data["BEAM"], m.power)


def with_dz(observation, *offsets):
    return replace(
        observation, maps=tuple(replace(m, dz=dz) for m, dz in zip(observation.maps, offsets, strict=False))
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda o: with_dz(o, -1e-3, 1e-3), "maps at dz -1, +1 mm; a pyoof file has three"),
        (lambda o: with_dz(o, -1e-3, 1e-3, 2e-3), "maps at dz -1, +1, +2 mm; a pyoof file has three"),
        (lambda o: replace(o, maps=(*o.maps, o.maps[0])), "a pyoof file has three"),
        (
            lambda o: replace(o, maps=(o.maps[0], first(o.maps[1], 20), o.maps[2])),
            "maps of [289, 20, 289] samples",
        ),
        (lambda o: replace(o, receiver=Receiver(chop_y=1e-4)), "for a single beam and a point source"),
        (lambda o: replace(o, receiver=Receiver(disc_radius=1e-5)), "for a single beam and a point source"),
    ],
)
def test_what_does_not_fit_pyoof(tmp_path, simulated, change, message):
    with pytest.raises(InputError, match=re.escape(message) + ".*use layout oof"):
        write(change(simulated), tmp_path / "a.fits", layout="pyoof")
    assert not list(tmp_path.iterdir())


# --- images ----------------------------------------------------------------------------------------------


def first(m, n):
    return BeamMap(m.dz, m.x[:n], m.y[:n], m.power[:n])


def maps_at(x, y, order=None, dz=(0.0, 1e-3)):
    """Observation with samples at these places, in this order, all powers different."""
    x, y = (np.asarray(c)[slice(None) if order is None else order] for c in (x, y))
    rng = np.random.default_rng(x.size)
    maps = tuple(BeamMap(d, x, y, rng.normal(size=x.size)) for d in dz)
    return Observation(maps, 3e-3, "alma", Receiver())


def sorted_samples(m):
    order = np.lexsort((m.x, m.y))
    return np.stack([m.x, m.y, m.power])[:, order]


@pytest.mark.parametrize("shape", [(7.3, 4.1), (1.0, 1.0), (3.0, 11.9)])
def test_grids_come_back_bit_for_bit(tmp_path, shape):
    beam = 3e-3 / 12
    for pattern in (scan.grid, scan.otf):
        for step in np.random.default_rng(1).uniform(0.2, 0.5, 5):
            places = pattern(shape[0] * beam, shape[1] * beam, step * beam)
            made = maps_at(places.x, places.y)
            write(made, tmp_path / "a.fits", True, "image")
            for a, b in zip(read(tmp_path / "a.fits").maps, made.maps, strict=True):
                np.testing.assert_array_equal(sorted_samples(a), sorted_samples(b))


def test_an_even_number_of_columns_too(tmp_path):
    step = 1.2345678901234567e-5
    x, y = (a.ravel() for a in np.meshgrid(step * (np.arange(8) - 3.5), 3 * step * (np.arange(6) - 2.5)))
    made = maps_at(x, y)
    assert_same_maps(written(made, tmp_path, "image"), made)


@pytest.mark.parametrize("order", ["columns", "shuffled"])
def test_the_order_of_the_samples_does_not_matter(tmp_path, simulated, order):
    n = 17
    index = np.arange(n * n)
    index = (
        index.reshape(n, n).T.ravel() if order == "columns" else np.random.default_rng(7).permutation(index)
    )
    turned = replace(
        simulated,
        maps=tuple(BeamMap(m.dz, m.x[index], m.y[index], m.power[index]) for m in simulated.maps),
    )
    # x fastest, whatever came: as the simulation had it.
    assert_same_maps(written(turned, tmp_path, "image"), simulated)


def test_astropy_sees_the_image_as_it_is(tmp_path):
    """Axis 1 is DX: a map wider than high, its brightest sample at a known place."""
    x, y = (a.ravel() for a in np.meshgrid(1e-5 * np.arange(-2, 7), 2e-5 * np.arange(-3, 2)))
    made = maps_at(x, y)
    write(made, tmp_path / "a.fits", layout="image")
    with fits.open(tmp_path / "a.fits") as hdus:
        assert hdus[1].data.shape == (5, 9)
        assert hdus[1].header["DZ"] == made.maps[0].dz
        assert [hdus[1].header[f"CUNIT{i}"] for i in (1, 2)] == ["rad", "rad"]
        row, column = np.unravel_index(np.argmax(hdus[1].data), (5, 9))
        hot = np.argmax(made.maps[0].power)
        place = WCS(hdus[1].header).wcs_pix2world([[column + 1, row + 1]], 1)[0]
    assert place == pytest.approx([x[hot], y[hot]], abs=1e-15)


def test_other_grids_come_back_to_rounding(tmp_path):
    rng = np.random.default_rng(3)
    axes = 3e-4 + np.linspace(-1e-3, 2e-3, 13), -1e-3 + np.linspace(0, 1e-3, 9)
    for places in (axes, [a.astype(np.float32) for a in axes]):
        x, y = (a.ravel() for a in np.meshgrid(*places))
        x = x + 1e-18 * rng.normal(size=x.size)  # not the same in every row, to the last bit
        made = maps_at(x, y)
        again = written(made, tmp_path, "image", f"{x.dtype}{y.dtype}.fits")
        for a, b in zip(again.maps, made.maps, strict=True):
            np.testing.assert_allclose(a.x, b.x, atol=1e-9)
            np.testing.assert_allclose(a.y, b.y, atol=1e-9)
            np.testing.assert_array_equal(a.power, b.power)


GRID = [a.ravel() for a in np.meshgrid(1e-5 * np.arange(-3, 4), 1e-5 * np.arange(-2, 3))]


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (GRID[0][:-1], GRID[1][:-1]),  # a corner missing
        (np.append(GRID[0], 0.0), np.append(GRID[1], 0.0)),  # one place twice
        (np.append(GRID[0][:-1], 0.0), np.append(GRID[1][:-1], 0.0)),  # both
        (GRID[0] + 1e-8 * (np.arange(35) == 8), GRID[1]),  # one sample off the grid by a thousandth of a step
        (GRID[0] + 0.1 * GRID[1], GRID[1] - 0.1 * GRID[0]),  # turned
        (GRID[0] ** 3 / 1e-10, GRID[1]),  # unequal steps
        (GRID[0], 0 * GRID[1]),  # one line
        (np.where(np.arange(35) == 8, np.nan, GRID[0]), GRID[1]),  # nowhere
    ],
    ids=["hole", "twice", "hole and twice", "off", "turned", "unequal", "line", "nan"],
)
def test_what_is_no_image(tmp_path, x, y):
    made = maps_at(x, y)
    if np.isnan(x).any():
        made = replace(made, maps=tuple(replace(m, valid=np.isfinite(x)) for m in made.maps))
    with pytest.raises(InputError, match=r"at dz .0 mm do not fill a regular grid.*use layout oof"):
        write(made, tmp_path / "a.fits", layout="image")
    assert not list(tmp_path.iterdir())


def test_daisies_are_no_images(tmp_path):
    daisy = ooftorch.simulate("alma", SURFACE, pattern="daisy", n=128, reach=2.0, step=0.8)
    assert_same_maps(written(daisy, tmp_path), daisy)
    with pytest.raises(InputError, match="do not fill a regular grid"):
        write(daisy, tmp_path / "b.fits", layout="image")


@pytest.mark.parametrize("layout", ["oof", "image"])
def test_receivers(tmp_path, simulated, layout):
    receiver = Receiver(chop_x=-57.8 * ARCSEC, chop_y=1e-5, gain_ratio=0.93, disc_radius=1.1e-5)
    again = written(replace(simulated, receiver=receiver), tmp_path, layout)
    assert again.receiver == receiver


# --- fits that mark themselves ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def marked(tmp_path_factory):
    """Fit of a chopped GBT Q-band observation, through a file."""
    made = ooftorch.simulate(
        "gbt",
        surface.random(3, 0.7, seed=2) | {"z1": -0.4, "z2": 0.6},
        receiver=Receiver(chop_x=-57.8 * ARCSEC, gain_ratio=0.95),
        noise=Noise(snr=300),
        seed=5,
        n=128,
        reach=5.0,
        step=0.5,
    )
    path = tmp_path_factory.mktemp("gbt") / "a.fits"
    write(made, path)
    assert fits.getheader(path)["RECV"] == "qunbal"
    return ooftorch.fit(read(path), order=3, device="cpu")


def test_a_chopped_observation_fits_back_to_its_truth(marked):
    pulls = marked.truth.pulls(marked)
    assert list(pulls) == [f"z{k}" for k in range(3, 10)]
    assert max(map(abs, pulls.values())) < 4
    assert marked.truth.rms_error(marked.coefficients) < 2 * marked.phase_error
    # And the truth is one that a flat dish misses by far.
    assert marked.truth.rms_error(np.zeros(10)) > 50 * marked.phase_error


def test_a_fit_keeps_the_truth(tmp_path, marked):
    write_fit(marked, tmp_path / "fit.fits")
    again = read_fit(tmp_path / "fit.fits")
    assert_same_truth(marked.truth, again.truth)
    assert again.truth.pulls(again) == marked.truth.pulls(marked)
    # The surface of a fit is what was fitted.
    np.testing.assert_array_equal(
        read_phase_map(tmp_path / "fit.fits", marked.wavelength).phase, marked.aperture.phase
    )


def test_of_many_fits_each_keeps_its_own_truth():
    simulator = ooftorch.Simulator("alma", noise=Noise(snr=100), **SMALL)
    made = [simulator.observe(surface.random(2, rms, seed=1), seed=7) for rms in (0.1, 0.8)]
    results = ooftorch.fit_many(made, order=2, device="cpu")
    for o, r in zip(made, results, strict=True):
        assert r.truth is o.truth
        assert r.truth.rms_error(r.coefficients) < 3 * r.phase_error
    assert results[0].truth.rms_error(results[1].coefficients) > 30 * results[1].phase_error


def test_info_says_that_the_truth_is_known(simulated):
    """Its rms is that over the open dish, tilt removed: here within a few per cent of what was asked for."""
    (line,) = [line for line in describe_observation(simulated).splitlines() if "truth" in line]
    found = re.fullmatch(
        r"  truth      known: phase ([0-9.]+) rad rms over the dish, piston and tilt removed", line
    )
    assert float(found[1]) == pytest.approx(0.5, rel=0.05)
    assert "truth" not in describe_observation(replace(simulated, truth=None))
