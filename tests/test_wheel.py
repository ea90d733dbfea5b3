"""What is installed elsewhere is whole: the wheel, in a folder of its own, fits the example by command."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from places import EXAMPLE, ROOT

pytestmark = pytest.mark.slow


def call(*arguments, **more):
    return subprocess.run(
        [sys.executable, *map(str, arguments)], check=True, capture_output=True, text=True, **more
    ).stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy: what an earlier build has left in the tree must not get into it."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    shutil.copytree(ROOT / "ooftorch", source / "ooftorch", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    quiet = ["--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    call("-m", "pip", "wheel", *quiet, "--no-build-isolation", "--wheel-dir", built, source)
    (path,) = built.iterdir()
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder with the package alone; what it depends on is taken from the environment of the tests."""
    folder = tmp_path_factory.mktemp("installed")
    call("-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", folder, wheel)
    return folder


def test_every_file_of_the_package_is_in_the_wheel(wheel):
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("ooftorch/")}
    files = [path for path in (ROOT / "ooftorch").rglob("*") if path.is_file()]
    kept = {path.relative_to(ROOT).as_posix() for path in files if path.suffix != ".pyc"}
    assert packed == kept
    assert {"ooftorch/py.typed", "ooftorch/CONVENTIONS.md", "ooftorch/optics/telescopes/gbt.toml"} <= packed
    rooms = {path.parent for path in (ROOT / "ooftorch").rglob("*.py")}
    assert all((room / "__init__.py").is_file() for room in rooms)


def test_the_installed_command_fits_the_example(installed, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    where = call("-P", "-c", "import ooftorch; print(ooftorch.__file__)", cwd=tmp_path, env=environment)
    assert Path(where.strip()) == installed / "ooftorch" / "__init__.py"
    call("-P", "-m", "ooftorch", "fit", EXAMPLE, "--out", "fitted", cwd=tmp_path, env=environment)
    products = {"summary.json", "fit.fits", "aperture.png", "beams.png"}
    assert {path.name for path in (tmp_path / "fitted").iterdir()} == products
    # The script that the installer made of the entry point finds the telescopes.
    known = call(installed / "bin" / "ooftorch", "telescopes", cwd=tmp_path, env=environment)
    assert all(path.stem in known for path in (ROOT / "ooftorch" / "optics" / "telescopes").glob("*.toml"))
