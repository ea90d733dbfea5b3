"""`ooftorch fit`: what it writes, prints and returns, and what it leaves when something fails."""

import io
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from command import PRODUCTS, TRUTH, assert_refused, python, run, tree
from places import EXAMPLE

import ooftorch
from ooftorch.fitting import fitter
from ooftorch.fitting.fitter import Progress
from ooftorch.reporting import drawing, plot


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
    ] == [*("obs.fits", "paper", "student", "gaussian", 2, True)]
    assert summary["wavelength_m"] == pytest.approx(1.1e-3, rel=1e-12)
    assert summary["n_data"] == 3 * 11 * 11
    # z1..z5, width and centre of the illumination, the focus scale, scale and degrees of freedom of the
    # noise; gain, offset and pointing of each map.
    assert summary["n_free"] == sum(p["free"] for p in summary["parameters"].values()) == 5 + 3 + 1 + 2 + 12
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
    options += " --free y0 --amplitude-order 4 --nuisance level,gain --fix taper_db=-11.5 --fix z3=0.25"
    assert run(folder, "fit", "obs.fits", *options.split()).status == 0
    [((observation, name), given)] = quick
    given.pop("progress")
    assert [m.n_valid for m in observation.maps] == [121] * 3
    assert name == "alma"
    assert given == {
        "order": 3,
        "likelihood": "cauchy",
        "illumination": "pedestal",
        "amplitude_order": 4,
        "nuisance": "level,gain",
        "device": "cpu",
        "free": ("x0", "y0"),
        "fixed": {"taper_db": -11.5, "z3": 0.25},
    }
    run(folder, "fit", "obs.fits")
    _, given = quick[1]
    defaults = {
        "order": 5,
        "likelihood": "auto",
        "illumination": "auto",
        "amplitude_order": None,
        "nuisance": "auto",
        "device": "auto",
    }
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


REAL_FIT = fitter.fit
SIGNALS = {"SIGINT": 130, "SIGTERM": 143}


def interrupt_at(monkeypatch, name, *moments):
    """Fit for real, and send this process a signal at evaluations: (order, number of it at that order)."""
    left = list(moments)

    def fit(*arguments, progress, **options):
        def watched(step):
            if left and step.finished is None and (step.order, step.n_eval) >= left[0]:
                left.pop(0)
                os.kill(os.getpid(), getattr(signal, name))
            progress(step)

        return REAL_FIT(*arguments, progress=watched, **options)

    monkeypatch.setattr(fitter, "fit", fit)


@pytest.mark.parametrize("name", SIGNALS)
def test_an_interrupt_ends_the_fit_with_the_best_result_so_far(folder, quick, monkeypatch, name):
    interrupt_at(monkeypatch, name, (2, 1))
    ran = run(folder, "fit", "obs.fits", "--order", 2, "--out", "out")
    assert ran.status == SIGNALS[name]
    assert ran.err.splitlines() == [
        "ooftorch: interrupted; ending with the best result so far (a second interrupt ends at once)"
    ]
    assert {path.name for path in (folder / "out").iterdir()} == PRODUCTS
    numbers = json.loads((folder / "out" / "summary.json").read_text())
    assert (numbers["interrupted"], numbers["converged"]) == (True, False)
    assert numbers["message"] == "interrupted; this is order 1 of 2, as far as it had come"
    assert [o["order"] for o in numbers["orders"]] == [1]
    assert numbers["verdict"] == "do not apply"
    assert "interrupted" in numbers["reasons"][0]
    assert sum("did not converge" in reason for reason in numbers["reasons"]) == 0
    assert numbers["reasons"][0].split()[:4] == ["The", "fit", "was", "interrupted;"]
    assert " ".join(numbers["reasons"][0].split()) in " ".join(ran.out.split())
    stored = ooftorch.read_fit(folder / "out" / "fit.fits")
    assert stored.interrupted
    assert stored.focus.shape == stored.coefficients.shape


@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("moments", [[(1, 1)], [(2, 1), (2, 2)]], ids=["at once", "twice"])
def test_an_interrupt_before_there_is_a_result_or_a_second_one_writes_nothing(
    folder, quick, monkeypatch, name, moments
):
    interrupt_at(monkeypatch, name, *moments)
    if len(moments) > 1:  # the second comes while the results are written

        def save(figure, path):
            path.write_text(figure)
            os.kill(os.getpid(), getattr(signal, name))

        monkeypatch.setattr(plot, "save", save)
    before = tree(folder)
    ran = run(folder, "fit", "obs.fits", "--order", 2, "--out", "out")
    assert ran.status == SIGNALS[name]
    assert ran.err.splitlines()[-1] == "ooftorch: interrupted; nothing was written"
    assert tree(folder) == before


@pytest.mark.parametrize("name", SIGNALS)
def test_writing_is_finished_after_an_interrupt(folder, quick, monkeypatch, name):
    def save(figure, path):
        if figure == "aperture":
            os.kill(os.getpid(), getattr(signal, name))
        path.write_text(figure)

    monkeypatch.setattr(plot, "save", save)
    ran = run(folder, "fit", "obs.fits", "--out", "out")
    assert (ran.status, ran.err) == (SIGNALS[name], "")
    assert {path.name for path in (folder / "out").iterdir()} == PRODUCTS
    assert json.loads((folder / "out" / "summary.json").read_text())["interrupted"] is False


@pytest.mark.parametrize("name", SIGNALS)
def test_an_interrupt_while_reading_ends_with_one_line(folder, quick, monkeypatch, name):
    monkeypatch.setattr("ooftorch.io.read", lambda path: os.kill(os.getpid(), getattr(signal, name)))
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    ran = run(folder, "fit", "obs.fits")
    assert ran.status == SIGNALS[name]
    assert ran.err.split("\n")[-2:] == ["ooftorch: interrupted; nothing was written", ""]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


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


@pytest.mark.slow
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
    assert process.returncode == 130
    assert len(err.splitlines()) == 1, err
    assert err.startswith("ooftorch: interrupted; ending with the best result so far")
    assert {path.name for path in (folder / "out").iterdir()} == PRODUCTS
    assert json.loads((folder / "out" / "summary.json").read_text())["interrupted"] is True
    deadline = time.monotonic() + 20
    while alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(process.pid)


# ------------------------------------------------------------------------------------- bar and pipe


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
@pytest.mark.parametrize(
    ("redirection", "status", "said"),
    [
        (
            "> /dev/full",
            2,
            "ooftorch: standard output cannot be written (No space left on device); the results",
        ),
        (">&-", 0, ""),
        ("2>&-", 0, ""),
    ],
)
def test_output_that_cannot_be_printed_does_not_cost_the_results(folder, redirection, status, said):
    command = f"{sys.executable} -m ooftorch fit obs.fits --order 1 --out out {redirection}"
    ran = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode == status
    assert ran.stderr.startswith(said)
    assert len(ran.stderr.splitlines()) == bool(said)
    assert {path.name for path in (folder / "out").iterdir()} == PRODUCTS


def test_output_that_cannot_be_printed_is_told_in_one_line(folder):
    command = f"{sys.executable} -m ooftorch info obs.fits > /dev/full"
    ran = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert ran.stderr == "ooftorch: standard output cannot be written (No space left on device)\n"
