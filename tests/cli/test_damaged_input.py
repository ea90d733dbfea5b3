"""Damaged files and senseless options through the commands: a result, or one line and status 2.

The damages are those of scripts/fuzz.py, which tries as many as one likes.
"""

import random
import sys
import tempfile
import time
import warnings
from pathlib import Path

import fuzz
import numpy as np
import pytest
import torch
from command import assert_refused, run, tree
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from places import EXAMPLE

import ooftorch
from ooftorch.errors import InputError
from ooftorch.optim.bfgs import bfgs
from ooftorch.reporting import drawing


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    return fuzz.make_valid(tmp_path_factory.mktemp("valid"))


@pytest.fixture(scope="module", autouse=True)
def one_process():
    """Pictures are drawn where their errors and warnings are seen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "count_cores", lambda: 1)
        yield


# The same inputs in every run, and none is kept.
quiet = settings(
    max_examples=30,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.slow
@pytest.mark.parametrize("make", fuzz.MAKERS, ids=lambda make: make.__name__.removeprefix("_draw_"))
@given(seed=st.integers(0, 2**32 - 1))
@quiet
def test_a_result_or_one_line(valid, make, seed):
    case = make(random.Random(seed), valid)
    with tempfile.TemporaryDirectory() as folder:
        outcome, detail = fuzz.attempt(case, Path(folder))
    assert outcome in ("result", "refused"), (case.arguments, outcome, detail)


# --------------------------------------------------------------------------- what the trial itself notices


def misbehave(monkeypatch, what):
    """Make `ooftorch info` do something that it must not, and try it."""
    case = fuzz.Case("oof", {"a.fits": EXAMPLE.read_bytes()}, ["info", "a.fits"])

    def read(path):
        what()
        raise InputError("no")

    monkeypatch.setattr("ooftorch.io.read", read)
    with tempfile.TemporaryDirectory() as folder:
        return fuzz.attempt(case, Path(folder), seconds=0.5)[0]


@pytest.mark.parametrize(
    ("what", "outcome"),
    [
        (lambda: None, "refused"),
        (lambda: 1 / 0, "traceback"),
        (lambda: time.sleep(5), "hang"),
        (lambda: warnings.warn("beside the line", stacklevel=1), "warning"),
        (lambda: print("beside the line", file=sys.stderr), "not one line"),
        (lambda: Path("stray").write_text("mine"), "stray file"),
        (lambda: Path("../stray").write_text("mine"), "stray file"),
        (lambda: Path("a.fits").unlink(), "stray file"),
        (lambda: sys.exit(3), "status"),
        (lambda: sys.exit(0), "result"),
    ],
)
def test_the_trial_notices(monkeypatch, what, outcome):
    assert misbehave(monkeypatch, what) == outcome


def test_damage_is_damage(valid):
    """Nearly every damaged file differs from the one it was, and is no longer than what it is made of."""
    for name, data in valid.items():
        damaged = [fuzz.damage(random.Random(seed), data) for seed in range(40)]
        assert sum(d == data for d in damaged) < 12, name
        assert all(len(d) <= 3 * len(data) + 10_000 for d in damaged)


# ------------------------------------------------------------------------------ options that were failures

SIMULATE = ("simulate", "out.fits", "--telescope", "aca7m", "--reach", "2", "--step", "0.5")
OPTIONS = {
    "an order that nobody can mean": (("fit", "obs.fits", "--order", 10**9), "the highest is 32"),
    "an order of 400 digits": (("fit", "obs.fits", "--order", 10**400), "order 10+ ... 0+; the highest"),
    "an order that no integer is": (
        ("fit", "obs.fits", "--order", "1" + 5000 * "0"),
        "10+ ... 0+'; expected a whole number",
    ),
    "an amplitude of such an order": (("fit", "obs.fits", "--amplitude-order", 10**9), "expected 2 to 32"),
    "a value beyond all": (("fit", "obs.fits", "--fix", "z3=1e300"), "z3 at 1e.300 rad is far from all"),
    "a positive value beyond all": (("fit", "obs.fits", "--fix", "sigma=1e300"), "sigma at 1e.300.*far from"),
    "a likelihood of 900 letters": (("fit", "obs.fits", "--likelihood", 900 * "a"), "unknown likelihood"),
    "a name that writes to the terminal": (("info", "a\x1b[31m.fits"), r"a\\x1b\[31m.fits: no such file"),
    "a coefficient of order 1413": ((*SIMULATE, "--set", "z999999=1"), "the highest is 32"),
    "a coefficient that is no index": ((*SIMULATE, "--set", "z99999999999=1"), "no parameter 'z99999999999'"),
    "a random surface of such an order": ((*SIMULATE, "--rms", 1, "--order", 10**6), "the highest is 32"),
    "a surface beyond all": ((*SIMULATE, "--rms", 1e9), "a surface rms of 1000000000.0 rad; expected"),
    "a spectrum that overflows": ((*SIMULATE, "--rms", 1, "--spectrum", -1e300), "a spectrum of -1e.300"),
    "a bump beyond all": ((*SIMULATE, "--bump", "0,0,1,1e300"), "a bump at .*the width must be positive"),
    "a wavelength of none": ((*SIMULATE, "--frequency-ghz", 1e300), "wavelength .*; expected a positive"),
    "a frequency of nearly none": ((*SIMULATE, "--frequency-ghz", 1e-300), "wavelength .*; expected"),
    "a disc beyond the sky": ((*SIMULATE, "--disc-arcsec", "inf"), "disc_radius=inf.* is out of range"),
    "noise beyond all": ((*SIMULATE, "--baseline", 1e300), "baseline is 1e.300; expected a number from 0"),
    "noise of infinite size": ((*SIMULATE, "--gain-drift", "inf"), "gain_drift is inf; expected a number"),
    "a peak beyond all": ((*SIMULATE, "--peak", 1e300), "a peak of 1e.300; expected a positive number"),
    "a seed of 400 digits": ((*SIMULATE, "--seed", 10**400), r"seed 10+ ... 0+; expected a whole number"),
    "300 maps": ((*SIMULATE, "--dz-mm", ",".join(map(str, range(300)))), "focus offsets .* at most 100"),
    "a chop of 300 numbers": ((*SIMULATE, "--chop-arcsec", ",".join(300 * "1")), "expected numbers, such as"),
    "steps that nobody can mean": ((*SIMULATE[:-1], "1e-9"), "samples; take larger steps"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_options_that_nobody_can_mean(folder, case):
    arguments, message = OPTIONS[case]
    before = tree(folder)
    begin = time.perf_counter()
    ran = run(folder, *arguments)
    assert_refused(ran, message)
    assert len(ran.err) < 330
    assert ran.err[:-1].isprintable()
    assert time.perf_counter() - begin < 5
    assert tree(folder) == before


TELESCOPE = """
radius_m = 3.5
frequency_hz = 230e9
[optics]
type = "cassegrain"
focal_length_m = 2.5
effective_focal_length_m = 56
[blockage]
inner_radius_m = 0.3
legs = { shape = "x", half_width_m = [0.05, 0.06], radius_m = [0.0, 2.0], outer_radius_m = 3.4 }
holes = [{ x_m = 1.0, y_m = 0.0, radius_m = 0.1 }]
[illumination]
model = "gaussian"
taper_db = -11
[focus]
scale_error = 0.03
shift_error_m = 1e-3
"""


@pytest.mark.parametrize(
    "command", [("telescopes", "my.toml"), ("simulate", "o.fits", "--telescope", "my.toml")]
)
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("3.5", "1e300", r"radius_m = 1e\+300; expected a positive number, a number from 0.05 to 500 m"),
        ("3.5", "1e-300", "radius_m = 1e-300; expected"),
        ("3.5", "1" + 400 * "0", "radius_m = 10+ ... 0+; expected"),
        ("230e9", "1e300", "frequency_hz = 1e.300; expected"),
        ("2.5", "1e300", "focal_length_m = 1e.300; expected"),
        ("56", "1e-300", "effective_focal_length_m = 1e-300; expected"),
        ("-11", "-1e300", "taper_db = -1e.300; expected a negative number"),
        ("[0.05, 0.06]", str(200 * [0.05]), "half_width_m = .*; expected"),
        (
            "[{ x_m = 1.0, y_m = 0.0, radius_m = 0.1 }]",
            str(101 * ["{}"]).replace("'", ""),
            "at most 100 tables",
        ),
        ("x_m = 1.0", "x_m = 1e300", "x_m = 1e.300; expected"),
        ("0.1 }", "10.0 }", "leaves nothing of a dish of radius_m = 3.5"),
        ("0.03", "1e300", "scale_error = 1e.300; expected"),
        ("1e-3", "1e300", "shift_error_m = 1e.300; expected"),
        ("radius_m = 3.5", 3000 * "[", "my.toml is not TOML"),
    ],
)
def test_a_telescope_that_nobody_can_mean(tmp_path, command, old, new, message):
    assert old in TELESCOPE
    (tmp_path / "my.toml").write_text(TELESCOPE.replace(old, new, 1))
    before = tree(tmp_path)
    ran = run(tmp_path, *command)
    assert_refused(ran, message)
    assert len(ran.err) < 330
    assert tree(tmp_path) == before


def test_optics_that_no_focus_changes(tmp_path):
    """The usual defocus is the path over what a metre makes of it: division by zero, or kilometres."""
    flat = TELESCOPE.replace("2.5", "1e5").replace("= 56", "= 1e5")
    (tmp_path / "my.toml").write_text(flat)
    for command in (("telescopes", "my.toml"), ("simulate", "o.fits", "--telescope", "my.toml")):
        assert_refused(run(tmp_path, *command), "m of focus motion would be .*expected less than a metre")


# -------------------------------------------------------------------------------- samples that were failures


def spoil(index, change):
    def spoilt(observation):
        maps = list(observation.maps)
        columns = {name: getattr(maps[index], name).copy() for name in ("x", "y", "power", "sigma")}
        change(columns)
        maps[index] = ooftorch.BeamMap(maps[index].dz, **columns)
        return ooftorch.Observation(
            tuple(maps), observation.wavelength, observation.telescope, observation.receiver, source="a.fits"
        )

    return spoilt


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["power"].__setitem__(7, 1e300), r"a power is 1e\+300; expected .*mark it as missing"),
        (
            lambda c: c["power"].__setitem__(7, 1e50),
            "a power of 1e.50, where three quarters are below .*; mark",
        ),
        (
            lambda c: [c[name].__imul__(1e30) for name in ("power", "sigma")],
            "the largest power is .* in one map and .* in another",
        ),
        (lambda c: c["sigma"].__setitem__(7, 1e-50), "an error .UFNU, sigma. of 1e-50, where the others are"),
        (lambda c: c["sigma"].fill(1e-50), "an error .UFNU, sigma. of 1e-50, where .* the power is up to"),
        (lambda c: c["sigma"].__setitem__(7, 1e300), "an error .UFNU, sigma. is 1e.300; expected"),
    ],
)
def test_samples_that_nobody_measured(observation, change, message):
    """A fit of them went on for minutes, or ended in an IndexError where no candidate was finite."""
    with pytest.raises(InputError, match=rf"^a\.fits: map 2 of 3.*{message}|^a\.fits: {message}"):
        spoil(1, change)(observation).check()


def test_places_and_times_that_are_infinite_are_not_known():
    x = np.linspace(-1e-3, 1e-3, 12)
    time_, x_missing = np.append(np.arange(11.0), np.inf), np.append(x[:-1], -np.inf)
    power = np.append(np.ones(11), np.nan)
    m = ooftorch.BeamMap(0.0, x_missing, x, power, time=time_)
    assert np.isnan(m.time[-1])
    assert np.isnan(m.x[-1])


# ----------------------------------------------------------------------------------------- singular metrics


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_metric_that_says_nothing(value):
    """Beside a good one, which goes its way as it does alone."""

    def fun(x, members):
        return ((x - 0.3) ** 2).sum(-1), 2 * (x - 0.3)

    unit = 2 * torch.eye(2, dtype=torch.float64)
    metric = torch.stack([unit, torch.full((2, 2), value, dtype=torch.float64)])
    found = bfgs(fun, torch.zeros(2, 2, dtype=torch.float64), metric)
    assert torch.allclose(found.x[0], torch.full((2,), 0.3, dtype=torch.float64), atol=1e-3)
    assert torch.isfinite(found.x).all()
    # Of zeros: nothing changes the function, as far as it knows, so nothing is moved.
    assert torch.allclose(found.x[1], torch.full((2,), 0.3 if value else 0.0, dtype=torch.float64), atol=1e-3)
