"""FITS images, reader and writer: one image HDU per focus setting, with linear offsets along its axes."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from ooftorch.errors import InputError
from ooftorch.io.fits_tools import (
    NO_TELESCOPE,
    description,
    exact_card,
    focus_offsets,
    header_number,
    header_text,
    primary_header,
    radians_per,
    stated_receiver,
    wavelength,
)
from ooftorch.io.truth_hdus import PHASE
from ooftorch.observation import BeamMap, Observation
from ooftorch.optics.receiver import Receiver

__all__ = ["image_hdus", "map_hdus", "read_image", "read_images", "sky_sign"]

# Axis types whose values are places on the sky and not offsets from the source.
_CELESTIAL = re.compile(r"(RA|DEC|.LON|.LAT|..LN|..LT)(-|$)")

# How far a sample may lie off the grid of an image, in pixels: single precision passes, jitter does not.
_OFF_GRID = 1e-5


def image_hdus(hdus: Sequence[Any]) -> list[tuple[int, Any]]:
    """HDUs that hold an image (axes of length one in front do not count), with their numbers.

    The phase of a truth is none: it only goes along with the maps, or with a fit.
    """
    return [
        (number, hdu)
        for number, hdu in enumerate(hdus)
        if hdu.is_image and hdu.data is not None and np.ndim(hdu.data) >= 2 and hdu.name != PHASE
    ]


def read_images(path: Path, hdus: Sequence[Any]) -> Observation:
    """Observation from the image HDUs that have DZ.

    Frequency (FREQ, RESTFRQ or WAVEL), telescope (TELESC or TELESCOP) and SKY are looked for in the
    primary header and then in the maps' own. SKY says what the offsets are: "telescope" (default) where
    the telescope pointed minus the source, "source" the direction of the source seen from boresight.
    Pixels that are NaN or BLANK are missing. The primary header may have our keys for the receiver.

    Parameters
    ----------
    path : Path
    hdus : sequence of astropy HDU, the whole file.

    Returns
    -------
    Observation

    Raises
    ------
    InputError
        If no image has DZ; the frequency is missing or not positive; SKY is neither word; or the axes are
        not linear offsets (see `read_image`).
    """
    images = image_hdus(hdus)
    with_dz = [(number, hdu) for number, hdu in images if "DZ" in hdu.header]
    notes = [f"HDU {number}: image without DZ, left out" for number, hdu in images if "DZ" not in hdu.header]
    if not with_dz:
        raise InputError(
            f"{path}: no DZ in any of its {len(images)} images; add the focus offset in metres to each header"
        )
    offsets, scaled = focus_offsets(with_dz, path)
    headers = [hdus[0].header, *(hdu.header for _, hdu in with_dz)]
    wavel = wavelength(headers, path)
    if wavel is None:
        raise InputError(f"{path}: no FREQ, RESTFRQ or WAVEL in its headers; add FREQ in Hz")
    maps = []
    for (number, hdu), dz in zip(with_dz, offsets, strict=True):
        where = f"{path}: HDU {number}"
        sky = header_text(hdu.header, "SKY") or header_text(headers[0], "SKY") or "telescope"
        sign = sky_sign(sky, where)
        x, y, power = read_image(hdu, where)
        maps.append(BeamMap(dz, sign * x, sign * y, power))
    receiver, illumination = stated_receiver(headers[0], path) or (Receiver(), None)
    names = (header_text(header, "TELESC", "TELESCOP") for header in headers)
    telescope = next((name for name in names if name), None)
    if telescope is None:
        notes.append(NO_TELESCOPE)
    return Observation(
        tuple(maps),
        wavel,
        telescope,
        receiver,
        illumination,
        format="image",
        notes=(*notes, *scaled),
        **description(headers[0], path),
    )


def read_image(hdu: Any, where: str) -> tuple[NDArray, NDArray, NDArray]:
    """Coordinates and power of an image.

    Parameters
    ----------
    hdu : astropy image HDU, ny rows of nx pixels.
    where : str
        Opens the message of an error.

    Returns
    -------
    x, y, power : ndarray, (ny * nx,), x fastest
        Coordinates in radians, as the header has them: FITS axis 1 is x.

    Raises
    ------
    InputError
        If the image has more than two axes longer than one, no linear coordinates, coordinates on the
        celestial sphere, or a unit that is not an angle.
    """
    header, data = hdu.header, np.asarray(hdu.data)
    if data.size != data.shape[-1] * data.shape[-2]:
        raise InputError(f"{where}: image of {data.ndim} axes, {data.shape}; give one image HDU per focus")
    ny, nx = data.shape[-2:]
    pixel = np.stack([axis.ravel() for axis in np.meshgrid(np.arange(1, nx + 1), np.arange(1, ny + 1))])
    x, y = _offsets(header, pixel, where)
    return x, y, data.reshape(-1).astype(np.float64)


def map_hdus(observation: Observation) -> list[Any]:
    """HDUs of a file of images: one per map, whose samples may come in any order.

    Powers keep every bit, and so do the offsets of a grid that is symmetric about the source, as `scan` makes
    it; others come back to rounding. Missing samples are NaN. An image has no place for errors and times:
    `fit` estimates the noise.

    Parameters
    ----------
    observation : Observation

    Returns
    -------
    list of astropy HDU

    Raises
    ------
    InputError
        If the samples of a map do not fill a regular grid along DX and DY.
    ValueError
        If a text of the observation is not printable ASCII.
    """
    header = primary_header(observation, observation.telescope)
    header["SKY"] = ("telescope", "offsets are telescope minus source")
    return [fits.PrimaryHDU(header=header), *map(_map_hdu, observation.maps)]


def _map_hdu(m: BeamMap) -> Any:
    refusal = InputError(
        f"the {m.power.size} samples of the map at dz {1e3 * m.dz:+g} mm do not fill a regular grid, as an "
        "image needs them to; use layout oof"
    )
    x, y = _axis(m.x), _axis(m.y)
    if x is None or y is None:
        raise refusal
    pixel = y.pixel * x.n + x.pixel
    if not np.array_equal(np.sort(pixel), np.arange(y.n * x.n)):
        raise refusal
    image = np.empty((y.n, x.n))
    image.flat[pixel] = m.power
    hdu = fits.ImageHDU(image)
    hdu.header.append(exact_card("DZ", m.dz, "[m] positive away from the primary"))
    for i, axis in enumerate((x, y), 1):
        hdu.header[f"CUNIT{i}"] = "rad"
        hdu.header.append(exact_card(f"CRPIX{i}", axis.crpix, ""))
        hdu.header.append(exact_card(f"CRVAL{i}", axis.crval, ""))
        hdu.header.append(exact_card(f"CDELT{i}", axis.cdelt, ""))
    return hdu


class _Axis(NamedTuple):
    """Regular places along one axis of an image.

    Attributes
    ----------
    n : int
        How many there are.
    pixel : ndarray, (n_samples,)
        Which of them is each sample's, from 0.
    crpix, crval, cdelt : float
        For the header.
    """

    n: int
    pixel: NDArray[np.int64]
    crpix: float
    crval: float
    cdelt: float


def _axis(places: NDArray) -> _Axis | None:
    """Axis on which all places lie; None where there is none."""
    ordered = np.unique(places)
    if ordered.size < 2 or not np.isfinite(ordered).all():
        return None
    first, last = ordered[0], ordered[-1]
    step = np.diff(ordered).max()  # places much nearer to each other are the same, to rounding
    n = round((last - first) / step) + 1
    step = (last - first) / (n - 1)
    pixel = np.rint((places - first) / step).astype(int)

    def off(choice: tuple[float, float, float]) -> float:
        crpix, crval, cdelt = choice
        return float(np.max(np.abs(crval + cdelt * (pixel + 1 - crpix) - places)))

    # The step to the last bit, where the grid is symmetric, is in the place next to the centre.
    beside = np.min(ordered, where=ordered > 0, initial=2 * step)
    centred = (n + 1) / 2, 0.0, float(beside) * (1 if n % 2 else 2)
    best = min(centred, (1.0, float(first), float(step)), key=off)
    return _Axis(n, pixel, *best) if off(best) < _OFF_GRID * step else None


def sky_sign(sky: str, where: str) -> float:
    """Factor from coordinates of the kind `sky` to DX, DY; `where` opens the message of an error."""
    if sky.casefold() not in ("telescope", "source"):
        raise InputError(
            f'{where}: sky is {sky!r}; expected "telescope" (where it pointed, minus the source) or '
            '"source" (the source seen from boresight)'
        )
    return 1.0 if sky.casefold() == "telescope" else -1.0


def _offsets(header: fits.Header, pixel: NDArray, where: str) -> NDArray[np.float64]:
    """Linear coordinates (2, n) in radians of FITS pixel positions (2, n), the first pixel being 1.

    By the FITS standard, for the first two axes: CRVAL + CD (p - CRPIX), or with CDELT_i PC_ij for CD.
    """
    for axis in (1, 2):
        kind = header_text(header, f"CTYPE{axis}")
        if _CELESTIAL.match(kind):
            raise InputError(
                f"{where}: CTYPE{axis} is {kind}, a place on the sky; give offsets from the source "
                "instead: no CTYPE, and CRVAL 0 at the source"
            )
    if header_number(header, "CROTA2", where):
        raise InputError(f"{where}: CROTA2 is not supported; give the rotation by CD1_1, CD1_2, CD2_1, CD2_2")

    def vector(key: str, default: float | None) -> NDArray:
        return np.array([_number(header, f"{key}{i}", default, where) for i in (1, 2)])

    def matrix(key: str, default: NDArray) -> NDArray:
        return np.array(
            [[_number(header, f"{key}{i}_{j}", default[i - 1, j - 1], where) for j in (1, 2)] for i in (1, 2)]
        )

    if any(f"CD{i}_{j}" in header for i in (1, 2) for j in (1, 2)):
        scale = matrix("CD", np.zeros((2, 2)))
    else:
        scale = vector("CDELT", None)[:, None] * matrix("PC", np.eye(2))
    unit = np.array([_radians(header, axis, where) for axis in (1, 2)])
    offsets = vector("CRVAL", 0.0)[:, None] + scale @ (pixel - vector("CRPIX", None)[:, None])
    return unit[:, None] * offsets


def _number(header: fits.Header, key: str, default: float | None, where: str) -> float:
    number = header_number(header, key, where)
    if number is not None:
        return number
    if default is None:
        raise InputError(
            f"{where}: no {key}; an image needs CRPIX, CRVAL and CDELT (or CD) for both axes, as offsets "
            "from the source"
        )
    return default


def _radians(header: fits.Header, axis: int, where: str) -> float:
    """Size of the unit of an axis; degrees where it has none, as the FITS standard says."""
    name = header_text(header, f"CUNIT{axis}") or "deg"
    return radians_per(name, f"{where}: CUNIT{axis}")
