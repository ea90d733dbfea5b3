"""fit.fits: what is written comes back, bit for bit, and says what it is."""

import dataclasses
import json
import math
import re

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from places import ROOT

import ooftorch
from ooftorch import io
from ooftorch.errors import InputError
from ooftorch.io.result_file import read_fit, write_fit
from ooftorch.optics.basis import RecordedBasis, ZernikeBasis
from ooftorch.result import Aperture, Cause, Estimate, FitResult, MapFit, OrderEvidence, OrderFit, ScanTerm
from ooftorch.truth import TrueValue, Truth


def made(seed=0, **changes):
    """A result in which no two numbers are alike, with numbers and texts that FITS finds hard."""
    rng = np.random.default_rng(seed)
    parameters = {
        f"z{k}": Estimate(*rng.standard_normal(2).tolist(), "rad", k > 0, 1 / (k + 3), 0.1 * k)
        for k in range(10)
    }
    parameters["q"] = Estimate(-0.0, 5e-324, "", False, 0.0, -0.0)
    of_maps = [f"{kind}_{i}" for kind in ("gain", "offset", "dx", "dy") for i in range(3)]
    parameters |= {name: Estimate(0.5, 0.25, "data", False) for name in of_maps}
    parameters["gain_0"] = Estimate(1.2345678901234567e-7, math.inf, "data", True)
    n_free = sum(p.free for p in parameters.values())
    axis = np.arange(-4, 5) * (0.1 + 1e-17) * 7.3
    phase = rng.standard_normal((9, 9))
    phase[0, 0] = np.nan
    maps = []
    for dz, n in ((-0.1234567890123456, 12), (0.0, 7), (0.1, 12)):
        x, y, data, model, scans = rng.standard_normal((5, n))
        data[3] = np.nan
        maps.append(MapFit(dz, 1e-3 * x, 1e-3 * y, data, model, *rng.uniform(size=2).tolist(), scans))
    fields = {
        "input": "/data/a night/" + 5 * "it's deep & " + "maps.fits",
        "telescope": "bigdish",
        "likelihood": "cauchy",
        "illumination": "pedestal",
        "object": "Größe \\n ",
        "date_obs": "yesterday",
        "wavelength": 0.013485940530814216,
        "order": 3,
        "converged": True,
        "message": "at a minimum &",
        "objective": -1.2345678901234567e-123,
        "chi2_reduced": math.nan,
        "n_data": 31,
        "n_missing": 3,
        "n_free": n_free,
        "n_eval": 77,
        "parameters": parameters,
        "covariance": rng.standard_normal((n_free, n_free)),
        "maps": tuple(maps),
        "orders": (
            OrderFit(2, 3.5, math.nan, 9, 44, 0.1 + 0.2, tuple(rng.standard_normal(10).tolist())),
            OrderFit(3, 1 / 3, 1.5, 11, 33, 2e-9, (-0.0, 5e-324, *rng.standard_normal(8).tolist())),
        ),
        "aperture": Aperture(axis, phase, *rng.uniform(size=(2, 9, 9)), 3.3, *rng.uniform(1, 2, (2, 9, 9))),
        "notes": ("first thing", "", "one " * 40, "two\nlines"),
        "seconds": 12.345678901234567,
        "basis": ZernikeBasis(3),
        "robust": True,
        "stop_radius": 0.1 + 0.2,
        "good_surface_rms": 4e-4,
        "truth": Truth(
            {"z1": TrueValue(1 / 3, "rad"), "q": TrueValue(-0.0, ""), "dz_0": TrueValue(5e-324, "m")},
            axis[2:] / 3,
            phase[2:, 2:] / 3,
            3.3000000000000003,
        ),
        "focus": rng.standard_normal(10),
        "order_evidence": OrderEvidence(1 / 3, math.inf, math.nan, 5e-324),
        "noise_covariance": rng.standard_normal((n_free, n_free)),
        "amplitude_order": 6,
        "causes": (
            Cause("dz_sign", 1 / 3 + 40, "It's the sign & more: λ " + 20 * "long ", 0.1 + 0.2),
            Cause("glitches", math.nan, ""),
        ),
        "scan_terms": (
            ScanTerm("level", "peak", (1 / 3, 0.0, 5e-324)),
            ScanTerm("gain", "", (0.0, 0.1 + 0.2, 1e-3)),
        ),
    }
    return FitResult(**(fields | changes))


def assert_same(a, b, where="result"):
    """Equal in value, type and, for arrays, precision; NaN equals NaN and -0 does not equal 0."""
    assert type(a) is type(b), where
    if dataclasses.is_dataclass(a):
        for field in dataclasses.fields(a):
            assert_same(getattr(a, field.name), getattr(b, field.name), f"{where}.{field.name}")
    elif isinstance(a, dict):
        assert list(a) == list(b), where
        for key in a:
            assert_same(a[key], b[key], f"{where}[{key}]")
    elif isinstance(a, tuple):
        assert len(a) == len(b), where
        for i, pair in enumerate(zip(a, b, strict=True)):
            assert_same(*pair, f"{where}[{i}]")
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype == np.float64, where
        assert b.dtype.isnative, where
        np.testing.assert_array_equal(a, b, where)
    elif isinstance(a, float):
        assert repr(a) == repr(b), where
    else:
        assert a == b, where


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("fit") / "fit.fits"
    write_fit(made(), path)
    return path


def test_every_field_comes_back_exactly(file):
    assert_same(made(), read_fit(file))


@pytest.mark.parametrize(
    "changes",
    [
        {"converged": False, "notes": ()},
        {"truth": None},
        {"stop_radius": None, "good_surface_rms": None, "robust": False},
        {"aperture": dataclasses.replace(made().aperture, normal_factor=None)},
        {"orders": made().orders[:1], "maps": made().maps[:2], "scan_terms": ()},
        {"orders": tuple(dataclasses.replace(o, coefficients=()) for o in made().orders)},
        {"amplitude_order": 0, "scan_terms": (), "focus": None, "noise_covariance": None, "causes": ()},
    ],
    ids=[
        "no notes",
        "no truth",
        "no limits",
        "no focal length",
        "fewer",
        "no coefficients of orders",
        "nothing taken up",
    ],
)
def test_less_comes_back_exactly_too(tmp_path, changes):
    result = made(1, **changes)
    write_fit(result, tmp_path / "fit.fits")
    assert_same(result, read_fit(tmp_path / "fit.fits"))


def test_a_basis_of_ones_own_comes_back_as_far_as_it_can_be_told(tmp_path):
    """Names, labels, orders and what the coefficients amount to; not the functions themselves."""
    names = tuple(f"z{k}" for k in range(10))
    gram = np.random.default_rng(5).standard_normal((10, 10))
    labels = tuple(f"petal {k}, it's & " for k in range(10))
    basis = RecordedBasis("petals", names, (1,) * 10, labels, gram @ gram.T, x_tilt="z2", y_tilt="z1")
    result = made(basis=basis)
    write_fit(result, tmp_path / "fit.fits")
    again = read_fit(tmp_path / "fit.fits")
    assert_same(result, again)
    assert again.phase_rms == result.phase_rms
    assert again.basis.label("z3") == "petal 3, it's & "
    with pytest.raises(InputError, match=r"basis 'petals'.*known bases are zernike"):
        again.basis.evaluate(0.0, 0.0)


def test_a_result_written_before_still_reads():
    """tests/data/fit-layout-1.fits, with the numbers that its program printed."""
    result = read_fit(ROOT / "tests" / "data" / "fit-layout-1.fits")
    told = json.loads((ROOT / "tests" / "data" / "fit-layout-1.json").read_text())
    assert result.basis == ZernikeBasis(3)
    assert (result.robust, result.good_surface_rms) == (True, 4e-4)
    assert result.stop_radius == told["parameters"]["radius"]["value"] == 0.9
    assert_parameters_are(result, told["parameters"])
    assert result.phase_rms == pytest.approx(told["phase_rms_rad"], rel=1e-12)
    assert result.phase_error == pytest.approx(told["phase_error_rad"], rel=1e-12)
    assert result.truth.rms_error(result.coefficients) == pytest.approx(
        told["truth"]["phase_error_rad"], rel=1e-9
    )
    # Its residual was due to glitches, which count no more, and what it says of order 4 its file cannot tell.
    assert ooftorch.verdict(result) == ["good"]
    assert told["verdict"] == "usable with care"


def assert_parameters_are(result, told):
    """As a summary had them before there were errors beyond those of the noise."""
    for name, p in told.items():
        value, sigma, unit, free, *others = result.parameters[name]
        assert {"value": value, "sigma": sigma, "unit": unit, "free": free} == p
        assert np.isnan(others).all()


def test_a_result_of_layout_3_still_reads():
    """tests/data/fit-layout-3.fits, with the numbers that its program printed: errors of the noise."""
    result = read_fit(ROOT / "tests" / "data" / "fit-layout-3.fits")
    told = json.loads((ROOT / "tests" / "data" / "fit-layout-3.json").read_text())
    assert_parameters_are(result, told["parameters"])
    assert result.phase_error == pytest.approx(told["phase_error_rad"], rel=1e-12)
    assert result.noise_covariance is result.aperture.phase_error is None
    assert "rad rms, from the noise alone" in ooftorch.report(result)
    assert result.order_views == ()
    now = ooftorch.summary(result)
    assert now["phase_error_noise_rad"] is now["parameters"]["z4"]["sigma_noise"] is None
    same = ("verdict", "reasons", "truth", "focus_shift_mm", "scan_terms", "maps")
    assert {name: now[name] for name in same} == {name: told[name] for name in same}
    ooftorch.plot_aperture(result)


def test_a_result_of_layout_2_still_reads():
    """tests/data/fit-layout-2.fits, with the numbers that its program printed; the focus is not known."""
    result = read_fit(ROOT / "tests" / "data" / "fit-layout-2.fits")
    told = json.loads((ROOT / "tests" / "data" / "fit-layout-2.json").read_text())
    assert_parameters_are(result, told["parameters"])
    assert result.phase_error == pytest.approx(told["phase_error_rad"], rel=1e-12)
    assert result.focus is None
    assert np.isnan([*result.focus_shift, result.phase_rms_refocused, result.phase_error_refocused]).all()
    assert "refocused" not in ooftorch.report(result)
    now = ooftorch.summary(result)
    assert now["focus_shift_mm"] is now["surface_rms_refocused_um"] is None
    assert {name: now[name] for name in ("verdict", "reasons", "truth", "pointing_arcsec")} == {
        name: told[name] for name in ("verdict", "reasons", "truth", "pointing_arcsec")
    }


@pytest.mark.parametrize("tail", ["'", "&", " ", "''&'", "\\", "µ"])
def test_texts_of_every_length_come_back(tmp_path, tail):
    # FITS cuts long texts into cards, and has trouble where a quote meets a cut.
    notes = tuple("x" * n + tail + "y" * m + tail for n in range(55, 75) for m in (0, 40, 90))
    write_fit(made(notes=notes), tmp_path / "fit.fits")
    assert read_fit(tmp_path / "fit.fits").notes == notes


def test_the_same_result_gives_the_same_bytes(file, tmp_path):
    write_fit(made(), tmp_path / "again.fits")
    assert (tmp_path / "again.fits").read_bytes() == file.read_bytes()


def test_file_is_valid_fits_and_says_how_it_was_made(file):
    r = made()
    with fits.open(file) as hdus:
        hdus.verify("exception")
        header = hdus[0].header
        assert header["CREATOR"] == f"ooftorch {ooftorch.__version__}"
        assert header["TELESCOP"] == "bigdish"
        assert header["ORDER"] == 3
        assert header["WAVELEN"] == r.wavelength
        assert header["PHASERMS"] == r.phase_rms
        assert header["SURFRMS"] == r.surface_rms
        assert header["RUZE"] == r.ruze_efficiency
        history = " ".join(header["HISTORY"])
        for phrase in ("orders 1 to 3", "cauchy likelihood", "pedestal illumination", "note: first thing"):
            assert phrase in history
        assert all(len(line) <= 72 for line in header["HISTORY"])


def test_tables_have_names_and_units(file):
    r = made()
    with fits.open(file) as hdus:
        parameters = hdus["PARAMETERS"].data
        assert list(parameters["NAME"]) == list(r.parameters)
        assert parameters["SIGMA"][3] == r.parameters["z3"].sigma
        assert list(parameters["FREE"]) == [p.free for p in r.parameters.values()]
        covariance = hdus["COVARIANCE"]
        assert [covariance.header[f"PAR{i + 1}"] for i in range(r.n_free)] == r.free_names
        np.testing.assert_array_equal(covariance.data, r.covariance)
        assert list(hdus["ORDERS"].data["NEVAL"]) == [44, 33]
        assert hdus["MAP_0"].header["DZ_M"] == r.maps[0].dz
        assert "DZ" not in hdus["MAP_0"].header
        assert hdus["MAP_2"].header["NOISE"] == r.maps[2].noise
        table = hdus["MAP_0"].data
        assert [table.columns[n].unit for n in ("X", "Y", "DATA")] == ["rad", "rad", None]
        np.testing.assert_array_equal(table["Y"], r.maps[0].y)
        np.testing.assert_array_equal(table["SCANS"], r.maps[0].scan_terms)
        np.testing.assert_array_equal(table["RESIDUAL"], r.maps[0].data - r.maps[0].model - table["SCANS"])
        assert hdus[0].header["AMPORDER"] == 6
        terms = hdus["SCAN_TERMS"].data
        assert list(zip(terms["NAME"], terms["UNIT"], strict=True)) == [("level", "peak"), ("gain", "")]
        assert list(terms["RMS_1"]) == [0.0, 0.1 + 0.2]


@pytest.mark.parametrize("name", ["PHASE", "AMPLITUDE", "OPEN", "NORMAL_FACTOR"])
def test_wcs_gives_metres(file, name):
    a = made().aperture
    with fits.open(file) as hdus:
        hdu = hdus[f"APERTURE_{name}"]
        wcs = WCS(hdu.header)
        assert [str(u) for u in wcs.wcs.cunit] == ["m", "m"]
        # FITS pixels count from one, x first; arrays from zero, y first.
        for x, y in ((0, 0), (4, 4), (7, 2)):
            place = wcs.wcs_pix2world([[x + 1, y + 1]], 1)[0]
            assert place == pytest.approx([a.axis[x], a.axis[y]], abs=1e-12)
            np.testing.assert_array_equal(hdu.data[y, x], getattr(a, name.lower())[y, x])
        if name == "PHASE":
            assert hdu.header["BUNIT"] == "rad"


# ----------------------------------------------------------------------------------------- refusals


def test_nothing_is_overwritten_unasked(file):
    before = file.read_bytes()
    with pytest.raises(InputError, match="exists"):
        write_fit(made(3), file)
    assert file.read_bytes() == before


def test_overwriting_when_asked(tmp_path):
    path = tmp_path / "fit.fits"
    write_fit(made(), path)
    write_fit(made(4), path, overwrite=True)
    assert_same(made(4), read_fit(path))
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    def full_disk(hdus, path, **options):
        path.write_bytes(b"SIMPLE")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fits.HDUList, "writeto", full_disk)
    with pytest.raises(InputError, match=r"fit\.fits: cannot be written \(No space left"):
        write_fit(made(), tmp_path / "fit.fits")
    assert list(tmp_path.iterdir()) == []


def changed(path, change):
    with fits.open(path) as hdus:
        change(hdus)
        hdus.writeto(path.with_name("changed.fits"), overwrite=True)
    return path.with_name("changed.fits")


def test_other_files_are_refused_in_one_line(tmp_path, file):
    (tmp_path / "text.fits").write_text("not FITS")
    (tmp_path / "short.fits").write_bytes(file.read_bytes()[:-3000])
    fits.PrimaryHDU(np.zeros((3, 3))).writeto(tmp_path / "image.fits")
    write_fit(made(), tmp_path / "fit.fits")
    cases = {
        tmp_path / "missing.fits": "no such file",
        tmp_path: "is a directory",
        tmp_path / "text.fits": "not a FITS file",
        tmp_path / "short.fits": "truncated or damaged",
        tmp_path / "image.fits": "not the result of a fit",
    }
    for path, message in cases.items():
        with pytest.raises(InputError, match=re.escape(message)) as caught:
            read_fit(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda hdus: hdus[0].header.update(OOFFIT=5), r"in layout 5, and this version reads 1 to 4"),
        (lambda hdus: hdus.__delitem__("MAP_1"), r"incomplete result of a fit \(.*MAP_1"),
        (lambda hdus: hdus[0].header.remove("WAVELEN"), r"incomplete result of a fit \(.*WAVELEN"),
        (lambda hdus: hdus.__delitem__("TRUTH_AXIS"), r"incomplete truth \(.*TRUTH_AXIS"),
    ],
    ids=["another layout", "a map missing", "a keyword missing", "half a truth"],
)
def test_a_file_that_was_tampered_with_is_refused(tmp_path, change, message):
    write_fit(made(), tmp_path / "fit.fits")
    with pytest.raises(InputError, match=message):
        read_fit(changed(tmp_path / "fit.fits", change))


def test_a_fit_is_not_taken_for_an_observation(file):
    with pytest.raises(InputError):
        io.read(file)
