"""Ctrl-C (SIGINT) and SIGTERM: a command stops at once, or where it can does so with what it has."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

from ooftorch.errors import StopFit

__all__ = ["Interrupted", "Interrupts", "hold_interrupts", "raise_interrupts"]


class Interrupted(KeyboardInterrupt):
    """A signal has come.

    Attributes
    ----------
    number : int
        Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Interrupts:
    """The first signal that comes is remembered, the second stops the command at once.

    Attributes
    ----------
    number : int or None
        Of the signal that has come.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._told = False

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if self.number is not None:
            raise Interrupted(number)
        self.number = number

    def check(self) -> None:
        """Raise StopFit if a signal has come."""
        if self.number is None:
            return
        if not self._told:
            self._told = True
            click.echo(
                "ooftorch: interrupted; ending with the best result so far (a second interrupt ends at once)",
                err=True,
            )
        raise StopFit


@contextmanager
def raise_interrupts() -> Iterator[None]:
    """Raise `Interrupted` at SIGINT and SIGTERM within the block."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    with _handle(stop):
        yield


@contextmanager
def hold_interrupts() -> Iterator[Interrupts]:
    """Remember the first SIGINT or SIGTERM within the block; raise `Interrupted` at the second."""
    interrupts = Interrupts()
    with _handle(interrupts.receive):
        yield interrupts


@contextmanager
def _handle(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    numbers = [signal.SIGINT, signal.SIGTERM]
    # Only the main thread can, and a signal that is ignored (nohup, a job in the background) stays so.
    mine = threading.current_thread() is threading.main_thread()
    before = {n: signal.getsignal(n) for n in numbers if mine and signal.getsignal(n) is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
