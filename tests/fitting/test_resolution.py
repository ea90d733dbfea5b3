"""The same problem at several resolutions: how it is thinned, and what each level holds."""

import numpy as np
import pytest
import torch
from simulated import WAVELENGTH

from ooftorch.fitting.likelihood import Gaussian
from ooftorch.fitting.noise_model import IndependentNoise
from ooftorch.fitting.resolution import build_resolutions
from ooftorch.fitting.samples import Samples
from ooftorch.optics import telescopes
from ooftorch.optics.instrument import MapGeometry
from ooftorch.optics.model import BeamModel

BEAM = WAVELENGTH / (2 * telescopes.load("paper").radius)
CELL = 0.5 * BEAM


def thinned(maps, valid=None, n=256, members=1):
    """Levels over these maps whose samples tell the number of each, and models what they are of."""

    def make(maps, n):
        model = BeamModel(telescopes.load("paper"), WAVELENGTH, maps, order=1, n=n)
        model.n = n
        return model

    total = sum(len(m.x) for m in maps)
    number = torch.arange(total, dtype=torch.float64).repeat(members, 1)
    valid = torch.ones(members, total, dtype=torch.bool) if valid is None else valid
    samples = Samples(number, 2 * number + 1, valid)
    return build_resolutions(make, maps, samples, Gaussian(), IndependentNoise(), n, 2.0)


def numbers(level):
    return level.samples.power[0].long().numpy()


def scan(n=33, reach=4.0, phase=(0.0, 0.0)):
    """A raster of n x n samples, row by row."""
    axis = np.linspace(-reach, reach, n) * BEAM
    return np.stack([a.ravel() for a in np.meshgrid(axis + phase[0] * BEAM, axis + phase[1] * BEAM)])


def cloud(n=700, reach=4.0, seed=0):
    return np.random.default_rng(seed).uniform(-reach, reach, (2, n)) * BEAM


def maps_at(*places):
    return [MapGeometry(dz, *xy) for dz, xy in zip((-0.05, 0.05, 0.0), places, strict=False)]


def cells(x, y):
    return list(map(tuple, np.round(np.stack([x, y]) / CELL).astype(int).T))


MAPS = {"raster": maps_at(scan(), scan()), "scattered": maps_at(cloud(), cloud(900, seed=1), scan())}


def test_smearing_stays_with_its_samples():
    way = [np.stack([m.x + 1, m.y - m.x]) for m in MAPS["scattered"]]
    maps = [m._replace(smear=w) for m, w in zip(MAPS["scattered"], way, strict=True)]
    levels = thinned([*maps[:2], maps[2]._replace(smear=None)])
    for level in (levels.search, levels.coarse, levels.exact):
        *smeared, still = level.model.maps
        assert still.smear is None
        for m in smeared:
            np.testing.assert_array_equal(m.smear, [m.x + 1, m.y - m.x])


def farthest(m):
    return max(np.abs(m.x).max(), np.abs(m.y).max())


@pytest.mark.parametrize("name", MAPS)
def test_the_search_has_one_sample_in_every_occupied_cell(name):
    maps = MAPS[name]
    levels = thinned(maps)
    assert len(levels.search.model.maps) == len(maps)
    for m, thin in zip(levels.coarse.model.maps, levels.search.model.maps, strict=True):
        assert thin.dz == m.dz
        left = cells(thin.x, thin.y)
        assert len(left) == len(set(left)) < len(m.x) / 2
        assert set(left) == set(cells(m.x, m.y))
    # Positions, powers, errors and flags are still those of the same samples.
    x, y = (np.concatenate([getattr(m, a) for m in maps]) for a in "xy")
    for level in (levels.search, levels.coarse):
        assert np.array_equal(x[numbers(level)], np.concatenate([m.x for m in level.model.maps]))
        assert np.array_equal(y[numbers(level)], np.concatenate([m.y for m in level.model.maps]))
        assert torch.equal(level.samples.errors, 2 * level.samples.power + 1)


@pytest.mark.parametrize("name", MAPS)
def test_the_other_levels_have_all_samples(name):
    """The exact one as they are; the coarse one all that are not too far out to matter."""
    maps = MAPS[name]
    levels = thinned(maps)
    assert list(levels.exact.model.maps) == maps
    assert np.array_equal(numbers(levels.exact), np.arange(sum(len(m.x) for m in maps)))
    reach = max(farthest(m) for m in levels.coarse.model.maps)
    assert reach > 2.5 * BEAM
    for m, some in zip(maps, levels.coarse.model.maps, strict=True):
        within = np.maximum(np.abs(m.x), np.abs(m.y)) <= reach
        assert sorted(zip(some.x, some.y, strict=True)) == sorted(zip(m.x[within], m.y[within], strict=True))
    assert levels.coarse.multiplicity == levels.exact.multiplicity == 1
    assert levels.search.model.n == levels.coarse.model.n < levels.exact.model.n == 256
    # Coarse pixels represent the farthest sample, at half the period of the sky or nearer.
    assert levels.coarse.model.n / (2 * 2.0) >= 2 * reach / BEAM


def test_coarse_pixels_follow_the_farthest_sample():
    """... as far as the light of the farthest defocus goes."""

    def side(reach, dz):
        return thinned([MapGeometry(d, *scan(65, reach)) for d in (-dz, dz)]).coarse.model.n

    assert 64 <= side(4.0, 0.5) < side(12.0, 0.5) < 256


@pytest.mark.parametrize("members", [1, 3])
def test_what_was_observed_is_preferred(members):
    maps = MAPS["scattered"]
    valid = torch.as_tensor(np.random.default_rng(2).random((members, 700 + 900 + 33**2)) < 0.8)
    levels = thinned(maps, valid, members=members)
    # A sample that one member lacks counts as missing; a cell of such samples alone has one all the same.
    coarse, thin = levels.coarse.model.maps, levels.search.model.maps
    flags = [
        level.samples.valid.all(0).split([len(m.x) for m in level.model.maps])
        for level in (levels.coarse, levels.search)
    ]
    for m, v, t, flag in zip(coarse, flags[0], thin, flags[1], strict=True):
        with_some = set(cells(m.x[v], m.y[v]))
        assert {c for c, f in zip(cells(t.x, t.y), flag.tolist(), strict=True) if f} == with_some
    assert not all(f.all() for f in flags[1])
    assert torch.equal(levels.search.samples.valid, valid[:, numbers(levels.search)])
    of_coarse, of_search = (int(level.samples.valid.sum()) for level in (levels.coarse, levels.search))
    assert levels.search.multiplicity == pytest.approx(of_coarse / of_search, rel=1e-6)


@pytest.mark.parametrize("name", MAPS)
def test_the_mirrored_maps_are_thinned_to_the_same_samples(name):
    maps = [*MAPS[name], MapGeometry(0.1, *scan(34, phase=(0.1, 0.0)))]
    mirrored = [MapGeometry(-m.dz, -m.x, -m.y) for m in maps]
    found, expected = (numbers(thinned(m).search) for m in (mirrored, maps))
    assert set(found) == set(expected)


def test_the_one_nearest_to_the_middle_is_taken():
    levels = thinned(maps_at(scan(41), scan(41)))
    # Steps of 0.2 beams, cells of 0.5: within 0.1 beams of the middle there is always one.
    for m in levels.search.model.maps:
        off = np.stack([m.x, m.y]) / CELL
        assert np.abs(off - np.round(off)).max() <= 0.2 + 1e-9


def test_multiplicity_is_how_many_samples_each_stands_for():
    levels = thinned(maps_at(scan(33, 3.0), scan(33, 3.0)))
    assert levels.search.multiplicity == pytest.approx(33**2 / 13**2)
    # Where little is to be gained the coarse model does.
    sparse = thinned(maps_at(scan(17), scan(17)))
    assert sparse.search is sparse.coarse
    assert sparse.coarse is not sparse.exact


def test_a_small_problem_is_exact_throughout():
    levels = thinned(maps_at(scan(), scan()), n=64)
    assert levels.search is levels.coarse is levels.exact
    assert levels.exact.multiplicity == 1
    assert levels.exact.model.n == 64


def disordered(xy, kind):
    rng = np.random.default_rng(3)
    if kind == "boustrophedon":
        rows = xy.reshape(2, 33, 33).copy()
        rows[:, 1::2] = rows[:, 1::2, ::-1]
        return rows.reshape(2, -1)
    return {
        "rows": xy,
        "columns": xy.reshape(2, 33, 33).transpose(0, 2, 1).reshape(2, -1),
        "permuted": xy[:, rng.permutation(33**2)],
        "float32": xy.astype(np.float32).astype(float),
        "rounding": xy * (1 + 1e-15 * rng.standard_normal(xy.shape)),
    }[kind]


@pytest.mark.parametrize("kind", ["rows", "columns", "boustrophedon", "permuted", "float32", "rounding"])
@pytest.mark.parametrize("phase", [(0.0, 0.0), (0.11, -0.07)])
def test_a_regular_map_stays_regular(kind, phase):
    xy = disordered(scan(phase=phase), kind)
    maps = [MapGeometry(-0.05, *xy), MapGeometry(0.05, *xy)]

    def make(maps, n):
        return BeamModel(telescopes.load("paper"), WAVELENGTH, maps, order=1, n=n)

    number = torch.arange(2 * 33**2, dtype=torch.float64)[None]
    samples = Samples(number, number + 1, torch.ones_like(number, dtype=torch.bool))
    levels = build_resolutions(make, maps, samples, Gaussian(), IndependentNoise(), 256, 2.0)
    assert levels.search is not levels.coarse
    for level in (levels.search, levels.coarse):
        (group,) = level.model.parts.groups.beams  # both maps in one
        transform = group.beams[0].transform
        assert transform.way in ("matrix", "fft")
        # Row by row, so that nothing need be put in order.
        assert transform._sum._index is None
