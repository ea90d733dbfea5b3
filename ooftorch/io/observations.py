"""`read` and `write` observations; the format of a file is recognised by content, never by name.

Formats: FITS of the original OOF software and its Effelsberg variant, FITS of pyoof, FITS images, and an
observation `.toml` that lists text maps, GRASP grids or FITS images. The three FITS formats can also be
written, with the truth of a simulation in extra HDUs.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from astropy.io import fits

from ooftorch.errors import InputError
from ooftorch.files import whole_file
from ooftorch.io import image, oof, pyoof
from ooftorch.io.fits_tools import find_tables, is_fits, list_columns, open_fits
from ooftorch.io.toml import read_toml
from ooftorch.io.truth_hdus import format_truth, make_truth_hdus, read_truth
from ooftorch.observation import Observation

__all__ = ["read", "write"]


class _FitsFormat(NamedTuple):
    """A FITS format of observations.

    Attributes
    ----------
    content : what a file of this format contains, for messages.
    find : function from all HDUs to the (number, HDU) of the maps; none if the file is of another format.
    read : function from path, primary header and what was found to the observation.
    """

    content: str
    find: Callable[[Sequence[Any]], list[tuple[int, Any]]]
    read: Callable[[Path, fits.Header, Sequence[tuple[int, Any]]], Observation]


# In the order in which they are tried. One column is enough to recognise a table; the reader raises an error
# for missing ones.
_FITS_FORMATS = (
    _FitsFormat(f"tables with {', '.join(oof.COLUMNS)}", partial(find_tables, oof.COLUMNS), oof.read_oof),
    _FitsFormat(
        f"tables with {', '.join(pyoof.COLUMNS)}", partial(find_tables, pyoof.COLUMNS), pyoof.read_pyoof
    ),
    _FitsFormat("images with DZ", image.find_image_hdus, image.read_images),
)
# Function from an observation to the HDUs of a file, by layout.
_WRITERS = {"oof": oof.make_oof_hdus, "pyoof": pyoof.make_pyoof_hdus, "image": image.make_image_hdus}


def read(path: str | os.PathLike[str]) -> Observation:
    """Read an observation, recognising the format by content and never by name.

    Parameters
    ----------
    path : str or Path
        A FITS file of any supported layout, or an observation `.toml`.

    Returns
    -------
    Observation
        Checked (`Observation.check`), its maps sorted by dz.

    Raises
    ------
    InputError
        If the file cannot be read, is of no supported format, or its maps cannot be fitted. The message is
        one line with the name of the file.
    """
    path = Path(path)
    observation = _read_fits(path) if is_fits(path) else read_toml(path)
    observation.check()
    return observation


def write(
    observation: Observation, path: str | os.PathLike[str], overwrite: bool = False, layout: str = "oof"
) -> None:
    """Write an observation as a FITS file that `read` reads, with its truth if it has one.

    All layouts keep powers and focus offsets bit for bit; for the rest see `io.oof`, `io.pyoof` and
    `io.image`. Notes and true values are also in HISTORY. The truth is in the last three HDUs; the original
    software takes every extension for a map, so remove them first. There is no time stamp: the same
    observation gives the same bytes.

    Parameters
    ----------
    observation : Observation
    path : str or Path
    overwrite : bool
        Replace a file that is already there.
    layout : {"oof", "pyoof", "image"}

    Raises
    ------
    InputError
        If the layout is unknown or cannot represent the observation, the observation fails its check, a text
        in it does not fit a FITS header, the file exists and `overwrite` is false, or it cannot be written.
    """
    if layout not in _WRITERS:
        raise InputError(f"layout {layout!r}; known are {', '.join(_WRITERS)}")
    observation.check()
    truth = observation.truth
    try:
        hdus = _WRITERS[layout](observation)
        for line in (*observation.notes, *([] if truth is None else format_truth(truth))):
            hdus[0].header.add_history(line)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: a text of this observation does not fit a FITS header: {error}") from None
    hdus += [] if truth is None else make_truth_hdus(truth)
    with whole_file(path, overwrite) as partial:
        fits.HDUList(hdus).writeto(partial)


def _read_fits(path: Path) -> Observation:
    hdus = open_fits(path)
    return replace(_read_maps(path, hdus), truth=read_truth(hdus, path))


def _read_maps(path: Path, hdus: list[Any]) -> Observation:
    if "OOFFIT" in hdus[0].header:
        raise InputError(
            f"{path} is the result of a fit; give the beam maps, or draw it with `ooftorch plot`"
        )
    for known in _FITS_FORMATS:
        if found := known.find(hdus):
            return known.read(path, hdus[0].header, found)
    columns = [
        f"HDU {number}: {', '.join(sorted(names))}"
        for number, names in enumerate(map(list_columns, hdus))
        if names
    ]
    *others, last = (known.content for known in _FITS_FORMATS)
    raise InputError(
        f"{path}: no beam maps ({'; '.join(columns) or 'no tables and no images'}); expected "
        f"{', '.join(others)}, or {last}"
    )
