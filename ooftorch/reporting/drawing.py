"""The pictures of a fit, drawn by a second process that loads matplotlib while this one still fits."""

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

from ooftorch.errors import InputError

if TYPE_CHECKING:
    from ooftorch.result import FitResult

__all__ = ["PICTURES", "count_cores", "prepare_drawing"]

PICTURES = ("aperture.png", "beams.png")


@contextmanager
def prepare_drawing() -> "Iterator[Callable[[FitResult, Path], AbstractContextManager[None]]]":
    """Start a process that will draw the pictures of one fit; on a single core this process will draw.

    Yields
    ------
    callable
        ``with draw(result, directory):`` begins to write `PICTURES` to a directory. When the block has ended
        they are written, or the error is raised for which one could not be; if the block raises, nothing is
        written to the directory after it.
    """
    if count_cores() < 2:
        yield _draw_here
        return
    ours, theirs = multiprocessing.Pipe()
    # "spawn" and not "fork": a new interpreter, on every system, whatever threads run in this one.
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs,), daemon=True)
    # Ctrl-C and SIGTERM may go to both processes. The new one inherits that they are blocked, and this one,
    # for which they wait meanwhile, ends it. (Python's tracker of resources would unblock them as it starts.)
    resource_tracker.ensure_running()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    theirs.close()
    try:
        yield partial(_draw_there, process, ours)
    finally:
        _end(process)
        ours.close()


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _write_pictures(result: "FitResult", directory: Path) -> None:
    from ooftorch.reporting import plot

    plot.save(plot.plot_aperture(result), directory / PICTURES[0])
    plot.save(plot.plot_beams(result), directory / PICTURES[1])


@contextmanager
def _draw_here(result: "FitResult", directory: Path) -> Iterator[None]:
    yield
    _write_pictures(result, directory)


@contextmanager
def _draw_there(
    process: BaseProcess, pipe: Connection, result: "FitResult", directory: Path
) -> Iterator[None]:
    try:
        with suppress(OSError):  # of a process that was killed: then there is no answer
            pipe.send((result, directory))
        yield
        error = _receive(pipe)
    except BaseException:
        _end(process)
        raise
    if error is not None:
        raise error


def _receive(pipe: Connection) -> Exception | None:
    try:
        return pipe.recv()
    except (EOFError, ConnectionResetError):
        return InputError("the process that draws the pictures was killed; free some memory, and fit again")


def _end(process: BaseProcess) -> None:
    process.kill()
    process.join()


def _serve(pipe: Connection) -> None:
    """Receive a result and a directory, write the pictures, and send None, or the error."""
    try:
        from ooftorch.reporting import plot  # noqa: F401  # now: there is nothing to draw yet

        result, directory = pipe.recv()
        _write_pictures(result, directory)
    except EOFError:  # the process at the other end was killed
        return
    except Exception as error:
        error.add_note(traceback.format_exc())
        pipe.send(error)
    else:
        pipe.send(None)
