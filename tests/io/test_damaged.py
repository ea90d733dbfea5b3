"""Failures found by damaging files of every format (scripts/fuzz.py), each kind once."""

import re
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from places import EXAMPLE
from simulated import observe

import ooftorch
from ooftorch.errors import InputError
from ooftorch.io.surfaces import read_coefficients


def is_one_line(error):
    text = str(error.value)
    return text.isprintable() and len(text) <= 300


def set_card(data, key, value, nth=0):
    """Write over the card of a key, the nth there is, with the text of a value; None takes it away."""
    at = [
        m.start() for m in re.finditer(re.escape(key.ljust(8).encode() + b"="), data) if m.start() % 80 == 0
    ]
    card = b"" if value is None else f"{key:8s}= {value:>20s}".encode()
    return data[: at[nth]] + card.ljust(80) + data[at[nth] + 80 :]


# Key, its value, and which of the headers: what astropy made of it before it was a refusal.
CARDS = {
    "KeyError: no NAXIS1": ("NAXIS1", None, 0),
    "KeyError: no NAXIS2": ("NAXIS2", None, 0),
    "KeyError: no BITPIX": ("BITPIX", None, 1),
    "KeyError: no TFIELDS": ("TFIELDS", None, 0),
    "KeyError: a column of no format": ("TFORM1", None, 0),
    "AttributeError: a table of no kind": ("XTENSION", "'TABEL   '", 0),
    "AssertionError: a column with a number for a name": ("TTYPE2", "1E300", 0),
    "VerifyError: a card that cannot be parsed": ("DZ", "= ?", 0),
    "OverflowError: a number of 400 digits": ("DZ", "1" + 60 * "0" + "E400", 0),
    "a format of a thousand million numbers": ("TFORM1", "'999999999D'", 0),
    "rows that the file does not have": ("NAXIS2", "99999999", 0),
    "rows less than none": ("NAXIS2", "-1", 0),
    "a thousand million axes": ("NAXIS", "999999999", 1),
    "a thousand million columns": ("TFIELDS", "999999999", 0),
    "a heap that the file does not have": ("PCOUNT", "4900000000", 0),
    "a column of text": ("TFORM3", "'8A'", 0),
    "a frequency beyond all": ("FREQ", "1E300", 0),
    "a frequency of light": ("FREQ", "5E14", 0),
    "a focus offset beyond all": ("DZ", "1E300", 0),
}


@pytest.mark.parametrize("case", CARDS)
def test_a_damaged_header(tmp_path, case):
    key, value, nth = CARDS[case]
    data = set_card(EXAMPLE.read_bytes(), key, value, nth)
    path = tmp_path / "bad.fits"
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(InputError, match=r"bad\.fits") as caught:
        ooftorch.read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert is_one_line(caught)
    assert peak < 20 * len(data)


def test_an_elevation_that_no_telescope_has_is_not_known(tmp_path):
    observation = observe([0.1, 0.2], samples=5)
    ooftorch.write(replace(observation, mean_el_deg=45.0), tmp_path / "a.fits")
    fits.setval(tmp_path / "a.fits", "MEANEL", value=1e300)
    assert ooftorch.read(tmp_path / "a.fits").mean_el_deg is None


@pytest.mark.parametrize(
    ("hdu", "change", "message"),
    [
        ("TRUTH_PHASE", lambda h: h.data.fill(1e300), "damaged truth .*on the dish"),
        ("TRUTH_PHASE", lambda h: h.data.fill(np.nan), "damaged truth .*without values"),
        ("TRUTH_PHASE", lambda h: setattr(h, "data", h.data[:-1]), "damaged truth .*an image"),
        ("TRUTH_AXIS", lambda h: h.data["X"].fill(0.0), "damaged truth .*pixel centres"),
        ("TRUTH", lambda h: h.header.set("RADIUS", 0.0), "damaged truth .*RADIUS 0 m"),
        ("TRUTH", lambda h: h.header.set("RADIUS", "wide"), "damaged truth"),
    ],
)
def test_a_damaged_truth(tmp_path, hdu, change, message):
    observation = ooftorch.simulate("aca7m", {"z3": 0.3}, reach=2.0, step=0.5, n=64)
    ooftorch.write(observation, tmp_path / "a.fits")
    with fits.open(tmp_path / "a.fits", memmap=False) as hdus:
        change(hdus[hdu])
        hdus.writeto(tmp_path / "bad.fits")
    with pytest.raises(InputError, match=message) as caught:
        ooftorch.read(tmp_path / "bad.fits")
    assert is_one_line(caught)


# ---------------------------------------------------------------------------------------- results of fits

RESULTS = {
    "values beyond all": lambda h: h["MAP_0"].data["MODEL"].fill(1e300),
    "parameters beyond all": lambda h: h["PARAMETERS"].data["VALUE"].fill(1e300),
    "no data": lambda h: h["MAP_0"].data["DATA"].fill(np.nan),
    "a map at no place": lambda h: h["MAP_0"].data["X"].fill(np.inf),
    "a covariance of others": lambda h: setattr(h["COVARIANCE"], "data", h["COVARIANCE"].data[:2, :2]),
    "an amplitude of none": lambda h: h["APERTURE_AMPLITUDE"].data.fill(0.0),
    "an aperture of another size": lambda h: setattr(h["APERTURE_OPEN"], "data", np.ones((3, 3))),
    "a phase beyond all": lambda h: h["APERTURE_PHASE"].data.fill(1e39),
    "an order that nobody can mean": lambda h: h[0].header.set("ORDER", 100_000),
    "no maps": lambda h: h[0].header.set("NMAPS", 0),
    "a word for a count": lambda h: h[0].header.set("NDATA", "many"),
    "a wavelength of none": lambda h: h[0].header.set("WAVELEN", 0.0),
    "a radius of none": lambda h: h[0].header.set("RADIUS", -1.0),
    "a word for a number": lambda h: h["MAP_0"].header.set("NOISE", "loud"),
    "a sample of infinity": lambda h: h["MAP_0"].data["DATA"].put([3], np.inf),
    "a baseline of infinity": lambda h: h["MAP_1"].header.set("OFFSET", "inf"),
    "a focus of infinity": lambda h: h["SURFACE_FOCUS"].data["FOCUS"].fill(np.inf),
    "a map without its pointing": lambda h: rename(h["PARAMETERS"], "dy_1", "dy_7"),
    "noise of others": lambda h: setattr(h["NOISE_COVARIANCE"], "data", h["NOISE_COVARIANCE"].data[:2, :2]),
    "an order of other coefficients": lambda h: setattr(
        h["ORDER_COEFFICIENTS"], "data", h["ORDER_COEFFICIENTS"].data[:, :2].copy()
    ),
    "errors of another dish": lambda h: setattr(h["APERTURE_ERROR"], "data", np.ones((3, 3))),
}


def rename(table, old, new):
    names = table.data["NAME"]
    names[names == old] = new


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A file of today's layout."""
    observation = ooftorch.simulate("aca7m", {"z3": 0.3}, reach=3.0, step=0.5, n=64)
    path = tmp_path_factory.mktemp("fit") / "fit.fits"
    ooftorch.write_fit(ooftorch.fit(observation, order=2, n=64), path)
    return path


@pytest.mark.parametrize("case", RESULTS)
def test_a_damaged_result(tmp_path, case, written):
    with fits.open(written, memmap=False) as hdus:
        RESULTS[case](hdus)
        hdus.writeto(tmp_path / "bad.fits")
    with pytest.raises(InputError, match=r"bad\.fits: damaged result of a fit") as caught:
        ooftorch.read_fit(tmp_path / "bad.fits")
    assert is_one_line(caught)


# ------------------------------------------------------------------------------------------------- texts

OBSERVATION = '[observation]\ntelescope = "apex"\nfrequency_hz = 1e11\nsky = "source"\nmean_el_deg = 40\n'
MAP = '[[map]]\nfile = "map.grd"\ndz_m = 0.0\nmissing = -99\nsigma = 0.1\n'
GRID = "made here\n++++\n1\n1 3 2 1\n0 0\n-0.001 -0.001 0.001 0.001\n4 4 0\n" + 16 * "1.0 0.0 0.0 0.0\n"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("= 40", "= " + 3000 * "[", "not valid TOML .*RecursionError"),
        ("1e11", "1" + 400 * "0", "frequency_hz is 10+ ... 0+; expected a number of fewer digits"),
        ("1e11", "1" + 5000 * "0", "not valid TOML"),
        ("-99", "1" + 400 * "0", "missing is 10+ ... 0+; expected"),
        ("0.0\n", "1" + 400 * "0" + "\n", "dz_m is 10+ ... 0+; expected"),
        ("= 40", "= 1e300", "mean_el_deg is 1e.300; expected a number from -90 to 180 degrees"),
        ('"apex"', '"a\\u001b[31mb"', r"telescope is 'a\\x1b\[31mb'; expected a text of one line"),
        ("map.grd", "a\\u0000b", "expected a text of one line"),
        ("40", '"' + 900 * "x" + '"', "mean_el_deg is 'x+ ... x+'; expected a number"),
    ],
)
def test_a_damaged_toml(tmp_path, old, new, message):
    text = OBSERVATION + MAP
    assert old in text
    (tmp_path / "bad.toml").write_text(text.replace(old, new, 1))
    (tmp_path / "map.grd").write_text(GRID)
    with pytest.raises(InputError, match=message) as caught:
        ooftorch.read(tmp_path / "bad.toml")
    assert is_one_line(caught)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("4 4 0", "1000000000 1000000000 0", r"1e\+09 x 1e\+09 points, KLIMIT 0, in 24 lines"),
        ("4 4 0", "90000 20 1", "points, KLIMIT 1, in 24 lines"),
        ("4 4 0", "1e300 4 0", "points"),
        ("0 0\n", "1e300 0\n", "expected u and v from -1 to 1"),
        ("-0.001 -0.001", "-1e300 -0.001", "expected u and v from -1 to 1"),
        ("-0.001 -0.001", "nan -0.001", "expected u and v from -1 to 1"),
    ],
)
def test_a_damaged_grid(tmp_path, old, new, message):
    (tmp_path / "bad.toml").write_text(OBSERVATION + MAP)
    (tmp_path / "map.grd").write_text(GRID.replace(old, new, 1))
    with pytest.raises(InputError, match=message) as caught:
        ooftorch.read(tmp_path / "bad.toml")
    assert is_one_line(caught)


def test_a_field_whose_power_overflows_is_missing(tmp_path):
    field = "".join(f"{1 + i % 3} 0.0 0.0 0.0\n" for i in range(15))
    grid = GRID.replace(16 * "1.0 0.0 0.0 0.0\n", "1e300 0.0 0.0 0.0\n" + field)
    (tmp_path / "map.grd").write_text(grid)
    (tmp_path / "a.toml").write_text(OBSERVATION + MAP + MAP.replace("0.0\n", "0.01\n", 1))
    assert [m.n_missing for m in ooftorch.read(tmp_path / "a.toml").maps] == [1, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("z3 1e300", "z3 is 1e.300; expected a number from"),
        ("z3 nan", "z3 is nan; expected a number"),
        ('{"z3": ' + 3000 * "[", "not valid JSON .*RecursionError"),
        ('{"z3": 1' + 400 * "0" + "}", "z3 is 10+ ... 0+; expected"),
        ('{"parameters": {"z3": 5, "z4": {}}}', "z4 is None"),
        (900 * "x", "line 1 is 'x+ ... x+'; expected a name and a number"),
    ],
)
def test_damaged_coefficients(tmp_path, text, message):
    (tmp_path / "z.txt").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_coefficients(tmp_path / "z.txt")
    assert is_one_line(caught)
