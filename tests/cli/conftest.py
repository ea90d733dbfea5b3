"""One real fit for all tests of the commands, and a fit that costs nothing."""

from dataclasses import replace

import pytest
from command import TRUTH, run, tree
from simulated import observe

import ooftorch
from ooftorch.fitting import fitter
from ooftorch.reporting import drawing, plot

FIT = fitter.fit


@pytest.fixture(scope="session")
def observation():
    observed = observe(list(TRUTH.values()), samples=11, reach=3.0, noise=2e-3)
    return replace(observed, object="3C 84", date_obs="2020-02-03", mean_el_deg=45.0)


@pytest.fixture(scope="session")
def written(observation, tmp_path_factory):
    """The observation as a file, and beside it what one real run makes of it."""
    folder = tmp_path_factory.mktemp("fitted")
    ooftorch.write(observation, folder / "obs.fits")
    results = []

    def fit(*arguments, **options):
        results.append(FIT(*arguments, **options))
        return results[-1]

    before = tree(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitter, "fit", fit)
        ran = run(folder, "fit", "obs.fits", "--order", 2)
    return folder, ran, results[0], before


@pytest.fixture
def folder(written, tmp_path):
    """A folder of its own for each test, with the observation in it."""
    (tmp_path / "obs.fits").write_bytes((written[0] / "obs.fits").read_bytes())
    return tmp_path


@pytest.fixture
def quick(written, monkeypatch):
    """Instead of a fit its known result, and pictures without matplotlib; returns what `fit` was given."""
    calls = []

    def fit(*arguments, **options):
        calls.append((arguments, options))
        return written[2]

    monkeypatch.setattr(fitter, "fit", fit)
    monkeypatch.setattr(drawing, "count_cores", lambda: 1)  # no second process, where nothing is replaced
    monkeypatch.setattr(plot, "plot_aperture", lambda result: "aperture")
    monkeypatch.setattr(plot, "plot_beams", lambda result: "beams")
    monkeypatch.setattr(plot, "save", lambda figure, path: path.write_text(figure))
    return calls
