"""Reading observations from files, by content, and writing them.

Formats: FITS of the original OOF software (read and write) and its Effelsberg variant, FITS of pyoof, FITS
images, and an observation `.toml` that names text maps, GRASP grids or FITS images.
"""

import os
from pathlib import Path

from ooftorch.errors import InputError
from ooftorch.io import image, oof, pyoof
from ooftorch.io.files import whole_file
from ooftorch.io.fitsfile import column_names, is_fits, open_fits
from ooftorch.io.oof import write
from ooftorch.io.toml import read_toml
from ooftorch.observation import Observation

__all__ = ["read", "whole_file", "write"]


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
        If the file cannot be read, is none of the supported kinds, or holds nothing that can be fitted;
        one line that names the file.
    """
    path = Path(path)
    observation = _read_fits(path) if is_fits(path) else read_toml(path)
    observation.check()
    return observation


def _read_fits(path: Path) -> Observation:
    hdus = open_fits(path)
    if "OOFFIT" in hdus[0].header:
        raise InputError(
            f"{path} is the result of a fit; give the beam maps, or draw it with `ooftorch plot`"
        )
    named = [(number, hdu, set(column_names(hdu))) for number, hdu in enumerate(hdus)]
    for layout, reader in ((oof.COLUMNS, oof.read_oof), (pyoof.COLUMNS, pyoof.read_pyoof)):
        # One column is enough to know the layout; the reader says which are missing.
        tables = [(number, hdu) for number, hdu, names in named if names.intersection(layout)]
        if tables:
            return reader(path, hdus[0].header, tables)
    if image.image_hdus(hdus):
        return image.read_images(path, hdus)
    columns = [f"HDU {number}: {', '.join(sorted(names))}" for number, _, names in named if names]
    raise InputError(
        f"{path}: no beam maps ({'; '.join(columns) or 'no tables and no images'}); expected tables with "
        f"{', '.join(oof.COLUMNS)}, tables with {', '.join(pyoof.COLUMNS)}, or images with DZ"
    )
