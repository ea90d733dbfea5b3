"""Readers and the writer: what each format means, round trips, and one test for every refusal."""

import warnings

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from places import SHARED, needs_shared

from ooftorch.errors import InputError
from ooftorch.files import whole_file
from ooftorch.io import read, write
from ooftorch.observation import BeamMap, Observation
from ooftorch.optics.receiver import Receiver

C = 299792458.0
ARCSEC = np.pi / 180 / 3600


def samples(n=25, seed=0):
    """x, y in radians, all different and not symmetric, and power with one clear peak at sample 3."""
    rng = np.random.default_rng(seed)
    power = rng.uniform(0, 1, n)
    power[3] = 10 + seed
    return rng.uniform(-1e-3, 2e-3, n), rng.uniform(-2e-3, 1e-3, n), power


def observation(**changed):
    maps = []
    for i, dz in enumerate((0.0, 0.01, -0.01)):
        x, y, power = samples(25 + i, seed=i)
        maps.append(BeamMap(dz, x, y, power))
    fields = {
        "maps": tuple(maps),
        "wavelength": C / 43.1e9,
        "telescope": "effelsberg",
        "receiver": Receiver(),
    }
    return Observation(**{**fields, **changed})


def assert_same(a, b):
    """Every field that a file holds is the same, samples bit for bit."""
    for name in ("telescope", "receiver", "illumination", "object", "date_obs", "mean_el_deg"):
        assert getattr(a, name) == getattr(b, name), name
    assert a.wavelength == pytest.approx(b.wavelength, rel=1e-12)
    for m, n in zip(a.maps, b.maps, strict=True):
        assert m.dz == n.dz
        for name in ("x", "y", "power", "sigma", "time", "valid"):
            left, right = getattr(m, name), getattr(n, name)
            assert (left is None) == (right is None), name
            if left is not None:
                assert left.dtype == right.dtype
                np.testing.assert_array_equal(left, right, err_msg=name)


def tables(path, columns=("DX", "DY", "FNU"), dzs=(0.0, 0.01, -0.01), n=25, drop=(), **primary):
    """Write a file of single-precision tables; map i has the samples of seed i."""
    header = fits.Header({"FREQ": 43.1e9, **primary})
    for key in drop:
        header.pop(key, None)
    hdus = fits.HDUList([fits.PrimaryHDU(header=header)])
    for i, dz in enumerate(dzs):
        arrays = (*samples(n, seed=i), np.ones(n), np.arange(n))
        table = fits.BinTableHDU.from_columns(
            [fits.Column(name, "E", array=a) for name, a in zip(columns, arrays, strict=False)]
        )
        if dz is not None:
            table.header["DZ"] = dz
        hdus.append(table)
    hdus.writeto(path)
    return path


# --- original OOF format -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"telescope": None},
        {"telescope": "gbt", "receiver": Receiver(chop_x=-57.8 * ARCSEC)},
        {"telescope": "gbt", "receiver": Receiver(chop_x=78.0 * ARCSEC)},
        {"telescope": "gbt90", "illumination": "tophat"},
        {"telescope": "gbt"},
        {"telescope": "gbt", "receiver": Receiver(1e-4, -2e-4, 0.9, 3e-5)},
        {"telescope": "alma", "illumination": "squashed"},
        {"telescope": "alma"},
        {"telescope": "jcmt", "receiver": Receiver(disc_radius=4e-5), "object": "Saturn"},
        {"telescope": "somewhere/own.toml", "illumination": "pedestal"},
        {"object": "3C84", "date_obs": "2019-04-26", "mean_el_deg": 41.7, "notes": ("assumed",)},
    ],
)
def test_oof_round_trip(tmp_path, changed):
    obs = observation(**changed)
    write(obs, tmp_path / "a.fits")
    again = read(tmp_path / "a.fits")
    assert again.format == "oof"
    assert_same(again, obs)


def test_oof_round_trip_of_errors_times_and_missing_samples(tmp_path):
    n = 1000
    rng = np.random.default_rng(5)
    maps = tuple(
        BeamMap(
            dz,
            rng.normal(0, 1e-3, n),
            rng.normal(0, 1e-3, n),
            rng.normal(0, 1, n),
            sigma=rng.uniform(1, 2, n),
            time=59000 + rng.uniform(0, 1, n),
            valid=rng.uniform(0, 1, n) < 0.9,
        )
        for dz in (-1 / 300, 0.0, 1 / 300)
    )
    obs = observation(maps=maps)
    write(obs, tmp_path / "a.fits")
    again = read(tmp_path / "a.fits")
    assert_same(again, obs)
    assert sum(m.n_missing for m in again.maps) > 200
    write(again, tmp_path / "b.fits")
    assert (tmp_path / "a.fits").read_bytes() == (tmp_path / "b.fits").read_bytes()


def test_what_the_original_programs_are_told(tmp_path):
    """Their rules, applied to our file, give what we mean, or refuse."""

    def header(name, **changed):
        write(observation(**changed), tmp_path / name)
        return fits.getheader(tmp_path / name)

    q = header("q", telescope="gbt", receiver=Receiver(chop_x=-57.8 * ARCSEC))
    assert (q["TELESC"], q["RECV"]) == ("GBT", "qunbal")
    assert q["CHOPTHR"] == pytest.approx(57.8)
    assert q["FREQ"] == pytest.approx(43.1e9)
    ka = header("ka", telescope="gbt", receiver=Receiver(chop_x=78 * ARCSEC))
    assert (ka["RECV"], ka["CHOPTHR"]) == ("Ka", pytest.approx(78))
    mustang = header("m", telescope="gbt90", illumination="tophat")
    assert (mustang["TELESC"], mustang["RECV"]) == ("90GBT", "mustang")
    # A single beam at the GBT under a Gaussian is none of theirs; RECV left out would be guessed.
    assert header("g", telescope="gbt")["RECV"] == "other"
    assert header("c", telescope="gbt", receiver=Receiver(chop_x=1e-4, chop_y=1e-4))["RECV"] == "other"
    assert "RECV" not in header("e")
    with fits.open(tmp_path / "c") as hdus:
        hdus.verify("exception")
    assert header("s", object="Saturn", receiver=Receiver(disc_radius=4e-5))["OBJRADS"] == 4e-5


def test_write_refuses_to_overwrite_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "a.fits"
    write(observation(), path)
    before = path.read_bytes()
    with pytest.raises(InputError, match="exists; choose another name"):
        write(observation(object="other"), path)
    with pytest.raises(InputError, match="does not fit a FITS header"):
        write(observation(object="Jüpiter"), path, overwrite=True)
    assert path.read_bytes() == before
    write(observation(object="other"), path, overwrite=True)
    assert read(path).object == "other"
    with pytest.raises(InputError, match="no such directory"):
        write(observation(), tmp_path / "nowhere" / "a.fits")
    with pytest.raises(InputError, match="number of maps is 1"):
        write(observation(maps=observation().maps[:1]), tmp_path / "one.fits")
    assert [p.name for p in tmp_path.iterdir()] == ["a.fits"]


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    def interrupted():
        with whole_file(tmp_path / "a.txt") as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    with whole_file(tmp_path / "a.txt") as partial:
        partial.write_text("whole")
        assert not (tmp_path / "a.txt").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    with pytest.raises(InputError, match="cannot be written"), whole_file(tmp_path / "b.txt"):
        raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize("columns", [("DX", "DY", "FNU"), ("dx", "dy", "fnu"), ("U", "V", "BEAM")])
def test_maps_come_by_dz_and_not_by_hdu(tmp_path, columns):
    obs = read(tables(tmp_path / "a.fits", columns, dzs=(0.01, 0.0, -0.02, 0.005), TELESC="JCMT"))
    # The peak of map i is 10 + i.
    assert [(m.dz, m.power.max()) for m in obs.maps] == [(-0.02, 12), (0.0, 11), (0.005, 13), (0.01, 10)]
    assert obs.telescope in ("jcmt", "JCMT")


def test_original_file_in_single_precision(tmp_path):
    path = tables(
        tmp_path / "a.fits", ("DX", "DY", "FNU", "UFNU", "TIME"), TELESC="ALMANoSec", OBJECT="3C84", MEANEL=40
    )
    obs = read(path)
    assert (obs.telescope, obs.object, obs.mean_el_deg) == ("alma-nosec", "3C84", 40.0)
    assert obs.wavelength == C / 43.1e9
    x, y, power = samples(seed=2)
    first = obs.maps[0]
    for column, expected in ((first.x, x), (first.y, y), (first.power, power)):
        assert column.dtype == np.float64
        np.testing.assert_array_equal(column, expected.astype(np.float32))
    np.testing.assert_array_equal(first.sigma, np.ones(25))
    np.testing.assert_array_equal(first.time, np.arange(25))


def test_effelsberg_variant(tmp_path):
    """In focus, plus, minus; no TELESC and no errors; and DX, DY as in every original file."""
    obs = read(tables(tmp_path / "a.fits", DATE_OBS="2019-01-01", OBJECT="3C84", MEANEL=32.0))
    assert obs.format == "oof-effelsberg"
    assert obs.telescope is None
    assert "telescope not named in the file" in obs.notes
    assert obs.date_obs == "2019-01-01"
    assert [m.sigma for m in obs.maps] == [None] * 3
    np.testing.assert_array_equal(obs.maps[1].x, samples(seed=0)[0].astype(np.float32))


def test_angles_have_the_unit_of_their_column(tmp_path):
    path = tables(tmp_path / "a.fits", TELESC="APEX")
    plain = read(path)
    with fits.open(path, mode="update") as hdus:
        for hdu in hdus[1:]:
            hdu.columns["DX"].unit, hdu.columns["DY"].unit = "arcmin", "rad"
    scaled = read(path)
    np.testing.assert_allclose(scaled.maps[0].x, plain.maps[0].x * np.deg2rad(1 / 60), rtol=1e-15)
    np.testing.assert_array_equal(scaled.maps[0].y, plain.maps[0].y)
    with fits.open(path, mode="update") as hdus:
        hdus[1].columns["DX"].unit = "m"
    with pytest.raises(InputError, match="HDU 1: unit of DX is 'm'; expected one of rad"):
        read(path)


def test_a_gbt_receiver_counts_without_the_telescope(tmp_path):
    obs = read(tables(tmp_path / "a.fits", RECV="qunbal", CHOPTHR=60.0))
    assert obs.telescope is None
    assert obs.receiver.chop_x == pytest.approx(-60 * np.pi / 180 / 3600)


def test_integer_powers_with_a_null(tmp_path):
    power = np.arange(20, dtype=np.int32)
    power[[4, 9]] = -999
    hdus = fits.HDUList([fits.PrimaryHDU(header=fits.Header({"FREQ": 1e10, "TELESC": "APEX"}))])
    for dz in (0.0, 0.01):
        x, y, _ = samples(20)
        columns = [fits.Column("DX", "D", array=x), fits.Column("DY", "D", array=y)]
        hdus.append(
            fits.BinTableHDU.from_columns([*columns, fits.Column("FNU", "J", null=-999, array=power)])
        )
        hdus[-1].header["DZ"] = dz
    hdus.writeto(tmp_path / "a.fits")
    for m in read(tmp_path / "a.fits").maps:
        assert list(np.flatnonzero(~m.valid)) == [4, 9]
        assert m.power[0] == 0
        assert m.valid[0]


def test_millimetres_are_repaired_for_the_whole_file(tmp_path):
    obs = read(tables(tmp_path / "a.fits", dzs=(-10, 0, 0.4), TELESC="JCMT"))
    assert [m.dz for m in obs.maps] == pytest.approx([-0.010, 0.0, 0.0004], rel=1e-12)
    assert any("millimetres" in note for note in obs.notes)
    obs = read(tables(tmp_path / "b.fits", dzs=(-0.999, 0, 0.4), TELESC="JCMT"))
    assert [m.dz for m in obs.maps] == [-0.999, 0.0, 0.4]
    assert obs.notes == ()


@pytest.mark.parametrize(
    ("keys", "receiver", "illumination", "note"),
    [
        ({"TELESC": "GBT", "RECV": "qunbal", "CHOPTHR": 60.0}, Receiver(-60 * ARCSEC), None, ""),
        ({"TELESC": "GBT", "RECV": "Rcvr40_52", "CHOPTHR": 60.0}, Receiver(-60 * ARCSEC), None, ""),
        ({"TELESC": "90GBT", "RECV": "Ka", "CHOPTHR": 78.0}, Receiver(+78 * ARCSEC), None, ""),
        ({"TELESC": "GBT", "RECV": "qunbal"}, Receiver(-57.8 * ARCSEC), None, "CHOPTHR"),
        ({"TELESC": "GBT", "RECV": "mustang", "CHOPTHR": 60.0}, Receiver(), "tophat", ""),
        ({"TELESC": "GBT", "RECV": "Rcvr_MBA1_5"}, Receiver(), "tophat", ""),
        # Missing RECV: by wavelength, which is 6.96 mm unless FREQ says otherwise.
        ({"TELESC": "GBT", "CHOPTHR": 60.0}, Receiver(-60 * ARCSEC), None, "RECV .* qunbal"),
        ({"TELESC": "GBT", "FREQ": 90e9}, Receiver(), "tophat", "RECV .* mustang"),
        # Planets are ignored at the GBT, and the GBT's rules elsewhere.
        ({"TELESC": "GBT", "RECV": "mustang", "OBJECT": "Saturn", "OBJRADS": 4e-5}, Receiver(), "tophat", ""),
        ({"TELESC": "JCMT", "OBJECT": "Saturn", "OBJRADS": 4e-5}, Receiver(0, 0, 1, 4e-5), None, ""),
        ({"TELESC": "JCMT", "OBJECT": "Mars", "OBJRADS": 4e-5}, Receiver(), None, ""),
        ({"TELESC": "JCMT", "RECV": "qunbal", "CHOPTHR": 60.0}, Receiver(), None, ""),
        ({"TELESC": "JCMT", "RECV": "mustang"}, Receiver(), "tophat", ""),
        ({"TELESC": "ALMA"}, Receiver(), "squashed", ""),
        ({"TELESC": "ALMANoSec"}, Receiver(), None, ""),
        ({"TELESC": "APEX"}, Receiver(), None, ""),
    ],
)
def test_receiver_rules(tmp_path, keys, receiver, illumination, note):
    obs = read(tables(tmp_path / "a.fits", **keys))
    for name in ("chop_x", "chop_y", "gain_ratio", "disc_radius"):
        assert getattr(obs.receiver, name) == pytest.approx(getattr(receiver, name), rel=1e-12), name
    assert obs.illumination == illumination
    assert len(obs.notes) == (1 if note else 0)
    if note:
        with pytest.raises(ValueError, match=note):
            raise ValueError(obs.notes[0])


# --- pyoof ---------------------------------------------------------------------------------------------


def test_pyoof_source_coordinates_are_negated_in_place(tmp_path):
    obs = read(tables(tmp_path / "a.fits", ("U", "V", "BEAM"), WAVEL=C / 43.1e9))
    x, y, power = samples(seed=0)
    m = obs.maps[1]
    assert m.dz == 0
    np.testing.assert_array_equal(m.x, -x.astype(np.float32))
    np.testing.assert_array_equal(m.y, -y.astype(np.float32))
    np.testing.assert_array_equal(m.power, power.astype(np.float32))
    assert (obs.format, obs.telescope, obs.receiver) == ("pyoof", "effelsberg", Receiver())
    assert any("taken as Effelsberg" in note for note in obs.notes)


def test_pyoof_telescope_and_wavelength_keys(tmp_path):
    obs = read(tables(tmp_path / "a.fits", ("U", "V", "BEAM"), drop=["FREQ"], WAVEL=0.009, TELESCOP="srt"))
    assert (obs.telescope, obs.wavelength, obs.notes) == ("srt", 0.009, ())


@needs_shared
@pytest.mark.parametrize("name", ["pyoof_example/example0.fits", "pyoof_simulated/effelsberg_32GHz.fits"])
def test_pyoof_files(name):
    obs = read(SHARED / name)
    assert [m.dz for m in obs.maps] == [-0.022, 0.0, 0.022]
    assert obs.wavelength == pytest.approx(C / 32e9, rel=1e-12)
    for i, m in enumerate(obs.maps, 1):
        table = fits.getdata(SHARED / name, i)
        peak = np.argmax(table["BEAM"])
        assert m.power[peak] == m.power.max() == table["BEAM"][peak]
        assert (m.x[peak], m.y[peak]) == (-table["U"][peak], -table["V"][peak])
        assert m.n_valid == 9409


# --- images --------------------------------------------------------------------------------------------


def images(path, wcs, dzs=(0.0, 0.01, -0.01), shape=(4, 6), hot=(3, 1), drop=(), primary_image=False, **keys):
    """Write images; pixel `hot` = (row, column) of map i has power 10 + i, the others less than 1."""
    hdus = fits.HDUList([fits.PrimaryHDU(header=fits.Header({"FREQ": 43.1e9, "TELESC": "APEX"}))])
    for key in drop:
        hdus[0].header.pop(key, None)
    hdus[0].header.update(keys)
    for i, dz in enumerate(dzs):
        data = np.random.default_rng(i).uniform(0, 1, shape).astype(np.float32)
        data[..., hot[0], hot[1]] = 10 + i
        if primary_image and i == 0:
            hdus[0].data = data
        else:
            hdus.append(fits.ImageHDU(data))
        hdus[-1].header.update(wcs)
        if dz is not None:
            hdus[-1].header["DZ"] = dz
    hdus.writeto(path)
    return path


DEGREES = {"CRPIX1": 2.0, "CRPIX2": 3.0, "CRVAL1": 0.5, "CRVAL2": -0.25, "CDELT1": -0.125, "CDELT2": 0.0625}
# Pixel (row 3, column 1) is FITS pixel (2, 4): x = 0.5, y = -0.25 + 0.0625.
HOT_X, HOT_Y = 0.5, -0.1875


@pytest.mark.parametrize(
    ("unit", "size"),
    [(None, np.pi / 180), ("deg", np.pi / 180), ("rad", 1.0), ("arcmin", 60 * ARCSEC), ("arcsec", ARCSEC)],
)
def test_image_pixel_positions_and_units(tmp_path, unit, size):
    wcs = {**DEGREES, **({} if unit is None else {"CUNIT1": unit, "CUNIT2": unit})}
    obs = read(images(tmp_path / "a.fits", wcs))
    assert [(m.dz, m.power.max()) for m in obs.maps] == [(-0.01, 12), (0.0, 10), (0.01, 11)]
    for m in obs.maps:
        hot = np.argmax(m.power)
        assert (m.x[hot], m.y[hot]) == pytest.approx((HOT_X * size, HOT_Y * size), rel=1e-12)
        assert m.power.dtype == np.float64
        # Two neighbours of the first pixel in storage order: x is fastest, and here it falls.
        assert np.diff(m.x[:2])[0] == pytest.approx(-0.125 * size)
        assert m.y[0] == m.y[5] != m.y[6]


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        # The hot pixel is at (p1, p2) - CRPIX = (0, 1); a CD turned by 90 degrees swaps the axes.
        ({"CD1_1": 0.0, "CD1_2": -0.125, "CD2_1": 0.0625, "CD2_2": 0.0}, (0.5 - 0.125, -0.25)),
        ({"CD1_2": 0.01, "CD1_1": 0.125, "CD2_2": 0.0625}, (0.51, -0.1875)),
        ({"CDELT1": -0.125, "CDELT2": 0.0625, "PC1_2": 0.5, "PC2_1": 0.25}, (0.4375, -0.1875)),
    ],
)
def test_image_rotated_axes(tmp_path, matrix, expected):
    wcs = {key: value for key, value in DEGREES.items() if "CDELT" not in key}
    obs = read(images(tmp_path / "a.fits", {**wcs, **matrix}))
    m = obs.maps[0]
    hot = np.argmax(m.power)
    assert np.rad2deg([m.x[hot], m.y[hot]]) == pytest.approx(expected, rel=1e-12)


def test_image_coordinates_are_those_of_astropy(tmp_path):
    rng = np.random.default_rng(3)
    wcs = {f"CD{i}_{j}": rng.normal(0, 0.01) for i in (1, 2) for j in (1, 2)}
    wcs |= {f"{key}{i}": rng.normal(0, 0.1) for key in ("CRVAL", "CRPIX") for i in (1, 2)}
    path = images(tmp_path / "a.fits", wcs)
    column, row = np.meshgrid(np.arange(6), np.arange(4))
    expected = WCS(fits.getheader(path, 1)).wcs_pix2world(column.ravel(), row.ravel(), 0)
    m = read(path).maps[1]
    np.testing.assert_allclose(np.rad2deg([m.x, m.y]), expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(m.power, fits.getdata(path, 1).ravel())


def test_image_in_the_primary_hdu_degenerate_axes_and_missing_pixels(tmp_path):
    path = images(tmp_path / "a.fits", DEGREES, shape=(1, 1, 4, 6), primary_image=True)
    with fits.open(path, mode="update") as hdus:
        hdus[1].data[0, 0, 0, 2] = np.nan
        hdus[1].data[0, 0, 0, 4] = 0.0
    obs = read(path)
    assert [np.nanmax(m.power) for m in obs.maps] == [12, 10, 11]
    m = obs.maps[2]
    assert list(np.flatnonzero(~m.valid)) == [2]
    assert m.valid[4]
    assert m.power[4] == 0


def test_image_blank_integers_are_missing(tmp_path):
    hdus = fits.HDUList([fits.PrimaryHDU(header=fits.Header({"RESTFRQ": 43.1e9, "TELESCOP": "SRT"}))])
    for dz in (0.0, 0.01):
        hdu = fits.ImageHDU(np.arange(24, dtype=np.int16).reshape(4, 6))
        hdu.header.update({**DEGREES, "DZ": dz, "BLANK": 5})
        hdus.append(hdu)
    hdus.writeto(tmp_path / "a.fits")
    obs = read(tmp_path / "a.fits")
    assert obs.telescope == "SRT"
    assert obs.wavelength == C / 43.1e9
    assert list(np.flatnonzero(~obs.maps[0].valid)) == [5]


def test_image_sky_orientation_and_images_without_dz(tmp_path):
    obs = read(images(tmp_path / "a.fits", DEGREES, dzs=(0.0, None, 0.01), SKY="source"))
    assert [m.power.max() for m in obs.maps] == [10, 12]
    assert obs.notes == ("HDU 2: image without DZ, left out",)
    hot = np.argmax(obs.maps[0].power)
    assert np.rad2deg([obs.maps[0].x[hot], obs.maps[0].y[hot]]) == pytest.approx([-HOT_X, -HOT_Y])


# --- text and GRASP through a .toml --------------------------------------------------------------------

TOML = """
[observation]
telescope = "srt"
frequency_hz = 22e9
date_obs = 2019-04-26
sky = "telescope"
{observation}
[[map]]
file = "plus.txt"
dz_m = 0.027
{map}
[[map]]
file = "minus.txt"
dz_m = -0.027
"""


def toml(folder, observation="", map="", text=TOML, plus=None):
    """Write an observation .toml and its two text maps; give the path of the first."""
    for i, name in enumerate(("plus.txt", "minus.txt")):
        rows = [" ".join(map_row) for map_row in zip(*(c.astype(str) for c in samples(seed=i)), strict=True)]
        (folder / name).write_text("\n".join(rows) + "\n")
    if plus is not None:
        (folder / "plus.txt").write_text(plus)
    path = folder / "observation"
    path.write_text(text.format(observation=observation, map=map))
    return path


def test_text_maps_any_name_any_working_directory(tmp_path):
    obs = read(toml(tmp_path, 'object = "3C84"\nmean_el_deg = 35'))
    assert (obs.format, obs.telescope, obs.object, obs.date_obs) == ("toml", "srt", "3C84", "2019-04-26")
    assert (obs.mean_el_deg, obs.wavelength) == (35.0, C / 22e9)
    assert [m.dz for m in obs.maps] == [-0.027, 0.027]
    for m, seed in zip(obs.maps, (1, 0), strict=True):
        x, y, power = samples(seed=seed)
        np.testing.assert_array_equal([m.x, m.y, m.power], [x, y, power])


def test_text_separators_comments_and_missing_values(tmp_path):
    rows = ["# x y power", "", "1e-4\t2e-4\t3 # a note", "1e-4, 3e-4, nan", "  1e-4   4e-4 -99", "0 0 0"]
    rows += [f"{i}e-5 0 {i}" for i in range(10)]
    path = toml(tmp_path, map="missing = -99\nsigma = 0.5", plus="\r\n".join(rows))
    path.write_text(path.read_text().replace('"telescope"', '"source"'))
    obs = read(path)
    m = obs.maps[1]
    assert list(np.flatnonzero(~m.valid)) == [1, 2]
    assert (m.x[0], m.y[0], m.power[0]) == (-1e-4, -2e-4, 3)
    assert m.valid[3]
    assert m.power[3] == 0
    np.testing.assert_array_equal(m.sigma, np.full(14, 0.5))
    assert obs.maps[0].sigma is None


def raster(step=5e-5, n=7):
    """Text map of n x n samples, y fastest."""
    return "\n".join(
        f"{step * i} {step * j} {np.exp(-i * i - j * j + j)}" for i in range(n) for j in range(n)
    )


def test_scans_and_smearing(tmp_path):
    def maps(observation="", map=""):
        path = toml(tmp_path, observation, map)
        for name in ("plus.txt", "minus.txt"):
            (tmp_path / name).write_text(raster())
        minus, plus = read(path).maps
        return (plus.scans, plus.smear / ARCSEC), (minus.scans, minus.smear / ARCSEC)

    smear, double = (pytest.approx(size, rel=1e-12) for size in (1.5, 3.0))
    assert maps() == (("auto", 0), ("auto", 0))
    assert maps('scans = "rows"') == (("rows", 0), ("rows", 0))
    assert maps('scans = "rows"', 'scans = "columns"') == (("columns", 0), ("rows", 0))
    assert maps("smear_arcsec = 1.5", 'scans = "rows"') == (("rows", smear), ("auto", smear))
    assert maps("", "integration_s = 0.5\nspeed_arcsec_s = 3") == (("auto", smear), ("auto", 0))
    assert maps("integration_s = 1\nspeed_arcsec_s = 3", "smear_arcsec = 0") == (
        ("auto", 0),
        ("auto", double),
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('scans = "lines"', "scans is 'lines'; expected one of auto, rows, columns, none"),
        ("scans = 1", "scans is 1; expected a text in quotes"),
        ("integration_s = 0.1", "integration_s given; the smearing is smear_arcsec, or"),
        ("speed_arcsec_s = 0.1", "speed_arcsec_s given; the smearing is smear_arcsec, or"),
        (
            "smear_arcsec = 1\nspeed_arcsec_s = 1",
            "smear_arcsec and speed_arcsec_s given; .*: give one or the other",
        ),
        ("smear_arcsec = -1", "smear_arcsec: a smearing of -1 arcsec; expected a length"),
        ("smear_arcsec = nan", "smear_arcsec: a smearing of nan arcsec"),
        ("smear_arcsec = 1e6", "smear_arcsec: a smearing of 1e[+]06 arcsec"),
    ],
)
def test_refuses_scans_that_are_none(tmp_path, line, message):
    refused(toml(tmp_path, line), rf"\[observation\]: {message}")
    refused(toml(tmp_path, map=line), rf"\[\[map\]\] 1: {message}")


def test_refuses_smearing_along_no_lines(tmp_path):
    refused(toml(tmp_path, "smear_arcsec = 1"), "map 1 of 2 .* smeared, but along which lines is not known")


def test_telescope_file_is_relative_to_the_toml(tmp_path):
    path = toml(tmp_path)
    path.write_text(path.read_text().replace('"srt"', '"own/dish.toml"'))
    assert read(path).telescope == str(tmp_path / "own" / "dish.toml")


@needs_shared
def test_srt_observation():
    path = SHARED / "srt_20190426" / "observation.toml"
    obs = read(path)
    assert [m.dz for m in obs.maps] == [-0.027, 0.0, 0.027]
    assert [m.power.max() for m in obs.maps] == pytest.approx(
        [1793.431718, 4529.810066, 967.392889], abs=1e-6
    )
    for m in obs.maps:
        # The smallest sample of each map was shifted to exactly zero; it was observed.
        assert m.n_valid == 10000
        assert np.count_nonzero(m.power == 0) == 1
    # "source" in the file: the in-focus spot is at u = +49e-6, v = +82e-6.
    hot = np.argmax(obs.maps[1].power)
    assert (obs.maps[1].x[hot], obs.maps[1].y[hot]) == (-4.9e-05, -8.2e-05)


GRID = ("1", "1 3 2 1", "0 0", "-0.001 -0.003 0.003 0.001", "5 4 0")


def grasp(frequency="FREQUENCY:  26.0 GHz", grid=GRID, rows=None, hot=(2, 3)):
    """Text of a 5 x 4 grid whose co-polar field at (row, column) `hot` is 3 + 4i."""
    if rows is None:
        rows = [f"0.01 {0.001 * i} 7 9" for i in range(20)]
        rows[hot[0] * 5 + hot[1]] = "3.0 -4.0 100 100"
    return "\n".join(["VERSION: one", frequency, "++++", *grid, *rows]) + "\n"


def grasp_observation(folder, **changed):
    (folder / "g.grd").write_text(grasp(**changed))
    path = folder / "obs.toml"
    path.write_text(
        '[observation]\ntelescope = "srt"\n[[map]]\nfile = "g.grd"\ndz_m = 0.0\n'
        '[[map]]\nfile = "g.grd"\ndz_m = 0.01\n'
    )
    return path


@pytest.mark.parametrize(
    "frequency", ["FREQUENCY:  26.0 GHz", "FREQUENCIES [GHz]:\n  0.26E+02", "FREQUENCY: 26000 MHz"]
)
def test_grasp_grid(tmp_path, frequency):
    obs = read(grasp_observation(tmp_path, frequency=frequency))
    assert obs.wavelength == pytest.approx(C / 26e9, rel=1e-15)
    m = obs.maps[0]
    hot = np.argmax(m.power)
    assert m.power[hot] == 25.0
    # u of column 3 is +0.002, v of row 2 is -0.003 + 2 * 0.004 / 3, and the source is what moves.
    assert (m.x[hot], m.y[hot]) == pytest.approx((-0.002, 0.003 - 0.008 / 3), rel=1e-12)
    assert m.n_valid == 20


def test_grasp_grid_centre_is_in_steps(tmp_path):
    grid = (*GRID[:2], "2 -1", *GRID[3:])
    m = read(grasp_observation(tmp_path, grid=grid)).maps[0]
    hot = np.argmax(m.power)
    assert (m.x[hot], m.y[hot]) == pytest.approx((-0.004, 0.003 - 0.004 / 3), rel=1e-12)


def test_grasp_rows_with_limits_and_three_components(tmp_path):
    grid = (GRID[0], "1 3 3 1", *GRID[2:4], "5 4 1")
    row = "0.5 {:g} 1 1 1 1"
    rows = ["2 3", *(row.format(i) for i in range(3)), "1 5", *(row.format(10 + i) for i in range(5))]
    rows += ["3 0", "4 2", "3 4 1 1 1 1", "0.1-100 2 0 0 0 0"]
    m = read(grasp_observation(tmp_path, grid=grid, rows=rows)).maps[0]
    nan = np.nan
    expected = [[nan, 0.25, 1.25, 4.25, nan], 0.25 + np.arange(10, 15.0) ** 2, [nan] * 5, [nan] * 3 + [25, 4]]
    np.testing.assert_array_equal(m.power, np.concatenate(expected))
    assert m.n_missing == 10


def test_images_through_a_toml(tmp_path):
    images(tmp_path / "maps.fits", DEGREES, dzs=(0.0, 0.01), drop=["TELESC"])
    path = tmp_path / "obs.toml"
    text = (
        '[observation]\ntelescope = "apex"\n[[map]]\nfile = "maps.fits"\nhdu = 2\ndz_m = -0.03\n'
        '[[map]]\nfile = "maps.fits"\ndz_m = 0.03\n'
    )
    path.write_text(text)
    obs = read(path)
    # The first image unless hdu says otherwise; dz as the .toml has it.
    assert [(m.dz, m.power.max()) for m in obs.maps] == [(-0.03, 11), (0.03, 10)]
    assert obs.wavelength == C / 43.1e9
    hot = np.argmax(obs.maps[0].power)
    assert np.rad2deg([obs.maps[0].x[hot], obs.maps[0].y[hot]]) == pytest.approx([HOT_X, HOT_Y])
    for bad, message in (("hdu = 3", "hdu is 3; .* in HDU 1, 2"), ("hdu = 0", "hdu is 0")):
        path.write_text(text.replace("hdu = 2", bad))
        with pytest.raises(InputError, match=message):
            read(path)


# --- refusals ------------------------------------------------------------------------------------------


def refused(path, message):
    """The message is one line that names the file and matches; no other warning escapes."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=message) as caught:
            read(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_refuses_a_missing_file(tmp_path):
    refused(tmp_path / "nothing.fits", "no such file")


def test_refuses_a_directory(tmp_path):
    refused(tmp_path, "is a directory")


def test_refuses_what_is_not_fits(tmp_path):
    path = tmp_path / "maps.fits"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    refused(path, "neither a FITS file .* nor text")


def test_refuses_a_text_map_alone_and_shows_what_to_write(tmp_path):
    path = tmp_path / "map.txt"
    path.write_text("0 0 1\n1e-4 0 2\n")
    refused(path, r"a text file, which cannot be read alone; .*frequency_hz.*\[\[map\]\].*dz_m")
    path.write_text(grasp())
    refused(path, "a GRASP grid, which cannot be read alone")


@pytest.mark.parametrize("keep", [30, 2879, 4000, 6000, 12000, -2880, -1000, -500])
def test_refuses_truncated_fits(tmp_path, keep):
    path = tables(tmp_path / "a.fits", n=400, TELESC="APEX")
    path.write_bytes(path.read_bytes()[:keep])
    refused(path, "truncated or damaged FITS file")


def test_refuses_a_truncated_image(tmp_path):
    path = images(tmp_path / "a.fits", DEGREES, shape=(60, 60))
    path.write_bytes(path.read_bytes()[:-5000])
    refused(path, "truncated or damaged FITS file")


@pytest.mark.parametrize("columns", [("DX", "DY", "FNU"), ("U", "V", "BEAM")])
def test_refuses_a_table_without_dz(tmp_path, columns):
    refused(tables(tmp_path / "a.fits", columns, dzs=(0.0, None)), "HDU 2 has no DZ; add the focus offset")


def test_refuses_images_without_dz(tmp_path):
    refused(images(tmp_path / "a.fits", DEGREES, dzs=(None, None)), "no DZ in any of its 2 images")


def test_refuses_a_dz_that_is_no_number(tmp_path):
    refused(tables(tmp_path / "a.fits", dzs=(0.0, "in focus")), "HDU 2: DZ is 'in focus'; expected a number")


@pytest.mark.parametrize("columns", [("DX", "DY", "FNU"), ("U", "V", "BEAM")])
@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"drop": ["FREQ"]}, "FREQ"),
        ({"FREQ": 0.0}, "FREQ is 0; it must be positive"),
        ({"FREQ": -1e9}, "FREQ is -1e"),
        ({"FREQ": "high"}, "FREQ is 'high'; expected a number"),
        ({"drop": ["FREQ"], "WAVEL": -0.01}, "WAVEL is -0.01; it must be positive"),
        ({"WAVEL": 0.1}, "FREQ 4.31e.* and WAVEL 0.1 m disagree"),
    ],
)
def test_refuses_a_bad_frequency(tmp_path, columns, keys, message):
    refused(tables(tmp_path / "a.fits", columns, TELESC="JCMT", **keys), message)


def test_refuses_images_without_a_frequency(tmp_path):
    refused(images(tmp_path / "a.fits", DEGREES, drop=["FREQ"]), "no FREQ, RESTFRQ or WAVEL")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (("DX", "DY"), "HDU 1 has columns DX, DY; FNU missing"),
        (("X", "Y", "FNU"), "has columns X, Y, FNU; DX, DY missing"),
        (("U", "V"), "has columns U, V; BEAM missing"),
        (("A", "B", "C"), "no beam maps .HDU 1: A, B, C; .*expected tables with DX, DY, FNU"),
    ],
)
def test_refuses_a_missing_column(tmp_path, columns, message):
    refused(tables(tmp_path / "a.fits", columns), message)


def test_refuses_a_file_without_tables_or_images(tmp_path):
    fits.PrimaryHDU().writeto(tmp_path / "a.fits")
    refused(tmp_path / "a.fits", "no beam maps .no tables and no images")


def test_refuses_an_unknown_receiver(tmp_path):
    path = tables(tmp_path / "a.fits", TELESC="GBT", RECV="Rcvr68_92")
    refused(path, "RECV is 'Rcvr68_92'; known are qunbal .*Ka .*mustang.*CHOPX")


def test_refuses_saturn_without_its_size(tmp_path):
    refused(tables(tmp_path / "a.fits", TELESC="JCMT", OBJECT="Saturn"), "no OBJRADS; add its radius")


def test_refuses_what_cannot_be_fitted(tmp_path):
    """The checks themselves are in test_observation; here that every reader makes them."""
    refused(tables(tmp_path / "one.fits", dzs=(0.01,)), "number of maps is 1")
    refused(tables(tmp_path / "same.fits", ("U", "V", "BEAM"), dzs=(0.01, 0.01)), r"at dz \+10 mm")
    refused(tables(tmp_path / "few.fits", n=9), "9 valid samples")
    refused(images(tmp_path / "same-images.fits", DEGREES, dzs=(0, 0)), "all 2 maps are at dz")
    path = tables(tmp_path / "sigma.fits", ("DX", "DY", "FNU", "UFNU"))
    with fits.open(path, mode="update") as hdus:
        hdus[2].data["UFNU"] = 0
    refused(path, "25 of 25 errors .UFNU, sigma. are zero")
    with fits.open(path, mode="update") as hdus:
        hdus[3].data["FNU"] = np.nan
    refused(path, "all 25 samples are missing")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"CTYPE1": "RA---SIN"}, "CTYPE1 is RA---SIN, a place on the sky; give offsets"),
        ({"CTYPE2": "GLAT-CAR"}, "CTYPE2 is GLAT-CAR"),
        ({"CTYPE2": "DEC"}, "CTYPE2 is DEC"),
        ({"CUNIT1": "m"}, "CUNIT1 is 'm'; expected one of rad, radian, radians, deg, arcmin, arcsec"),
        ({"CDELT2": None}, "no CDELT2; an image needs"),
        ({"CRPIX1": None}, "no CRPIX1; an image needs"),
        ({"CROTA2": 30.0}, "CROTA2 is not supported; .*CD1_1"),
        ({"SKY": "up"}, "sky is 'up'; expected \"telescope\""),
    ],
)
def test_refuses_images_that_are_not_linear_offsets(tmp_path, changed, message):
    wcs = {key: value for key, value in {**DEGREES, **changed}.items() if value is not None}
    refused(images(tmp_path / "a.fits", wcs), message)


def test_refuses_an_image_cube(tmp_path):
    refused(
        images(tmp_path / "a.fits", DEGREES, shape=(3, 4, 6)), "image of 3 axes, .3, 4, 6.; give one image"
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("frequency_hz", "frequncy_hz", "unknown key frequncy_hz; did you mean frequency_hz?"),
        ("dz_m", "dz_mm", r"\[\[map\]\] 1: unknown key dz_mm; did you mean dz_m?"),
        ("[[map]]", "[[maps]]", "unknown key maps; did you mean map?"),
        ("date_obs", "zzz", "unknown key zzz; known are telescope, frequency_hz"),
        ('sky = "telescope"', 'sky = "Source!"', "sky is 'Source!'; expected"),
        ('sky = "telescope"', "", r"\[observation\] has no sky; \"telescope\" if"),
        ("frequency_hz = 22e9", "", "has no frequency_hz; add the observing frequency"),
        ("22e9", "0", "frequency_hz is 0; it must be positive"),
        ("22e9", '"22 GHz"', "frequency_hz is '22 GHz'; expected a number"),
        ("22e9", "true", "frequency_hz is True; expected a number"),
        ('"srt"', "5", "telescope is 5; expected a text in quotes"),
        ("dz_m = 0.027", "", r"\[\[map\]\] 1: no dz_m; it must be given"),
        ('file = "plus.txt"', "", r"\[\[map\]\] 1: no file"),
        ('file = "plus.txt"', 'file = "plus.txt"\nhdu = 1', "hdu is for FITS images and .* is not FITS"),
        ("0.027", "27", "focus offset of -27 m; give dz in metres"),
        ("22e9", "22 GHz", "not valid TOML .*line 4"),
        ("[[map]]", "[map]", "not valid TOML"),
        ("[observation]", "[telescope]", r"a TOML file without \[observation\]; expected \[observation\]"),
    ],
)
def test_refuses_a_wrong_toml(tmp_path, old, new, message):
    path = toml(tmp_path)
    path.write_text(path.read_text().replace(old, new))
    refused(path, message)


def test_refuses_a_toml_whose_map_file_is_missing_or_no_image(tmp_path):
    path = toml(tmp_path)
    (tmp_path / "minus.txt").unlink()
    with pytest.raises(InputError, match=r"minus\.txt: no such file"):
        read(path)
    tables(tmp_path / "minus.txt")
    refused(path, r"\[\[map\]\] 2: .*has no image; a FITS file of tables is read by itself")


@pytest.mark.parametrize("row", ["1 2", "1 2 3 4", "1 2 x", "1,,3", "1;2;3"])
def test_refuses_a_bad_row_by_its_line_number(tmp_path, row):
    path = toml(tmp_path, plus=f"# comment\n0 0 1\n\n{row}\n0 0 2\n")
    with pytest.raises(InputError, match=r"plus\.txt:4: .*expected three numbers"):
        read(path)


def test_refuses_an_empty_text_map(tmp_path):
    path = toml(tmp_path, plus="# nothing\n")
    with pytest.raises(InputError, match=r"plus\.txt: no samples"):
        read(path)


@pytest.mark.parametrize(
    ("line", "new", "message"),
    [
        (0, "2", "KTYPE 2; only KTYPE 1"),
        (1, "1 3 2 7", "IGRID 7 .theta-phi.; only IGRID 1, the uv grid"),
        (1, "1 3 2 9", "IGRID 9 .azimuth over elevation, EDX."),
        (1, "1 1 2 1", "ICOMP 1 .theta and phi.; only ICOMP 3"),
        (1, "2 3 2 1", "NSET 2, NCOMP 2; expected 1 field set"),
        (1, "1 3 4 1", "NSET 1, NCOMP 4"),
        (1, "1 3 2", r"g\.grd:5: '1 3 2'; expected 4 numbers"),
        (2, "0 0.5", r"g\.grd:6: '0 0.5'; expected 2 whole numbers"),
        (4, "5 4 2", "5 x 4 points, KLIMIT 2"),
        (4, "1 4 0", "1 x 4 points"),
        (4, "5 5 0", "the file ends before its grid does"),
        (4, "5 4 1", r"g\.grd:9: .* expected 2 numbers"),
    ],
)
def test_refuses_other_grasp_files(tmp_path, line, new, message):
    grid = [*GRID]
    grid[line] = new
    path = grasp_observation(tmp_path, grid=grid)
    with pytest.raises(InputError, match=message):
        read(path)


def test_refuses_grasp_row_limits_outside_the_grid(tmp_path):
    path = grasp_observation(tmp_path, grid=(*GRID[:4], "5 4 1"), rows=["3 4"])
    with pytest.raises(InputError, match="row 1 has 4 points from 3 on; the grid has 5"):
        read(path)


def test_refuses_a_frequency_that_differs_from_the_file(tmp_path):
    path = grasp_observation(tmp_path)
    path.write_text(path.read_text().replace("[[map]]", "frequency_hz = 22e9\n[[map]]", 1))
    refused(path, "its file is for 2.6e.*10 Hz, the observation for 2.2e.*10 Hz")
    path.write_text(path.read_text().replace("22e9", "26.001e9"))
    assert read(path).frequency == pytest.approx(26.001e9, rel=1e-15)
    grasp_observation(tmp_path, frequency="no such line")
    refused(path, "has no frequency_hz")
