"""Noise and errors of simulated maps: white noise, drifts, scan lines, pointing and focus errors, glitches.

Each kind has its own random stream, so switching one on does not change the draws of the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from ooftorch.errors import InputError, shorten
from ooftorch.inputs import SEED, Range

__all__ = ["KINDS", "Noise", "Streams", "draw_glitches", "draw_pink"]

Array = NDArray[np.float64]

KINDS = (
    "white",
    "multiplicative",
    "drift",
    "baseline",
    "jitter",
    "wander",
    "dz",
    "gain",
    "glitches",
    "slope",
    "line_gain",
    "gain_drift",
    "line_pointing",
    "pointing",
)
"""Kinds of noise and error; each can be given its own seed. The order is part of the seeds."""

# Largest values: radians or metres, and those that are relative.
_LARGEST = dict.fromkeys(("jitter", "wander", "line_pointing", "pointing", "dz"), 1.0)
_LARGEST_RELATIVE = 1e6
_SNR = Range(1e-6, 1e15)


@dataclass(frozen=True)
class Noise:
    """Kinds of noise and error, each off by default.

    "Peak" is the highest power in any of the simulated maps, without noise and baseline. White noise is given
    by `snr` or `snr_per_beam`, not both.

    Attributes
    ----------
    snr : float or None
        White noise: peak over the standard deviation of one sample.
    snr_per_beam : float or None
        White noise: peak over the standard deviation of the mean over a beam; that of one sample is F times
        larger, F = sum(B) / sqrt(sum(B**2)) for the beam B of the perfect dish in focus (original software).
    multiplicative : float
        Relative error of every sample.
    drift : float
        Rms of a 1/f drift of the baseline along the scan, over the peak.
    baseline : float
        Rms of the baselines of the scan lines, over the peak.
    jitter, wander : float
        Pointing error on each axis, radians rms: independent for every sample, and slow (1/f).
    dz : float
        Standard deviation of the focus of each map, metres.
    gain : float
        Relative standard deviation of the gain of each map.
    glitches : float
        Fraction of the samples with a glitch.
    glitch_size : float
        Size of the largest glitch, over the peak. The density of sizes is proportional to 1/size over two
        decades; signs are random.
    slope : float
        Rms, over the peak, of the level that slopes in time along the scan lines cause.
    line_gain : float
        Relative standard deviation of the gain of each scan line.
    gain_drift : float
        Rms of a relative 1/f drift of the gain within each map.
    line_pointing, pointing : float
        Pointing error on each axis, radians rms: of each scan line, and of each map as a whole.

    Raises
    ------
    InputError
        If a value is negative or not finite, both kinds of white noise are given, or `glitches` is above 1.
    """

    snr: float | None = None
    snr_per_beam: float | None = None
    multiplicative: float = 0.0
    drift: float = 0.0
    baseline: float = 0.0
    jitter: float = 0.0
    wander: float = 0.0
    dz: float = 0.0
    gain: float = 0.0
    glitches: float = 0.0
    glitch_size: float = 1.0
    slope: float = 0.0
    line_gain: float = 0.0
    gain_drift: float = 0.0
    line_pointing: float = 0.0
    pointing: float = 0.0

    def __post_init__(self) -> None:
        for name in (f.name for f in fields(self)):
            value = getattr(self, name)
            if name.startswith("snr"):
                if value is not None and not _SNR.holds(value):
                    raise InputError(f"{name} is {value}; expected a positive number, {_SNR}")
            elif not 0 <= value <= _LARGEST.get(name, _LARGEST_RELATIVE):
                most = _LARGEST.get(name, _LARGEST_RELATIVE)
                raise InputError(f"noise: {name} is {value}; expected a number from 0 up, at most {most:g}")
        if self.snr is not None and self.snr_per_beam is not None:
            raise InputError("snr and snr_per_beam are two ways to say one thing; give one of them")
        if self.glitches > 1:
            raise InputError(
                f"noise: glitches is {self.glitches}; expected a fraction of the samples, 0 to 1"
            )


class Streams:
    """Random streams, one for each kind of noise, indexed by its name.

    Parameters
    ----------
    seed : int
        Seed of all kinds that `seeds` does not name.
    seeds : mapping of str to int, optional
        Seeds of single kinds, names of `KINDS`.

    Raises
    ------
    InputError
        If a kind is unknown or a seed negative.
    """

    def __init__(self, seed: int = 0, seeds: Mapping[str, int] | None = None) -> None:
        seeds = dict(seeds or {})
        for name in seeds:
            if name not in KINDS:
                raise InputError(f"no noise of the kind {name!r} to seed; known are {', '.join(KINDS)}")
        for value in (seed, *seeds.values()):
            if not SEED.holds(value):
                raise InputError(f"seed {shorten(value)}; expected a whole number from 0 up, at most 2**63")
        self._streams = {
            kind: np.random.default_rng([seeds.get(kind, seed), i]) for i, kind in enumerate(KINDS)
        }

    def __getitem__(self, kind: str) -> np.random.Generator:
        return self._streams[kind]


def draw_pink(n: int, rng: np.random.Generator) -> Array:
    """Draw 1/f noise of n samples, evenly spaced in time: power proportional to 1/f, mean zero, rms 1.

    It is the first half of a periodic series of 2n samples, so that it does not wrap around.
    """
    if n < 2:
        return np.zeros(n)
    f = np.fft.rfftfreq(2 * n)
    spectrum = rng.normal(size=f.size) + 1j * rng.normal(size=f.size)
    spectrum[0] = 0.0
    spectrum[1:] /= np.sqrt(f[1:])
    series = np.fft.irfft(spectrum, 2 * n)[:n]
    series -= series.mean()
    return series / series.std()


def draw_glitches(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Draw glitches with sizes from 0.01 to 1, density proportional to 1/size, and random signs."""
    return rng.choice([-1.0, 1.0], size=shape) * 10 ** rng.uniform(-2, 0, size=shape)
