"""Reader of beam maps in plain text: three columns, coordinates in radians and power."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ooftorch.errors import InputError
from ooftorch.inputs import read_bytes

__all__ = ["parse_text", "read_text"]


def read_text(path: Path) -> str:
    """Read a text file in UTF-8; raises `InputError` if it is not UTF-8 or cannot be read."""
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(
            f"{path}: neither a FITS file (it does not begin with SIMPLE) nor text; give one of these"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_text(text: str, path: Path) -> tuple[NDArray, NDArray, NDArray]:
    """Parse the columns of a text map.

    Rows are x, y (radians) and power, separated by blanks, tabs or commas; `#` starts a comment. A power of
    `nan` is a missing sample.

    Parameters
    ----------
    text : str
    path : Path
        For messages.

    Returns
    -------
    x, y, power : ndarray, (n,), in the order of the file

    Raises
    ------
    InputError
        If a row is not three numbers (the message has its line number), or there is no row.
    """
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        fields = content.split(",") if "," in content else content.split()
        try:
            row = [float(value) for value in fields]
        except ValueError:
            row = []
        if len(row) != 3:
            raise InputError(f"{path}:{number}: {content[:60]!r}; expected three numbers: x, y and power")
        rows.append(row)
    if not rows:
        raise InputError(f"{path}: no samples; expected rows of x, y and power")
    x, y, power = np.array(rows).T
    return x, y, power
