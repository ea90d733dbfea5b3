"""The benchmark compares like with like; how fast anything is, no test says."""

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def benchmark():
    import benchmark

    return benchmark


@pytest.mark.parametrize("full", [False, True])
def test_everyone_minimises_the_same_function(benchmark, full):
    problem = benchmark.Problem(64, 3, full)
    rng = np.random.default_rng(0)
    p = problem.truth + 0.1 * rng.normal(size=len(problem.truth))
    plain = benchmark.PlainNumPy(problem).loss(p)
    same = benchmark.Published(problem)
    power = same.power(torch.as_tensor(p)).numpy()
    assert 0.5 * np.sum(((power - problem.data) / problem.sigma) ** 2) == pytest.approx(plain, rel=1e-12)
    # Ours has a gain, in units of the peak of the illumination at hand, where they have an amplitude.
    ours = benchmark.Ours(problem)

    def peak(x0, y0):
        x, y, mask = same.x.numpy(), same.y.numpy(), same.mask.numpy()
        lamp = mask * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2 * benchmark.SIGMA**2))
        return lamp.sum() ** 2

    gain = p[-1] ** 2 * peak(p[-3], p[-2]) / peak(0, 0)
    coordinates = torch.as_tensor(np.concatenate([p[:-1], [np.log(gain)]]))[None]
    exact = ours.posterior(ours.levels.exact)
    value, gradient = ours._fun(exact, coordinates, None)
    assert float(value[0]) - ours.constant == pytest.approx(plain, rel=1e-10)
    step = 1e-5
    for i in (0, problem.n_z - 1, problem.n_z, problem.n_z + 2):
        e = step * torch.eye(coordinates.shape[1], dtype=torch.float64)[i]
        high, low = (float(ours._fun(exact, coordinates + s * e, None)[0][0]) for s in (1, -1))
        assert float(gradient[0, i]) == pytest.approx((high - low) / (2 * step), rel=1e-5, abs=1e-3)


def test_a_row_of_the_table(benchmark):
    row = benchmark.to_solution(64, 2, False, 20.0)
    assert row["same"]
    assert row["published"]["solved"]
    benchmark.project([row])
    for name in ("published", "numpy"):
        assert row[name]["ratio"] == pytest.approx(row[name]["seconds"] / row["ooftorch"]["seconds"])
    assert row["numpy"]["n_eval"] == row["published"]["n_eval"] * (row["parameters"] + 1)
    assert sum(row["fractions"].values()) == pytest.approx(1)


def test_what_ran_out_of_time_is_projected_and_marked(benchmark):
    rows = [benchmark.to_solution(64, 2, False, patience) for patience in (20.0, 0.0)]
    assert not rows[1]["published"]["solved"]
    benchmark.project(rows)
    assert rows[1]["published"]["projected"]
    assert rows[1]["published"]["n_eval"] == rows[0]["published"]["n_eval"]
    assert not rows[0]["published"]["projected"]
    assert benchmark.seconds_text(1.5, projected=True) == "(1.5 s)"
