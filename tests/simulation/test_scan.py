import numpy as np
import pytest

from ooftorch.errors import InputError
from ooftorch.simulation.scan import PATTERNS, daisy, grid, otf


def test_a_grid_goes_row_by_row_with_x_fastest():
    s = grid(1.0, 0.5, 0.25)
    assert s.x.size == 9 * 5
    assert s.x[:9] == pytest.approx(np.arange(-4, 5) * 0.25)
    assert set(s.y[:9]) == {-0.5}
    assert s.y[9] == -0.25
    assert s.line[:9].tolist() == [0] * 9
    assert (np.diff(s.time) == 1).all()


@pytest.mark.parametrize("half", [0.9, 1.0, 1.1])
def test_axes_are_symmetric_and_stay_inside(half):
    s = grid(half, half, 0.25)
    assert np.sort(-s.x).tolist() == np.sort(s.x).tolist()
    assert half - 0.25 < s.x.max() <= half * (1 + 1e-9)


def test_otf_turns_round_after_every_row():
    s = otf(1.0, 1.0, 0.5)
    rows = [s.x[s.line == i] for i in range(s.line.max() + 1)]
    assert len(rows) == 5
    for i, x in enumerate(rows):
        assert np.diff(x) == pytest.approx((-1) ** i * 0.25), "half a step along the way, back in odd rows"
        assert len(set(s.y[s.line == i])) == 1
    steps = np.diff(s.time)
    turns = np.diff(s.line) == 1
    assert (steps > 0).all()
    assert steps[turns].min() > steps[~turns].max() == 1


@pytest.mark.parametrize(("half", "step"), [(1.0, 0.25), (6.0, 0.4)])
def test_daisy_leaves_no_gap(half, step):
    s = daisy(half, half, step)
    r = np.hypot(s.x, s.y)
    assert r.max() <= half * (1 + 1e-12)
    # Lines end at the tips, the first sample after the tip as far out or farther in.
    tips = np.flatnonzero(np.diff(s.line))
    assert r[tips].min() > 0.95 * half
    assert (r[tips] >= np.maximum(r[tips - 1], r[tips + 1]) * (1 - 1e-12)).all()
    angles = np.sort(np.arctan2(s.y[tips], s.x[tips]))
    gaps = np.diff(np.append(angles, angles[0] + 2 * np.pi))
    assert half * gaps.max() <= step * 1.1, "tips all round, a step apart"
    assert half * gaps.min() >= step * 0.5, "and none twice"
    along = np.hypot(np.diff(s.x), np.diff(s.y))
    assert along.max() <= step * 1.05
    assert all(r[s.line == i].min() < step for i in range(s.line.max() + 1)), "each through the centre"
    assert (np.diff(s.time) > 0).all()


@pytest.mark.parametrize("pattern", PATTERNS.values())
@pytest.mark.parametrize("sizes", [(1, 1, 0), (1, 1, -1), (1, 1, 2), (np.inf, 1, 1), (1, np.nan, 1)])
def test_refusals(pattern, sizes):
    with pytest.raises(InputError, match="expected a positive step"):
        pattern(*sizes)
