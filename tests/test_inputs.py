"""The one line of a refusal, the one place where files are read, and ranges of numbers."""

import os
import warnings

import numpy as np
import pytest

import ooftorch
from ooftorch.errors import InputError, shorten
from ooftorch.inputs import RADIUS, WAVELENGTH, Range, parsing, read_bytes
from ooftorch.io.surfaces import read_coefficients, read_phase_map
from ooftorch.optics import telescopes


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("as it is: 1 µm", "as it is: 1 µm"),
        ("two\nlines\r\n and\ttabs", "two lines and tabs"),
        ("\x1b[31mred\x07\x00", r"\x1b[31mred\x07\x00"),
        ("lone \udcff", r"lone \udcff"),
        (17, "17"),
    ],
)
def test_a_line_is_one_line_that_a_terminal_can_show(text, line):
    assert shorten(text) == line
    assert str(InputError(text)) == line


@pytest.mark.parametrize("length", [30, 60, 300])
@pytest.mark.parametrize("text", [1000 * "ab ", 10**6 * "x", 500 * "\x00", 299 * "\n" + 299 * "y"])
def test_a_long_text_keeps_its_begin_and_its_end(text, length):
    line = shorten(f"begin {text} end", length)
    assert len(line) <= length
    assert line.startswith("begin")
    assert line.endswith("end")
    assert line.isprintable()


def test_a_refusal_is_never_longer_than_300_characters():
    assert len(str(InputError("no telescope " + 5000 * "a" + "; give one"))) == 300
    assert str(InputError("no telescope " + 5000 * "a" + "; give one")).endswith("; give one")


@pytest.mark.parametrize(
    "error",
    [
        AttributeError("a"),
        KeyError("NAXIS1"),
        AssertionError(),
        MemoryError(),
        RecursionError("deep"),
        OverflowError("int too large"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        OSError(5, "I/O"),
    ],
)
def test_whatever_a_library_raises_is_one_refusal(error):
    refusal = pytest.raises(InputError, match=r"^a\.fits: damaged \(.+\); copy it again$")
    with refusal as caught, parsing("a.fits: damaged", "copy it again"):
        raise error
    assert caught.value.__cause__ is error  # for whoever looks for an error of our own


def test_a_refusal_while_parsing_stays_what_it_is_and_an_interrupt_too():
    for error in (InputError("no DZ"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, parsing("a", "b"):
            raise error
        assert caught.value is error


def test_warnings_while_parsing_are_kept_quiet():
    with parsing("a", "b") as caught:
        warnings.warn("truncated", stacklevel=1)
        np.float64(1e300) * np.float64(1e300)
    assert [str(w.message) for w in caught] == ["truncated", "overflow encountered in scalar multiply"]


@pytest.mark.parametrize("value", [0, -1.0, 1e300, 10**400, float("nan"), float("inf"), True, "1", None, [1]])
def test_what_is_out_of_range(value):
    assert not WAVELENGTH.holds(value)
    with pytest.raises(InputError, match=r"^FREQ is .*; expected a number from 1e-05 to 100 m$"):
        WAVELENGTH.check(value, "FREQ")


def test_what_is_in_range():
    assert Range(0, 2**63).holds(10**18)
    assert WAVELENGTH.check(1, "WAVEL") == 1.0
    # Antennas of an array of the 21 cm line, the dishes of Arecibo and FAST, and from 10 um to 100 m.
    assert all(map(RADIUS.holds, (0.1, 152.5, 250)))
    assert all(map(WAVELENGTH.holds, (1e-5, 0.21, 100)))


# ------------------------------------------------------------------------------- what is no regular file


def pipe(path):
    os.mkfifo(path)


def zero(path):
    path.symlink_to("/dev/zero")


def loop(path):
    path.symlink_to(path)


PLACES = {
    "a pipe": (pipe, "is no regular file but a pipe or device; write it to a file"),
    "a device": (zero, "is no regular file but a pipe or device"),
    "a directory": (lambda path: path.mkdir(), "is a directory; name a file"),
    "a loop of links": (loop, "cannot be read"),
    "nothing": (lambda path: None, "no such file"),
    "a link to nothing": (lambda path: path.symlink_to(path.parent / "nowhere"), "no such file"),
}
READERS = {
    "read": ooftorch.read,
    "read_fit": ooftorch.read_fit,
    "read_coefficients": read_coefficients,
    "read_phase_map": lambda path: read_phase_map(path, 1e-3),
    "load": telescopes.load,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("place", PLACES)
def test_every_reader_refuses_what_is_no_regular_file(tmp_path, reader, place):
    """A program that opens it first waits for the pipe, and reads the device until memory ends."""
    make, message = PLACES[place]
    path = tmp_path / "given.toml"
    make(path)
    with pytest.raises(InputError, match=message) as caught:
        READERS[reader](path)
    assert "given.toml" in str(caught.value)


def test_a_map_that_is_no_regular_file(tmp_path):
    pipe(tmp_path / "map.txt")
    path = tmp_path / "obs.toml"
    path.write_text('[observation]\ntelescope = "apex"\n[[map]]\nfile = "map.txt"\ndz_m = 0.0\n')
    with pytest.raises(InputError, match=r"map\.txt is no regular file"):
        ooftorch.read(path)


def test_names_that_no_file_can_have(tmp_path):
    for name in (300 * "a", "null\0character"):
        with pytest.raises(InputError, match="cannot be read"):
            read_bytes(tmp_path / name)
