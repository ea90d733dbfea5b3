"""Files and directories that appear complete or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ooftorch.errors import InputError

__all__ = ["check_new", "check_new_directory", "whole_directory", "whole_file"]


@contextmanager
def whole_file(path: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary name beside `path`; rename it to `path` when the block ends without an error.

    Parameters
    ----------
    path : str or Path
        The file to appear.
    overwrite : bool
        Replace a file that is already there.

    Yields
    ------
    Path
        Where to write. Removed if the block raises.

    Raises
    ------
    InputError
        If `path` exists and `overwrite` is false, or its directory does not exist or cannot be written.
    """
    path = Path(path)
    check_new(path, overwrite)
    # The same directory, so that the rename stays within one file system and is atomic.
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_directory(path: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary directory; its files appear in `path` when the block ends without an error.

    A new directory appears by one rename. Into one that exists the files are moved when all are written;
    what else it holds stays.

    Parameters
    ----------
    path : str or Path
        The directory to appear, or to be filled.
    overwrite : bool
        Use a directory that is not empty, and replace files in it that have the same names.

    Yields
    ------
    Path
        Where to write. Removed with all it holds if the block raises.

    Raises
    ------
    InputError
        If `check_new_directory` refuses `path`, or writing fails.
    """
    path = Path(path)
    check_new_directory(path, overwrite)
    exists = path.is_dir()
    # Inside the directory, or else beside it, so that no rename crosses file systems.
    partial = (path if exists else path.parent) / f".{path.name}.{os.getpid()}.part"
    try:
        partial.mkdir()
        yield partial
        if exists:
            for file in partial.iterdir():
                file.replace(path / file.name)
        else:
            partial.rename(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_new(path: Path, overwrite: bool) -> None:
    """Refuse a file that cannot be written as a new one.

    Parameters
    ----------
    path : Path
        The file.
    overwrite : bool
        Accept one that exists.

    Raises
    ------
    InputError
        If `path` is a directory, exists and `overwrite` is false, or its directory does not exist.
    """
    if path.is_dir():
        raise InputError(f"{path} is a directory; name a file")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; choose another name or allow overwriting")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such directory; make it first")


def check_new_directory(path: Path, overwrite: bool) -> None:
    """Refuse a directory that cannot take new files.

    Parameters
    ----------
    path : Path
        The directory, or where it is to be made.
    overwrite : bool
        Accept one that is not empty.

    Raises
    ------
    InputError
        If `path` is a file, is not empty and `overwrite` is false, its parent does not exist, or it (or the
        parent, where it does not exist) cannot be written.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; give a directory")
    if not overwrite and path.is_dir() and any(path.iterdir()):
        raise InputError(f"{path} exists and is not empty; give another directory, or allow --overwrite")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such directory; make it first, or give another")
    if not os.access(path if path.is_dir() else path.parent, os.W_OK):
        raise InputError(f"{path} cannot be written; give another directory")
