"""Directories that appear complete or not at all (files: tests/io/test_read.py), and who may use them."""

import subprocess
import sys

import pytest
from command import tree

from ooftorch.errors import InputError
from ooftorch.files import check_new_directory, whole_directory


def shown(path):
    """What a directory holds, but for hidden files; nothing if it does not exist."""
    return {file.name: file.read_text() for file in path.glob("[!.]*")}


def fill(path, overwrite=False, then=None):
    """Write two files, and see that none is there before the block ends."""
    before = shown(path)
    with whole_directory(path, overwrite) as partial:
        (partial / "a.txt").write_text("new a")
        (partial / "b.txt").write_text("new b")
        assert shown(path) == before
        if then is not None:
            raise then


def test_a_new_directory_appears_with_all_its_files(tmp_path):
    fill(tmp_path / "out")
    assert set(tree(tmp_path)) == {"out", "out/a.txt", "out/b.txt"}
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_files_are_moved_into_a_directory_that_exists(tmp_path):
    (tmp_path / "out").mkdir()
    fill(tmp_path / "out")
    (tmp_path / "out" / "a.txt").write_text("old a")
    (tmp_path / "out" / "mine.txt").write_text("mine")
    fill(tmp_path / "out", overwrite=True)
    assert shown(tmp_path / "out") == {"a.txt": "new a", "b.txt": "new b", "mine.txt": "mine"}
    assert len(list((tmp_path / "out").iterdir())) == 3


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize(
    ("failure", "seen", "said"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt, None),
        (ValueError("a mistake"), ValueError, "a mistake"),
        (OSError(28, "No space left on device"), InputError, r"out: cannot be written \(No space left"),
    ],
)
def test_a_failure_leaves_what_was_there(tmp_path, exists, failure, seen, said):
    if exists:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "a.txt").write_text("old a")
    before = tree(tmp_path)
    with pytest.raises(seen, match=said):
        fill(tmp_path / "out", overwrite=True, then=failure)
    assert tree(tmp_path) == before


def a_file(folder):
    (folder / "out").write_text("mine")


def full(folder):
    (folder / "out").mkdir()
    (folder / "out" / "a.txt").write_text("mine")


@pytest.mark.parametrize(
    ("make", "path", "overwrite", "said"),
    [
        (a_file, "out", True, "out is a file; give a directory"),
        (full, "out", False, "out exists and is not empty; give another directory, or allow --overwrite"),
        (full, "no/out", False, "no: no such directory; make it first"),
        (a_file, "out/in", False, "out: no such directory"),
    ],
)
@pytest.mark.parametrize("refuse", [fill, check_new_directory])
def test_refusals(tmp_path, make, path, overwrite, said, refuse):
    make(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(InputError, match=said):
        refuse(tmp_path / path, overwrite)
    assert tree(tmp_path) == before


def test_a_directory_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    with pytest.raises(InputError, match="out cannot be written; give another"):
        check_new_directory(tmp_path / "out", False)
    (tmp_path / "out").mkdir()
    check_new_directory(tmp_path / "out", False)  # its parent need not be writable then


def test_files_and_units_load_nothing_heavy():
    """What everyone may use must cost nothing, the help of the command least of all."""
    heavy = {"torch", "numpy", "scipy", "astropy", "matplotlib"}
    code = f"import sys, ooftorch.files, ooftorch.units; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
