"""Files that appear complete or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ooftorch.errors import InputError

__all__ = ["check_new", "whole_file"]


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


def check_new(path: Path, overwrite: bool) -> None:
    """Refuse a file that exists, unless it may be replaced, or whose directory does not."""
    if path.is_dir():
        raise InputError(f"{path} is a directory; name a file")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; choose another name or allow overwriting")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such directory; make it first")
