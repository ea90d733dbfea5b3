"""What the simulator does to the model's power, and that it keeps a true record of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import ooftorch
from ooftorch import Noise, Receiver, Simulator, simulate
from ooftorch.errors import InputError
from ooftorch.optics import telescopes, zernike
from ooftorch.optics.instrument import MapGeometry
from ooftorch.optics.model import BeamModel
from ooftorch.scans import find_lines
from ooftorch.simulation import simulator
from ooftorch.simulation import surfaces as surface
from ooftorch.simulation.noise import Streams, draw_pink
from ooftorch.units import SPEED_OF_LIGHT

SETUP = {"dz": (0.0, 0.004, -0.004), "reach": 4.0, "step": 0.5, "n": 96}
SURFACE = surface.random(4, 0.6, seed=1)


def alma(**options):
    return Simulator("alma", **(SETUP | options))


def powers(observation):
    return np.stack([m.power for m in observation.maps])


CLEAN = powers(alma().observe(SURFACE))
PEAK = CLEAN.max()


def noisy(seed=0, **kinds):
    """Power with some noise less the clean power."""
    return powers(alma(noise=Noise(**kinds)).observe(SURFACE, seed=seed)) - CLEAN


def from_truth(observation, n=96):
    """The maps that the model makes of what the truth says."""
    true = {name: p.value for name, p in observation.truth.parameters.items()}
    own = {f"dz_{i}" for i in range(len(observation.maps))}
    model = BeamModel(
        telescopes.load(observation.telescope),
        observation.wavelength,
        [MapGeometry(true[f"dz_{i}"], m.x, m.y) for i, m in enumerate(observation.maps)],
        order=4,
        illumination=telescopes.load(observation.telescope).illumination.model,
        receiver=observation.receiver,
        n=n,
    )
    # The focus of each map is in its geometry already.
    model.set(**{k: v for k, v in true.items() if k not in own | {"dz"}})
    with torch.no_grad():
        return model().numpy().reshape(len(observation.maps), -1)


def test_without_noise_it_is_the_model():
    values = {**SURFACE, "gain_0": 2.0, "gain_1": 3.0, "gain_2": 5.0, "offset_2": 0.25, "dz": 0.0005}
    observation = alma().observe(values)
    assert [m.dz for m in observation.maps] == [-0.004, 0.0, 0.004], "nominal, sorted"
    assert observation.truth.parameters["dz_2"].value == pytest.approx(0.0045)
    assert powers(observation) == pytest.approx(from_truth(observation), abs=1e-12)
    assert powers(observation)[2] == pytest.approx(
        0.25 + 5 * powers(alma().observe(SURFACE | {"dz": 0.0005}))[2]
    )


def test_focus_offsets_are_scaled():
    scaled = alma().observe(SURFACE | {"dz": 0.0005, "dz_scale": 1.5})
    assert [m.dz for m in scaled.maps] == [-0.004, 0.0, 0.004], "nominal"
    true = [scaled.truth.parameters[f"dz_{i}"].value for i in range(3)]
    assert true == pytest.approx([-0.0055, 0.0005, 0.0065])
    assert np.abs(powers(scaled) - powers(alma(dz=(0.0005, 0.0065, -0.0055)).observe(SURFACE))).max() < 1e-12


def test_bend_and_legs_are_simulated():
    """The amplitude order is that of the highest a<k> given; a fit that knows of both finds the surface."""
    values = SURFACE | {"a4": -0.3, "a5": 0.2, "legs": 2.5}
    dish = Simulator("alma-dv", **SETUP, wavelength=3e-3, noise=Noise(snr=1000))
    seen = dish.observe(values, seed=1)
    assert seen.truth.parameters["a4"].value == -0.3
    assert seen.truth.parameters["a3"].value == 0.0
    assert "a6" not in seen.truth.parameters
    result = ooftorch.fit(seen, order=4, n=96, amplitude_order=2)
    assert seen.truth.rms_error(result.coefficients) < 2 * result.phase_error
    for name in ("a3", "a5", "legs"):
        p = result.parameters[name]
        assert p.value == pytest.approx(values.get(name, 0.0), abs=4 * p.sigma)
    # The phase is not known behind the wider legs, and the picture of the fit has them as they were found.
    nominal = dish.observe(SURFACE).truth
    assert np.isnan(seen.truth.phase).sum() > np.isnan(nominal.phase).sum() + 300
    with pytest.raises(InputError, match="no parameter 'a2'"):
        dish.observe({"a2": 0.1})


def test_maps_are_taken_in_the_order_given():
    minus, zero, plus = alma().observe(SURFACE).maps
    assert zero.time[-1] < plus.time[0] < plus.time[-1] < minus.time[0]


def test_every_kind_leaves_its_trace_in_the_truth():
    noise = Noise(gain=0.1, dz=3e-4)
    observation = alma(noise=noise).observe({**SURFACE, "gain_0": 2.0}, seed=5)
    true = observation.truth.parameters
    assert true["gain_0"].value != 2.0
    assert abs(true["dz_1"].value) > 1e-5
    assert powers(observation) == pytest.approx(from_truth(observation), abs=1e-12)
    draws = [alma(noise=noise).observe({}, seed=s).truth.parameters for s in range(60)]
    for name, mean, spread in (("gain_1", 1.0, 0.1), ("dz_2", 0.004, 3e-4)):
        values = np.array([d[name].value for d in draws])
        assert values.std() == pytest.approx(spread, rel=0.3), name
        assert abs(values.mean() - mean) < 4 * spread / np.sqrt(60), name


def test_white_noise():
    observation = alma(noise=Noise(snr=50)).observe(SURFACE, seed=2)
    sigma = observation.maps[0].sigma
    assert sigma == pytest.approx(PEAK / 50)
    r = (powers(observation) - CLEAN) / sigma
    assert np.sum(r**2) == pytest.approx(r.size, abs=4 * np.sqrt(2 * r.size))
    assert abs(np.mean(r)) < 4 / np.sqrt(r.size)
    assert alma().observe(SURFACE).maps[0].sigma is None, "without noise there are no errors to state"


def test_noise_of_a_beam_and_of_a_sample():
    """F of the accuracy study of oofpy: 6.554 for 256 pixels over four times the dish."""
    step = 0.25 * 255 / 256
    study = Simulator(
        "paper", wavelength=1.1e-3, dz=(-0.05, 0.05), step=step, reach=127 * step, n=256, oversample=4
    )
    assert np.sqrt(study.samples_per_beam()) == pytest.approx(6.554, rel=5e-3), "theirs has a ragged rim"
    fine, coarse = alma(step=0.25, noise=Noise(snr_per_beam=50)), alma(noise=Noise(snr_per_beam=50))
    ratio = fine.observe(SURFACE).maps[0].sigma[0] / coarse.observe(SURFACE).maps[0].sigma[0]
    assert ratio == pytest.approx(2, rel=0.1), "four times the samples, each twice as noisy"
    chopped = alma(receiver=Receiver(chop_x=1e-4), reach=None)
    assert chopped.samples_per_beam() == pytest.approx(coarse.samples_per_beam(), rel=0.1)


def test_multiplicative_noise_goes_with_the_power():
    d = noisy(multiplicative=0.05)
    r = (d / CLEAN)[CLEAN > 0]
    assert r.std() == pytest.approx(0.05, rel=4 / np.sqrt(2 * r.size))


def test_drift_runs_on_from_map_to_map():
    d = noisy(drift=0.01) / PEAK
    assert d.std() == pytest.approx(0.01)

    def steps(order):
        """Mean change from one map to the next, over that from sample to sample, maps in this order."""
        draws = [noisy(seed, drift=0.01)[order] for seed in range(20)]
        between = np.mean([np.abs(d[1:, 0] - d[:-1, -1]) for d in draws])
        return between / np.mean([np.abs(np.diff(d)) for d in draws])

    # Continuous in the order in which the maps are taken, and not in another.
    assert steps([1, 2, 0]) < 1.4
    assert steps([2, 1, 0]) > 1.8


def test_baselines_are_levels_of_lines():
    simulator = alma(noise=Noise(baseline=0.01), pattern="otf")
    clean = powers(alma(pattern="otf").observe(SURFACE))
    d = (powers(simulator.observe(SURFACE)) - clean) / clean.max()
    line = simulator.scan.line
    levels = np.array([[d[i][line == j].mean() for j in range(line.max() + 1)] for i in range(3)])
    assert d == pytest.approx(levels[:, line], abs=1e-12)
    assert levels.std() == pytest.approx(0.01, rel=0.4)
    assert len(np.unique(levels.round(9))) == levels.size


def by_line(values, line):
    """Values (3, n) as means of each line (3, n_lines), and what is left."""
    means = np.stack([values[:, line == j].mean(1) for j in range(line.max() + 1)], -1)
    return means, values - means[:, line]


def spread(observation, name):
    return np.array([observation.truth.parameters[f"{name}_rms_{i}"].value for i in range(3)])


def test_lines_have_slopes_in_time():
    simulator = alma(noise=Noise(slope=0.01), pattern="otf")
    clean = powers(alma(pattern="otf").observe(SURFACE))
    seen = simulator.observe(SURFACE)
    d = (powers(seen) - clean) / clean.max()
    scan = simulator.scan
    levels, left = by_line(d, scan.line)
    assert np.abs(levels).max() < 1e-12, "each of mean zero"
    for i in range(3):
        for j in range(scan.line.max() + 1):
            some = scan.line == j
            slope = np.polyfit(scan.time[some], d[i][some], 1)[0]
            assert d[i][some] == pytest.approx(slope * (scan.time[some] - scan.time[some].mean()), abs=1e-12)
    assert left.std() == pytest.approx(0.01, rel=0.3)
    assert spread(seen, "slope") == pytest.approx(clean.max() * left.std(1))
    assert seen.truth.parameters["slope_rms_0"].unit == "data"


def test_lines_have_gains():
    simulator = alma(noise=Noise(line_gain=0.05))
    seen = simulator.observe(SURFACE | {"offset_1": 0.3})
    clean = powers(alma().observe(SURFACE))
    offset = np.array([[0.0], [0.3], [0.0]])
    gains, left = by_line((powers(seen) - offset) / clean, simulator.scan.line)
    assert np.abs(left[clean > 1e-3 * PEAK]).max() < 1e-9, "of the beam and not of the baseline"
    assert gains.std() == pytest.approx(0.05, rel=0.3)
    assert spread(seen, "line_gain") == pytest.approx(gains.std(1))
    true = [seen.truth.parameters[f"gain_{i}"].value for i in range(3)]
    assert true == pytest.approx(gains.mean(1)), "their mean is the gain of the map"


def test_the_gain_drifts_within_each_map():
    seen = alma(noise=Noise(gain_drift=0.05)).observe(SURFACE)
    drift = powers(seen) / CLEAN - 1
    assert drift.mean(1) == pytest.approx(np.zeros(3), abs=1e-9)
    assert drift.std(1) == pytest.approx(np.full(3, 0.05))
    assert spread(seen, "gain_drift") == pytest.approx(np.full(3, 0.05))
    slow = np.abs(np.diff(drift, axis=1)).mean() / drift.std()
    assert slow < 0.7 < np.abs(np.diff(np.random.default_rng(0).normal(size=1000))).mean()
    assert abs(np.corrcoef(drift)[0, 1]) < 0.5, "each map its own"


@pytest.mark.parametrize("kind", ["line_pointing", "pointing"])
def test_pointing_errors_of_lines_and_maps(kind):
    """Each is that of a map whose samples are moved the other way."""
    size = 2e-5
    simulator = alma(noise=Noise(**{kind: size}))
    seen = simulator.observe(SURFACE, seed=2)
    rng, scan = Streams(2)[kind], simulator.scan
    n = 1 if kind == "pointing" else scan.line.max() + 1
    draws = [rng.normal(size=(3, n)) for _ in "xy"] if n > 1 else list(rng.normal(size=(2, 3, 1)))
    x, y = (size * draw[:, scan.line if n > 1 else np.zeros_like(scan.line)] for draw in draws)
    model = BeamModel(
        simulator.telescope,
        simulator.wavelength,
        [MapGeometry(m.dz, scan.x + a, scan.y + b) for m, a, b in zip(seen.maps, x, y, strict=True)],
        order=4,
        illumination=simulator.illumination,
        n=96,
    )
    model.set(**SURFACE)
    assert powers(seen) == pytest.approx(model().detach().numpy().reshape(3, -1), abs=1e-12)
    true = seen.truth.parameters
    assert [true[f"dx_{i}"].value for i in range(3)] == pytest.approx(-x.mean(1))
    if kind == "pointing":
        assert not any("_rms_" in name for name in true)
        assert powers(seen) == pytest.approx(from_truth(seen), abs=1e-12)
    else:
        expected = np.sqrt(0.5 * (x.var(1) + y.var(1)))
        assert spread(seen, kind) == pytest.approx(expected)
        assert true["line_pointing_rms_0"].unit == "rad"


def test_the_truth_tells_only_what_is_there():
    assert not any("_rms_" in name for name in alma().observe(SURFACE).truth.parameters)
    noise = Noise(baseline=0.01, drift=0.02, jitter=1e-6, wander=2e-6)
    seen = alma(noise=noise).observe(SURFACE)
    named = {name for name in seen.truth.parameters if "_rms_" in name}
    assert named == {f"{kind}_rms_{i}" for kind in ("level", "drift", "jitter", "wander") for i in range(3)}
    assert spread(seen, "level") == pytest.approx(np.full(3, 0.01 * PEAK), rel=0.6)
    assert np.sqrt(np.mean(spread(seen, "jitter") ** 2)) == pytest.approx(1e-6, rel=0.1)


@pytest.mark.parametrize("pattern", ["map", "otf", "daisy"])
def test_samples_are_smeared_along_their_lines(pattern):
    """Against the mean of maps of points along the way, made by the model without any smearing."""
    way = 0.6 * 3e-3 / 12
    simulator = alma(pattern=pattern, wavelength=3e-3, smear=way)
    seen = simulator.observe(SURFACE)
    plain = alma(pattern=pattern, wavelength=3e-3).observe(SURFACE)
    assert {m.smear for m in seen.maps} == {way}
    x, y = simulator.scan.x, simulator.scan.y
    line = find_lines(seen.maps[0]).number
    step = np.zeros((2, x.size))
    for j in range(line.max() + 1):
        some = np.flatnonzero(line == j)
        step[:, some] = np.gradient(np.stack([x, y])[:, some], axis=1)
    unit = step / np.hypot(*step)
    points = np.linspace(-0.475, 0.475, 20)
    model = BeamModel(
        simulator.telescope,
        3e-3,
        [MapGeometry(m.dz, x + way * t * unit[0], y + way * t * unit[1]) for m in seen.maps for t in points],
        order=4,
        illumination=simulator.illumination,
        n=96,
    )
    model.set(**SURFACE)
    expected = model().detach().numpy().reshape(3, 20, -1).mean(1)
    inner = np.hypot(x, y) < 0.8 * np.hypot(x, y).max()  # off the tips of the daisy, where it turns
    peak = powers(plain).max()
    assert powers(seen)[:, inner] == pytest.approx(expected[:, inner], abs=1e-3 * peak)
    assert np.abs(powers(plain) - expected).max() > 0.02 * peak


def test_a_fit_of_smeared_samples_knows_it():
    setup = {"pattern": "otf", "noise": Noise(snr=300), "wavelength": 3e-3, "smear": 0.8 * 3e-3 / 12}
    seen = alma(**setup).observe(SURFACE, seed=4)
    result = ooftorch.fit(seen, order=4, n=96)
    assert seen.truth.rms_error(result.coefficients) < 2 * result.phase_error
    assert result.chi2_reduced == pytest.approx(1, abs=4 * np.sqrt(2 / result.n_data))
    ignored = replace(seen, maps=tuple(replace(m, smear=0.0) for m in seen.maps))
    other = ooftorch.fit(ignored, order=4, n=96)
    assert seen.truth.rms_error(other.coefficients) > 3 * result.phase_error
    assert [cause.name for cause in other.causes] == ["smeared"]
    mirror = ooftorch.fit(seen.mirrored(), order=4, n=96)
    assert mirror.objective == pytest.approx(result.objective, rel=1e-8)


def test_pointing_errors_are_those_of_the_beam_there():
    size = 1e-6
    step = 1e-8
    slopes = [
        (powers(alma().observe({**SURFACE, **{f"{axis}_{i}": step for i in range(3)}})) - CLEAN) / step
        for axis in ("dx", "dy")
    ]
    d = noisy(jitter=size)
    expected = size * np.hypot(*slopes)
    some = expected > 0.1 * expected.max()
    r = (d / expected)[some]
    assert r.std() == pytest.approx(1, abs=4 / np.sqrt(2 * r.size))
    slow = alma(noise=Noise(wander=size)).observe(SURFACE)
    rng = Streams(0)["wander"]
    shifts = [-size * draw_pink(CLEAN.size, rng).reshape(3, -1)[[2, 0, 1]] for _ in "xy"]
    # Where it really points farther out the beam appears nearer in: a parameter dx moves the beam.
    expected = sum(shift * slope for shift, slope in zip(shifts, slopes, strict=True))
    d = powers(slow) - CLEAN
    assert np.std(d - expected) < 0.1 * np.std(d)
    for i in range(3):
        assert slow.truth.parameters[f"dx_{i}"].value == pytest.approx(shifts[0][i].mean())
        assert slow.truth.parameters[f"dy_{i}"].value == pytest.approx(shifts[1][i].mean())


def test_glitches_hit_a_fraction_up_to_the_peak():
    d = noisy(glitches=0.05)
    hit = d != 0
    assert hit.sum() == pytest.approx(0.05 * d.size, abs=4 * np.sqrt(0.05 * d.size))
    assert 0.5 * PEAK < np.abs(d).max() <= PEAK
    assert np.abs(noisy(glitches=0.05, glitch_size=0.1)).max() == pytest.approx(0.1 * np.abs(d).max())


def test_one_kind_does_not_change_the_draws_of_another():
    white = noisy(snr=100)
    assert noisy(snr=100, drift=0.01) - noisy(drift=0.01) == pytest.approx(white, abs=1e-12)
    assert not np.array_equal(noisy(snr=100, seed=1), white)
    own = powers(alma(noise=Noise(snr=100)).observe(SURFACE, seed=1, seeds={"white": 0})) - CLEAN
    assert np.array_equal(own, white)


def test_the_true_phase_holds_everything():
    height = 1e-5
    simulator = alma(shapes=[surface.bump(2.0, -1.0, 1.5, height, 3e-3)], wavelength=3e-3)
    truth = simulator.observe({**SURFACE, "z2": 0.4}).truth
    x, y = np.meshgrid(truth.axis, truth.axis)
    lit = np.isfinite(truth.phase)
    r = np.hypot(x, y)
    assert np.array_equal(lit, (r <= 6) & (r >= 0.375))
    z = np.array([*SURFACE.values()])
    z[2] = 0.4
    top = np.unravel_index(np.argmin(np.hypot(x - 2, y + 1)), x.shape)
    plain = z @ zernike.raster(4, x[lit] / 6, y[lit] / 6)
    rest = np.full(x.shape, np.nan)
    rest[lit] = truth.phase[lit] - plain
    assert rest[top] == pytest.approx(4 * np.pi * height / 3e-3, rel=0.01)
    assert rest[lit & (np.hypot(x - 2, y + 1) > 4)] == pytest.approx(0, abs=1e-6)


def test_a_shape_is_seen_by_the_beam():
    """Of Zernikes as a shape the maps are those of the same Zernikes as coefficients."""

    def as_shape(x, y):
        z = np.array([*SURFACE.values()])
        return z @ zernike.raster(4, x / 6, y / 6)

    shaped = alma(shapes=[as_shape]).observe()
    assert powers(shaped) == pytest.approx(CLEAN, abs=1e-12)
    assert shaped.truth.phase == pytest.approx(alma().observe(SURFACE).truth.phase, nan_ok=True)


def test_error_against_the_truth():
    truth = alma().observe({**SURFACE, "z1": 0.3}).truth
    z = np.array([*SURFACE.values()])
    assert truth.rms_error(z) == pytest.approx(0, abs=1e-12), "tilt and piston do not count"
    off = z.copy()
    off[5] += 0.2
    assert truth.rms_error(off) == pytest.approx(0.2 * np.sqrt(zernike.mean_square(4)[5]), rel=0.01)
    # The same tilted plane and astigmatism (r/R)**2 cos 2 phi as Zernikes on a dish of half the radius.
    half = np.zeros(6)
    half[5] = 0.25 * off[5]
    plain = alma().observe({"z5": off[5]}).truth
    assert plain.rms_error(half, radius=3.0) == pytest.approx(0, abs=1e-12)
    assert plain.rms_error(half) > 0.1
    longer = np.concatenate([off, np.zeros(6)])
    assert truth.rms_error(longer) == pytest.approx(truth.rms_error(off)), "another order than the fit's"
    assert truth.rms_error(z[:6]) == pytest.approx(
        np.sqrt(np.sum(z[6:] ** 2 * zernike.mean_square(4)[6:])), rel=0.03
    )


@pytest.mark.parametrize("pattern", ["otf", "daisy"])
def test_a_fit_finds_the_truth_again(pattern):
    simulator = alma(pattern=pattern, noise=Noise(snr=300), wavelength=3e-3)
    observation = simulator.observe(SURFACE, seed=4)
    result = ooftorch.fit(observation, order=4, n=96)
    assert observation.truth.rms_error(result.coefficients) < 2 * result.phase_error
    pulls = observation.truth.pulls(result)
    assert set(pulls) == {f"z{k}" for k in range(3, 15)}
    assert max(map(abs, pulls.values())) < 4
    assert result.chi2_reduced == pytest.approx(1, abs=4 * np.sqrt(2 / result.n_data))


def test_blocks_of_a_large_map_make_one_map(monkeypatch):
    told = []
    monkeypatch.setattr(simulator, "_BLOCK", 100)
    blocks = alma().observe(SURFACE, progress=lambda done, total: told.append((done, total)))
    assert powers(blocks) == pytest.approx(CLEAN, abs=1e-12)
    n = CLEAN.size
    assert [done for done, _ in told] == [300, 600, n]
    assert {total for _, total in told} == {n}


def test_usual_settings():
    """The GBT is measured at 43.1 GHz with 35 mm (Nikolic et al. 2007), and so it is here."""
    observation = simulate("gbt", n=128, step=1.0)
    assert observation.frequency == pytest.approx(43.1e9)
    assert [m.dz for m in observation.maps] == [-0.035, 0.0, 0.035]
    for name in telescopes.names():
        scope = telescopes.load(name)
        wavelength = SPEED_OF_LIGHT / scope.frequency
        dz = scope.usual_defocus(wavelength)
        r, angle = np.meshgrid([0.0, scope.radius], 2 * np.pi * np.arange(64) / 64, indexing="ij")
        centre, rim = scope.path(r * np.cos(angle), r * np.sin(angle), dz).mean(1)
        assert abs(rim - centre) == pytest.approx(1.25 * wavelength, rel=0.06), name


def test_a_kept_model_forgets_the_values_before():
    simulator = alma()
    simulator.observe({**SURFACE, "sigma": 0.4, "gain_1": 3.0})
    assert np.array_equal(powers(simulator.observe(SURFACE)), CLEAN)
    assert np.array_equal(
        powers(simulator.observe(dict(list(SURFACE.items())[:6]))),
        powers(alma().observe(dict(list(SURFACE.items())[:6]))),
    )


@pytest.mark.parametrize(
    ("options", "values", "message"),
    [
        ({"dz": [0.0]}, {}, "at least two"),
        ({"dz": [0.0, 2.0]}, {}, "below one metre"),
        ({"dz": []}, {}, "focus offsets"),
        ({"wavelength": -1.0}, {}, "wavelength -1.0 m"),
        ({"pattern": "spiral"}, {}, "known are map, otf, daisy"),
        ({"peak": 0}, {}, "peak of 0"),
        ({"step": 0}, {}, "positive step"),
        ({"reach": 1e6}, {}, "more than 1e[+]07 samples"),
        ({"reach": 600, "step": 300}, {}, "600 beams of alma"),
        ({"illumination": "flat"}, {}, "flat"),
        ({}, {"zz5": 1.0}, "no parameter 'zz5'"),
        ({}, {"sigma": -1.0}, "positive by nature"),
        ({}, {"gain_7": 1.0}, "no parameter 'gain_7'"),
    ],
)
def test_refusals(options, values, message):
    with pytest.raises(InputError, match=message) as caught:
        Simulator("alma", **(SETUP | {"n": None} | options)).observe(values)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no telescope is named"):
        simulate("arecibo")
