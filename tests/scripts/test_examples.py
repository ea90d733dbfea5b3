"""The examples keep their promises, against closed forms and routes that do without torch."""

import sys

import numpy as np
import pytest
import scipy.optimize
import torch
from figures import shown
from places import ROOT

from ooftorch import minimize

sys.path.insert(0, str(ROOT / "scripts" / "examples"))


# -------------------------------------------------------------------------------------------- line


def test_line_is_that_of_least_squares():
    import line

    x, y = line.data()
    values, errors, _ = line.fit(x, y)
    exact, exact_errors = line.closed_form(x, y)
    assert list(values) == list(line.TRUTH)
    for name in values:
        assert values[name] == pytest.approx(exact[name], abs=1e-9)
        assert errors[name] == pytest.approx(exact_errors[name], rel=1e-7)
        assert abs(values[name] - line.TRUTH[name]) < 3 * errors[name]
    # And the textbook's least squares, of which the scatter allows for two parameters.
    fit, covariance = np.polyfit(x.numpy(), y.numpy(), 1, cov=True)
    assert (values["slope"], values["intercept"]) == pytest.approx(tuple(fit), rel=1e-9)
    allowance = np.sqrt((len(x) - 2) / len(x))
    assert errors["slope"] == pytest.approx(allowance * np.sqrt(covariance[0, 0]), rel=1e-7)


# ------------------------------------------------------------------------------------------ cities


@pytest.fixture(scope="module")
def cities():
    import cities

    return cities


def test_distances_between_cities_are_those_of_the_sphere(cities):
    assert len(cities.CITIES) == 36
    # A quarter of a meridian, and of the equator; half-way round; and a place itself.
    places = np.radians([[0, 0], [90, 0], [0, 90], [0, 180.0]])
    quarter = 0.5 * np.pi * cities.EARTH_KM
    exact = quarter * np.array([[0, 1, 1, 2], [1, 0, 1, 1], [1, 1, 0, 1], [2, 1, 1, 0]])
    assert cities.great_circles(places) == pytest.approx(exact, abs=1e-9)
    # Haversines, for all.
    latitude, longitude = cities.places().T
    d = latitude[:, None] - latitude, longitude[:, None] - longitude
    h = np.sin(d[0] / 2) ** 2 + np.cos(latitude) * np.cos(latitude[:, None]) * np.sin(d[1] / 2) ** 2
    assert pytest.approx(2 * 6371 * np.arcsin(np.sqrt(h)), abs=1e-6) == cities.KM
    names = list(cities.CITIES)
    assert cities.KM[names.index("London"), names.index("Paris")] == pytest.approx(344, abs=2)
    assert cities.KM[names.index("Lisbon"), names.index("Moscow")] == pytest.approx(3907, abs=10)


def test_stress_by_hand_is_the_stress(cities):
    x = cities.random_start(3)
    value, gradient = cities.stress_by_hand(x.numpy().ravel())
    there = x.clone().requires_grad_()
    loss = cities.stress(there)
    loss.backward()
    assert value == pytest.approx(loss.item(), rel=1e-12)
    assert gradient == pytest.approx(there.grad.numpy().ravel(), rel=1e-10, abs=1e-12)


def test_cities_are_placed_from_random_starts(cities):
    many = [minimize(cities.stress, cities.random_start(seed), method="BFGS") for seed in range(20)]
    assert all(r.success and r.nit <= 60 for r in many)
    by_hand = scipy.optimize.minimize(
        cities.stress_by_hand, cities.random_start(0).numpy().ravel(), jac=True, method="BFGS"
    )
    assert (many[0].nit, many[0].nfev) == (by_hand.nit, by_hand.nfev)
    assert many[0].x.numpy().ravel() == pytest.approx(by_hand.x, abs=1e-6)
    x, bound = cities.classical()
    for r in many:
        assert r.fun == pytest.approx(by_hand.fun, rel=1e-5)
        assert bound < r.fun < float(cities.stress(torch.as_tensor(x)))
        assert cities.rms_percent(r.x.numpy()) < 2  # what was asked for
        assert cities.rms_percent(r.x.numpy()) == pytest.approx(0.2169, abs=1e-3)
    # A bound that says something.
    assert bound > 0.8 * many[0].fun


def test_cities_lie_where_a_map_has_them(cities):
    x = minimize(cities.stress, cities.random_start(1), method="BFGS").x.numpy()
    true = cities.plane()
    # Some tens of kilometres, where Europe is thousands across.
    off = cities.UNIT * np.linalg.norm(cities.aligned(x, true) - true, axis=-1)
    assert off.max() < 30
    # Whichever way the map was turned and reflected; but stretched it stays.
    turned = np.stack([x[:, 1], x[:, 0]], -1) @ [[0.6, 0.8], [-0.8, 0.6]] + [3.0, -1.0]
    assert cities.aligned(turned, true) == pytest.approx(cities.aligned(x, true), abs=1e-9)
    assert cities.aligned(2 * x, true) - true.mean(0) == pytest.approx(
        2 * (cities.aligned(x, true) - true.mean(0)), abs=1e-9
    )


def test_gradient_descent_finds_the_same_cities_later(cities):
    results = cities.descents(cities.random_start(0))
    for name in ("adam", "sgd"):
        assert results[name].success
        assert results[name].fun == pytest.approx(results["BFGS"].fun, rel=1e-5)
        assert results[name].nfev > 2 * results["BFGS"].nfev


# ---------------------------------------------------------------------------------------- logistic


@pytest.mark.parametrize("method", ["CG", "trust-ncg"])
def test_logistic_regression_is_that_of_reweighted_least_squares(method):
    import logistic

    features, labels = logistic.data()
    module, result = logistic.train(method, features, labels)
    exact = logistic.reweighted(features, labels)
    assert result.success
    assert torch.cat([p.flatten() for p in result.x]).numpy() == pytest.approx(exact, abs=1e-6)
    assert module.weight.dtype == torch.float32
    found = torch.cat([module.weight[0], module.bias]).detach().double().numpy()
    assert found == pytest.approx(exact, rel=1e-6, abs=1e-6)
    assert (result.nhev > 0) == (method == "trust-ncg")
    # The estimates scatter about the truth as the information says.
    rows = np.concatenate([features.numpy(), np.ones((len(features), 1))], 1)
    chance = 1 / (1 + np.exp(-rows @ exact))
    errors = np.sqrt(np.diag(np.linalg.inv((rows.T * (chance * (1 - chance))) @ rows)))
    assert np.abs((exact - logistic.TRUTH) / errors).max() < 3.5


# --------------------------------------------------------------------------------- phase retrieval


@pytest.fixture(scope="module")
def retrieval():
    import phase_retrieval

    return phase_retrieval


@pytest.fixture(scope="module")
def six(retrieval):
    observation = retrieval.observe()
    problem = retrieval.problem_of(observation)
    return observation, problem, retrieval.six(problem)


@pytest.mark.slow
def test_six_methods_retrieve_one_phase(retrieval, six):
    observation, problem, results = six
    assert len(results) == 6
    lowest = min(r.fun for r in results.values())
    for name, r in results.items():
        assert r.success, name
        assert r.fun - lowest < 1e-5, name
        assert retrieval.phase_error(problem, r.x, observation) < 0.05
    assert retrieval.phase_error(problem, problem.start, observation) > 0.4
    counts = {name: r.nfev for name, r in results.items()}
    assert counts["metric-bfgs"] < 0.5 * counts["BFGS"]
    assert counts["BFGS"] < 0.5 * min(counts[name] for name in ("CG", "L-BFGS-B", "adam"))
    # What is left is noise.
    samples = problem.posterior.samples
    n = len(samples.power)
    chi2 = 2 * (lowest - float(torch.log(samples.errors).sum()) - 0.5 * n * np.log(2 * np.pi))
    assert chi2 / n == pytest.approx(1, abs=0.15)


@pytest.mark.slow
def test_the_gradient_in_closed_form_takes_the_same_path(retrieval, six):
    _, problem, results = six
    by_hand, by_torch = retrieval.by_hand(problem), results["BFGS"]
    assert by_hand.history[:15, 1] == pytest.approx(by_torch.history[:15, 1], rel=1e-9)
    assert by_hand.x.numpy() == pytest.approx(by_torch.x.numpy(), abs=1e-5)
    assert abs(by_hand.nfev - by_torch.nfev) < 10


# ----------------------------------------------------------------------------------------- as run


@pytest.mark.parametrize("name", ["line", "logistic"])
def test_a_script_prints_and_draws_only_when_asked(name, tmp_path, monkeypatch, capsys):
    module = __import__(name)
    monkeypatch.chdir(tmp_path)
    module.main()
    assert capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    module.main("picture.png")
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


def test_cities_are_drawn_where_they_were_found(cities):
    result = minimize(cities.stress, cities.random_start(0))
    left, right = cities.picture({"BFGS": result}).axes
    true, found = (
        np.stack(shown(left, label)) for label in ("azimuthal equidistant map", "from the distances")
    )
    # Kilometres, north up: Lisbon in the south-west, Helsinki in the north-east.
    assert true == pytest.approx(cities.UNIT * cities.plane().T)
    assert np.abs(found - true).max() < 30
    names = [text.get_text() for text in left.texts]
    assert names == list(cities.CITIES)
    lisbon, helsinki = (found[:, names.index(name)] for name in ("Lisbon", "Helsinki"))
    assert (lisbon < helsinki).all()
    assert left.get_aspect() == 1
    (line,) = right.lines
    assert len(line.get_xdata()) == result.nfev
