"""The command itself: its help, what it loads, and where it can be called."""

import shutil
import subprocess
import sys

import pytest
from command import python, run
from places import ROOT

from ooftorch.cli.command import COMMANDS


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
