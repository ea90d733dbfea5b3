"""Pictures drawn by a second process: the same ones, the same errors, and no process left behind."""

import multiprocessing
import os
import signal
import subprocess
import sys

import pytest
from simulated import observe

from ooftorch.errors import InputError
from ooftorch.fitting.fitter import fit
from ooftorch.reporting import drawing
from ooftorch.reporting.drawing import PICTURES, count_cores, prepare_drawing


@pytest.fixture(scope="module")
def result():
    return fit(observe([0.2, -0.1, 0.4], samples=11, reach=3.0), order=1, n=64, device="cpu")


@pytest.fixture
def cores(monkeypatch):
    return lambda n: monkeypatch.setattr(drawing, "count_cores", lambda: n)


@pytest.fixture(autouse=True)
def no_process_is_left():
    yield
    assert multiprocessing.active_children() == []


def draw(result, directory):
    with prepare_drawing() as drawer, drawer(result, directory):
        pass


def test_both_ways_draw_the_same_pictures(result, tmp_path, cores, monkeypatch):
    for n in (1, 2):
        (tmp_path / str(n)).mkdir()
        cores(n)
        draw(result, tmp_path / str(n))
        # From here on this process cannot draw any more, and a new one can.
        monkeypatch.setattr("ooftorch.reporting.plot.plot_aperture", None)
    for name in PICTURES:
        one, two = ((tmp_path / n / name).read_bytes() for n in "12")
        assert one.startswith(b"\x89PNG")
        assert one == two
    assert sorted(path.name for path in (tmp_path / "2").iterdir()) == sorted(PICTURES)


@pytest.mark.parametrize("n", [1, 2])
def test_an_error_is_passed_on(result, tmp_path, cores, n):
    cores(n)
    with pytest.raises(InputError) as caught:
        draw(result, tmp_path / "nowhere")
    assert str(caught.value) == f"{tmp_path / 'nowhere'}: no such directory; make it first"


def test_a_mistake_of_ours_comes_with_its_traceback(result, tmp_path, cores):
    cores(2)
    with pytest.raises(AttributeError) as caught:
        draw("no result", tmp_path)
    assert "plot.py" in caught.value.__notes__[0]


@pytest.mark.parametrize("n", [1, 2])
def test_after_an_interrupt_nothing_more_is_written(result, tmp_path, cores, n):
    cores(n)
    with prepare_drawing() as drawer:

        def interrupted():
            with drawer(result, tmp_path):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert multiprocessing.active_children() == []
    assert not any((tmp_path / name).exists() for name in PICTURES)


def test_a_process_that_was_killed_is_reported(result, tmp_path, cores):
    cores(2)
    with prepare_drawing() as drawer:
        (process,) = multiprocessing.active_children()
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        with pytest.raises(InputError, match="was killed; free some memory"), drawer(result, tmp_path):
            pass


def test_nothing_to_draw(cores):
    cores(2)
    with prepare_drawing():
        assert len(multiprocessing.active_children()) == 1


def test_the_process_ends_by_itself_if_this_one_is_killed(capfd):
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=drawing._serve, args=(theirs,))
    process.start()
    theirs.close()
    ours.close()  # as the system does
    process.join(60)
    assert process.exitcode == 0
    assert capfd.readouterr().err == ""


def test_ctrl_c_is_still_heard_here(cores):
    cores(2)
    before = signal.getsignal(signal.SIGINT)
    with prepare_drawing():
        assert signal.getsignal(signal.SIGINT) is before


def test_cores_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3}, raising=False)
    assert count_cores() == 1
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert count_cores() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert count_cores() == 1


def test_what_draws_loads_no_torch():
    """A result and its pictures, and so the second process."""
    code = (
        "import sys, ooftorch.result, ooftorch.truth, ooftorch.reporting.plot, ooftorch.reporting.drawing; "
    )
    code += "print(sorted({'torch', 'astropy'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
