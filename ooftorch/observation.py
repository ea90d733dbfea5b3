"""Beam maps and observations: directions, power and focus offsets, independent of any file format.

Both are frozen. Readers and writers are in `ooftorch.io`.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ooftorch.errors import InputError, shorten
from ooftorch.inputs import POWER, TIME, WAVELENGTH
from ooftorch.optics.receiver import Receiver
from ooftorch.scans import SCANS, find_lines
from ooftorch.truth import Truth
from ooftorch.units import SPEED_OF_LIGHT

__all__ = ["MAX_MAPS", "MIN_SAMPLES", "BeamMap", "Observation", "check_receiver"]

MIN_SAMPLES = 10
"""Least number of valid samples of a map."""

MAX_MAPS = 100
"""Largest number of maps: each has parameters of its own."""

# What no receiver records, and double precision does not hold: an error below this times the usual one, and
# below its square times the power; a power above three quarters of its map; and the peak of one map over that
# of another.
_LEAST_ERROR, _LARGEST_SPREAD, _LARGEST_CONTRAST = 1e-9, 1e20, 1e9


@dataclass(frozen=True, eq=False)
class BeamMap:
    """Samples of the beam at one focus setting.

    The arrays are copied on construction, to native double precision, and are read-only. Samples may be a
    raster or scattered, in any order.

    Parameters
    ----------
    dz : float
        Focus offset, metres; positive for a subreflector (or feed) moved away from the primary.
    x, y : array_like, (n,)
        DX and DY: telescope pointing minus source, radians, x cross-elevation and y elevation.
    power : array_like, (n,)
        Received power, any unit, the same for every map of an observation.
    sigma : array_like, (n,), optional
        Standard error of `power`, same unit. None: unknown, to be estimated from the data.
    time : array_like, (n,), optional
        Time of each sample, in the unit of the file; used only by noise models that need it.
    valid : array_like of bool, (n,), optional
        False for samples that were never observed. A power that is not finite or masked is never valid; a
        zero is valid. Invalid powers are stored as NaN, so that no sum includes them unnoticed.
    scans : {"auto", "rows", "columns", "none"}
        How the scan lines are found: see `ooftorch.scans.find_lines`.
    smear : float
        Length on the sky over which every sample is averaged while the telescope moves, radians, along the
        direction of its scan line.

    Raises
    ------
    InputError
        If an array is not one-dimensional, or its length differs from that of `power`; or `scans` or `smear`
        is none of these.
    """

    dz: float
    x: NDArray[np.float64] = field(repr=False)
    y: NDArray[np.float64] = field(repr=False)
    power: NDArray[np.float64] = field(repr=False)
    sigma: NDArray[np.float64] | None = field(default=None, repr=False)
    time: NDArray[np.float64] | None = field(default=None, repr=False)
    # Never None after construction; the default means "where the power is finite".
    valid: NDArray[np.bool_] = field(default=None, repr=False)  # type: ignore[arg-type]
    scans: str = "auto"
    smear: float = 0.0

    def __post_init__(self) -> None:
        if self.scans not in SCANS:
            raise InputError(f"scans is {shorten(repr(self.scans))}; expected one of {', '.join(SCANS)}")
        if not 0 <= self.smear < 1:
            raise InputError(f"smear is {self.smear:g} rad; expected a length on the sky, 0 for none")
        n = np.size(self.power)
        power = _convert_column(self.power, "power", n)
        valid = np.isfinite(power)
        if self.valid is not None:
            given = np.asarray(self.valid, dtype=bool)
            if given.shape != (n,):
                raise InputError(f"valid has shape {given.shape}; expected ({n},), one flag per power")
            valid &= given
        power[~valid] = np.nan
        columns: dict[str, NDArray | None] = {
            "x": _convert_column(self.x, "x", n),
            "y": _convert_column(self.y, "y", n),
            "power": power,
            "sigma": None if self.sigma is None else _convert_column(self.sigma, "sigma", n),
            "time": None if self.time is None else _convert_column(self.time, "time", n),
            "valid": valid,
        }
        for name in ("x", "y", "time"):
            column = columns[name]
            if column is not None:  # what is not known has one way to be so
                column[np.isinf(column)] = np.nan
        object.__setattr__(self, "dz", float(self.dz))
        object.__setattr__(self, "smear", float(self.smear))
        for name, column in columns.items():
            if column is not None:
                column.setflags(write=False)
            object.__setattr__(self, name, column)

    @property
    def n_valid(self) -> int:
        """Number of samples that were observed."""
        return int(np.count_nonzero(self.valid))

    @property
    def n_missing(self) -> int:
        """Number of samples that were never observed."""
        return self.valid.size - self.n_valid


@dataclass(frozen=True, eq=False)
class Observation:
    """Beam maps of one source at several focus settings, taken with one telescope and receiver.

    Attributes
    ----------
    maps : tuple of BeamMap
        Sorted by `dz` on construction; maps at the same dz keep their order.
    wavelength : float
        Metres.
    telescope : str or None
        A name for `telescopes.load`, or the path of a telescope's TOML file; None if not given.
    receiver : Receiver
        Receiver and size of the source.
    illumination : str or None
        The illumination model of the receiver, a name in `illumination.NAMES`; None if it has no special one.
    object, date_obs : str
        Source and date, as in the file.
    mean_el_deg : float or None
        Mean elevation, degrees.
    source : str
        Path of the file.
    format : str
        Format of the file.
    notes : tuple of str
        Assumptions made by the reader, one line each.
    truth : Truth or None
        True values of a simulation.
    """

    maps: tuple[BeamMap, ...]
    wavelength: float
    telescope: str | None
    receiver: Receiver
    illumination: str | None = None
    object: str = ""
    date_obs: str = ""
    mean_el_deg: float | None = None
    source: str = ""
    format: str = ""
    notes: tuple[str, ...] = ()
    truth: Truth | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "maps", tuple(sorted(self.maps, key=lambda m: m.dz)))
        object.__setattr__(self, "wavelength", float(self.wavelength))

    @property
    def frequency(self) -> float:
        """Observing frequency, hertz."""
        return SPEED_OF_LIGHT / self.wavelength

    def mirrored(self) -> "Observation":
        """Return the observation that the negated surface would give.

        Focus offsets change sign and maps are rotated by 180 degrees, with the two beams of a chopped pair:
        P(z, dz)(t) = P(-z, -dz)(-t) (CONVENTIONS 8). Its fit has all coefficients negated, provided that the
        defocus path is odd in dz, as for every unshaped telescope. The truth is dropped.
        """
        maps = tuple(replace(m, dz=0.0 - m.dz, x=0.0 - m.x, y=0.0 - m.y) for m in self.maps)
        receiver = replace(
            self.receiver, chop_x=0.0 - self.receiver.chop_x, chop_y=0.0 - self.receiver.chop_y
        )
        return replace(self, maps=maps, receiver=receiver, truth=None)

    def check(self) -> None:
        """Raise InputError if the observation cannot be fitted.

        Raises
        ------
        InputError
            If the wavelength or the receiver's numbers are out of range; there are fewer than two maps or
            more than a hundred, or all are at the same dz; a focus offset is not finite or a metre or more; a
            power, an error or a time is so large or so small that no receiver can have recorded it; a
            map has no valid sample, or fewer than ten, or the same power everywhere; a valid sample has a
            coordinate that is not finite or more than a radian, or an error that is not positive and
            finite; or a map that is smeared, or said to be in rows or columns, has no scan lines.
        """
        prefix = f"{self.source}: " if self.source else ""
        if not WAVELENGTH.holds(self.wavelength):
            raise InputError(
                f"{prefix}wavelength is {self.wavelength:g} m; it must be positive, {WAVELENGTH}: correct "
                "the frequency"
            )
        check_receiver(self.receiver, prefix)
        if len(self.maps) > MAX_MAPS:
            raise InputError(f"{prefix}{len(self.maps)} maps; expected at most {MAX_MAPS}")
        if len(self.maps) < 2:
            raise InputError(
                f"{prefix}number of maps is {len(self.maps)}; at least two at different focus offsets are "
                "needed, for one alone does not fix the sign of the surface"
            )
        for i, beam_map in enumerate(self.maps, 1):
            where = f"{prefix}map {i} of {len(self.maps)} (dz {1e3 * beam_map.dz:+g} mm)"
            if not abs(beam_map.dz) < 1:
                raise InputError(f"{where}: a focus offset of {beam_map.dz:g} m; give dz in metres")
            _check_samples(beam_map, where)
        peaks = [float(np.max(np.abs(m.power[m.valid]))) for m in self.maps]
        if max(peaks) > _LARGEST_CONTRAST * min(peaks):
            raise InputError(
                f"{prefix}the largest power is {min(peaks):.3g} in one map and {max(peaks):.3g} in another; "
                "expected one unit for all"
            )
        if self.maps[0].dz == self.maps[-1].dz:
            raise InputError(
                f"{prefix}all {len(self.maps)} maps are at dz {1e3 * self.maps[0].dz:+g} mm; "
                "at least two different focus offsets are needed"
            )


def check_receiver(receiver: Receiver, prefix: str = "") -> None:
    """Raise InputError, its message beginning with `prefix`, if numbers of a receiver are out of range."""
    r = receiver
    possible = 1e-3 <= r.gain_ratio <= 1e3 and 0 <= r.disc_radius < 1
    if not (possible and abs(r.chop_x) < 1 and abs(r.chop_y) < 1):
        raise InputError(
            f"{prefix}{r} is out of range; expected a chop below a radian, a positive gain ratio from 0.001 "
            "to 1000 and a disc radius of at least zero, below a radian"
        )


def _check_samples(beam_map: BeamMap, where: str) -> None:
    """Raise InputError if the samples of a map cannot be fitted; the message starts with `where`."""
    valid = beam_map.valid
    n = beam_map.n_valid
    if n == 0:
        raise InputError(f"{where}: all {valid.size} samples are missing (NaN); leave this map out")
    if n < MIN_SAMPLES:
        raise InputError(f"{where}: {n} valid samples; at least {MIN_SAMPLES} are needed")
    for name, column in (("DX", beam_map.x), ("DY", beam_map.y)):
        if not np.isfinite(column[valid]).all():
            raise InputError(
                f"{where}: {name} is not finite for {np.count_nonzero(~np.isfinite(column[valid]))} samples "
                "that have a power; mark those samples as missing (power NaN)"
            )
        farthest = np.abs(column[valid]).max()
        if farthest > 1:
            raise InputError(f"{where}: {name} reaches {farthest:g} rad; coordinates must be in radians")
    power = beam_map.power[valid]
    _check_size(power[power != 0], f"{where}: a power")
    if (power != 0).any():
        size = np.abs(power[power != 0])
        usual = float(np.quantile(size, 0.75))
        if size.max() > _LARGEST_SPREAD * usual:
            raise InputError(
                f"{where}: a power of {size.max():.3g}, where three quarters are below {usual:.3g}; mark "
                "what is no measurement as missing (power NaN)"
            )
    if beam_map.sigma is not None:
        sigma = beam_map.sigma[valid]
        bad = np.count_nonzero(~(np.isfinite(sigma) & (sigma > 0)))
        if bad:
            raise InputError(
                f"{where}: {bad} of {n} errors (UFNU, sigma) are zero, negative or not finite; mark those "
                "samples as missing (power NaN), or give no errors at all to have the noise estimated"
            )
        _check_size(sigma, f"{where}: an error (UFNU, sigma)")
        least = _LEAST_ERROR * max(float(np.median(sigma)), _LEAST_ERROR * float(np.max(np.abs(power))))
        if sigma.min() < least:
            raise InputError(
                f"{where}: an error (UFNU, sigma) of {sigma.min():.3g}, where the others are about "
                f"{np.median(sigma):.3g} and the power is up to {power.max():.3g}; mark it as missing (NaN)"
            )
    if beam_map.time is not None:
        time = beam_map.time[np.isfinite(beam_map.time)]
        if time.size and not (TIME.holds(float(time.min())) and TIME.holds(float(time.max()))):
            raise InputError(f"{where}: TIME reaches {np.abs(time).max():g}; expected {TIME}")
    if power.min() == power.max():
        raise InputError(f"{where}: all {n} powers are {power[0]:g}; there is no beam in this map")
    if beam_map.scans in ("rows", "columns") and find_lines(beam_map) is None:
        raise InputError(
            f"{where}: scans is {beam_map.scans!r}, but the samples are in no {beam_map.scans} of five or "
            'more; give the word that fits, or "none"'
        )
    if beam_map.smear and find_lines(beam_map) is None:
        raise InputError(
            f"{where}: smeared, but along which lines is not known: no scan lines found with scans "
            f'{beam_map.scans!r}; give "rows" or "columns", the times of the samples, or no smearing'
        )


def _check_size(values: NDArray, what: str) -> None:
    """Raise InputError if squares or ratios of these values would overflow."""
    sizes = np.abs(values)
    for extreme in (sizes.min(initial=1.0), sizes.max(initial=1.0)):
        if not POWER.holds(float(extreme)):
            raise InputError(
                f"{what} is {extreme:g}; expected {POWER}: mark it as missing (power NaN), or change the unit"
            )


def _convert_column(values: ArrayLike, name: str, n: int) -> NDArray[np.float64]:
    """Copy an array to a vector of `n` native doubles, masked entries as NaN."""
    given: np.ma.MaskedArray = np.ma.asarray(values)
    if given.dtype.kind not in "biuf":
        raise InputError(f"{name} is of type {given.dtype}; expected real numbers")
    column = np.array(np.ma.filled(given.astype(np.float64), np.nan))
    if column.shape != (n,):
        raise InputError(f"{name} has shape {column.shape}; expected ({n},), one value per power")
    return column
