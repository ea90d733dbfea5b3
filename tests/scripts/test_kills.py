"""The study of kills, in its short form, and that it would see what is wrong."""

import json
import subprocess
import sys

import kills
import pytest

pytestmark = pytest.mark.slow


def test_the_short_study_finds_no_failure():
    ran = subprocess.run(
        [sys.executable, kills.__file__, "--short"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.splitlines()[-1] == "no failures"
    assert len(ran.stdout.splitlines()) == 8


def fill(directory, label, names=kills.NAMES):
    for name in names:
        text = json.dumps({"object": label}) if name == "summary.json" else f"{name} of {label}"
        (directory.path / name).write_text(text)


def test_mixtures_and_losses_are_seen(tmp_path):
    directory = kills.Directory(tmp_path)
    fill(directory, "one")
    before = directory.read()
    assert directory.judge(before) == "old"
    fill(directory, "two")
    assert directory.judge(before) == "new"
    fill(directory, "one", ["beams.png"])
    assert directory.judge(before) == "files of two runs"
    fill(directory, "two")
    fill(directory, "three", ["fit.fits"])
    assert directory.judge(before) == "files of two runs"
    (directory.path / "fit.fits").unlink()
    assert directory.judge(before).startswith("only")
    fill(directory, "two")
    (directory.path / "notes.txt").write_text("not mine")
    assert directory.judge(before) == "a file of the user has changed"
