"""Reader and writer of FITS images: one image HDU per focus setting, with linear offsets along its axes."""

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
    make_card,
    make_primary_header,
    make_scan_cards,
    radians_per,
    read_description,
    read_focus_offsets,
    read_header_number,
    read_header_text,
    read_receiver,
    read_scans,
    read_wavelength,
)
from ooftorch.io.truth_hdus import PHASE
from ooftorch.observation import BeamMap, Observation
from ooftorch.optics.receiver import Receiver
from ooftorch.scans import name_scans

__all__ = ["find_image_hdus", "find_sky_sign", "make_image_hdus", "read_image", "read_images"]

# Axis types (CTYPE) whose values are celestial coordinates instead of offsets from the source.
_CELESTIAL = re.compile(r"(RA|DEC|.LON|.LAT|..LN|..LT)(-|$)")

# Largest distance of a sample from the grid of an image, in pixels: allows for single precision, not for
# jitter.
_OFF_GRID = 1e-5


def find_image_hdus(hdus: Sequence[Any]) -> list[tuple[int, Any]]:
    """Find the HDUs with an image of at least two axes, as (number in the file, HDU).

    The phase image of a truth (`io.truth_hdus`) is left out: it is not a beam map.
    """
    return [
        (number, hdu)
        for number, hdu in enumerate(hdus)
        if hdu.is_image and hdu.data is not None and np.ndim(hdu.data) >= 2 and hdu.name != PHASE
    ]


def read_images(path: Path, primary: fits.Header, images: Sequence[tuple[int, Any]]) -> Observation:
    """Read an observation from the image HDUs that have DZ.

    Frequency (FREQ, RESTFRQ or WAVEL) and telescope (TELESC or TELESCOP) are taken from the primary header,
    else from those of the maps; SKY from that of the map, else the primary one. SKY defines the offsets:
    "telescope" (default) for telescope pointing minus source, "source" for the direction of the source seen
    from boresight. Pixels that are NaN or BLANK are missing. The primary header may have the receiver keys of
    this package (CHOPX, CHOPY, GAINRAT, DISCRAD, ILLUM).

    Parameters
    ----------
    path : Path
    primary : astropy header of the primary HDU.
    images : sequence of (number in the file, image HDU), in any order of focus.

    Returns
    -------
    Observation

    Raises
    ------
    InputError
        If no image has DZ; the frequency is missing or not positive; SKY has another value; or the axes are
        not linear offsets (see `read_image`).
    """
    with_dz = [(number, hdu) for number, hdu in images if "DZ" in hdu.header]
    notes = [f"HDU {number}: image without DZ, left out" for number, hdu in images if "DZ" not in hdu.header]
    if not with_dz:
        raise InputError(
            f"{path}: no DZ in any of its {len(images)} images; add the focus offset in metres to each header"
        )
    offsets, scaled = read_focus_offsets(with_dz, path)
    headers = [primary, *(hdu.header for _, hdu in with_dz)]
    wavel = read_wavelength(headers, path)
    if wavel is None:
        raise InputError(f"{path}: no FREQ, RESTFRQ or WAVEL in its headers; add FREQ in Hz")
    maps = []
    for (number, hdu), dz in zip(with_dz, offsets, strict=True):
        where = f"{path}: HDU {number}"
        sky = read_header_text(hdu.header, "SKY") or read_header_text(headers[0], "SKY") or "telescope"
        sign = find_sky_sign(sky, where)
        x, y, power = read_image(hdu, where)
        maps.append(BeamMap(dz, sign * x, sign * y, power, **read_scans(hdu.header, where)))
    receiver, illumination = read_receiver(headers[0], path) or (Receiver(), None)
    names = (read_header_text(header, "TELESC", "TELESCOP") for header in headers)
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
        **read_description(headers[0], path),
    )


def read_image(hdu: Any, where: str) -> tuple[NDArray, NDArray, NDArray]:
    """Read coordinates and power of an image.

    Parameters
    ----------
    hdu : astropy image HDU, ny rows of nx pixels.
    where : str
        Start of error messages.

    Returns
    -------
    x, y, power : ndarray, (ny * nx,), x fastest
        Coordinates in radians, with the signs of the header: FITS axis 1 is x.

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
    x, y = _read_offsets(header, pixel, where)
    return x, y, data.reshape(-1).astype(np.float64)


def make_image_hdus(observation: Observation) -> list[Any]:
    """Make the HDUs of a file of images, one per map; the samples of a map may be in any order.

    Powers are exact, and so are the offsets of a grid that is symmetric about the source; other offsets are
    exact to rounding. Missing samples are NaN. Errors and times are not written: a fit of the file estimates
    the noise; SCANLINE, ours, says where the scan lines are.

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
    header = make_primary_header(observation, observation.telescope)
    header["SKY"] = ("telescope", "offsets are telescope minus source")
    return [fits.PrimaryHDU(header=header), *map(_make_image_hdu, observation.maps)]


def _make_image_hdu(m: BeamMap) -> Any:
    refusal = InputError(
        f"the {m.power.size} samples of the map at dz {1e3 * m.dz:+g} mm do not fill a regular grid, as an "
        "image needs them to; use layout oof"
    )
    x, y = _find_axis(m.x), _find_axis(m.y)
    if x is None or y is None:
        raise refusal
    pixel = y.pixel * x.n + x.pixel
    if not np.array_equal(np.sort(pixel), np.arange(y.n * x.n)):
        raise refusal
    image = np.empty((y.n, x.n))
    image.flat[pixel] = m.power
    hdu = fits.ImageHDU(image)
    hdu.header.append(make_card("DZ", m.dz, "[m] positive away from the primary"))
    hdu.header.extend(make_scan_cards(name_scans(m), m.smear))
    for i, axis in enumerate((x, y), 1):
        hdu.header[f"CUNIT{i}"] = "rad"
        hdu.header.append(make_card(f"CRPIX{i}", axis.crpix, ""))
        hdu.header.append(make_card(f"CRVAL{i}", axis.crval, ""))
        hdu.header.append(make_card(f"CDELT{i}", axis.cdelt, ""))
    return hdu


class _Axis(NamedTuple):
    """Regular positions along one axis of an image.

    Attributes
    ----------
    n : int
        Number of pixels.
    pixel : ndarray, (n_samples,)
        Pixel of each sample, from 0.
    crpix, crval, cdelt : float
        Header values, the offsets in radians.
    """

    n: int
    pixel: NDArray[np.int64]
    crpix: float
    crval: float
    cdelt: float


def _find_axis(positions: NDArray) -> _Axis | None:
    """Find the regular axis on which all positions lie; None if there is none."""
    ordered = np.unique(positions)
    if ordered.size < 2 or not np.isfinite(ordered).all():
        return None
    first, last = ordered[0], ordered[-1]
    step = np.diff(ordered).max()  # much smaller differences are rounding errors
    n = round((last - first) / step) + 1
    step = (last - first) / (n - 1)
    pixel = np.rint((positions - first) / step).astype(int)

    def off(choice: tuple[float, float, float]) -> float:
        crpix, crval, cdelt = choice
        return float(np.max(np.abs(crval + cdelt * (pixel + 1 - crpix) - positions)))

    # For a symmetric grid the position next to the centre gives the step without rounding error.
    beside = np.min(ordered, where=ordered > 0, initial=2 * step)
    centred = (n + 1) / 2, 0.0, float(beside) * (1 if n % 2 else 2)
    best = min(centred, (1.0, float(first), float(step)), key=off)
    return _Axis(n, pixel, *best) if off(best) < _OFF_GRID * step else None


def find_sky_sign(sky: str, where: str) -> float:
    """Sign (+1 or -1) from coordinates of the kind `sky` to DX, DY (CONVENTIONS 5).

    Raises
    ------
    InputError
        If `sky` is neither "telescope" nor "source"; the message starts with `where`.
    """
    if sky.casefold() not in ("telescope", "source"):
        raise InputError(
            f'{where}: sky is {sky!r}; expected "telescope" (where it pointed, minus the source) or '
            '"source" (the source seen from boresight)'
        )
    return 1.0 if sky.casefold() == "telescope" else -1.0


def _read_offsets(header: fits.Header, pixel: NDArray, where: str) -> NDArray[np.float64]:
    """Read the linear coordinates (2, n), radians, of FITS pixel positions (2, n); the first pixel is 1.

    CRVAL + CD (p - CRPIX) for the first two axes, with CDELT_i PC_ij if there is no CD (FITS standard 4.0,
    section 8).
    """
    for axis in (1, 2):
        kind = read_header_text(header, f"CTYPE{axis}")
        if _CELESTIAL.match(kind):
            raise InputError(
                f"{where}: CTYPE{axis} is {kind}, a place on the sky; give offsets from the source "
                "instead: no CTYPE, and CRVAL 0 at the source"
            )
    if read_header_number(header, "CROTA2", where):
        raise InputError(f"{where}: CROTA2 is not supported; give the rotation by CD1_1, CD1_2, CD2_1, CD2_2")

    def vector(key: str, default: float | None) -> NDArray:
        return np.array([_require_number(header, f"{key}{i}", default, where) for i in (1, 2)])

    def matrix(key: str, default: NDArray) -> NDArray:
        return np.array(
            [
                [_require_number(header, f"{key}{i}_{j}", default[i - 1, j - 1], where) for j in (1, 2)]
                for i in (1, 2)
            ]
        )

    if any(f"CD{i}_{j}" in header for i in (1, 2) for j in (1, 2)):
        scale = matrix("CD", np.zeros((2, 2)))
    else:
        scale = vector("CDELT", None)[:, None] * matrix("PC", np.eye(2))
    unit = np.array([_read_unit(header, axis, where) for axis in (1, 2)])
    offsets = vector("CRVAL", 0.0)[:, None] + scale @ (pixel - vector("CRPIX", None)[:, None])
    return unit[:, None] * offsets


def _require_number(header: fits.Header, key: str, default: float | None, where: str) -> float:
    number = read_header_number(header, key, where)
    if number is not None:
        return number
    if default is None:
        raise InputError(
            f"{where}: no {key}; an image needs CRPIX, CRVAL and CDELT (or CD) for both axes, as offsets "
            "from the source"
        )
    return default


def _read_unit(header: fits.Header, axis: int, where: str) -> float:
    """Radians in the unit of an axis; degrees if it has none, as in the FITS standard."""
    name = read_header_text(header, f"CUNIT{axis}") or "deg"
    return radians_per(name, f"{where}: CUNIT{axis}")
