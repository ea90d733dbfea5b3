"""The command: what it writes, prints and returns, and one line for every input that cannot be used."""

import io
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from astropy.io import fits
from command import assert_refused, python, run, tree
from places import EXAMPLE, ROOT
from simulated import observe

import ooftorch
from ooftorch.cli.command import COMMANDS
from ooftorch.fitting import fitter
from ooftorch.fitting.fitter import Progress
from ooftorch.optics import telescopes
from ooftorch.reporting import drawing, plot
from ooftorch.units import SPEED_OF_LIGHT

FIT = fitter.fit
PRODUCTS = {"summary.json", "fit.fits", "aperture.png", "beams.png"}
TRUTH = {"z1": 0.4, "z2": -0.3, "z3": 0.5, "z4": -0.2, "z5": 0.3}


# ---------------------------------------------------------------------------------------- good input


@pytest.fixture(scope="module")
def observation():
    observed = observe(list(TRUTH.values()), samples=11, reach=3.0, noise=2e-3)
    return replace(observed, object="3C 84", date_obs="2020-02-03", mean_el_deg=45.0)


@pytest.fixture(scope="module")
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


def reported(result):
    """What `fit` prints of a result before it writes the files, where no rows of orders came before."""
    return f"\n{ooftorch.report(result, orders=False)}\n"


def test_a_fit_writes_four_files(written):
    folder, ran, _, before = written
    assert ran.status == 0
    after = tree(folder)
    target = "obs-oof-001"
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {target, *(f"{target}/{name}" for name in PRODUCTS)}
    for name in ("aperture.png", "beams.png"):
        assert (folder / target / name).read_bytes().startswith(b"\x89PNG\r\n")
    last = ran.out.splitlines()[-1]
    assert all(name in last for name in (target, *PRODUCTS))


def test_a_fit_prints_the_orders_and_the_report(written):
    _, ran, result, _ = written
    rows = [row.split() for row in ran.out.splitlines()]
    assert rows[0][:2] == ["order", "objective"]
    for row, order in zip(rows[1:3], result.orders, strict=True):
        assert int(row[0]) == order.order
        assert float(row[1]) == pytest.approx(order.objective, abs=0.006)
    # Under the rows that came one by one the report, without showing them again.
    assert ooftorch.report(result, orders=False) in ran.out
    assert ran.out.count("evaluations") == 1
    assert ran.err == ""  # nobody is watching


def test_the_surface_is_the_true_one(written):
    z = {name: written[2].parameters[name] for name in TRUTH}
    for name, true in TRUTH.items():
        assert z[name].free
        assert abs(z[name].value - true) < 4 * z[name].sigma
        assert z[name].sigma < 0.05


@pytest.fixture(scope="module")
def summary(written):
    return json.loads((written[0] / "obs-oof-001" / "summary.json").read_text())


def test_summary_has_the_fixed_names(summary):
    assert set(summary) >= {
        *("ooftorch", "input", "telescope", "wavelength_m", "likelihood", "illumination", "order"),
        *("converged", "message", "objective", "chi2_reduced", "n_data", "n_free", "n_eval"),
        *("parameters", "maps", "phase_rms_rad", "surface_rms_um", "ruze_efficiency", "orders", "seconds"),
    }
    assert {"z0", *TRUTH, *(f"gain_{i}" for i in range(3))} <= set(summary["parameters"])
    for parameter in summary["parameters"].values():
        assert set(parameter) >= {"value", "sigma", "unit", "free"}
    for entry in summary["maps"]:
        assert set(entry) >= {"dz_m", "residual_rms_over_peak", "noise"}
    for entry in summary["orders"]:
        assert set(entry) >= {"order", "objective", "chi2_reduced", "n_eval", "seconds"}
    assert set(summary["seconds"]) == {"read", "fit", "write", "total"}


def test_summary_has_the_right_numbers(summary, observation, written):
    result = written[2]
    assert summary["ooftorch"] == ooftorch.__version__
    assert [
        summary[k] for k in ("input", "telescope", "likelihood", "illumination", "order", "converged")
    ] == [*("obs.fits", "paper", "gaussian", "gaussian", 2, True)]
    assert summary["wavelength_m"] == pytest.approx(1.1e-3, rel=1e-12)
    assert summary["n_data"] == 3 * 11 * 11
    # z1..z5, the width of the illumination, a gain and an offset for each map.
    assert summary["n_free"] == sum(p["free"] for p in summary["parameters"].values()) == 5 + 1 + 6
    assert summary["n_eval"] == sum(o["n_eval"] for o in summary["orders"])
    assert [m["dz_m"] for m in summary["maps"]] == [-0.05, 0.0, 0.05]
    noise = observation.maps[0].sigma[0]
    assert [m["noise"] for m in summary["maps"]] == pytest.approx([noise] * 3)
    assert [o["order"] for o in summary["orders"]] == [1, 2]
    assert summary["orders"][-1]["objective"] == summary["objective"] == result.objective
    assert {k: p["value"] for k, p in summary["parameters"].items()} == {
        k: p.value for k, p in result.parameters.items()
    }
    z = [summary["parameters"][k]["value"] for k in ("z3", "z4", "z5")]
    # Mean squares over the disc of r^2 sin 2t, 2 r^2 - 1 and r^2 cos 2t.
    phase = math.sqrt(z[0] ** 2 / 6 + z[1] ** 2 / 3 + z[2] ** 2 / 6)
    assert summary["phase_rms_rad"] == pytest.approx(phase)
    assert summary["surface_rms_um"] == pytest.approx(1.1e3 * phase / (4 * math.pi))
    assert summary["ruze_efficiency"] == pytest.approx(math.exp(-(phase**2)))
    t = summary["seconds"]
    assert all(v > 0 for v in t.values())
    assert t["total"] == pytest.approx(t["read"] + t["fit"] + t["write"])
    assert t["fit"] >= sum(o["seconds"] for o in summary["orders"])


class Watched(io.StringIO):
    """Standard output that notes which results are there when a text is flushed to it."""

    def __init__(self, folder):
        super().__init__()
        self.folder, self.seen = folder, []

    def flush(self):
        there = {path.name for path in self.folder.glob("obs-oof-001/*")}
        self.seen.append((self.getvalue(), there))


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_the_report_is_on_the_screen_before_the_files_are_drawn_and_there(
    folder, quick, written, monkeypatch, flags
):
    drawn = []

    def draw(result):
        drawn.append(out.seen[-1:])
        return "aperture"

    monkeypatch.setattr(plot, "plot_aperture", draw)
    out = Watched(folder)
    assert run(folder, "fit", "obs.fits", *flags, stdout=out).status == 0
    report = reported(written[2])
    if flags:  # the summary holds the time that writing took, and comes at the end
        assert drawn == [[]]
    else:
        assert drawn == [[(report, set())]]
    last, there = out.seen[-1]
    assert there == PRODUCTS
    assert last.startswith("{" if flags else report)


def test_json_is_not_printed_where_writing_failed(folder, quick, monkeypatch):
    def save(figure, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(plot, "save", save)
    assert_refused(run(folder, "fit", "obs.fits", "--json"), "cannot be written .*No space left")


def test_json_is_all_that_is_printed(folder, quick):
    ran = run(folder, "fit", "obs.fits", "--json")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == (folder / "obs-oof-001" / "summary.json").read_text()
    assert json.loads(ran.out)["telescope"] == "paper"


def test_two_runs_give_the_same_numbers(written, folder, monkeypatch):
    monkeypatch.setattr(drawing, "count_cores", lambda: 1)
    monkeypatch.setattr(plot, "save", lambda figure, path: None)
    run(folder, "fit", "obs.fits", "--order", 2, "--out", "again")

    def numbers(value):
        if isinstance(value, dict):
            return {k: numbers(v) for k, v in value.items() if k != "seconds"}
        return [numbers(v) for v in value] if isinstance(value, list) else value

    first, second = (
        json.loads((directory / "summary.json").read_text())
        for directory in (written[0] / "obs-oof-001", folder / "again")
    )
    assert numbers(first) == numbers(second)


def test_every_option_reaches_the_fit(folder, quick):
    options = "--telescope alma --order 3 --likelihood cauchy --illumination pedestal --device cpu --free x0"
    options += " --free y0 --fix taper_db=-11.5 --fix z3=0.25"
    assert run(folder, "fit", "obs.fits", *options.split()).status == 0
    [((observation, name), given)] = quick
    given.pop("progress")
    assert [m.n_valid for m in observation.maps] == [121] * 3
    assert name == "alma"
    assert given == {
        "order": 3,
        "likelihood": "cauchy",
        "illumination": "pedestal",
        "device": "cpu",
        "free": ("x0", "y0"),
        "fixed": {"taper_db": -11.5, "z3": 0.25},
    }
    run(folder, "fit", "obs.fits")
    _, given = quick[1]
    defaults = {"order": 5, "likelihood": "gaussian", "illumination": None, "device": "auto"}
    assert {k: given[k] for k in defaults} == defaults


@pytest.mark.slow
def test_a_fit_as_the_user_runs_it(folder):
    before = tree(folder)
    ran = python(folder, "-m", "ooftorch", "fit", "obs.fits", "--order", "1", "--out", "there")
    assert ran.status == 0, ran.err
    assert ran.err == ""
    assert {path.name for path in (folder / "there").iterdir()} == PRODUCTS
    assert {name: tree(folder)[name] for name in before} == before


# -------------------------------------------------------------------------------------- directories


def test_default_directories_are_numbered(folder, quick):
    (folder / "obs-oof-002").write_text("taken")
    for number in (1, 3, 4):
        ran = run(folder, "fit", "obs.fits")
        assert ran.status == 0
        assert {p.name for p in (folder / f"obs-oof-00{number}").iterdir()} == PRODUCTS
        assert f"obs-oof-00{number}/" in ran.out
    assert not list(folder.glob(".*"))


def test_default_directory_is_where_the_user_is(folder, quick):
    (folder / "here").mkdir()
    run(folder / "here", "fit", "../obs.fits")
    assert [path.name for path in (folder / "here").iterdir()] == ["obs-oof-001"]


def test_overwrite_replaces_the_results_and_nothing_else(folder, quick):
    out = folder / "out"
    out.mkdir()
    for name in ("summary.json", "mine.txt"):
        (out / name).write_text("old")
    assert run(folder, "fit", "obs.fits", "--out", "out", "--overwrite").status == 0
    assert {path.name for path in out.iterdir()} == PRODUCTS | {"mine.txt"}
    assert (out / "mine.txt").read_text() == "old"
    assert json.loads((out / "summary.json").read_text())["order"] == 2


def test_an_empty_directory_can_be_used(folder, quick):
    (folder / "empty").mkdir()
    assert run(folder / "empty", "fit", "../obs.fits", "--out", ".").status == 0
    assert {path.name for path in (folder / "empty").iterdir()} == PRODUCTS


def test_results_that_came_meanwhile_stay(folder, quick, written, monkeypatch):
    def slow(*_, **options):
        (folder / "out").mkdir()
        (folder / "out" / "summary.json").write_text("another run's")
        return written[2]

    monkeypatch.setattr(fitter, "fit", slow)
    assert_refused(run(folder, "fit", "obs.fits", "--out", "out"), "not empty", out=reported(written[2]))
    assert tree(folder / "out").keys() == {"summary.json"}
    assert (folder / "out" / "summary.json").read_text() == "another run's"


def test_results_appear_at_once(folder, quick, monkeypatch):
    """Made beside where they go, so that a rename brings them there and never a copy."""
    (folder / "deep").mkdir()

    def save(figure, path):
        assert [p.resolve() for p in (folder / "deep").iterdir()] == [path.parent.resolve()]
        assert not (folder / "deep" / "out").exists()
        path.write_text(figure)

    monkeypatch.setattr(plot, "save", save)
    assert run(folder, "fit", "obs.fits", "--out", "deep/out").status == 0
    assert [path.name for path in (folder / "deep").iterdir()] == ["out"]


def test_results_can_be_read_by_whom_the_user_lets(folder, quick):
    run(folder, "fit", "obs.fits")
    (folder / "plain").mkdir()
    assert (folder / "obs-oof-001").stat().st_mode == (folder / "plain").stat().st_mode


# ------------------------------------------------------------------------------------ when things fail


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_fit_that_did_not_converge_is_written_with_status_1(folder, quick, written, monkeypatch, flags):
    unfinished = replace(written[2], converged=False, message="out of steps")
    monkeypatch.setattr(fitter, "fit", lambda *_, **__: unfinished)
    ran = run(folder, "fit", "obs.fits", *flags)
    assert ran.status == 1
    out = folder / "obs-oof-001"
    assert {path.name for path in out.iterdir()} == PRODUCTS
    assert json.loads((out / "summary.json").read_text())["converged"] is False
    assert "out of steps" in ran.out


def test_an_interrupt_writes_nothing(folder, quick, monkeypatch):
    def interrupted(*_, progress, **__):
        progress(Progress(1, 1, 3.5, None))
        raise KeyboardInterrupt

    monkeypatch.setattr(fitter, "fit", interrupted)
    before = tree(folder)
    ran = run(folder, "fit", "obs.fits")
    assert (ran.status, ran.out) == (130, "")
    assert ran.err.strip() == "ooftorch: interrupted; nothing was written"
    assert tree(folder) == before


FAILURES = {"interrupt": KeyboardInterrupt(), "full disk": OSError(28, "No space left on device")}


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_while_writing_leaves_what_was_there(
    folder, quick, written, monkeypatch, failure, existing
):
    if existing:
        (folder / "out").mkdir()
        (folder / "out" / "fit.fits").write_text("old")
    before = tree(folder)

    def save(figure, path):
        path.write_text("the first picture")
        if figure == "beams":
            raise FAILURES[failure]

    monkeypatch.setattr(plot, "save", save)
    ran = run(folder, "fit", "obs.fits", "--out", "out", "--overwrite")
    assert tree(folder) == before
    if failure == "interrupt":
        assert ran.status == 130
    else:
        assert_refused(ran, "out: cannot be written .*No space left", out=reported(written[2]))


def test_a_mistake_of_ours_is_not_hidden(folder, quick, monkeypatch):
    def save(figure, path):
        raise ZeroDivisionError

    monkeypatch.setattr(plot, "save", save)
    before = tree(folder)
    with pytest.raises(ZeroDivisionError):
        run(folder, "fit", "obs.fits")
    assert tree(folder) == before


def alive(group):
    """Whether a process of the group still runs."""
    listed = subprocess.run(["ps", "-A", "-o", "pgid=,stat="], capture_output=True, text=True, check=True)
    rows = (row.split() for row in listed.stdout.splitlines())
    return any(int(pgid) == group and not stat.startswith("Z") for pgid, stat in rows)


def test_ctrl_c_ends_both_processes_with_one_line(folder):
    """At a terminal Ctrl-C goes to every process of the command."""
    command = [sys.executable, "-m", "ooftorch", "fit", str(EXAMPLE), "--order", "12", "--out", "out"]
    with subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert "objective" in process.stdout.readline()  # the fit goes on, and the other process waits
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err.strip()) == (130, "ooftorch: interrupted; nothing was written")
    assert {path.name for path in folder.iterdir()} == {"obs.fits"}
    deadline = time.monotonic() + 20
    while alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(process.pid)


# --------------------------------------------------------------------------------------- bad input

GOOD_TOML = """
[observation]
telescope = "paper"
frequency_hz = 272e9
sky = "telescope"
[[map]]
file = "a.txt"
dz_m = 0.0
[[map]]
file = "a.txt"
dz_m = 0.01
"""

GOOD_TELESCOPE = """
radius_m = 2.8
[optics]
type = "prime-focus"
focal_length_m = 14.4
"""


def changed(change):
    """A way to spoil obs.fits: `change` gets its HDUs and may return others."""

    def spoil(folder):
        with fits.open(folder / "obs.fits", memmap=False) as hdus:
            spoiled = change(hdus) or hdus
            fits.HDUList([hdu.copy() for hdu in spoiled]).writeto(folder / "bad.fits")
        return "bad.fits"

    return spoil


def header(**values):
    return changed(lambda hdus: hdus[0].header.update(values))


def column(name, values):
    def change(hdus):
        hdus[2].data[name][values] = np.nan if name == "FNU" else 0.0

    return changed(change)


def as_images(change):
    """The same maps as images, spoiled."""

    def spoil(folder):
        hdus = fits.HDUList([fits.PrimaryHDU(header=fits.Header({"WAVEL": 1.1e-3}))])
        for m in ooftorch.read(folder / "obs.fits").maps:
            hdus.append(fits.ImageHDU(m.power.reshape(11, 11)))
            hdus[-1].header.update(
                DZ=m.dz, CRPIX1=6, CRPIX2=6, CDELT1=1e-4, CDELT2=1e-4, CUNIT1="rad", CUNIT2="rad"
            )
        change(hdus)
        hdus.writeto(folder / "bad.fits")
        return "bad.fits"

    return spoil


def content(data):
    def spoil(folder):
        (folder / "bad.fits").write_bytes(data(folder) if callable(data) else data)
        return "bad.fits"

    return spoil


def toml(old, new):
    def spoil(folder):
        x, y = np.meshgrid(np.linspace(-1e-3, 1e-3, 5), np.linspace(-1e-3, 1e-3, 5))
        np.savetxt(folder / "a.txt", np.stack([x, y, np.exp(-1e6 * (x**2 + y**2))]).reshape(3, -1).T)
        assert old in GOOD_TOML
        (folder / "bad.toml").write_text(GOOD_TOML.replace(old, new))
        return "bad.toml"

    return spoil


def without(hdus, name):
    """The file with one column less in its second map."""
    columns = [c for c in hdus[2].columns if c.name != name]
    spoiled = fits.BinTableHDU.from_columns(columns)
    spoiled.header["DZ"] = hdus[2].header["DZ"]
    return [hdus[0], hdus[1], spoiled, hdus[3]]


def same_dz(hdus):
    for hdu in hdus[1:]:
        hdu.header["DZ"] = 0.005


def no_dz(hdus):
    del hdus[3].header["DZ"]


def nine_samples(hdus):
    hdus[3].data["FNU"][9:] = np.nan


OBSERVATIONS = {
    "a missing file": (lambda folder: "nothing.fits", "nothing.fits: no such file"),
    "a name too long": (lambda folder: 300 * "a", "a: (File name too long; give another|cannot be read)"),
    "a directory": (lambda folder: ".", "is a directory; name a file"),
    "an empty file": (content(b""), r"bad.fits: .*expected \[observation\]"),
    "not FITS: text": (content(b"1 2 three\n"), "bad.fits: a text file.*write an observation .toml"),
    "not FITS: binary": (
        content(bytes(range(256)) * 20),
        "bad.fits: neither a FITS file .* nor text; give one",
    ),
    "truncated FITS: data": (
        content(lambda folder: (folder / "obs.fits").read_bytes()[:-5000]),
        "bad.fits: truncated or damaged FITS.*copy it again",
    ),
    "truncated FITS: header": (
        content(lambda folder: (folder / "obs.fits").read_bytes()[:1000]),
        "bad.fits: truncated or damaged FITS.*copy it again",
    ),
    "FITS without maps": (changed(lambda hdus: hdus[:1]), "bad.fits: no beam maps .*expected tables with DX"),
    "no DZ": (changed(no_dz), "HDU 3 has no DZ; add"),
    "no DZ: images": (
        as_images(lambda hdus: [hdu.header.remove("DZ") for hdu in hdus[1:]]),
        "no DZ in any of its 3 images; add",
    ),
    "one map only": (changed(lambda hdus: hdus[:2]), "number of maps is 1; at least two"),
    "one map only: image": (
        as_images(lambda hdus: [hdus.pop(), hdus.pop()]),
        "number of maps is 1; at least",
    ),
    "all maps at one dz": (changed(same_dz), r"all 3 maps are at dz \+5 mm; at least two different"),
    "frequency zero": (header(FREQ=0.0), "FREQ is 0; it must be positive"),
    "frequency negative": (header(FREQ=-1e9), r"FREQ is -1e\+09; it must be positive"),
    "frequency not a number": (header(FREQ="high"), "FREQ is 'high'; expected a number"),
    "wavelength zero": (as_images(lambda hdus: hdus[0].header.update(WAVEL=0.0)), "WAVEL is 0; it must be"),
    "wavelength negative": (
        as_images(lambda hdus: hdus[0].header.update(WAVEL=-1e-3)),
        "WAVEL is -0.001; it must be positive",
    ),
    "frequency zero: toml": (toml("272e9", "0"), "frequency_hz is 0; it must be positive"),
    "frequency negative: toml": (toml("272e9", "-1"), "frequency_hz is -1; it must be positive"),
    "all samples NaN": (column("FNU", slice(None)), r"map 2 of 3 \(dz \+0 mm\): all 121 samples are missing"),
    "errors of zero": (column("UFNU", slice(None)), "map 2 of 3 .*121 of 121 errors .*are zero"),
    "one error of zero": (column("UFNU", slice(7, 8)), "map 2 of 3 .*1 of 121 errors .*; mark those samples"),
    "a column missing: DX": (changed(lambda h: without(h, "DX")), "HDU 2 has columns DY, FNU.*DX missing"),
    "a column missing: FNU": (changed(lambda h: without(h, "FNU")), "HDU 2 .*FNU missing: every map needs"),
    "fewer than ten samples": (
        changed(nine_samples),
        "map 3 of 3 .*: 9 valid samples; at least 10 are needed",
    ),
    "misspelt key: observation": (toml("frequency_hz", "freqency_hz"), "key freqency_hz; did you mean freq"),
    "misspelt key: map": (
        toml("dz_m = 0.01", "dz = 0.01"),
        r"\[\[map\]\] 2: unknown key dz; did you mean dz_m",
    ),
    "misspelt table": (toml("[observation]", "[observatoin]"), r"expected \[observation\]"),
    "not TOML": (toml("= 272e9", "= 272 GHz"), "bad.toml: not valid TOML"),
    "map's file missing": (toml('"a.txt"', '"b.txt"'), "b.txt: no such file"),
}


@pytest.mark.parametrize("command", ["fit", "info"])
@pytest.mark.parametrize("case", OBSERVATIONS)
def test_an_observation_that_cannot_be_used(folder, case, command):
    spoil, message = OBSERVATIONS[case]
    name = spoil(folder)
    before = tree(folder)
    assert_refused(run(folder, command, name), message)
    assert tree(folder) == before


def telescope_toml(old, new):
    def make(folder):
        assert old in GOOD_TELESCOPE
        (folder / "my.toml").write_text(GOOD_TELESCOPE.replace(old, new))
        return "my.toml"

    return make


def nothing(folder):
    """No file beside obs.fits."""


def full_directory(folder):
    (folder / "out").mkdir()
    (folder / "out" / "notes.txt").write_text("mine")


def a_file(folder):
    (folder / "out").write_text("mine")


# What is made beside obs.fits; arguments of `fit` after it, or all where they begin with a command; the line.
USES = {
    "unknown telescope": (nothing, "obs.fits --telescope efelsberg", "'efelsberg'; nearest: effelsberg"),
    "unknown telescope in the file": (
        header(TELESC="srt-shapd"),
        "bad.fits",
        "'srt-shapd'; nearest: srt-shaped",
    ),
    "a telescope like no other": (
        nothing,
        "obs.fits --telescope xyzzy",
        "'xyzzy'; known: aca7m, alma,.* vlba",
    ),
    "telescope not named": (
        changed(lambda hdus: hdus[0].header.remove("TELESC")),
        "bad.fits",
        "bad.fits does not name its telescope; give one of aca7m, .* or a TOML file",
    ),
    "telescope not named: toml": (
        toml('telescope = "paper"\n', ""),
        "bad.toml",
        "does not name its telescope",
    ),
    "telescope's file missing": (
        nothing,
        "obs.fits --telescope my.toml",
        "cannot read my.toml: No such file",
    ),
    "telescope's file not TOML": (
        telescope_toml("= 2.8", "= 2.8 m"),
        "obs.fits --telescope my.toml",
        "my.toml is not TOML",
    ),
    "telescope's misspelt key": (
        telescope_toml("radius_m", "raduis_m"),
        "obs.fits --telescope my.toml",
        "my.toml has no key 'raduis_m'; did you mean 'radius_m'",
    ),
    "telescope's misspelt key in a table": (
        telescope_toml("focal_length_m", "focal_lenght_m"),
        "obs.fits --telescope my.toml",
        r"my.toml: \[optics\] has no key 'focal_lenght_m'; did you mean 'focal_length_m'",
    ),
    "telescope's radius negative": (
        telescope_toml("2.8", "-2.8"),
        "obs.fits --telescope my.toml",
        "radius_m = -2.8; expected a positive number",
    ),
    "a frequency far too high": (
        header(FREQ=272e14),
        "bad.fits",
        "beams of paper; check the map's units, the frequency and the telescope",
    ),
    # Order 25 has 351 terms and there are 363 samples; order 26 has 378.
    "order too high": (
        nothing,
        "obs.fits --order 26",
        "order 26 has 377 coeff.* 363 valid samples; choose a lower",
    ),
    "order too high, with the rest": (
        column("FNU", slice(110, 121)),
        "bad.fits --order 25",
        "order 25, but only 352 valid samples; choose a lower",
    ),
    "order zero": (nothing, "obs.fits --order 0", "order 0; the lowest .* is 1"),
    "order negative": (nothing, "obs.fits --order -2", "order -2; the lowest .* is 1"),
    "order not a number": (nothing, "obs.fits --order five", "'five' is not a valid integer"),
    "order not whole": (nothing, "obs.fits --order 2.5", "'2.5' is not a valid integer"),
    "unknown likelihood": (nothing, "obs.fits --likelihood cauhcy", "'cauhcy'; known are cauchy, gaussian"),
    "unknown illumination": (nothing, "obs.fits --illumination flat", "'flat'; known are gaussian, pedestal"),
    "unknown device": (
        nothing,
        "obs.fits --device toaster",
        "unknown device 'toaster'; use auto, cpu or cuda",
    ),
    "unknown --free": (nothing, "obs.fits --free gian", "no parameter 'gian'; did you mean gain"),
    "unknown --fix": (nothing, "obs.fits --fix sigam=0.5", "no parameter 'sigam'; did you mean sigma"),
    "--fix of a coefficient beyond the order": (
        nothing,
        "obs.fits --order 1 --fix z3=1",
        "no parameter 'z3'",
    ),
    "--fix without a value": (nothing, "obs.fits --fix sigma", "--fix 'sigma'; expected NAME=VALUE"),
    "--fix without a name": (nothing, "obs.fits --fix =0.5", "--fix '=0.5'; expected NAME=VALUE"),
    "--fix of a word": (nothing, "obs.fits --fix sigma=wide", "--fix 'sigma=wide'; expected NAME=VALUE"),
    "--fix at infinity": (nothing, "obs.fits --fix z1=inf", "--fix 'z1=inf'; expected NAME=VALUE"),
    "--fix at no number": (nothing, "obs.fits --fix z1=nan", "--fix 'z1=nan'; expected NAME=VALUE"),
    "--fix of a positive parameter": (
        nothing,
        "obs.fits --fix sigma=-0.5",
        "sigma is positive by nature, not -0.5",
    ),
    "--out not empty": (full_directory, "obs.fits --out out", "out exists and is not empty; .*--overwrite"),
    "--out a file": (a_file, "obs.fits --out out --overwrite", "out is a file; give a directory"),
    "--out in no directory": (nothing, "obs.fits --out no/out", "no: no such directory; make it first"),
    "--out in a file": (nothing, "obs.fits --out obs.fits/out", "obs.fits: no such directory"),
    "unknown option": (nothing, "obs.fits --ordr 3", "--ordr.*ooftorch fit --help"),
    "no observation": (nothing, "fit", "Missing argument 'OBS'.*ooftorch fit --help"),
    "two observations": (nothing, "obs.fits obs.fits", r"unexpected extra argument \(obs.fits\)"),
    "unknown command": (nothing, "fti obs.fits", "No such command 'fti'.*ooftorch --help"),
    "telescopes: unknown": (nothing, "telescopes gtb", "'gtb'; nearest: gbt"),
    "telescopes: no file": (nothing, "telescopes my.toml", "cannot read my.toml"),
    "plot: missing file": (nothing, "plot nothing.fits", "nothing.fits: no such file"),
    "plot: directory without a fit": (full_directory, "plot out", "out/fit.fits: no such file"),
    "plot: not FITS": (a_file, "plot out", "out: not a FITS file; expected the fit.fits"),
    "plot: not a fit": (nothing, "plot obs.fits", "obs.fits: not the result of a fit"),
    "plot: of what": (nothing, "plot obs.fits --what phase", "'phase' is not one of .*aperture.*beams"),
}


@pytest.mark.parametrize("case", USES)
def test_a_use_that_is_refused(folder, case):
    make, arguments, message = USES[case]
    make(folder)
    arguments = arguments.split()
    if arguments[0].endswith((".fits", ".toml")):
        arguments.insert(0, "fit")
    before = tree(folder)
    assert_refused(run(folder, *arguments), message)
    assert tree(folder) == before


def test_cuda_where_there_is_none(folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    before = tree(folder)
    assert_refused(
        run(folder, "fit", "obs.fits", "--device", "cuda"), "torch sees no CUDA device here; use cpu"
    )
    assert tree(folder) == before


def test_a_misspelt_key_in_the_telescope_that_a_toml_names(folder):
    telescope_toml("radius_m", "raduis_m")(folder)
    toml('"paper"', '"my.toml"')(folder)
    before = tree(folder)
    assert_refused(run(folder, "fit", "bad.toml"), "my.toml has no key 'raduis_m'; did you mean 'radius_m'")
    assert tree(folder) == before


def test_the_files_that_are_spoiled_are_good_before(folder):
    """Otherwise the refusals above might be of something else."""
    assert run(folder, "info", toml("paper", "paper")(folder)).status == 0
    assert run(folder, "info", as_images(lambda hdus: None)(folder)).status == 0
    (folder / "bad.fits").unlink()
    assert run(folder, "info", changed(lambda hdus: None)(folder)).status == 0
    assert run(folder, "telescopes", telescope_toml("2.8", "2.8")(folder)).status == 0


@pytest.mark.slow
def test_a_bad_input_as_the_user_meets_it(folder):
    """In a process of its own, where warnings would be seen and no test catches a traceback."""
    name = OBSERVATIONS["truncated FITS: data"][0](folder)
    before = tree(folder)
    assert_refused(
        python(folder, "-m", "ooftorch", "fit", name), "truncated or damaged FITS file.*copy it again"
    )
    assert tree(folder) == before


# --------------------------------------------------------------------------------- the other commands


def test_info(folder, observation):
    before = tree(folder)
    ran = run(folder, "info", "obs.fits")
    assert (ran.status, ran.err) == (0, "")
    words = ran.out.split()
    for word in ("paper", "3C", "2020-02-03,", "45.0"):
        assert word in words
    assert f"{SPEED_OF_LIGHT / 1.1e-3 / 1e9:.6g} GHz (wavelength 1.1 mm)" in ran.out
    rows = [row.split() for row in ran.out.splitlines() if row.split()[0].isdigit()]
    assert [(row[1], row[2], row[3], " ".join(row[4:7])) for row in rows] == [
        (dz, "121", "0", "11 x 11") for dz in ("-50.00", "+0.00", "+50.00")
    ]
    assert f"{1.1e-3 / 5.6 * 180 / math.pi * 3600:.2f} arcsec" in ran.out
    assert tree(folder) == before


def test_info_on_an_unknown_telescope_still_says_what_the_file_holds(folder):
    ran = run(folder, "info", header(TELESC="srt-shapd")(folder))
    assert ran.status == 0
    assert "nearest: srt-shaped" in ran.out
    assert ran.out.count(" 121 ") == 3


def test_telescopes(folder):
    ran = run(folder, "telescopes")
    names = [row.split()[0] for row in ran.out.splitlines()]
    assert names == telescopes.names()
    assert {"gbt", "gbt90", "effelsberg", "srt", "alma", "aca7m", "apex", "jcmt", "vla", "vlba"} <= set(names)
    one = run(folder, "telescopes", "SRT")
    assert (one.status, one.err) == (0, "")
    assert one.out.startswith("srt: Sardinia")
    assert "radius         32.004 m" in one.out


@pytest.mark.parametrize("what", ["aperture", "beams"])
def test_plot_draws_the_result_again(written, tmp_path, what):
    """From the directory or from its file, the same picture as the fit made, and not over another."""
    fitted = written[0] / "obs-oof-001"
    source = fitted if what == "aperture" else fitted / "fit.fits"
    ran = run(tmp_path, "plot", source, "--what", what)
    assert (ran.status, ran.err) == (0, "")
    picture = tmp_path / f"{what}.png"
    assert [path.name for path in tmp_path.iterdir()] == [picture.name]
    assert picture.read_bytes() == (fitted / picture.name).read_bytes()

    picture.write_text("old")
    assert_refused(run(tmp_path, "plot", source, "--what", what), f"{what}.png exists; .*--overwrite")
    assert picture.read_text() == "old"


def test_plot_where_it_is_told(written, tmp_path):
    fitted = written[0] / "obs-oof-001"
    (tmp_path / "p.svg").write_text("old")
    assert run(tmp_path, "plot", fitted, "--out", "p.svg", "--overwrite").status == 0
    assert "<svg" in (tmp_path / "p.svg").read_text()
    before = tree(tmp_path)
    assert_refused(run(tmp_path, "plot", fitted, "--out", "p.docx"), "no picture format 'docx'")
    assert_refused(run(tmp_path, "plot", fitted, "--out", "no/p.png"), "no: no such directory")
    assert tree(tmp_path) == before


# ------------------------------------------------------------------------------------------- help, bar


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], ["-h"], ["fit", "--help"], ["plot", "-h"], ["--version"]]
)
def test_help(tmp_path, arguments):
    ran = run(tmp_path, *arguments)
    assert (ran.status, ran.err) == (0, "")
    assert ("ooftorch" if "--version" in arguments else "Usage: ooftorch") in ran.out


def test_help_needs_nothing_heavy(tmp_path):
    code = (
        "import sys; from ooftorch.cli.command import main\n"
        "sys.argv = ['ooftorch', *sys.argv[1:]]\n"
        "try: main()\n"
        "finally:\n"
        "    heavy = {'torch', 'matplotlib', 'scipy', 'astropy', 'numpy'} & set(sys.modules)\n"
        "    print(sorted(heavy), sorted(name for name in sys.modules if name.endswith('_command')))\n"
    )
    # Of the modules of the commands only that of the one that is called.
    for arguments, loaded in (
        (["--help"], []),
        (["--version"], []),
        *(([name, "--help"], [f"ooftorch.cli.{name}_command"]) for name in COMMANDS),
    ):
        ran = python(tmp_path, "-c", code, *arguments)
        assert ran.status == 0, ran
        assert ran.out.splitlines()[-1] == f"[] {loaded}"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_lists_every_command_with_what_it_says_itself(tmp_path, name):
    [row] = [row for row in run(tmp_path, "--help").out.splitlines() if row.split()[:1] == [name]]
    assert " ".join(row.split()[1:]) == COMMANDS[name]
    first = run(tmp_path, name, "--help").out.splitlines()[2].strip()
    assert first.startswith(COMMANDS[name].removesuffix("."))


def test_every_command_has_its_module():
    modules = {path.stem for path in (ROOT / "ooftorch" / "cli").glob("*_command.py")}
    assert modules == {f"{name}_command" for name in COMMANDS}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_while_a_person_is_watching(folder, quick, written, monkeypatch):
    result = written[2]
    seconds = itertools.count()
    monkeypatch.setattr("tqdm.std.time", lambda: next(seconds))

    def fit(*_, progress, **__):
        for order in result.orders:
            for n_eval in (1, 2, 3):
                progress(Progress(order.order, n_eval, 100.0 * order.order + n_eval, None))
            progress(Progress(order.order, 3, order.objective, order))
        return result

    monkeypatch.setattr(fitter, "fit", fit)
    drawn = run(folder, "fit", "obs.fits", "--order", 2, stderr=Terminal()).err.split("\r")
    # Within the second order too: the bar is drawn again though no order has ended.
    for text in ("order 0/2", "2 evaluations, objective 102", "order 1/2", "2 evaluations, objective 202"):
        assert any(text in line for line in drawn), text
    assert run(folder, "fit", "obs.fits", stderr=io.StringIO()).err == ""
    assert run(folder, "fit", "obs.fits", "--json", stderr=Terminal()).err == ""


@pytest.mark.slow
def test_a_reader_that_leaves_does_not_stop_the_fit(tmp_path):
    """`ooftorch fit ... | head -1`: the results are written all the same."""
    command = f"{sys.executable} -m ooftorch fit {EXAMPLE} --order 1 --out out | true"
    subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], cwd=tmp_path, check=True)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(PRODUCTS)


@pytest.mark.slow
def test_the_command_works_beside_a_folder_of_its_own_name(tmp_path):
    """As from the folder that holds a clone, where `ooftorch` is the clone and not the package."""
    scripts = tmp_path / "ooftorch" / "scripts"
    scripts.mkdir(parents=True)
    for name in ("ooftorch", "environment.sh"):
        shutil.copy(ROOT / "scripts" / name, scripts)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / "ooftorch" / name).touch()
    # An environment that is ready, and is the one of this test run.
    python = tmp_path / "ooftorch" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (tmp_path / "ooftorch" / ".venv" / ".ready").touch()
    ran = subprocess.run(
        ["ooftorch/scripts/ooftorch", "telescopes"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "gbt" in ran.stdout
