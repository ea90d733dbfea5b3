"""Samples far denser than the beam are averaged into cells: nothing is lost, and little memory is needed."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from simulated import altered

import ooftorch
from ooftorch.fitting import cells, setup
from ooftorch.fitting.cells import average_dense
from ooftorch.observation import BeamMap
from ooftorch.simulation import surfaces

TRUTH = surfaces.random(2, 0.5, seed=1)


def simulate(pattern="map", step=0.03, reach=3.0, snr=30, **options):
    noise = ooftorch.Noise(snr=snr)
    return ooftorch.simulate(
        "paper", TRUTH, noise=noise, pattern=pattern, step=step, reach=reach, seed=4, **options
    )


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(cells, "_MANY", 1000)


def fit(observation):
    return ooftorch.fit(observation, order=2, n=96, nuisance="none", amplitude_order=0, device="cpu")


def compare(one, two):
    """Largest difference of the coefficients in standard deviations, and the ratios of these."""
    names = [f"z{k}" for k in range(1, 6)]
    a, b = ([r.parameters[name] for name in names] for r in (one, two))
    off = max(abs(p.value - q.value) / p.sigma for p, q in zip(a, b, strict=True))
    return off, [q.sigma / p.sigma for p, q in zip(a, b, strict=True)]


@pytest.mark.parametrize("errors", [True, False])
def test_cells_lose_nothing(monkeypatch, errors):
    """Neither by a shift of the answer nor in its error bars; rejects means that are taken for samples."""
    observation = simulate()
    if errors:
        # Errors that differ from sample to sample, by which samples have to be weighted.
        rng = np.random.default_rng(0)

        def spoil(m, i):
            sigma = 0.01 * rng.uniform(0.5, 2.0, m.power.size)
            return replace(m, power=m.power + rng.normal(scale=sigma), sigma=sigma)

        observation = altered(simulate(snr=1e5), spoil)
    whole = fit(observation)
    assert not any("cells" in note for note in whole.notes)
    monkeypatch.setattr(cells, "_MANY", 1000)
    averaged = fit(observation)
    assert averaged.n_data < 0.3 * whole.n_data
    off, ratios = compare(whole, averaged)
    assert off < 0.5
    assert max(abs(np.array(ratios) - 1)) < 0.1
    assert averaged.chi2_reduced == pytest.approx(1, abs=0.05)
    assert averaged.converged
    (note,) = [note for note in averaged.notes if "cells" in note]
    assert f"{whole.n_data} samples" in note
    assert str(averaged.n_data) in note


@pytest.mark.parametrize("as_points", [False, True])
def test_the_model_is_averaged_over_the_cell_as_the_samples_are(few, monkeypatch, as_points):
    """Without noise the curvature of the beam shows in the map in focus, where cells are taken for points."""
    if as_points:

        def average(observations, beam):
            dense = average_dense(observations, beam)
            return dense and dense._replace(smears=tuple(0 * smear for smear in dense.smears))

        monkeypatch.setattr(setup, "average_dense", average)
    residual = fit(simulate(step=0.04, snr=1e6)).maps[1].residual_rms_over_peak
    assert residual > 3e-4 if as_points else residual < 5e-5


def test_cells_of_a_line_share_its_samples(few):
    """Weights, errors, times and lines of the cells, by hand."""
    step, lines = 0.02, 3
    x = np.tile(np.arange(400) * step, lines)
    y = np.repeat(np.arange(lines) * 1.0, 400)
    sigma = np.where(np.arange(1200) % 2, 1.0, 2.0)
    power, time = np.arange(1200.0), np.arange(1200.0)
    m = BeamMap(0.0, x * 1e-4, y * 1e-4, power, sigma=sigma, time=time)
    observation = ooftorch.Observation((m, replace(m, dz=0.1)), 1e-3, None, ooftorch.Receiver())
    dense = average_dense([observation], 1e-4)
    cell = dense.observations[0].maps[0]
    assert [np.count_nonzero(dense.lines[0].number == i) for i in range(lines)] == [48] * lines
    # 7.98 beams in 48 cells: the first has the samples 0 to 8.
    w = sigma[:9] ** -2.0
    assert cell.power[0] == pytest.approx(np.sum(w * power[:9]) / w.sum())
    assert cell.x[0] == pytest.approx(np.sum(w * x[:9]) / w.sum() * 1e-4)
    assert cell.time[0] == pytest.approx(np.sum(w * time[:9]) / w.sum())
    assert cell.sigma[0] == pytest.approx(w.sum() ** -0.5)
    spread = np.sqrt(12 * (np.sum(w * x[:9] ** 2) / w.sum() - (np.sum(w * x[:9]) / w.sum()) ** 2))
    assert np.abs(dense.smears[0][:, 0]) == pytest.approx([spread * 1e-4, 0.0], abs=1e-12)
    assert np.sum(cell.sigma**-2.0) == pytest.approx(np.sum(sigma**-2.0))


def test_maps_without_lines_and_missing_samples(few):
    observation = simulate(step=0.02, snr=100)
    rng = np.random.default_rng(1)

    def shuffle(m, i):
        order = rng.permutation(m.power.size)
        power = m.power[order]
        power[rng.random(power.size) < 0.1] = np.nan
        return BeamMap(m.dz, m.x[order], m.y[order], power, scans="none")

    result = fit(altered(observation, shuffle))
    for name, value in TRUTH.items():
        if name != "z0":
            assert abs(result.parameters[name].value - value) < 5 * result.parameters[name].sigma
    assert any("more are missing" in note for note in result.notes)


def test_ordinary_maps_are_left_alone():
    assert average_dense([simulate(step=0.4)], 1e-4) is None


@pytest.mark.slow
def test_three_maps_of_a_million_samples_in_less_than_four_gigabytes():
    code = """
import resource, ooftorch
from ooftorch.simulation import surfaces
noise = ooftorch.Noise(snr=100)
o = ooftorch.simulate("paper", surfaces.random(2, 0.5, seed=1), noise=noise, step=0.0216, seed=1)
assert min(m.power.size for m in o.maps) > 990_000
r = ooftorch.fit(o, order=2)
assert r.converged and any("cells" in note for note in r.notes), r.message
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    unit = 1 if sys.platform == "darwin" else 1024
    assert unit * int(ran.stdout) < 4e9
