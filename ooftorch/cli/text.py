"""What the commands share: reading values from options, and printing."""

import math
import os
import sys

import click

from ooftorch.errors import InputError

__all__ = ["Output", "parse_assignment", "parse_numbers", "print_text"]


def parse_assignment(text: str, option: str, example: str) -> tuple[str, float]:
    """Read NAME=VALUE.

    Parameters
    ----------
    text : str
        What the user gave.
    option, example : str
        The option and a value it takes, for the message.

    Returns
    -------
    name : str
    value : float
        Finite.

    Raises
    ------
    InputError
        If a part is missing, or the value is not a finite number.
    """
    name, equals, value = text.partition("=")
    numbers = _finite(value)
    if not (name and equals and numbers):
        raise InputError(f"{option} {text!r}; expected NAME=VALUE, such as {option} {example}")
    return name, numbers[0]


def parse_numbers(text: str, option: str, example: str, n: int | None = None) -> list[float]:
    """Read numbers separated by commas.

    Parameters
    ----------
    text, option, example : str
        As for `parse_assignment`.
    n : int, optional
        How many there must be; any number of them by default.

    Returns
    -------
    list of float
        Finite.

    Raises
    ------
    InputError
        If one is not a finite number, or there are not `n`.
    """
    numbers = _finite(*text.split(","))
    if not numbers or len(numbers) != (n or len(numbers)):
        raise InputError(f"{option} {text!r}; expected numbers, such as {option} {example}")
    return numbers


def _finite(*words: str) -> list[float]:
    """The numbers that the words are; none if one of them is not a finite number."""
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        return []
    return numbers if all(map(math.isfinite, numbers)) else []


def print_text(text: str) -> None:
    """Print and flush; if the reader of standard output has gone (`| head`), print nothing from then on.

    Raises
    ------
    InputError
        If standard output cannot be written for another reason, such as a full disk.
    """
    try:
        click.echo(text)
    except OSError as error:
        # What is left in its buffer must not fail again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise InputError(f"standard output cannot be written ({error.strerror})") from None


class Output:
    """Prints as long as that is possible: a fit goes on without, and its results are written.

    Attributes
    ----------
    error : InputError or None
        Why it could not print.
    """

    def __init__(self) -> None:
        self.error: InputError | None = None

    def print(self, text: str) -> None:
        """Print and flush, as `print_text`."""
        try:
            print_text(text)
        except InputError as error:
            self.error = error
