"""Running the command as tests do, and what a refusal has to look like."""

import hashlib
import io
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple

import pytest

from ooftorch.cli.command import main

PRODUCTS = {"summary.json", "fit.fits", "aperture.png", "beams.png"}
TRUTH = {"z1": 0.4, "z2": -0.3, "z3": 0.5, "z4": -0.2, "z5": 0.3}
"""The surface of the observation that the tests of the commands share."""


class Ran(NamedTuple):
    status: int
    out: str
    err: str


def run(folder, *arguments, stdout=None, stderr=None):
    """Run the command in a folder, within this process."""
    out, err = stdout or io.StringIO(), stderr or io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["ooftorch", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
    return Ran(end.value.code, out.getvalue(), err.getvalue())


def python(folder, *arguments):
    """Run Python as a user does, in a folder."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def tree(folder):
    """Every name under a folder, hidden ones too, with what the files hold."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else None
        for path in folder.rglob("*")
    }


def assert_refused(ran, message, out=""):
    """Status 2, one line that says it, and nothing on standard output but `out`."""
    assert ran.status == 2, ran
    assert ran.out == out
    assert ran.err.endswith("\n")
    assert len(ran.err.splitlines()) == 1, ran.err
    assert ran.err.startswith("ooftorch: ")
    assert re.search(message, ran.err), ran.err
