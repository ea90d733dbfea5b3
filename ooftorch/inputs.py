"""Where files and numbers of others come in: what is read, what a library makes of it, and in which range.

Every reader takes the bytes of a file from `read_bytes`, has a library parse them inside `parsing`, and
checks numbers with a `Range`. So a damaged file is one line, and a number that nobody can mean is refused
where it enters and not where it overflows.
"""

import stat
import tomllib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ooftorch.errors import InputError, shorten

__all__ = [
    "ANGLE",
    "ELEVATION",
    "FREQUENCY",
    "LENGTH",
    "PHASE",
    "POWER",
    "RADIUS",
    "SEED",
    "TIME",
    "WAVELENGTH",
    "Range",
    "check_regular",
    "parse_toml",
    "parsing",
    "read_bytes",
]


class Range(NamedTuple):
    """Numbers that a quantity can have: wide, for a telescope of any kind, and free of overflow.

    Attributes
    ----------
    least, largest : float
    unit : str
    """

    least: float
    largest: float
    unit: str = ""

    def holds(self, value: Any) -> bool:
        """Whether `value` is a number within the range; booleans are none."""
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and bool(self.least <= value <= self.largest)

    def check(self, value: Any, what: str) -> float:
        """Return `value` as float; InputError that begins with `what` if it is not within the range."""
        if not self.holds(value):
            raise InputError(f"{what} is {shorten(repr(value), 40)}; expected {self}")
        return float(value)

    def __str__(self) -> str:
        return f"a number from {self.least:g} to {self.largest:g} {self.unit}".rstrip()


RADIUS = Range(0.05, 500.0, "m")
"""Of a dish."""
LENGTH = Range(1e-6, 1e5, "m")
"""Of a part of a telescope, its focal lengths included."""
WAVELENGTH = Range(1e-5, 100.0, "m")
FREQUENCY = Range(2.9e6, 3e13, "Hz")
ANGLE = Range(-360.0, 360.0, "degrees")
ELEVATION = Range(-90.0, 180.0, "degrees")
POWER = Range(1e-60, 1e60)
"""Absolute value of a power or its error, in any unit: squares of ratios of two of them are numbers, too."""
TIME = Range(-1e15, 1e15)
"""In any unit."""
PHASE = Range(-1e6, 1e6, "rad")
"""Across a dish."""
SEED = Range(0, 2**63)
"""Of random numbers."""


def check_regular(path: Path) -> None:
    """Refuse what is no regular file: a pipe would be waited for, and a device has no end.

    Raises
    ------
    InputError
        If there is no file of that name, or it is a directory, pipe, device or socket.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise InputError(f"{path}: cannot be read ({_reason(error)})") from None
    if stat.S_ISDIR(mode):
        raise InputError(f"{path} is a directory; name a file")
    if not stat.S_ISREG(mode):
        raise InputError(f"{path} is no regular file but a pipe or device; write it to a file and name that")


def read_bytes(path: Path, n: int = -1) -> bytes:
    """Read a regular file, or its first `n` bytes; InputError if it is none or cannot be read."""
    check_regular(path)
    try:
        with path.open("rb") as stream:
            return stream.read(n)
    except (OSError, MemoryError) as error:
        raise InputError(f"{path}: cannot be read ({_reason(error)})") from None


@contextmanager
def parsing(problem: str, advice: str) -> Iterator[list[warnings.WarningMessage]]:
    """Turn whatever a library raises on damaged content into one InputError, and keep its warnings quiet.

    Only what parses belongs into the block: errors of our own would be taken for damage.

    Parameters
    ----------
    problem, advice : str
        What is wrong with which file, and what to do: begin and end of the message.

    Yields
    ------
    list of warnings
        Those of the block, as they come.

    Raises
    ------
    InputError
        For any exception in the block; an InputError is left as it is.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield caught
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"{problem} ({_reason(error)}); {advice}") from error


def parse_toml(text: str | bytes, problem: str) -> dict[str, Any]:
    """Parse TOML; InputError that begins with `problem` if it is none."""
    with parsing(problem, "correct it"):
        return tomllib.loads(text if isinstance(text, str) else text.decode())


def _reason(error: Exception) -> str:
    """The first words of an exception."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    name = type(error).__name__
    words = str(error).strip()
    return (
        shorten(words, 100) if isinstance(error, ValueError) and words else shorten(f"{name}: {words}", 100)
    )
