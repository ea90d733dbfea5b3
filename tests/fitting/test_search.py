"""The search: cheap models that lead to the exact minimum, several starts, and which ends are kept."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from simulated import altered, observe, surface

from ooftorch.fitting import search as search_module
from ooftorch.fitting.likelihood import Cauchy, Gaussian
from ooftorch.fitting.refinement import finish
from ooftorch.fitting.resolution import Resolutions
from ooftorch.fitting.search import Minima, approach, search
from ooftorch.fitting.setup import FitOptions, set_up
from ooftorch.optics.receiver import Receiver

# ------------------------------------------------------------------------------------- the descent


# Nothing is taken up beyond the model of the search.
BARE = {"nuisance": "none", "amplitude_order": 0, "device": "cpu"}


def prepare(likelihood, *, order=3, seeds=(0, 1), n=96, samples=33, noise_known=True, **kwargs):
    """Set up several observations of as many surfaces."""
    seen = [
        observe(surface(order, 0.8, s), samples=samples, noise=0.01, seed=s, errors=noise_known, **kwargs)
        for s in seeds
    ]
    return set_up(seen, None, FitOptions(order=order, likelihood=likelihood, n=n, **BARE))


def problem(likelihood, **kwargs):
    """Levels, layout, and starts (b, n_parameters) of several observations."""
    setup = prepare(likelihood, **kwargs)
    return setup.levels, setup.layout, setup.starts


def join(fits):
    """Minima of several fits, a row each."""
    return Minima(*(torch.cat(column) for column in zip(*(fit.minimum for fit in fits), strict=True)))


class Tally:
    """Counts what a descent says it has evaluated."""

    def __init__(self):
        self.members, self.calls = 0, 0

    def __call__(self, members, objective):
        assert np.isfinite(objective)
        self.members += members
        self.calls += 1


def descend(setup, rows, starts):
    tally = Tally()
    ends, of, n_eval = search(setup.levels, setup.layout, rows, starts, tally)
    end = join(finish(setup, rows, ends, of, tally))
    assert int((n_eval + end.n_eval).sum()) == tally.members
    return end


LIKELIHOODS = pytest.mark.parametrize("likelihood", [Gaussian(), Cauchy()], ids=["gaussian", "cauchy"])


@pytest.mark.slow
@LIKELIHOODS
def test_the_levels_lead_to_the_minimum_of_the_exact_model(likelihood):
    setup = prepare(likelihood)
    levels, layout, start = setup.levels, setup.layout, setup.starts
    assert len({id(level) for level in (levels.search, levels.coarse, levels.exact)}) == 3
    rows = torch.arange(2)
    found = descend(setup, rows, [start])
    alone = Resolutions(levels.exact, levels.exact, levels.exact, likelihood, levels.noise)
    expected = descend(replace(setup, levels=alone), rows, [start])
    assert (found.distance < 0.01).all()
    torch.testing.assert_close(found.objective, expected.objective, rtol=1e-8, atol=1e-4)
    posterior = levels.posterior(levels.exact, layout, rows, expected.coordinates)
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
    levels, layout, start = problem(Cauchy(), noise_known=noise_known)
    tally, before = Tally(), start.clone()
    end = approach(levels, layout, torch.tensor([1, 0]), start[[1, 0]], tally, 2.0)
    assert torch.equal(start, before)
    assert int(end.n_eval.sum()) == tally.members
    assert tally.calls < tally.members  # side by side
    noise = end.coordinates[:, layout.index("noise")].exp() * layout["noise"].scale
    # Normal errors have a Cauchy half width of about 0.6.
    sigma = (
        1.0 if noise_known else float(observe(surface(3, 0.8, 0), samples=33, noise=0.01).maps[0].sigma[0])
    )
    torch.testing.assert_close(noise / sigma, torch.full_like(noise, 0.6), rtol=0, atol=0.15)
    # A row is the same fit whatever its neighbours.
    alone = approach(levels, layout, torch.tensor([1]), start[[1]], Tally(), 2.0)
    torch.testing.assert_close(alone.coordinates[0], end.coordinates[0], rtol=0, atol=1e-6)
    assert alone.n_eval[0] == end.n_eval[0]


def test_finish_decides_between_the_ends_of_a_fit():
    """Good ends, and one fit's in a valley of its own: whichever comes first, the lower one is finished."""
    setup = prepare(Gaussian(), seeds=(0, 1, 2))
    levels, layout, start = setup.levels, setup.layout, setup.starts
    rows = torch.arange(3)
    good = approach(levels, layout, rows, start, Tally())
    shift = np.random.default_rng(0).normal(size=(14, 7))[13]
    astray = start[:1].clone()
    astray[:, layout.index("z3") : layout.index("z9") + 1] += 2.5 * torch.as_tensor(shift)
    wrong = approach(levels, layout, rows[:1], astray, Tally())
    expected = descend(setup, rows, [start])
    for parts, of in (((good, wrong), [0, 1, 2, 0]), ((wrong, good), [0, 0, 1, 2])):
        ends = Minima(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
        assert float(wrong.objective) > float(good.objective[0]) + 1000
        tally = Tally()
        end = join(finish(setup, rows, ends, torch.tensor(of), tally))
        assert int(end.n_eval.sum()) == tally.members
        assert (end.distance < 0.01).all()
        torch.testing.assert_close(end.coordinates, expected.coordinates, rtol=0, atol=1e-4)


def test_the_exact_model_decides_between_close_minima(monkeypatch):
    """Candidates in another order at the coarse level; those beyond doubt are left there, and doubles."""
    setup = prepare(Gaussian(), seeds=(0, 1), order=2)
    levels, layout, start = setup.levels, setup.layout, setup.starts
    rows, numbers = torch.arange(2), torch.tensor([0, 1, 0, 0, 0])
    away = torch.zeros(5, start.shape[1], dtype=start.dtype)
    # The third is where the first is.
    away[:, layout.index("z3")] = torch.tensor([0.0, 0.0, 1e-6, 0.5, 1.0])
    ends = Minima(start[numbers] + away, torch.zeros(5), torch.zeros(5), numbers)
    # At the coarse level, and at the exact one: the last of them is more than 18 above the lowest.
    objectives = [[500.0, 90.0, 500.1, 505.0, 519.0], [620.0, 80.0, 610.0]]
    seen = []

    def descend(levels_, level, layout_, rows_, start_, *_, **options):
        value = torch.tensor(objectives[len(seen)], dtype=torch.float64)
        seen.append((level, rows_.tolist()))
        assert len(value) == len(start_)
        metric = 1e4 * torch.eye(len(layout_.free), dtype=torch.float64).repeat(len(value), 1, 1)
        n_eval = torch.full((len(value),), 10 ** len(seen))
        return Minima(start_, value, torch.zeros(len(value)), n_eval), metric

    monkeypatch.setattr(search_module, "_descend", descend)
    found = join(finish(setup, rows, ends, numbers, Tally()))
    assert seen == [(levels.coarse, [0, 1, 0, 0, 0]), (levels.exact, [0, 0, 1])]
    assert found.objective.tolist() == [80.0, 610.0]
    assert torch.equal(found.coordinates, ends.coordinates[[3, 1]])
    assert found.n_eval.tolist() == [4 * 10 + 2 * 100, 10 + 100]


# -------------------------------------------------------------------------------------- the search


def search_with(monkeypatch, *objectives):
    """`search` over fits whose approaches end with the given objectives, call by call; the calls too."""
    levels, layout, start = problem(Gaussian(), seeds=(0, 1, 2), order=2)
    calls = []

    def approach(levels, layout, rows, start, progress, gtol, fit_noise):
        assert fit_noise
        value = torch.as_tensor(objectives[len(calls)], dtype=torch.float64)
        calls.append((rows.tolist(), start))
        assert len(value) == len(rows) == len(start)
        marks = torch.arange(len(rows)) + 100 * len(calls)
        return Minima(start, value, 0.1 * value, marks)

    monkeypatch.setattr(search_module, "approach", approach)
    rows = torch.tensor([2, 0, 1])
    starts = [start[rows] + 0.01, start[rows]]
    ends, of, n_eval = search(levels, layout, rows, starts, Tally())
    assert len(calls) == len(objectives)
    return ends, of.tolist(), n_eval.tolist(), calls, starts, layout


def test_starts_that_agree_are_enough(monkeypatch):
    # Two starts for each of three fits: the first start of all of them comes first.
    found = search_with(monkeypatch, [500.0, 600.0, 700.2, 500.1, 599.9, 700.0])
    ends, of, n_eval, calls, starts, _ = found
    assert calls[0][0] == [2, 0, 1, 2, 0, 1]
    assert torch.equal(calls[0][1], torch.cat(starts))
    assert of == [0, 1, 2]
    assert ends.objective.tolist() == [500.0, 599.9, 700.0]
    assert torch.equal(ends.coordinates, torch.stack([starts[0][0], starts[1][1], starts[1][2]]))
    assert n_eval == [100 + 103, 101 + 104, 102 + 105]


def test_more_starts_until_two_agree(monkeypatch):
    found = search_with(
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
    ends, of, *_ = search_with(monkeypatch, [500.0, 3e4, 700.0, 500.0, 4e4, 700.0], *rounds)
    assert of == [0, 1, 2]
    assert ends.objective.tolist() == [500.0, -4000.0, 700.0]


def test_rivals_are_kept_for_all_samples_to_decide(monkeypatch):
    multiplicity = problem(Gaussian(), seeds=(0,), order=2)[0].search.multiplicity
    close, far = 500 + 17 * multiplicity, 500 + 19 * multiplicity
    found = search_with(monkeypatch, [500.0, 500.0, 500.0, close, 500.4, far], [900.0, 500.1])
    ends, of, _, calls, starts, _ = found
    # Too close to call; the same; and beyond doubt, so that more starts were tried (row 1).
    assert calls[1][0] == [1] * 2
    assert of == [0, 0, 1, 2]
    assert ends.objective.tolist() == [500.0, close, 500.0, 500.0]
    assert torch.equal(ends.coordinates[1], starts[1][0])


@pytest.mark.parametrize("kind", ["raster", "holes", "scattered", "chopped"])
def test_the_mirrored_observation_starts_at_the_mirrored_point(kind):
    """And every level has the same value there: nothing in the choice of samples looks at one side."""
    receiver = Receiver(chop_x=3e-5, chop_y=-1e-5) if kind == "chopped" else Receiver()
    seen = observe(surface(3, 0.8, 0), samples=33, noise=0.02, receiver=receiver, centre=(2e-5, -3e-5))
    rng = np.random.default_rng(0)
    if kind == "holes":
        seen = altered(seen, lambda m, _: replace(m, valid=rng.random(m.power.size) >= 0.2))
    if kind == "scattered":
        seen = altered(seen, lambda m, _: replace(m, x=m.x + rng.normal(scale=1e-6, size=m.x.size)))
    options = FitOptions(order=3, likelihood=Cauchy(), n=96, device="cpu")
    one, other = (set_up([o], None, options) for o in (seen, seen.mirrored()))
    layout = one.layout
    twin = [
        layout.index(f"{name[:-1]}{2 - int(name[-1])}") if "_" in name and name[-1].isdigit() else i
        for i, name in enumerate(layout.names)
    ]
    sign = torch.tensor(
        [-1.0 if name in one.levels.exact.model.instrument.basis.names else 1.0 for name in layout.names]
    )
    start = (sign * one.starts)[:, twin]
    torch.testing.assert_close(other.starts, start, rtol=1e-12, atol=1e-12)
    rows = torch.arange(1)
    for a, b in zip(one.levels[:3], other.levels[:3], strict=True):
        here, there = (
            s.levels.posterior(level, layout, rows, u)
            for s, level, u in ((one, a, one.starts), (other, b, start))
        )
        expected, found = here(one.starts[:, here.free]), there(start[:, there.free])
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_missing_samples_of_one_member_do_not_change_the_other():
    """What a sample that one member lacks costs the other is a choice of samples, not its answer."""
    rng = np.random.default_rng(0)
    one = prepare(Gaussian(), order=2)
    whole = descend(one, torch.arange(2), [one.starts])
    seen = [observe(surface(2, 0.8, s), samples=33, noise=0.01, seed=s) for s in (0, 1)]

    def lose(m, _):
        return replace(m, valid=rng.random(m.power.size) >= 0.3)

    seen[1] = altered(seen[1], lose)
    setup = set_up(seen, None, FitOptions(order=2, n=96, likelihood="gaussian", **BARE))
    found = descend(setup, torch.arange(2), [one.starts])
    # In the units of the parameters: those of the coordinates follow the data.
    values, expected = (
        model.parts.units.values(end.coordinates)
        for model, end in ((setup.levels.exact.model, found), (one.levels.exact.model, whole))
    )
    torch.testing.assert_close(values[0], expected[0], rtol=1e-4, atol=1e-4)
    assert (values[1] - expected[1]).abs().max() > 1e-4
