"""The way down: how a problem is thinned, cheap models that lead to the exact minimum, and the search."""

import numpy as np
import pytest
import torch
from simulated import WAVELENGTH, altered, observe, surface

from ooftorch.fitting import descent, prepare
from ooftorch.fitting.descent import End, Ladder, approach, build, finish, search
from ooftorch.fitting.likelihood import Cauchy, Gaussian
from ooftorch.fitting.posterior import Data
from ooftorch.optics import telescope
from ooftorch.optics.model import BeamModel, MapGeometry

BEAM = WAVELENGTH / (2 * telescope.load("paper").radius)
CELL = 0.5 * BEAM

# ---------------------------------------------------------------------------------------- thinning


def thinned(maps, valid=None, n=256, members=1):
    """A ladder over these maps whose data tell the number of each sample, and models what they are of."""

    def make(maps, n):
        model = BeamModel(telescope.load("paper"), WAVELENGTH, maps, order=1, n=n)
        model.maps, model.n = maps, n
        return model

    total = sum(len(m.x) for m in maps)
    number = torch.arange(total, dtype=torch.float64).repeat(members, 1)
    valid = torch.ones(members, total, dtype=torch.bool) if valid is None else valid
    return build(make, maps, Data(number, 2 * number + 1, valid), Gaussian(), n, 2.0, BEAM)


def numbers(rung):
    return rung.data.power[0].long().numpy()


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


def farthest(m):
    return max(np.abs(m.x).max(), np.abs(m.y).max())


@pytest.mark.parametrize("name", MAPS)
def test_the_search_has_one_sample_in_every_occupied_cell(name):
    maps = MAPS[name]
    ladder = thinned(maps)
    assert len(ladder.search.model.maps) == len(maps)
    for m, thin in zip(ladder.coarse.model.maps, ladder.search.model.maps, strict=True):
        assert thin.dz == m.dz
        left = cells(thin.x, thin.y)
        assert len(left) == len(set(left)) < len(m.x) / 2
        assert set(left) == set(cells(m.x, m.y))
    # Positions, powers, errors and flags are still those of the same samples.
    x, y = (np.concatenate([getattr(m, a) for m in maps]) for a in "xy")
    for rung in (ladder.search, ladder.coarse):
        assert np.array_equal(x[numbers(rung)], np.concatenate([m.x for m in rung.model.maps]))
        assert np.array_equal(y[numbers(rung)], np.concatenate([m.y for m in rung.model.maps]))
        assert torch.equal(rung.data.errors, 2 * rung.data.power + 1)


@pytest.mark.parametrize("name", MAPS)
def test_the_other_rungs_have_them_all(name):
    """The exact one as they are; the coarse one all that are not too far out to matter."""
    maps = MAPS[name]
    ladder = thinned(maps)
    assert ladder.exact.model.maps == maps
    assert np.array_equal(numbers(ladder.exact), np.arange(sum(len(m.x) for m in maps)))
    reach = max(farthest(m) for m in ladder.coarse.model.maps)
    assert reach > 2.5 * BEAM
    for m, some in zip(maps, ladder.coarse.model.maps, strict=True):
        within = np.maximum(np.abs(m.x), np.abs(m.y)) <= reach
        assert sorted(zip(some.x, some.y, strict=True)) == sorted(zip(m.x[within], m.y[within], strict=True))
    assert ladder.coarse.multiplicity == ladder.exact.multiplicity == 1
    assert ladder.search.model.n == ladder.coarse.model.n < ladder.exact.model.n == 256
    # Coarse pixels represent the farthest sample, at half the period of the sky or nearer.
    assert ladder.coarse.model.n / (2 * 2.0) >= 2 * reach / BEAM


def test_coarse_pixels_follow_the_farthest_sample():
    """... as far as the light of the farthest defocus goes."""

    def side(reach, dz):
        return thinned([MapGeometry(d, *scan(65, reach)) for d in (-dz, dz)]).coarse.model.n

    assert 64 <= side(4.0, 0.5) < side(12.0, 0.5) < 256


@pytest.mark.parametrize("members", [1, 3])
def test_what_was_observed_is_preferred(members):
    maps = MAPS["scattered"]
    valid = torch.as_tensor(np.random.default_rng(2).random((members, 700 + 900 + 33**2)) < 0.8)
    ladder = thinned(maps, valid, members=members)
    # A sample that one member lacks counts as missing; a cell of such samples alone has one all the same.
    coarse, thin = ladder.coarse.model.maps, ladder.search.model.maps
    flags = [
        rung.data.valid.all(0).split([len(m.x) for m in rung.model.maps])
        for rung in (ladder.coarse, ladder.search)
    ]
    for m, v, t, flag in zip(coarse, flags[0], thin, flags[1], strict=True):
        with_some = set(cells(m.x[v], m.y[v]))
        assert {c for c, f in zip(cells(t.x, t.y), flag.tolist(), strict=True) if f} == with_some
    assert not all(f.all() for f in flags[1])
    assert torch.equal(ladder.search.data.valid, valid[:, numbers(ladder.search)])
    of_coarse, of_search = (int(rung.data.valid.sum()) for rung in (ladder.coarse, ladder.search))
    assert ladder.search.multiplicity == pytest.approx(of_coarse / of_search, rel=1e-6)


@pytest.mark.parametrize("name", MAPS)
def test_the_mirrored_maps_are_thinned_to_the_same_samples(name):
    maps = [*MAPS[name], MapGeometry(0.1, *scan(34, phase=(0.1, 0.0)))]
    mirrored = [MapGeometry(-m.dz, -m.x, -m.y) for m in maps]
    found, expected = (numbers(thinned(m).search) for m in (mirrored, maps))
    assert set(found) == set(expected)


def test_the_one_nearest_to_the_middle_is_taken():
    ladder = thinned(maps_at(scan(41), scan(41)))
    # Steps of 0.2 beams, cells of 0.5: within 0.1 beams of the middle there is always one.
    for m in ladder.search.model.maps:
        off = np.stack([m.x, m.y]) / CELL
        assert np.abs(off - np.round(off)).max() <= 0.2 + 1e-9


def test_multiplicity_is_how_many_samples_each_stands_for():
    ladder = thinned(maps_at(scan(33, 3.0), scan(33, 3.0)))
    assert ladder.search.multiplicity == pytest.approx(33**2 / 13**2)
    # Where little is to be gained the coarse model does.
    sparse = thinned(maps_at(scan(17), scan(17)))
    assert sparse.search is sparse.coarse
    assert sparse.coarse is not sparse.exact


def test_a_small_problem_is_exact_throughout():
    ladder = thinned(maps_at(scan(), scan()), n=64)
    assert ladder.search is ladder.coarse is ladder.exact
    assert ladder.exact.multiplicity == 1
    assert ladder.exact.model.n == 64


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
        return BeamModel(telescope.load("paper"), WAVELENGTH, maps, order=1, n=n)

    number = torch.arange(2 * 33**2, dtype=torch.float64)[None]
    data = Data(number, number + 1, torch.ones_like(number, dtype=torch.bool))
    ladder = build(make, maps, data, Gaussian(), 256, 2.0, BEAM)
    assert ladder.search is not ladder.coarse
    for rung in (ladder.search, ladder.coarse):
        (group,) = rung.model.groups.beams  # both maps in one
        transform = group.beams[0].transform
        assert transform.way in ("matrix", "fft")
        # Row by row, so that nothing need be put in order.
        assert transform._index is None


# ------------------------------------------------------------------------------------- the descent


def problem(judge, *, order=3, seeds=(0, 1), n=96, samples=33, noise_known=True, **kwargs):
    """A ladder over observations of as many surfaces, its layout, and starts (b, n_parameters)."""
    seen = [
        observe(surface(order, 0.8, s), samples=samples, noise=0.01, seed=s, errors=noise_known, **kwargs)
        for s in seeds
    ]
    one = seen[0]
    scope = telescope.load(one.telescope)

    def make(maps, n):
        return BeamModel(scope, WAVELENGTH, maps, order=order, n=n)

    columns = zip(*(prepare.samples(o.maps)[:3] for o in seen), strict=True)
    data = Data(*(torch.as_tensor(np.stack(c)) for c in columns))
    geometry = [MapGeometry(m.dz, m.x, m.y) for m in one.maps]
    ladder = build(make, geometry, data, judge, n, 2.0, BEAM)
    layout = ladder.exact.model.layout.added(prepare.noise_parameter(noise_known, judge, 1.0))
    ladder.adopt(layout)
    beams = prepare.perfect_beams(ladder.coarse.model, layout)
    start = [prepare.start(ladder.exact.model, layout, o, prepare.levels(o.maps)[1], beams) for o in seen]
    return ladder, layout, torch.as_tensor(np.stack(start))


class Tally:
    """Counts what a descent says it has evaluated."""

    def __init__(self):
        self.members, self.calls = 0, 0

    def __call__(self, members, objective):
        assert np.isfinite(objective)
        self.members += members
        self.calls += 1


def way_down(ladder, layout, rows, starts):
    tally = Tally()
    ends, of, n_eval = search(ladder, layout, rows, starts, tally)
    end = finish(ladder, layout, rows, ends, of, tally)
    assert int((n_eval + end.n_eval).sum()) == tally.members
    return end


JUDGES = pytest.mark.parametrize("judge", [Gaussian(), Cauchy()], ids=["gaussian", "cauchy"])


@pytest.mark.slow
@JUDGES
def test_the_ladder_leads_to_the_minimum_of_the_exact_model(judge):
    ladder, layout, start = problem(judge)
    assert len({id(rung) for rung in (ladder.search, ladder.coarse, ladder.exact)}) == 3
    rows = torch.arange(2)
    found = way_down(ladder, layout, rows, [start])
    alone = Ladder(ladder.exact, ladder.exact, ladder.exact, judge)
    expected = way_down(alone, layout, rows, [start])
    assert (found.distance < 0.01).all()
    torch.testing.assert_close(found.objective, expected.objective, rtol=1e-8, atol=1e-4)
    posterior = ladder.posterior(ladder.exact, layout, rows, expected.coordinates)
    x, other = (end.coordinates[:, posterior.free] for end in (expected, found))
    away = (x - other)[:, None] @ posterior.information(x) @ (x - other)[..., None]
    assert float(away.max()) < 0.02**2
    # Both minima are of the exact model, and where its gradient says.
    value, gradient = posterior.value_and_gradient(other)
    torch.testing.assert_close(value, found.objective)
    step = torch.linalg.solve(posterior.information(other), gradient)
    assert float((step * gradient).sum(-1).max()) < 0.02**2
    # What is not free has stayed.
    held = [i for i in range(start.shape[1]) if i not in layout.free]
    assert torch.equal(found.coordinates[:, held], start[:, held])


@pytest.mark.parametrize("noise_known", [True, False])
def test_approach_counts_its_evaluations_and_fits_the_noise(noise_known):
    ladder, layout, start = problem(Cauchy(), noise_known=noise_known)
    tally, before = Tally(), start.clone()
    end = approach(ladder, layout, torch.tensor([1, 0]), start[[1, 0]], tally)
    assert torch.equal(start, before)
    assert int(end.n_eval.sum()) == tally.members
    assert tally.calls < tally.members  # side by side
    noise = end.coordinates[:, layout.index("noise")].exp() * layout.parameters[layout.index("noise")].scale
    # Normal errors have a Cauchy half width of about 0.6.
    sigma = (
        1.0 if noise_known else float(observe(surface(3, 0.8, 0), samples=33, noise=0.01).maps[0].sigma[0])
    )
    torch.testing.assert_close(noise / sigma, torch.full_like(noise, 0.6), rtol=0, atol=0.15)
    # A row is the same fit whatever its neighbours.
    alone = approach(ladder, layout, torch.tensor([1]), start[[1]], Tally())
    torch.testing.assert_close(alone.coordinates[0], end.coordinates[0], rtol=0, atol=1e-6)
    assert alone.n_eval[0] == end.n_eval[0]


def test_finish_decides_between_the_ends_of_a_fit():
    """Good ends, and one fit's in a valley of its own: whichever comes first, the lower one is finished."""
    ladder, layout, start = problem(Gaussian(), seeds=(0, 1, 2))
    rows = torch.arange(3)
    good = approach(ladder, layout, rows, start, Tally())
    shift = np.random.default_rng(0).normal(size=(18, 7))[6]
    astray = start[:1].clone()
    astray[:, layout.index("z3") : layout.index("z9") + 1] += 2.5 * torch.as_tensor(shift)
    wrong = approach(ladder, layout, rows[:1], astray, Tally())
    expected = way_down(ladder, layout, rows, [start])
    for parts, of in (((good, wrong), [0, 1, 2, 0]), ((wrong, good), [0, 0, 1, 2])):
        ends = End(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
        assert float(wrong.objective) > float(good.objective[0]) + 1000
        tally = Tally()
        end = finish(ladder, layout, rows, ends, torch.tensor(of), tally)
        assert int(end.n_eval.sum()) == tally.members
        assert (end.distance < 0.01).all()
        torch.testing.assert_close(end.coordinates, expected.coordinates, rtol=0, atol=1e-4)


# -------------------------------------------------------------------------------------- the search


def told(monkeypatch, *objectives):
    """`search` over fits whose approaches end with the given objectives, call by call; the calls too."""
    ladder, layout, start = problem(Gaussian(), seeds=(0, 1, 2), order=2)
    calls = []

    def approach(ladder, layout, rows, start, tell, gtol):
        value = torch.as_tensor(objectives[len(calls)], dtype=torch.float64)
        calls.append((rows.tolist(), start))
        assert len(value) == len(rows) == len(start)
        marks = torch.arange(len(rows)) + 100 * len(calls)
        return End(start, value, 0.1 * value, marks)

    monkeypatch.setattr(descent, "approach", approach)
    rows = torch.tensor([2, 0, 1])
    starts = [start[rows] + 0.01, start[rows]]
    ends, of, n_eval = search(ladder, layout, rows, starts, Tally())
    assert len(calls) == len(objectives)
    return ends, of.tolist(), n_eval.tolist(), calls, starts, layout


def test_starts_that_agree_are_enough(monkeypatch):
    # Two starts for each of three fits: the first start of all of them comes first.
    found = told(monkeypatch, [500.0, 600.0, 700.2, 500.1, 599.9, 700.0])
    ends, of, n_eval, calls, starts, _ = found
    assert calls[0][0] == [2, 0, 1, 2, 0, 1]
    assert torch.equal(calls[0][1], torch.cat(starts))
    assert of == [0, 1, 2]
    assert ends.objective.tolist() == [500.0, 599.9, 700.0]
    assert torch.equal(ends.coordinates, torch.stack([starts[0][0], starts[1][1], starts[1][2]]))
    assert n_eval == [100 + 103, 101 + 104, 102 + 105]


def test_more_starts_until_two_agree(monkeypatch):
    found = told(
        monkeypatch,
        [500.0, 900.0, 700.2, 500.1, 4000.0, 700.0],  # the second fit's do not agree
        [2500.0, 9000.0],  # nor does the lowest agree with any of these
        [600.0, 9000.0],
        [5000.0, 600.1],
    )
    ends, of, n_eval, calls, starts, layout = found
    # The second fit alone, of row 0 of the data.
    assert [rows for rows, _ in calls[1:]] == [[0, 0]] * 3
    shifts = torch.cat([start for _, start in calls[1:]]) - starts[-1][1]
    moved = [layout.names[i] for i in shifts.abs().amax(0).nonzero().flatten().tolist()]
    assert moved == [f"z{k}" for k in range(1, 6)]
    # In pairs of opposite signs, each another, and large.
    torch.testing.assert_close(shifts[::2], -shifts[1::2])
    assert (shifts[0] != shifts[2]).any()
    assert 0.3 < float(shifts[:, layout.index("z1") : layout.index("z1") + 5].std()) < 1.5
    assert of == [0, 1, 2]
    assert ends.objective.tolist() == [500.0, 600.0, 700.0]
    assert torch.equal(ends.coordinates[1], calls[2][1][0])
    assert n_eval == [100 + 103, 101 + 104 + 200 + 201 + 300 + 301 + 400 + 401, 102 + 105]


def test_more_starts_have_an_end(monkeypatch):
    rounds = [[1e4 - 2000.0 * k, 2e4] for k in range(8)]
    ends, of, *_ = told(monkeypatch, [500.0, 3e4, 700.0, 500.0, 4e4, 700.0], *rounds)
    assert of == [0, 1, 2]
    assert ends.objective.tolist() == [500.0, -4000.0, 700.0]


def test_rivals_are_kept_for_all_samples_to_decide(monkeypatch):
    multiplicity = problem(Gaussian(), seeds=(0,), order=2)[0].search.multiplicity
    close, far = 500 + 17 * multiplicity, 500 + 19 * multiplicity
    found = told(monkeypatch, [500.0, 500.0, 500.0, close, 500.4, far], [900.0, 500.1])
    ends, of, _, calls, starts, _ = found
    # Too close to call; the same; and beyond doubt, so that more starts were tried (row 1).
    assert calls[1][0] == [1] * 2
    assert of == [0, 0, 1, 2]
    assert ends.objective.tolist() == [500.0, close, 500.0, 500.0]
    assert torch.equal(ends.coordinates[1], starts[1][0])


def test_missing_samples_of_one_member_do_not_change_the_other():
    """What a sample that one member lacks costs the other is a choice of samples, not its answer."""
    rng = np.random.default_rng(0)
    ladder, layout, start = problem(Gaussian(), order=2)
    whole = way_down(ladder, layout, torch.arange(2), [start])
    holes = observe(surface(2, 0.8, 1), samples=33, noise=0.01, seed=1)
    lost = [rng.random(m.power.size) < 0.3 for m in holes.maps]
    data = ladder.exact.data._replace(valid=ladder.exact.data.valid.clone())
    data.valid[1] = ~torch.as_tensor(np.concatenate(lost))

    def make(maps, n):
        model = BeamModel(telescope.load("paper"), WAVELENGTH, maps, order=2, n=n)
        model.adopt(layout)
        return model

    geometry = [MapGeometry(m.dz, m.x, m.y) for m in altered(holes, lambda m, i: m).maps]
    other = build(make, geometry, data, Gaussian(), 96, 2.0, BEAM)
    found = way_down(other, layout, torch.arange(2), [start])
    torch.testing.assert_close(found.coordinates[0], whole.coordinates[0], rtol=0, atol=1e-4)
    assert (found.coordinates[1] - whole.coordinates[1]).abs().max() > 1e-4
