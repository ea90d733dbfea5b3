"""The report, the verdict and summary.json of a small simulated fit, and of doctored copies of it."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest

import ooftorch
from ooftorch.fitting.fitter import fit
from ooftorch.fitting.scan_terms import TERMS
from ooftorch.observation import BeamMap, Observation
from ooftorch.optics import telescopes, zernike
from ooftorch.optics.model import BeamModel, MapGeometry
from ooftorch.optics.receiver import Receiver
from ooftorch.reporting.checks import verdict
from ooftorch.reporting.numbers import summary
from ooftorch.reporting.text import order_header, order_line, report
from ooftorch.result import Estimate, OrderEvidence, ScanTerm
from ooftorch.truth import TrueValue, Truth

WAVELENGTH = 3e-3
DZ = (-4e-3, 0.0, 4e-3)
TRUTH = {"z1": -0.5, "z2": 0.8, "z3": 0.3, "z4": 0.2, "z5": -0.25}
ARCSEC = math.pi / 180 / 3600


@pytest.fixture(scope="module")
def observation():
    scope = telescopes.load("alma")
    beam = WAVELENGTH / (2 * scope.radius)
    x, y = (c.ravel() for c in np.meshgrid(*2 * [np.linspace(-3, 3, 15) * beam]))
    model = BeamModel(scope, WAVELENGTH, [MapGeometry(dz, x, y) for dz in DZ], order=2, n=64)
    gains = {f"gain_{i}": 1000.0 for i in range(3)}
    model.set(**TRUTH, **gains)
    noise = np.random.default_rng(2).standard_normal((3, x.size))
    power = np.array(model.split(model().detach().numpy())) + noise
    power[1, 7] = np.nan
    maps = tuple(
        BeamMap(dz, x, y, p, sigma=np.ones_like(p) * (1 + 1e-9)) for dz, p in zip(DZ, power, strict=True)
    )
    return Observation(
        maps,
        WAVELENGTH,
        "alma",
        Receiver(),
        object="3C 273",
        date_obs="2020-02-03",
        source="night/maps.fits",
        notes=("a thing that was assumed",),
    )


@pytest.fixture(scope="module")
def result(observation):
    return fit(observation, order=2, n=64, illumination="gaussian", device="cpu")


@pytest.fixture(scope="module")
def marked(result):
    """A result off by one part of the truth: z4 by 0.3 rad, whose rms over a disc is 0.3/sqrt(3)."""
    axis = np.linspace(-6, 6, 201)
    r = np.hypot(axis, axis[:, None]) / 6
    values = {name: p.value for name, p in result.parameters.items() if name in TRUTH}
    values["z4"] += 0.3
    x, y = (c / 6 for c in np.meshgrid(axis, axis))
    phase = values["z3"] * 2 * x * y + values["z4"] * (2 * r**2 - 1) + values["z5"] * (x**2 - y**2)
    phase += 0.7 * x - 0.4 * y + 2  # tilt and piston do not count
    truth = Truth(
        {name: TrueValue(value, "rad") for name, value in values.items()},
        axis,
        np.where(r <= 1, phase, np.nan),
        6.0,
    )
    return replace(result, truth=truth)


# ----------------------------------------------------------------------------------------- summary

FIXED_NAMES = {
    *("ooftorch", "input", "telescope", "wavelength_m", "likelihood", "illumination", "order", "converged"),
    *("message", "objective", "chi2_reduced", "n_data", "n_free", "n_eval", "parameters", "maps"),
    *("phase_rms_rad", "surface_rms_um", "ruze_efficiency", "orders", "seconds"),
}


def test_summary_has_every_fixed_name_and_is_json(result):
    s = json.loads(json.dumps(summary(result, {"read": 0.5, "total": 2.0}), allow_nan=False))
    assert set(s) >= FIXED_NAMES
    assert s["ooftorch"] == ooftorch.__version__
    assert s["input"] == "night/maps.fits"
    assert s["wavelength_m"] == WAVELENGTH
    assert s["n_data"] == 3 * 225 - 1
    assert s["n_missing"] == 1
    assert s["converged"] is True
    assert set(s["parameters"]["z1"]) == {"value", "sigma", "sigma_noise", "sigma_model", "unit", "free"}
    assert s["parameters"]["z3"]["unit"] == "rad"
    assert s["parameters"]["dz"]["free"] is False
    assert [m["dz_m"] for m in s["maps"]] == list(DZ)
    assert [m["n_data"] for m in s["maps"]] == [225, 224, 225]
    assert set(s["maps"][0]) >= {"dz_m", "residual_rms_over_peak", "noise"}
    assert [o["order"] for o in s["orders"]] == [1, 2]
    assert set(s["orders"][0]) >= {"order", "objective", "chi2_reduced", "n_eval", "seconds"}
    assert s["seconds"] == {"read": 0.5, "fit": result.seconds, "write": None, "total": 2.0}
    assert s["surface_rms_kind"] == "half-path"
    # lambda/(4 pi) is 238.7 um per radian at 3 mm.
    assert s["surface_rms_um"] == pytest.approx(238.73 * s["phase_rms_rad"], rel=1e-4)


def test_summary_says_how_far_off_the_truth_is(result, marked):
    assert summary(result)["truth"] is None
    s = json.loads(json.dumps(summary(marked), allow_nan=False))["truth"]
    assert s["actual_phase_error_rad"] == pytest.approx(0.3 / math.sqrt(3), rel=0.01)
    assert s["surface_error_um"] == pytest.approx(238.73 * s["actual_phase_error_rad"], rel=1e-4)
    assert s["predicted_rad"] == summary(marked)["phase_error_rad"]
    assert "phase_error_rad" not in s, "that name means the predicted error"
    assert s["pulls"] == pytest.approx({"z3": 0, "z4": -0.3 / marked.parameters["z4"].sigma, "z5": 0})
    assert s["parameters"]["z4"] == pytest.approx(marked.parameters["z4"].value + 0.3)
    assert list(s["parameters"]) == list(TRUTH)


def test_what_does_not_exist_is_null(result):
    parameters = dict(result.parameters)
    parameters["z3"] = parameters["z3"]._replace(sigma=math.inf)
    odd = replace(result, chi2_reduced=math.nan, n_data=np.int64(5), parameters=parameters)
    s = json.loads(json.dumps(summary(odd), allow_nan=False))
    assert s["chi2_reduced"] is None
    assert s["parameters"]["z3"]["sigma"] is None
    assert s["n_data"] == 5
    assert s["seconds"]["read"] is None


def test_pointing_is_where_the_beam_is(result):
    m = result.maps[1]
    excess = np.nan_to_num(m.data - result.parameters["offset_1"].value)
    weight = np.where(excess > 0.05 * excess.max(), excess, 0.0)
    centroid = np.array([m.x @ weight, m.y @ weight]) / weight.sum() / ARCSEC
    pointing = summary(result)["pointing_arcsec"]
    assert centroid[0] > 2  # z2 > 0: a wrong sign or a swap cannot pass
    assert centroid[1] < -1
    assert [pointing["dx"], pointing["dy"]] == pytest.approx(centroid, abs=0.5)


def loosened(result, **sigmas):
    """The result with these standard errors, uncorrelated, and no others."""
    variances = [sigmas.get(name, 0.0) ** 2 for name in result.free_names]
    return replace(result, covariance=np.diag(variances))


def test_phase_error_is_that_of_the_shape_over_the_dish(result):
    assert summary(loosened(result, z1=0.5, z2=0.5))["phase_error_rad"] == 0
    # U_4 = 2 r^2 - 1 has mean square 1/3.
    assert summary(loosened(result, z4=0.3))["phase_error_rad"] == pytest.approx(0.3 / math.sqrt(3))


def test_a_cold_stop_ends_the_dish(result):
    """Over the inner half of the radius U_4 = 2 r^2 - 1 varies by a quarter as much."""
    kept = {n: p._replace(value=0.8 if n == "z4" else 0.0) for n, p in result.parameters.items()}
    whole = replace(result, parameters=kept)
    stopped = replace(whole, stop_radius=0.5)
    assert whole.phase_rms == pytest.approx(0.8 / math.sqrt(3))
    assert stopped.phase_rms == pytest.approx(0.8 / math.sqrt(3) / 4)
    assert loosened(stopped, z4=0.3).phase_error == pytest.approx(0.3 / math.sqrt(3) / 4)


# ----------------------------------------------------------------------------------------- verdict


def test_a_clean_fit_is_good(result):
    assert verdict(result) == ["good"]
    assert summary(result)["verdict"] == "good"


def map_with(number, **changes):
    def change(result):
        maps = list(result.maps)
        maps[number] = replace(maps[number], **{k: f(maps[number]) for k, f in changes.items()})
        return replace(result, maps=tuple(maps))

    return change


def parameter_with(name, **changes):
    def change(result):
        p = result.parameters[name]
        new = p._replace(**{k: f(getattr(p, k)) for k, f in changes.items()})
        return replace(result, parameters={**result.parameters, name: new})

    return change


def aperture_with(**changes):
    def change(result):
        a = result.aperture
        r = np.hypot(a.axis, a.axis[:, None]) / a.radius
        return replace(result, aperture=replace(a, **{k: f(getattr(a, k), r) for k, f in changes.items()}))

    return change


def judged(evidence):
    """The evidence for its order and the next changed."""
    return lambda r: replace(r, order_evidence=evidence)


def scanned(*terms):
    return lambda result: replace(result, scan_terms=tuple(ScanTerm(*term) for term in terms))


def with_parameters(result, **values):
    more = {name: Estimate(value, 0.01, "", False) for name, value in values.items()}
    return replace(result, parameters={**result.parameters, **more})


def blocked(**widths):
    return lambda result: with_parameters(result, **widths)


def bent(order, **values):
    """With these coefficients of the bend of the illumination, and the others zero."""

    def change(result):
        names = [f"a{k}" for k in range(3, zernike.n_terms(order))]
        return with_parameters(
            replace(result, amplitude_order=order), **{name: values.get(name, 0.0) for name in names}
        )

    return change


def both(first, second):
    return lambda result: second(first(result))


def spike(phase, r):
    out = phase.copy()
    out[np.unravel_index(np.nanargmin(np.abs(r - 0.5)), r.shape)] = -20.0
    return out


def noisy(m):
    return 0.2 * np.nanmax(m.data)


def ripple(m):
    # Every other sample off by so much that the rms over all is 8 % of the peak.
    peak = np.nanmax(m.data) - np.nanmedian(m.data)
    return m.data + 0.08 * peak * np.sqrt(2) * (np.arange(m.data.size) % 2)


def hit(size):
    """Data of which every thirtieth sample is off by a part of the peak."""

    def glitches(m):
        peak = np.nanmax(m.data) - np.nanmedian(m.data)
        return m.data + size * peak * (np.arange(m.data.size) % 30 == 3)

    return glitches


STOP, CARE = "do not apply", "usable with care"
DOCTORED = {
    "not converged": (lambda r: replace(r, converged=False, message="out of steps"), STOP, "out of steps"),
    "one clear map": (both(map_with(0, noise=noisy), map_with(2, noise=noisy)), STOP, "1 of 3 maps"),
    "no model": (
        map_with(2, model=lambda m: np.zeros_like(m.model)),
        STOP,
        "100% of the signal (rms) in the map at dz +4 mm",
    ),
    "artefact": (aperture_with(phase=spike), STOP, "reaches 20 rad"),
    "large phase": (aperture_with(phase=lambda p, r: p * 6), "good", "beyond +-1.5 rad"),
    "rough surface of the GBT": (
        lambda r: replace(r, good_surface_rms=4e-4, wavelength=50e-3),
        "good",
        "400 um",
    ),
    "wild rim": (
        aperture_with(phase=lambda p, r: np.where(r > 0.97, 1.8, 0.05 * p)),
        "good",
        "outer tenth of the radius",
    ),
    "dark rim": (aperture_with(amplitude=lambda a, r: np.where(r > 0.85, 1e-3 * a, a)), CARE, "rim came out"),
    "loose coefficient": (lambda result: loosened(result, z3=0.9), CARE, "uncertain by 0.37 rad"),
    "poor model": (map_with(0, model=ripple), CARE, "residual of the map at dz -4 mm is 8.6%"),
    "glitches": (
        both(map_with(1, data=hit(0.1)), lambda r: replace(r, likelihood="gaussian", robust=False)),
        CARE,
        "leave --likelihood at auto",
    ),
    "misfit": (
        map_with(1, noise=lambda m: 0.2 * m.noise),
        CARE,
        "residuals of the map at dz +0 mm are 5 times the noise",
    ),
    "order too low": (
        judged(OrderEvidence(200.0, 10.0, 31.0, 12.0)),
        CARE,
        "the maps ask for order 3 (gain 31, and 12 is enough)",
    ),
    "order too high": (
        judged(OrderEvidence(4.0, 10.0, 3.0, 12.0)),
        "good",
        "do not ask for order 2 (gain 4.0, and it takes 10): --order 1 is enough",
    ),
    "gains apart": (parameter_with("gain_2", value=lambda v: 0.8 * v), "good", "map at dz +4 mm is 20% off"),
    "weak map": (map_with(0, noise=noisy), "good", "dz -4 mm has a peak of only 5.0"),
    "many missing": (lambda r: replace(r, n_missing=r.n_data), "good", "50% of the samples are missing"),
    "illumination off the axis": (
        parameter_with("y0", value=lambda v: -0.2),
        "good",
        "centred 0.20 R off the axis",
    ),
    "focus scale": (parameter_with("dz_scale", value=lambda v: 0.9), CARE, "came out 0.900 times"),
    "lines as bad as may be": (
        scanned(("level", "peak", (0.01, 0.02, 0.01)), ("pointing_drift", "beam", (0.0, 0.03, 0.1))),
        "good",
        "pointing drift errors of the scan lines came out as large as a fit allows in the map at dz +4 mm",
    ),
    "thin legs": (blocked(legs=0.5, shadow=1.2), "good", "The legs came out 0.50 times as wide"),
    "wide shadows": (
        blocked(legs=1.1, shadow=2.0),
        "good",
        "The shadows behind the feet of the legs came out 2.00",
    ),
    "another illumination": (bent(8, a12=0.5), "good", "by 1.9 dB rms, with Zernikes to order 8"),
    "off the map": (parameter_with("z1", value=lambda v: 2 * math.pi), "good", "2.0 lambda/D"),
}


@pytest.mark.parametrize("name", DOCTORED)
def test_verdict_says_what_is_wrong(result, name):
    change, word, phrase = DOCTORED[name]
    found = verdict(change(result))
    assert found[0] == word
    assert any(phrase in sentence for sentence in found[1:]), found


def test_verdict_says_nothing_else(result):
    # A model that misses much has a large residual, over peak and noise, and a wild rim a large phase.
    alone = set(DOCTORED) - {"no model", "poor model", "wild rim"}
    assert {name: len(verdict(DOCTORED[name][0](result))) for name in alone} == dict.fromkeys(alone, 2)


def test_the_order_that_the_maps_ask_for_is_told(result):
    assert result.recommended_order == 2
    assert re.search(r"\norder +order 2 gains \S+ \(asked for above \S+\), order 3 gains", report(result))
    for evidence, order in (((200.0, 10.0, 31.0, 12.0), 3), ((4.0, 10.0, 3.0, 12.0), 1), ((), 2)):
        assert judged(OrderEvidence(*evidence))(result).recommended_order == order
    assert "use order" not in report(judged(OrderEvidence())(result))


@pytest.mark.parametrize("term", TERMS, ids=[term.name for term in TERMS])
def test_lines_are_suspicious_at_the_limit_of_the_fit(result, term):
    def reasons(share):
        return verdict(scanned((term.name, term.unit, (share * term.limit,) * 3))(result))[1:]

    assert reasons(0.9) == []
    assert len(reasons(1.0)) == 1


def test_glitches_that_the_likelihood_forgives_do_not_condemn_a_fit(result):
    """Even where most of the power in a map is theirs."""
    forgiven = map_with(2, data=hit(4.0))(result)
    excess = np.nansum((forgiven.maps[2].data - result.maps[2].data) ** 2)
    assert excess > np.nansum((result.maps[2].data - result.maps[2].offset) ** 2)
    assert verdict(forgiven) == ["good"]


def test_verdict_of_maps_without_noise(result):
    perfect = replace(result, chi2_reduced=math.nan, maps=tuple(replace(m, noise=0.0) for m in result.maps))
    assert verdict(perfect) == ["good"]
    assert "nan" not in report(perfect)


def test_a_result_of_nan_is_not_good(result):
    assert verdict(parameter_with("z3", value=lambda v: math.nan)(result))[0] == STOP


# ------------------------------------------------------------------------------------------ report


def test_report_has_what_matters(result):
    text = report(result)
    assert text.isascii()
    lines = {line.split()[0]: line for line in text.splitlines() if line}
    assert "alma" in lines["telescope"]
    assert "3C 273, 2020-02-03" in lines["observation"]
    assert "night/maps.fits" in lines["file"]
    assert "3 mm, 99.931 GHz" in lines["wavelength"]
    assert "3 at dz -4, +0, +4 mm" in lines["maps"]
    assert "674, and 1 missing" in lines["samples"]
    assert "a thing that was assumed" in lines["note"]
    p = result.parameters["z3"]
    cells = lines["z3"].split()
    assert "astigmatism 45/135" in lines["z3"]
    assert float(cells[-3]) == pytest.approx(p.value, abs=5e-5)
    assert float(cells[-2]) == pytest.approx(p.sigma, rel=0.05)
    assert float(cells[-1]) == pytest.approx(238.73 * p.value, abs=0.1)
    assert "half-path" in lines["surface"]
    assert f"{1e6 * result.surface_rms:.0f} um" in lines["surface"]
    assert f"{result.ruze_efficiency:.3f}" in lines["Ruze"]
    assert "dz = 0 m" in lines["held:"]
    assert "gaussian illumination, student likelihood" in lines["model"]
    assert "R" in lines["sigma"]
    assert f"DX {summary(result)['pointing_arcsec']['dx']:+.2f}" in lines["pointing"]
    assert lines["VERDICT"].endswith("good")


def test_report_says_how_far_off_the_truth_is(result, marked):
    assert "truth" not in report(result)
    lines = report(marked).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("truth"))
    assert lines[at - 7].startswith("phase error")
    error = summary(marked)["truth"]["actual_phase_error_rad"]
    pull = 0.3 / marked.parameters["z4"].sigma
    assert " ".join(" ".join(lines[at : at + 2]).split()) == (
        f"truth off by {error:.3g} rad rms over the dish (predicted: {marked.phase_error:.3g}), "
        f"{238.73 * error:.1f} um half-path; worst z4, {pull:.1f} sigma"
    )
    # A true value of nothing that was fitted: how far off it is stands there all the same.
    nameless = replace(marked, truth=replace(marked.truth, parameters={}))
    assert f"{238.73 * error:.1f} um half-path\n" in report(nameless)


def test_report_has_the_rows_that_were_shown_live(result):
    lines = report(result).splitlines()
    start = lines.index(order_header())
    assert lines[start + 1 : start + 3] == [order_line(o) for o in result.orders]
    assert len(order_header()) == len(order_line(result.orders[0]))
    unknown = order_line(replace(result.orders[0], chi2_reduced=math.nan))
    assert "nan" not in unknown
    assert len(unknown) == len(order_header())


def test_pointing_of_single_maps_is_shown_where_it_was_fitted(result):
    """In arcseconds and in beams; and in the summary."""
    beam = WAVELENGTH / 12 / ARCSEC
    pointing = {f"d{axis}_{i}": 0.0 for axis in "xy" for i in range(3)}
    held = {name: Estimate(value, 0.0, "rad", False) for name, value in pointing.items()}
    assert "dx/arcsec" not in report(replace(result, parameters={**result.parameters, **held}))
    moved = {
        "dx_2": Estimate(-3 * ARCSEC, ARCSEC, "rad", True),
        "dy_2": Estimate(4 * ARCSEC, 0.0, "rad", False),
    }
    text = report(replace(result, parameters={**result.parameters, **held, **moved}))
    head = next(i for i, line in enumerate(text.splitlines()) if "dx/arcsec" in line)
    row = text.splitlines()[head + 3].split()
    assert row[:5] == ["+4", "-3.000", "1", "+4.000", "held"]
    assert float(row[5]) == pytest.approx(5 / beam, abs=1e-3)
    entry = summary(replace(result, parameters={**result.parameters, **held, **moved}))["maps"][2]
    assert entry["pointing_arcsec"] == pytest.approx({"dx": -3, "dy": 4})
    assert entry["pointing_beams"] == pytest.approx(5 / beam)


def test_report_gives_the_reasons(result):
    text = report(DOCTORED["not converged"][0](result))
    assert "NOT CONVERGED: out of steps" in text
    assert re.search(r"VERDICT +do not apply\nchance .*\n  - The fit did not converge", text)


def test_a_bend_is_one_line(result):
    """And none of its coefficients a row."""
    assert "bend" not in report(result)
    # Mean squares 1/3 and 1/10 over the disc; the amplitude's decibels are 20/ln(10) per neper.
    marked = bent(4, a4=-0.3, a10=0.1)(result)
    size = 20 / math.log(10) * math.sqrt(0.3**2 / 3 + 0.1**2 / 10)
    lines = report(marked).splitlines()
    assert (
        f"bend             {size:.2g} dB rms over the dish, a3 to a14; largest a4, defocus, -0.300 +- held"
        in lines
    )
    assert summary(marked)["amplitude_bend_db"] == pytest.approx(size)
    assert not any(line.startswith("a10") or "a10 =" in line for line in lines)
    assert "gaussian illumination bent by Zernikes to order 4" in report(marked)


@pytest.mark.parametrize(
    ("degrees", "words"),
    [
        (3.1, "3.1 +- 0.5 degrees of freedom: long tails"),
        (9.0, "9.0 +- 0.5 degrees of freedom: tails a little longer than normal"),
        (40.0, "40 +- 0 degrees of freedom: like normal noise"),
    ],
)
def test_tails_of_the_noise_are_told_in_words(result, degrees, words):
    excess = Estimate(degrees - 1, 0.46, "", True)
    text = report(replace(result, parameters={**result.parameters, "excess_degrees": excess}))
    assert f"noise            Student's t, {words}\n" in text
    assert "excess_degrees" not in text
    parameters = {name: p for name, p in result.parameters.items() if name != "excess_degrees"}
    assert "Student" not in report(replace(result, parameters=parameters))


def test_errors_of_scan_lines_are_told(result):
    assert "\nscan lines " not in report(result)
    text = report(scanned(("level", "peak", (3e-3, 4e-3, 0.0)), ("gain", "", (0.02, 0.02, 0.02)))(result))
    # Rms of 3, 4 and 0 is 2.9.
    assert "scan lines       levels 0.29 % of peak, gains 2 % (rms), integrated out\n" in text


def test_no_line_is_longer_than_the_tables(result):
    long = replace(
        both(bent(8, a12=0.5), scanned(*((t.name, t.unit, (t.limit,) * 3) for t in TERMS)))(result),
        notes=("one " * 40,),
        message="two " * 40,
        object="Cassiopeia " * 12,
    )
    assert max(map(len, report(long).splitlines())) <= 100
