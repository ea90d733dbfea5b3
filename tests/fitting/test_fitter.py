"""The whole fit: known surfaces recovered, error bars that hold, real maps, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from places import EXAMPLE, SHARED, needs_shared
from simulated import altered, observe, phase_error, surface

import ooftorch
from ooftorch.errors import InputError
from ooftorch.fitting.orders import fit_orders
from ooftorch.fitting.setup import FitOptions, set_up
from ooftorch.fitting.start import MedianFilter, build_filters
from ooftorch.observation import BeamMap
from ooftorch.optics import zernike
from ooftorch.optics.illumination.gaussian import Gaussian
from ooftorch.optics.receiver import Receiver

SRT = SHARED / "srt_20190426" / "observation.toml"
PYOOF = SHARED / "pyoof_simulated" / "effelsberg_32GHz.fits"


NOTHING_WRONG = dict.fromkeys(["x0", "y0", "dx", "dy"], 0.0) | {"dz_scale": 1.0}
EVERYTHING = NOTHING_WRONG | dict.fromkeys(["z1", "z2", "z3", "z4", "z5", "offset"], 0.0)
EVERYTHING |= {"sigma": 0.7, "gain": 1.0}


@pytest.fixture(scope="module")
def example():
    return ooftorch.fit(ooftorch.read(EXAMPLE))


# ------------------------------------------------------------------------------------ known surfaces


def test_the_example_is_recovered_within_its_error_bars(example):
    truth = json.loads(EXAMPLE.with_name("gbt_3mm_truth.json").read_text())
    truth |= {"x0": 0.0, "y0": 0.0, "dz_scale": 1.0} | {f"d{a}_{i}": 0.0 for a in "xy" for i in range(3)}
    noise = {"noise", "excess_degrees"}
    pulls = np.array(
        [(example.parameters[k].value - v) / example.parameters[k].sigma for k, v in truth.items()]
    )
    assert example.converged
    assert set(truth) | noise == set(example.free_names)
    assert example.amplitude_order == 0
    assert example.scan_terms == ()
    # The likelihood came out as that of normal noise of the size that the file says.
    assert example.parameters["excess_degrees"].value > 15
    assert example.parameters["noise"].value == pytest.approx(1, abs=0.05)
    assert np.abs(pulls).max() < 4
    assert 0.5 < np.mean(pulls**2) < 2
    assert example.chi2_reduced == pytest.approx(1, abs=0.06)
    # A test that zero would pass says nothing: the surface is large against its errors.
    assert (
        max(abs(example.parameters[f"z{k}"].value / example.parameters[f"z{k}"].sigma) for k in range(3, 21))
        > 100
    )


def test_the_mirrored_observation_has_the_negated_surface(example):
    mirrored = ooftorch.fit(ooftorch.read(EXAMPLE).mirrored())
    assert mirrored.objective == pytest.approx(example.objective, rel=1e-9)
    np.testing.assert_allclose(mirrored.coefficients, -example.coefficients, atol=1e-5)
    for i in range(3):
        assert mirrored.parameters[f"gain_{i}"].value == pytest.approx(
            example.parameters[f"gain_{2 - i}"].value
        )


@pytest.mark.parametrize("seed", range(4))
def test_two_radians_rms_are_recovered(seed):
    z = surface(5, 2.0, seed)
    result = ooftorch.fit(observe(z, samples=25, reach=6, noise=1 / 300, seed=seed), order=5, n=96)
    assert result.converged
    assert phase_error(result, z) < 0.05


@pytest.mark.slow
def test_error_bars_hold():
    """Pulls of many fits scatter by one; with the errors halved on purpose the same check fails.

    Errors from the residuals do not take the file's word for the noise, and by default the scale of the noise
    is found from the maps: halved errors then do no harm.
    """
    trusting = {"likelihood": "gaussian", "nuisance": "none", "amplitude_order": 0}

    z = surface(2, 0.6, 7)

    def spread(scale, error, **options):
        seen = [
            altered(observe(z, noise=0.01, seed=seed), lambda m, i: replace(m, sigma=scale * m.sigma))
            for seed in range(30)
        ]
        results = ooftorch.fit_many(seen, order=2, n=96, fixed={"sigma": 0.7195}, **options)
        estimates = [[r.parameters[f"z{k}"] for k in range(1, 6)] for r in results]
        return np.std(
            [(e.value - t) / getattr(e, error) for of in estimates for e, t in zip(of, z, strict=True)]
        )

    assert spread(1.0, "sigma_noise", **trusting) == pytest.approx(1, abs=0.17)
    assert spread(0.5, "sigma_noise", **trusting) != pytest.approx(1, abs=0.17)
    assert spread(0.5, "sigma", **trusting) == pytest.approx(1, abs=0.17)
    assert spread(1.0, "sigma_noise") == pytest.approx(1, abs=0.17)
    assert spread(0.5, "sigma_noise") == pytest.approx(1, abs=0.17)


def test_unknown_noise_is_estimated():
    z = surface(3, 0.8, 1)
    options = {"order": 3, "n": 96, "likelihood": "gaussian"}
    known = ooftorch.fit(observe(z, noise=0.01), **options)
    unknown = ooftorch.fit(observe(z, noise=0.01, errors=False), **options)
    sigma = float(observe(z, noise=0.01).maps[0].sigma[0])
    assert unknown.parameters["noise"].value == pytest.approx(sigma, rel=0.08)
    assert unknown.maps[0].noise == pytest.approx(sigma, rel=0.25)
    assert not known.parameters["noise"].free
    for k in range(1, 10):
        a, b = known.parameters[f"z{k}"], unknown.parameters[f"z{k}"]
        assert a.value == pytest.approx(b.value, abs=0.3 * a.sigma)
        assert a.sigma == pytest.approx(b.sigma, rel=0.1)


def test_errors_that_are_all_one_are_no_errors():
    seen = observe(surface(2, 0.5, 3))
    sigma = float(seen.maps[0].sigma[0])
    result = ooftorch.fit(altered(seen, lambda m, i: replace(m, sigma=np.ones_like(m.power))), order=2, n=96)
    assert result.parameters["noise"].free
    assert any("placeholder" in note for note in result.notes)
    # One noise model throughout: what is reported is not the ones, either.
    assert [m.noise for m in result.maps] == pytest.approx([sigma] * 3, rel=0.35)
    assert result.chi2_reduced == pytest.approx(1, abs=0.5)


def test_errors_for_some_maps_only_are_no_errors():
    seen = observe(surface(2, 0.5, 3))
    result = ooftorch.fit(altered(seen, lambda m, i: replace(m, sigma=None) if i else m), order=2, n=96)
    assert result.parameters["noise"].free
    assert any("only 1 of 3 maps" in note for note in result.notes)


def test_noise_does_not_need_neighbours_in_the_file():
    seen = observe(surface(2, 0.5, 3), errors=False)
    rng = np.random.default_rng(0)

    def shuffled(m, i):
        order = rng.permutation(m.power.size)
        return replace(m, x=m.x[order], y=m.y[order], power=m.power[order])

    result = ooftorch.fit(altered(seen, shuffled), order=2, n=96)
    sigma = float(observe(surface(2, 0.5, 3)).maps[0].sigma[0])
    assert [m.noise for m in result.maps] == pytest.approx([sigma] * 3, rel=0.2)


def test_the_cold_stop_of_a_receiver_is_the_edge():
    """What no light reaches is neither shown nor counted."""
    seen = observe(surface(2, 0.5, 3), name="gbt", wavelength=3.3e-3, dz=(-0.01, 0.0, 0.01))
    result = ooftorch.fit(seen, order=2, n=96, illumination="tophat")
    a = result.aperture
    r = np.hypot(a.axis, a.axis[:, None])
    assert np.isnan(a.phase[r > 46.5]).all()
    assert (a.open[r > 46.5] == 0).all()
    lit = (a.open == 1) & (r < 45)
    assert result.phase_rms == pytest.approx(np.std(a.phase[lit]), rel=0.03)


@pytest.mark.parametrize(
    ("name", "model"), [("alma-dv", "squashed"), ("gbt90", "tophat"), ("jcmt", "gaussian")]
)
def test_the_telescope_knows_its_illumination(name, model):
    seen = observe(surface(2, 0.3, 1), name=name, dz=(-1e-3, 0.0, 1e-3), samples=11)
    assert ooftorch.fit(seen, order=1, n=64).illumination == model


@pytest.mark.parametrize("likelihood", ["auto", "cauchy"])
def test_glitches_do_not_move_a_robust_fit(likelihood):
    z = surface(3, 0.8, 5)
    rng = np.random.default_rng(1)

    def struck(m, i):
        hit = rng.random(m.power.size) < 0.05
        return replace(m, power=m.power + hit * rng.uniform(0, 0.5, m.power.size))

    seen = altered(observe(z, noise=0.003), struck)
    robust = phase_error(ooftorch.fit(seen, order=3, n=96, likelihood=likelihood), z)
    gaussian = phase_error(ooftorch.fit(seen, order=3, n=96, likelihood="gaussian"), z)
    assert robust < 0.02 < gaussian


def test_missing_samples_are_counted_and_change_little():
    z = surface(3, 0.8, 2)
    rng = np.random.default_rng(0)
    whole = observe(z)
    holes = altered(
        whole, lambda m, i: replace(m, power=np.where(rng.random(m.power.size) < 0.2, np.nan, m.power))
    )
    a, b = ooftorch.fit(whole, order=3, n=96), ooftorch.fit(holes, order=3, n=96)
    assert b.n_missing == sum(m.n_missing for m in holes.maps) > 100
    assert b.n_data == a.n_data - b.n_missing
    assert phase_error(b, z) < 0.01
    assert np.isnan(b.maps[0].data).sum() == holes.maps[0].n_missing
    assert np.isfinite(b.maps[0].model).all()


def test_each_map_has_its_own_samples():
    """Two maps, one of them scattered and shorter: nothing assumes three maps or one raster."""
    z = surface(2, 0.6, 4)
    rng = np.random.default_rng(5)

    def scattered(m, i):
        if i == 0:
            return m
        keep = rng.permutation(m.power.size)[:200]
        return replace(m, x=m.x[keep], y=m.y[keep], power=m.power[keep], sigma=m.sigma[keep], valid=None)

    seen = altered(observe(z, dz=(0.0, 0.06)), scattered)
    assert phase_error(ooftorch.fit(seen, order=2, n=96), z) < 0.02


def test_a_chopped_pair():
    beam = 1.1e-3 / 5.6
    z = surface(3, 0.5, 6)
    seen = observe(
        z, receiver=Receiver(chop_x=-4 * beam, gain_ratio=1.0), samples=25, reach=6, gain_ratio=0.93
    )
    result = ooftorch.fit(seen, order=3, n=96)
    assert phase_error(result, z) < 0.01
    ratio = result.parameters["gain_ratio"]
    assert ratio.value == pytest.approx(0.93, abs=4 * ratio.sigma)


def test_pointing_drift_is_fitted():
    z = surface(2, 0.6, 8)
    beam = 1.1e-3 / 5.6
    drift = {"dx_0": 0.2 * beam, "dy_2": -0.15 * beam}
    seen = observe(z, **drift)
    result = ooftorch.fit(seen, order=2, n=96)
    shifts = np.array([[result.parameters[f"d{a}_{i}"].value for i in range(3)] for a in "xy"]) / beam
    assert shifts.mean(axis=1) == pytest.approx([0, 0], abs=1e-9)  # the common part is z1 and z2
    assert result.parameters["z2"].value == pytest.approx(z[1] + np.pi * 0.2 / 3, abs=0.02)
    np.testing.assert_allclose(shifts, [[0.4 / 3, -0.2 / 3, -0.2 / 3], [0.05, 0.05, -0.1]], atol=0.01)
    assert phase_error(result, z) < 0.01
    held = ooftorch.fit(seen, order=2, n=96, fixed=NOTHING_WRONG, nuisance="none", amplitude_order=0)
    assert result.chi2_reduced < 1.2 < 5 < held.chi2_reduced


# ------------------------------------------------------------------------------------ side by side


def night(errors=True):
    """Four observations of the same shape: other surfaces, another flux, and one with missing samples."""
    seen = [observe(surface(3, 0.4 + 0.2 * s, s), noise=0.01, seed=s, errors=errors) for s in range(4)]
    rng = np.random.default_rng(0)
    brighter = None if not errors else 1.3 * seen[1].maps[0].sigma
    seen[1] = altered(seen[1], lambda m, i: replace(m, power=1.3 * m.power, sigma=brighter))
    seen[2] = altered(
        seen[2], lambda m, i: replace(m, power=np.where(rng.random(m.power.size) < 0.15, np.nan, m.power))
    )
    return [replace(o, source=f"scan {i}") for i, o in enumerate(seen)]


@pytest.mark.parametrize(("judge", "errors"), [("gaussian", True), ("cauchy", True), ("gaussian", False)])
def test_many_are_fitted_as_each_alone(judge, errors):
    seen = night(errors)
    results = ooftorch.fit_many(seen, order=3, n=96, likelihood=judge)
    assert [r.input for r in results] == [f"scan {i}" for i in range(4)]
    for i, (one, found) in enumerate(zip(seen, results, strict=True)):
        alone = ooftorch.fit(one, order=3, n=96, likelihood=judge)
        assert found.converged
        assert alone.converged
        assert found.objective == pytest.approx(alone.objective, rel=1e-7)
        assert found.free_names == alone.free_names
        for name in alone.free_names:
            a, b = alone.parameters[name], found.parameters[name]
            assert b.value == pytest.approx(a.value, abs=0.02 * a.sigma)
            assert b.sigma == pytest.approx(a.sigma, rel=0.01)
        assert (found.n_data, found.n_missing) == (alone.n_data, alone.n_missing)
        assert found.n_missing == sum(m.n_missing for m in one.maps)
        assert (found.n_missing > 50) == (i == 2)
        assert found.chi2_reduced == pytest.approx(alone.chi2_reduced, rel=1e-3)
        for m, other, given in zip(found.maps, alone.maps, one.maps, strict=True):
            np.testing.assert_array_equal(m.data, given.power)
            np.testing.assert_allclose(m.model, other.model, rtol=0, atol=1e-3 * np.abs(other.model).max())
        assert phase_error(found, surface(3, 0.4 + 0.2 * i, i)) < 0.1  # its own surface, that is
        assert sum(o.n_eval for o in found.orders) == found.n_eval
        assert found.orders[-1].objective == found.objective


def test_results_come_in_the_order_of_the_observations():
    seen = night()
    results = ooftorch.fit_many(seen[::-1], order=3, n=96)
    assert [r.input for r in results] == ["scan 3", "scan 2", "scan 1", "scan 0"]
    for result, i in zip(results, (3, 2, 1, 0), strict=True):
        errors = [phase_error(result, surface(3, 0.4 + 0.2 * s, s)) for s in range(4)]
        assert np.argmin(errors) == i


def test_nothing_to_fit_is_no_result():
    assert ooftorch.fit_many([]) == []


def test_many_count_what_they_evaluate():
    steps = []
    results = ooftorch.fit_many(night()[:3], order=2, n=96, progress=steps.append)
    assert sum(s.n_eval for s in steps if s.finished is not None) == sum(r.n_eval for r in results)
    assert {s.order for s in steps} == {1, 2}


BEAM = 1.1e-3 / 5.6


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        (lambda o: replace(o, telescope="gbt"), "telescope"),
        (lambda o: replace(o, wavelength=1.2e-3), "wavelength"),
        (lambda o: replace(o, receiver=Receiver(chop_x=BEAM)), "receiver"),
        (lambda o: replace(o, illumination="tophat"), "illumination"),
        (lambda o: altered(o, lambda m, i: replace(m, dz=1.1 * m.dz)), "focus offsets"),
        (lambda o: replace(o, maps=o.maps[:2]), "focus offsets"),
        (lambda o: altered(o, lambda m, i: replace(m, x=m.x + 0.01 * BEAM)), "directions"),
        (lambda o: altered(o, lambda m, i: replace(m, y=m.y * (1 + 0.01 * (i == 2)))), "directions"),
        (lambda o: observe(surface(2, 0.5, 1), samples=19), "directions"),
        (lambda o: altered(o, lambda m, i: replace(m, scans="rows")), "scan lines"),
        (lambda o: altered(o, lambda m, i: replace(m, time=np.arange(289) + m.x * 1e9)), "scan lines"),
        (lambda o: altered(o, lambda m, i: replace(m, smear=0.1 * BEAM)), "smearing"),
        (lambda o: altered(o, lambda m, i: replace(m, sigma=None)), "errors"),
    ],
)
def test_observations_of_another_shape_are_refused(change, differs):
    seen = [observe(surface(2, 0.5, 1), seed=s) for s in range(3)]
    seen[1] = change(seen[1])
    with pytest.raises(InputError, match=f"observation 2 of 3 .*{differs}") as caught:
        ooftorch.fit_many(seen, order=2, n=96)
    assert "\n" not in str(caught.value)


def test_one_that_cannot_be_fitted_is_named():
    seen = night()
    hopeless = altered(seen[3], lambda m, i: replace(m, power=np.full_like(m.power, np.nan)))
    with pytest.raises(InputError, match="scan 3: map 1 of 3") as caught:
        ooftorch.fit_many([*seen[:3], hopeless], order=2, n=96)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------- real maps


def test_glitches_do_not_mislead_the_start():
    """One in a hundred hit, some brighter than the whole defocused beam: the centroid was a glitch's."""
    simulator = ooftorch.Simulator(
        "effelsberg",
        wavelength=9.37e-3,
        dz=(-0.022, 0.0, 0.022),
        noise=ooftorch.Noise(snr=300, glitches=0.01),
        reach=6.0,
        step=0.375,
        n=96,
    )
    z = np.random.default_rng([0, 10]).normal(size=21)
    z[:3] = 0
    z /= np.sqrt(np.sum(z**2 * zernike.mean_square(5)))
    z[1:3] = np.random.default_rng([7, 10]).normal(scale=0.3, size=2)
    values = {zernike.name(k): value for k, value in enumerate(z)}
    observation = simulator.observe(values, seed=1010)
    result = ooftorch.fit(observation, likelihood="cauchy", n=96)
    assert observation.truth.rms_error(result.coefficients) < 0.05


def test_the_median_filter_keeps_the_beam_and_loses_glitches():
    (m, *_) = observe(surface(3, 0.8, 1), samples=33, noise=1e-6).maps
    plain = MedianFilter(m)(m.power)
    bright = m.power > 0.3 * m.power.max()
    assert plain[bright] == pytest.approx(m.power[bright], rel=0.3)
    power = m.power.copy()
    power[::50] = 1e3
    assert np.abs(MedianFilter(m)(power) - plain).max() < 0.1 * m.power.max()
    holes = replace(m, valid=np.arange(m.power.size) % 7 != 0)
    found = MedianFilter(holes)(holes.power)
    assert np.isfinite(found).all()
    assert not found[::7].any()


def test_maps_of_the_same_samples_share_a_median_filter():
    """And maps of others do not: that of a map with a hole has the neighbours across the hole."""
    whole, _, holed, same = night()
    filters = build_filters([whole, holed, same])
    for a, b, c, m in zip(*filters, holed.maps, strict=True):
        assert a is c
        assert a is not b
        assert np.array_equal(b(m.power), MedianFilter(m)(m.power))


@pytest.mark.parametrize("holes", [False, True])
def test_the_median_filter_of_the_mirrored_map_is_the_mirrored_one(holes):
    """At the edge of a raster several neighbours are equally near: which one comes first is no criterion."""
    m = observe(surface(3, 0.8, 1), samples=33, noise=0.02).maps[0]
    twice = [np.concatenate([a, a[::3]]) for a in (m.x, m.y, m.power)]
    for x, y, power in ([m.x, m.y, m.power], twice):
        seen = np.arange(len(x)) % 7 != 0 if holes else np.ones(len(x), dtype=bool)
        one = BeamMap(0.0, x, y, power, valid=seen)
        other, backwards = (
            replace(one, x=-x, y=-y),
            BeamMap(0.0, x[::-1], y[::-1], power[::-1], valid=seen[::-1]),
        )
        found = MedianFilter(one)(one.power)
        assert np.array_equal(MedianFilter(other)(other.power), found)
        assert np.array_equal(MedianFilter(backwards)(backwards.power)[::-1], found)


def assert_mirrored(found, expected):
    """To rounding of the objective, and a tenth of an error bar."""
    assert found.converged
    assert expected.converged
    assert found.objective == pytest.approx(expected.objective, rel=1e-8)
    names = expected.basis.names[1:]
    sigma = np.array([expected.parameters[name].sigma for name in names])
    assert (np.abs(found.coefficients + expected.coefficients)[1:] < 0.1 * sigma).all()


def spoilt(seed):
    """A surface rougher than the fit's, under Cauchy noise: the likelihood has minima side by side."""
    z = surface(12, 0.5, 100 + seed)
    z[:20] = surface(5, 1.0, seed)
    observation = observe(z, samples=33, noise=1e-9, seed=seed, errors=False)
    rng = np.random.default_rng(seed)
    peak = max(m.power.max() for m in observation.maps)
    return altered(
        observation,
        lambda m, _: replace(m, power=m.power + 0.003 * peak * rng.standard_cauchy(m.power.size)),
    )


@pytest.mark.parametrize("seed", [5, 12])
def test_close_optima_do_not_part_the_mirrors(seed):
    """Nor does the last digit of the start: the minima are 5.6 and 3.0 apart, a few error bars."""
    observation = spoilt(seed)
    options = {
        "likelihood": "cauchy",
        "nuisance": "none",
        "amplitude_order": 0,
        "n": 96,
        "device": "cpu",
    }
    fits = [ooftorch.fit(o, order=5, **options) for o in (observation, observation.mirrored())]
    assert_mirrored(fits[1], fits[0])
    setup = set_up([observation], None, FitOptions(order=5, **options))
    rng = np.random.default_rng(0)
    for _ in range(3):
        shift = torch.zeros_like(setup.starts)
        free = setup.layout.free
        shift[:, free] = torch.as_tensor(rng.normal(scale=1e-6, size=len(free)))
        (moved,) = fit_orders(replace(setup, starts=setup.starts + shift), torch.tensor([0]), None)
        assert moved.orders[-1].objective == pytest.approx(fits[0].objective, rel=1e-8)


@pytest.mark.slow
@needs_shared
@pytest.mark.parametrize("likelihood", ["gaussian", "cauchy"])
@pytest.mark.parametrize("order", [6, 7])
def test_the_mirrors_of_the_sardinia_telescope(order, likelihood):
    observation = ooftorch.read(SRT)
    fits = [
        ooftorch.fit(o, order=order, likelihood=likelihood) for o in (observation, observation.mirrored())
    ]
    assert_mirrored(fits[1], fits[0])


@pytest.mark.slow
@needs_shared
def test_the_sardinia_telescope():
    """Dominated by y coma; both mirrors find the one optimum (plain BFGS from zero misses it on one)."""
    observation = ooftorch.read(SRT)
    a = ooftorch.fit(observation, order=5, likelihood="cauchy")
    b = ooftorch.fit(observation.mirrored(), order=5, likelihood="cauchy")
    assert a.parameters["z7"].value == pytest.approx(1.8, abs=0.3)
    assert a.parameters["z4"].value == pytest.approx(1.2, abs=0.3)
    assert np.argmax(np.abs(a.coefficients)) == 7
    assert_mirrored(b, a)
    assert max(m.residual_rms_over_peak for m in a.maps) < 0.06


@needs_shared
def test_a_pyoof_simulation():
    truth = json.loads(PYOOF.with_name("truth.json").read_text())
    z = np.zeros(zernike.n_terms(5))
    for key, k in truth["K_waves"].items():
        z[zernike.index(*map(int, key.split(",")))] = -2 * np.pi * k
    result = ooftorch.fit(ooftorch.read(PYOOF), order=5, illumination="pedestal")
    assert result.converged
    assert phase_error(result, z[1:]) < 0.003
    # Where the illumination may bend, the bend takes up part of the taper.
    result = ooftorch.fit(ooftorch.read(PYOOF), order=5, illumination="pedestal", amplitude_order=0)
    assert phase_error(result, z[1:]) < 0.003
    assert result.parameters["taper_db"].value == pytest.approx(truth["taper_db"], abs=0.05)
    assert result.parameters["q"].value == pytest.approx(truth["q"], abs=0.02)
    assert result.parameters["noise"].value == pytest.approx(truth["noise_std"], rel=0.05)


# ------------------------------------------------------------------------------------- the interface


def test_the_result_is_whole(example):
    assert len(example.free_names) == example.n_free == len(example.covariance)
    sigmas = [example.parameters[name].sigma for name in example.free_names]
    np.testing.assert_allclose(np.sqrt(np.diag(example.covariance)), sigmas)
    assert [o.order for o in example.orders] == [1, 2, 3, 4, 5]
    assert sum(o.n_eval for o in example.orders) == example.n_eval
    assert all(b.objective <= a.objective for a, b in zip(example.orders, example.orders[1:], strict=False))
    phase, weight = example.aperture.phase, example.aperture.open
    inside = weight == 1
    assert np.isnan(phase[weight == 0]).all()
    # Piston and tilt are out of the picture, and the closed form of the rms is the picture's own.
    assert np.std(phase[inside]) == pytest.approx(example.phase_rms, rel=0.03)
    # A surface error changes the path by twice its height, and a wavelength of path is 2 pi of phase.
    path = np.std(phase[inside]) / (2 * np.pi) * example.wavelength
    assert 2 * example.surface_rms == pytest.approx(path, rel=0.03)
    # Ruze's formula approximates the on-axis gain of the phase in the picture.
    assert example.ruze_efficiency == pytest.approx(abs(np.mean(np.exp(1j * phase[inside]))) ** 2, rel=0.06)


def test_progress_tells_every_evaluation():
    steps = []
    result = ooftorch.fit(observe(surface(2, 0.5, 1)), order=2, n=96, progress=steps.append)
    assert sum(s.n_eval for s in steps if s.finished is not None) == result.n_eval
    assert tuple(s.finished for s in steps if s.finished) == result.orders


def stop_at(order, n_eval, error):
    def progress(step):
        if step.finished is None and (step.order, step.n_eval) >= (order, n_eval):
            raise error

    return progress


@pytest.mark.parametrize(("order", "n_eval", "fitted"), [(2, 1, 1), (3, 5, 2), (3, None, 3)])
def test_a_fit_that_is_stopped_ends_with_the_best_result_so_far(order, n_eval, fitted):
    """The last order that was finished; at the highest, once the search is over, its lowest minimum."""
    observation, steps = observe(surface(3, 0.5, 1)), []
    whole = ooftorch.fit(observation, order=3, n=96, progress=steps.append)
    n_eval = n_eval or steps[-1].n_eval - 1  # shortly before the end
    result = ooftorch.fit(observation, order=3, n=96, progress=stop_at(order, n_eval, ooftorch.StopFit()))
    assert result.interrupted
    assert not result.converged
    assert result.order == 3
    assert [o.order for o in result.orders] == list(range(1, fitted + 1))
    assert f"order {fitted} of 3" in result.message
    assert ooftorch.verdict(result)[0] == "do not apply"
    assert not whole.interrupted
    assert [o.objective for o in result.orders[:2]] == [o.objective for o in whole.orders[: min(fitted, 2)]]
    free = {name: n for name, n in zip(result.basis.names, result.basis.orders, strict=True) if n}
    assert all(result.parameters[name].free == (n <= fitted) for name, n in free.items())
    if fitted == 3:
        assert np.abs(result.coefficients - whole.coefficients).max() < 0.05


@pytest.mark.parametrize("last", [1, 3])
def test_an_order_that_is_stopped_does_not_replace_the_one_before(monkeypatch, last):
    """With order "auto", wherever the fit of the order that is asked for is stopped."""
    observation = observe(surface(2, 0.5, 1))
    monkeypatch.setattr(ooftorch.FitResult, "recommended_order", 6)
    begun = []

    def progress(step):
        begun.extend([step.order] if step.finished is None and step.n_eval == 1 else [])
        if begun.count(last) == 2:
            raise ooftorch.StopFit

    result = ooftorch.fit(observation, order="auto", n=64, progress=progress, amplitude_order=0)
    assert (result.order, result.interrupted, result.converged) == (5, True, False)
    assert [o.order for o in result.orders] == [1, 2, 3, 4, 5]
    assert result.message == "interrupted; this is order 5, and order 6 was on the way"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError(), ooftorch.StopFit()])
def test_what_a_callback_raises_comes_out_where_nothing_was_fitted(error):
    with pytest.raises(type(error)):
        ooftorch.fit(observe(surface(2, 0.5, 1)), order=2, n=96, progress=stop_at(1, 1, error))


def test_an_interrupt_from_the_keyboard_is_not_caught():
    with pytest.raises(KeyboardInterrupt):
        ooftorch.fit(observe(surface(2, 0.5, 1)), order=2, n=96, progress=stop_at(2, 3, KeyboardInterrupt()))


class Walled(Gaussian):
    """Not a number beyond a width that the way to the minimum crosses, but not the minimum itself."""

    name = "walled"

    def amplitude(self, x, y, pitch, **values):
        amplitude = super().amplitude(x, y, pitch, **values)
        return torch.where(values["sigma"] > 0.75, torch.nan, amplitude)


def test_where_the_objective_is_not_finite_the_fit_goes_on_and_names_the_parameter():
    observation = observe(surface(2, 0.5, 1))
    free = ooftorch.fit(observation, order=2, n=96)
    walled = ooftorch.fit(observation, order=2, n=96, illumination=Walled())
    assert walled.converged
    assert [note for note in walled.notes if note not in free.notes] == [
        "the objective was not finite at trial values of sigma: continued from the last good point"
    ]
    for name, p in free.parameters.items():
        assert abs(walled.parameters[name].value - p.value) <= 0.02 * p.sigma


def test_a_model_that_is_not_finite_to_begin_with_is_refused(monkeypatch):
    monkeypatch.setattr(Walled, "amplitude", lambda *_, **__: torch.tensor(torch.nan))
    with pytest.raises(InputError, match="model of a perfect dish is not finite"):
        ooftorch.fit(observe(surface(2, 0.5, 1)), order=2, n=96, illumination=Walled())


def test_held_parameters_stay():
    fixed = {"z4": 0.1, "sigma": 0.7}
    result = ooftorch.fit(observe(surface(2, 0.5, 1)), order=2, n=96, fixed=fixed)
    assert fixed == {"z4": 0.1, "sigma": 0.7}
    for name, value in fixed.items():
        p = result.parameters[name]
        assert p == (pytest.approx(value), 0.0, p.unit, False, 0.0, 0.0)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"order": 60}, "order 60; the highest is 32"),
        ({}, {"order": 0}, "order 0; the lowest"),
        ({"telescope": None}, {}, "does not name its telescope"),
        ({"telescope": "sarda"}, {}, "no telescope is named 'sarda'"),
        (
            {},
            {"likelihood": "cauchi"},
            "unknown likelihood 'cauchi'; known are auto, cauchy, gaussian, student",
        ),
        ({}, {"illumination": "flat"}, "unknown illumination 'flat'"),
        ({}, {"device": "abacus"}, "unknown device 'abacus'"),
        ({}, {"free": ["x00"]}, "no parameter 'x00'; did you mean x0"),
        ({}, {"free": ["amp"]}, "amp cannot be freed: the maps' gains stand for it"),
        ({}, {"free": ["z0"]}, "z0 cannot be freed: no power pattern depends on the piston"),
        ({}, {"device": "meta"}, "unknown device 'meta'"),
        ({}, {"fixed": {"sigma": -1.0}}, "sigma is positive by nature"),
        ({}, {"fixed": EVERYTHING}, "every parameter is held"),
        ({"wavelength": 0.0}, {}, "wavelength"),
        ({"wavelength": 1e-5}, {}, "check the map's units, the frequency and the telescope"),
    ],
)
def test_refusals(change, options, message):
    seen = replace(observe(surface(2, 0.5, 1)), **change)
    with pytest.raises(InputError, match=message) as caught:
        ooftorch.fit(seen, **{"order": 2, **options})
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------ the noise


@pytest.mark.parametrize("likelihood", ["auto", "gaussian"])
def test_maps_without_noise_are_fitted_to_the_end(likelihood):
    """What `ooftorch simulate` makes by default: the noise stays above what the pixels leave out."""
    simulator = ooftorch.Simulator("apex", reach=3.0, step=0.5)
    observation = simulator.observe({"z5": 0.4, "z7": -0.3, "z12": 0.2})
    result = ooftorch.fit(observation, likelihood=likelihood, device="cpu")
    assert result.converged
    assert observation.truth.rms_error(result.coefficients) < 5e-4
    assert result.amplitude_order == 0
    assert result.scan_terms == ()


def test_power_in_coarse_steps_is_fitted_with_normal_noise():
    """A likelihood with long tails would take the many equal samples for the whole map."""
    z = surface(3, 0.6, 4)
    seen = observe(z, noise=0.003)
    step = 0.02 * max(np.abs(m.power).max() for m in seen.maps)
    rounded = altered(seen, lambda m, _: replace(m, power=step * np.round(m.power / step)))
    result = ooftorch.fit(rounded, order=3, n=96)
    assert result.likelihood == "gaussian"
    assert any("coarse steps" in note for note in result.notes)
    assert phase_error(result, z) < 0.1
    assert ooftorch.fit(seen, order=3, n=96).likelihood == "student"
    # Side by side each has its own.
    both = ooftorch.fit_many([rounded, seen], order=3, n=96)
    assert [r.likelihood for r in both] == ["gaussian", "student"]
    np.testing.assert_allclose(both[0].coefficients, result.coefficients, atol=1e-5)
    assert ooftorch.fit(rounded, order=3, n=96, likelihood="cauchy").likelihood == "cauchy"


def test_a_held_likelihood_is_held():
    seen = observe(surface(2, 0.6, 1))
    result = ooftorch.fit(seen, order=2, n=96, fixed={"excess_degrees": 5.0})
    assert result.parameters["excess_degrees"].value == pytest.approx(5.0)
    assert not result.parameters["excess_degrees"].free


def test_errors_that_are_far_too_small_do_not_bend_everything():
    """With normal noise of a held scale the evidence goes by the residuals, not by what the file says."""
    z = surface(3, 0.6, 2)
    seen = observe(z, noise=0.003)
    trusted = altered(seen, lambda m, _: replace(m, sigma=0.1 * m.sigma))
    result = ooftorch.fit(trusted, order=3, n=96, likelihood="gaussian")
    assert result.converged
    assert result.amplitude_order == 0
    assert result.scan_terms == ()
    assert phase_error(result, z) < 0.02
