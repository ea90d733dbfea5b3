"""Files and directories that appear complete or not at all, whenever this process is killed.

What is written goes into a hidden folder of the same file system first, a *part*, and from there by renaming,
which is atomic. A file, or a directory that does not exist yet, takes one rename. The files of a directory
that exists take one each, and a kill between two of these would leave a mixture; so they are switched over
together (`_switch`): every name becomes a symbolic link through one common link, `.shown`, to the old files;
then `.shown` is turned to the new ones, by one rename; then every link is replaced by the file that it shows.
At every moment all names show the old files, or all the new.

A part belongs to a process as long as its file `.alive` is locked. The system takes the lock away when the
process ends, however it ends, and the next run turns links that were left into files and removes the part.
Whoever makes, switches or clears away parts of a folder has the folder locked meanwhile.

What this takes: POSIX renames and symbolic links, on Linux and macOS alike. Where a file system has no links
(FAT), the files are renamed one by one, and a kill within that fraction of a millisecond leaves a mixture.
Where folders cannot be locked (NFS), parts of dead runs stay, and two runs that end in one directory in the
same millisecond are not kept apart.
"""

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ooftorch.errors import InputError

__all__ = ["check_new", "check_new_directory", "whole_directory", "whole_file"]

# Names within a part: the locked file, the link that is turned, the old files, a link before it is in place.
_ALIVE, _SHOWN, _OLD, _LINK = ".alive", ".shown", ".old", ".link"
_PARTS = ".ooftorch-????????.part"


@contextmanager
def whole_file(path: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary name near `path`; rename it to `path` when the block ends without an error.

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
    with _say_what_failed(path), _make_part(path.parent) as part:
        yield part / path.name
        (part / path.name).replace(path)


@contextmanager
def whole_directory(path: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary directory; its files appear in `path` at once when the block ends without an error.

    What else a directory holds that exists stays as it is. Of two runs that fill one directory the files of
    the one that ends last stay, all of them.

    Parameters
    ----------
    path : str or Path
        The directory to appear, or to be filled.
    overwrite : bool
        Use a directory that is not empty, and replace files in it that have the same names.

    Yields
    ------
    Path
        Where to write files. Removed with all it holds if the block raises.

    Raises
    ------
    InputError
        If `check_new_directory` refuses `path`, or writing fails.
    """
    path = Path(path)
    check_new_directory(path, overwrite)
    folder = path if path.is_dir() else path.parent
    with _say_what_failed(path), _make_part(folder) as part:
        yield part
        for file in part.iterdir():
            _synchronise(file)
        _synchronise(part)
        with _lock(folder):
            if folder == path:
                _switch(part, path)
                return
            (part / _ALIVE).unlink()
            try:
                part.rename(path)
            except OSError as error:
                if not (overwrite and error.errno in (errno.EEXIST, errno.ENOTEMPTY)):
                    raise
                # Another run has made the directory meanwhile.
                with _lock(path):
                    inside = path / part.name
                    part.rename(inside)
                    try:
                        _switch(inside, path)
                    finally:
                        _settle(inside)


@contextmanager
def _say_what_failed(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None


@contextmanager
def _make_part(folder: Path) -> Iterator[Path]:
    """Make a part in a folder, after those of dead processes have been cleared away; settle it in the end."""
    part, alive = folder / f".ooftorch-{secrets.token_hex(4)}.part", None
    try:
        with _lock(folder) as locked:
            if locked:
                _clear(folder)
            part.mkdir()
            alive = os.open(part / _ALIVE, os.O_CREAT | os.O_RDWR, 0o644)
            with suppress(OSError):  # where there are no locks nothing is cleared away
                fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield part
    finally:
        try:
            with _lock(folder):
                _settle(part)
        finally:
            if alive is not None:
                os.close(alive)


@contextmanager
def _lock(folder: Path) -> Iterator[bool]:
    """Wait until no other process has a folder locked, and lock it; give False where that is not possible."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            locked = True
        except OSError:
            locked = False
        yield locked
    finally:
        os.close(descriptor)


def _clear(folder: Path) -> None:
    """Settle the parts in a locked folder whose processes are dead."""
    for part in folder.glob(_PARTS):
        # Parts of other users, among others, cannot be opened or removed.
        with suppress(OSError):
            if _is_dead(part):
                _settle(part)


def _is_dead(part: Path) -> bool:
    try:
        alive = os.open(part / _ALIVE, os.O_RDWR)
    except FileNotFoundError:  # killed before it made that, or when it was about to rename the part
        return True
    try:
        fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(alive)
    return True


def _switch(part: Path, directory: Path) -> None:
    """Replace files of a directory by those of a part in it, all at the same moment."""
    names = sorted(set(os.listdir(part)) - {_ALIVE})
    (part / _OLD).mkdir()
    try:
        os.symlink(_OLD, part / _SHOWN)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        for name in names:  # there are no links
            (part / name).replace(directory / name)
        return
    for name in names:
        if os.path.lexists(directory / name):
            _duplicate(directory / name, part / _OLD / name)
        _link(part, f"{part.name}/{_SHOWN}/{name}", directory / name)
    _link(part, ".", part / _SHOWN)
    _settle(part)
    _synchronise(directory)


def _link(part: Path, target: str, path: Path) -> None:
    """Put a symbolic link in the place of what is there."""
    os.symlink(target, part / _LINK)
    (part / _LINK).replace(path)


def _duplicate(old: Path, new: Path) -> None:
    try:
        os.link(old, new)
    except OSError:  # some file systems have no second names for a file
        shutil.copy2(old, new, follow_symlinks=False)


def _settle(part: Path) -> None:
    """Put in the place of every link through a part the file that it shows, and remove the part."""
    if not part.is_dir():
        return
    for link in part.parent.iterdir():
        if link.is_symlink() and os.readlink(link).startswith(f"{part.name}/"):
            shown = part.parent / os.readlink(link)
            if os.path.lexists(shown):
                shown.replace(link)
            else:  # a name that was not there
                link.unlink()
    shutil.rmtree(part, ignore_errors=True)


def _synchronise(path: Path) -> None:
    """Have a file or folder on the disk, so that after a power failure nothing is renamed but empty files."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # folders of some file systems
            raise
    finally:
        os.close(descriptor)


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
