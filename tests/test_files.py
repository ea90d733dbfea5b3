"""Directories that appear complete or not at all (files: tests/io/test_read.py), and who may use them."""

import subprocess
import sys

import pytest
from command import python, tree

from ooftorch.errors import InputError
from ooftorch.files import check_new_directory, whole_directory


def shown(path):
    """What a directory holds, but for hidden files; nothing if it does not exist."""
    return {file.name: file.is_file() and file.read_text() for file in path.glob("[!.]*")}


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


KILLED = """
import itertools, os, sys
from pathlib import Path
from ooftorch.files import whole_directory

def write(path, mark, calls=None):
    if os.fork() == 0:
        left = calls
        def count(event, _):
            nonlocal left
            if left is not None and (event == "open" or event.startswith(("os.", "shutil."))):
                if left == 0:
                    os._exit(9)
                left -= 1
        if calls is not None:
            sys.addaudithook(count)
        with whole_directory(path, True) as part:
            for name in "abc":
                (part / name).write_text(str(mark))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.wait()[1])

def read(path):
    return {(path / n).read_text() if (path / n).exists() else None for n in "abc"}

existing, folder = sys.argv[1], Path.cwd()
seen = set()
for calls in itertools.count():
    path = folder / str(calls) / "out"
    path.parent.mkdir()
    if existing != "no":
        path.mkdir()
        (path / "mine").write_text("mine")
    if existing == "full":
        write(path, "old")
    before = read(path)
    status = write(path, "new", calls)
    assert status in (0, 9), status
    assert read(path) in (before, {"new"}), (calls, read(path))
    seen |= read(path)
    # The next run is killed while it clears away what the first has left, the one after that is not.
    between = read(path)
    write(path, "later", calls // 2)
    assert read(path) in (between, {"later"}), (calls, read(path))
    assert write(path, "last") == 0
    assert read(path) == {"last"}
    mine = {"mine"} if existing != "no" else set()
    assert {p.name for p in path.iterdir()} == {"a", "b", "c"} | mine, list(path.iterdir())
    assert not any(p.is_symlink() for p in path.iterdir())
    assert [p.name for p in path.parent.iterdir()] == ["out"]
    if status == 0:
        break
print(calls, sorted(map(str, seen)))
"""


@pytest.mark.parametrize("existing", ["no", "empty", "full"])
def test_a_kill_at_any_call_of_the_system_leaves_the_old_files_or_the_new(tmp_path, existing):
    """And no hidden folder after the next run: rejects files that are renamed one by one."""
    ran = python(tmp_path, "-c", KILLED, existing)
    assert ran.status == 0, ran.err
    assert ran.out.split()[1:] == (["['new',", "'old']"] if existing == "full" else ["['None',", "'new']"])
    assert int(ran.out.split()[0]) > 15  # it was killed at each of so many


def test_the_part_of_a_run_that_lives_is_left_alone(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with whole_directory(out, overwrite=True) as first:
        (first / "a.txt").write_text("of the first")
        fill(out, overwrite=True)
        assert (first / "a.txt").read_text() == "of the first"
        assert shown(out) == {"a.txt": "new a", "b.txt": "new b"}
    assert shown(out) == {"a.txt": "of the first", "b.txt": "new b"}
    assert len(list(out.iterdir())) == 2


def test_of_two_runs_into_a_new_directory_the_last_one_stays(tmp_path):
    with whole_directory(tmp_path / "out", overwrite=True) as first:
        (first / "a.txt").write_text("first a")
        (first / "b.txt").write_text("first b")
        fill(tmp_path / "out", overwrite=True)
    assert shown(tmp_path / "out") == {"a.txt": "first a", "b.txt": "first b"}
    assert set(tree(tmp_path)) == {"out", "out/a.txt", "out/b.txt"}


@pytest.mark.parametrize("missing", ["symlink", "link", "flock"])
def test_file_systems_that_lack_something(tmp_path, monkeypatch, missing):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_text("old a")

    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(f"fcntl.{missing}" if missing == "flock" else f"os.{missing}", refuse)
    fill(tmp_path / "out", overwrite=True)
    assert shown(tmp_path / "out") == {"a.txt": "new a", "b.txt": "new b"}
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_a_folder_in_the_place_of_a_file_stays_and_so_do_the_other_files(tmp_path):
    (tmp_path / "out" / "b.txt").mkdir(parents=True)
    (tmp_path / "out" / "a.txt").write_text("old a")
    before = tree(tmp_path)
    with pytest.raises(InputError, match="cannot be written"):
        fill(tmp_path / "out", overwrite=True)
    assert tree(tmp_path) == before


def test_files_and_units_load_nothing_heavy():
    """What everyone may use must cost nothing, the help of the command least of all."""
    heavy = {"torch", "numpy", "scipy", "astropy", "matplotlib"}
    code = f"import sys, ooftorch.files, ooftorch.units; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
