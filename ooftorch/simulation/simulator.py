"""Simulate beam maps of a known surface.

The power is that of `BeamModel`, on finer pixels than a fit uses. `Noise` is applied in physical order:
pointing and focus errors, gain, baseline drifts, radiometer noise, glitches.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ooftorch import __version__
from ooftorch.errors import InputError, shorten
from ooftorch.inputs import WAVELENGTH, Range
from ooftorch.observation import MAX_MAPS, BeamMap, Observation, check_receiver
from ooftorch.optics import illumination as illuminations
from ooftorch.optics import telescopes, zernike
from ooftorch.optics.illumination.base import Illumination
from ooftorch.optics.instrument import MapGeometry
from ooftorch.optics.model import BeamModel
from ooftorch.optics.pixels import Shape, choose_raster
from ooftorch.optics.receiver import Receiver
from ooftorch.optics.telescope import Telescope
from ooftorch.scans import find_smear
from ooftorch.simulation.noise import Noise, Streams, draw_glitches, draw_pink
from ooftorch.simulation.scan import PATTERNS, Scan
from ooftorch.truth import TrueValue, Truth

__all__ = ["Simulator", "simulate"]

Array = NDArray[np.float64]

# Default half width of a map in addition to the spread by defocus, and spacing of its samples, in units of
# wavelength over diameter.
_REACH, _STEP = 6.0, 0.4
# Least aperture raster, pixels a side: twice that of a fit, so that a fit cannot profit from equal pixels.
_PIXELS = 512
# Pixels across the dish of the recorded true phase.
_ACROSS = 129
# Sampling interval, and time between two maps, seconds.
_DWELL, _PAUSE = 0.1, 30.0
# Samples of a map that are computed at a time, limited by memory.
_BLOCK = 20_000
# Peak power, well within those that an observation may have.
_PEAK = Range(1e-40, 1e40)


def simulate(
    telescope: Telescope | str | Path,
    values: Mapping[str, float] | None = None,
    *,
    seed: int = 0,
    seeds: Mapping[str, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
    **setup,
) -> Observation:
    """Simulate beam maps in and out of focus.

    Parameters
    ----------
    telescope : Telescope, str or Path
        A telescope, the name of one of the package, or a TOML file.
    values, seed, seeds, progress
        See `Simulator.observe`.
    **setup
        Wavelength, dz, receiver, noise and the other arguments of `Simulator`.

    Returns
    -------
    Observation

    Raises
    ------
    InputError
        As `Simulator` and `Simulator.observe`.
    """
    return Simulator(telescope, **setup).observe(values, seed=seed, seeds=seeds, progress=progress)


class Simulator:
    """A telescope, receiver and scan pattern, to observe any number of surfaces with.

    Parameters
    ----------
    telescope : Telescope, str or Path
        A telescope, the name of one of the package, or a TOML file.
    wavelength : float, optional
        Metres; by default the one at which the telescope is usually measured.
    dz : array_like, optional
        Focus offsets of the maps, metres, in the order in which they are taken; by default zero, minus
        `Telescope.usual_defocus`, and plus.
    receiver : Receiver
    illumination : str or Illumination, optional
        A name of `illumination.NAMES`, or a model; the telescope's usual one by default.
    shapes : sequence of callable
        Phase (rad) added to that of the Zernikes, functions of x, y (m): see `surfaces.bump` and
        `surfaces.PhaseMap`.
    pattern : {"map", "otf", "daisy"}
        Scan pattern: see `scan`.
    reach, step : float, optional
        Half width of the maps and spacing of their samples in units of wavelength over diameter. By default
        6 plus the spread by defocus, chop and size of the source, in steps of 0.4.
    peak : float
        Peak power of the perfect telescope in focus: the default of `gain_i`.
    noise : Noise
    smear : float
        Length on the sky over which every sample is averaged while the telescope moves, radians.
    n, oversample : int, float, optional
        Aperture raster (see `BeamModel`); n by default 512 or what the maps need, finer than the fit's.

    Raises
    ------
    InputError
        If the telescope, the illumination or the pattern is not known, or a number is out of range.
    """

    def __init__(
        self,
        telescope: Telescope | str | Path,
        *,
        wavelength: float | None = None,
        dz: ArrayLike | None = None,
        receiver: Receiver = Receiver(),  # noqa: B008  (frozen)
        illumination: str | Illumination | None = None,
        shapes: Sequence[Shape] = (),
        pattern: str = "map",
        reach: float | None = None,
        step: float = _STEP,
        peak: float = 1.0,
        noise: Noise = Noise(),  # noqa: B008  (frozen)
        smear: float = 0.0,
        n: int | None = None,
        oversample: float = 2.0,
    ) -> None:
        self._name = telescope.name if isinstance(telescope, Telescope) else str(telescope)
        if not isinstance(telescope, Telescope):
            telescope = telescopes.load(telescope)
        self.telescope = telescope
        if wavelength is not None and not WAVELENGTH.holds(wavelength):
            raise InputError(f"wavelength {wavelength} m; expected a positive number of metres, {WAVELENGTH}")
        self.wavelength = telescope.usual_wavelength() if wavelength is None else wavelength
        check_receiver(receiver)
        self.receiver, self.shapes, self.noise, self.pattern = receiver, tuple(shapes), noise, pattern
        self.illumination = illuminations.choose(illumination or telescope.illumination.model)
        given = _choose_offsets(telescope, self.wavelength, dz)
        # Sorted by dz, as in an observation; _time_order has the position of each in the given order.
        self._time_order = np.argsort(given, kind="stable")
        self.dz = given[self._time_order]
        if not _PEAK.holds(peak):
            raise InputError(f"a peak of {peak}; expected a positive number, {_PEAK}")
        self.peak = peak
        self.scan = self._choose_scan(reach, step)
        scan = self.scan
        self._still = BeamMap(
            0.0, scan.x, scan.y, np.zeros(scan.x.size), time=_DWELL * scan.time, smear=smear
        )
        directions = [(scan.x, scan.y)]
        least = choose_raster(telescope, self.wavelength, receiver, directions, oversample, _PIXELS)
        self._n, self._oversample = least if n is None else n, oversample
        self._last_model: tuple[list[MapGeometry], BeamModel] | None = None

    def observe(
        self,
        values: Mapping[str, float] | None = None,
        *,
        seed: int = 0,
        seeds: Mapping[str, int] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Observation:
        """Observe one surface.

        Parameters
        ----------
        values : mapping of str to float, optional
            Parameters of the model by name, in their units: z1, z2, ... (rad; `surfaces.random` and
            `surfaces.gravity` draw some), a3, a4, ... (the bend of the illumination), sigma, x0, legs,
            gain_ratio, dz and dz_scale (a common error of the focus, m, and a factor on its offsets), and
            gain_0, offset_0, dx_0, ... with the maps numbered in the order of dz. The others have the start
            values of a fit.
        seed : int
            Random seed of all noise.
        seeds : mapping of str to int, optional
            Seeds of single kinds of noise: names of `noise.KINDS`.
        progress : callable, optional
            Called with the number of samples computed so far, and their total number.

        Returns
        -------
        Observation
            With its truth. `sigma` is the standard deviation of the white noise only, as for a real receiver;
            None without white noise.

        Raises
        ------
        InputError
            If a parameter is not known or out of range, a shape has no value on the dish, or the maps make no
            observation (`Observation.check`).
        """
        values, streams = dict(values or {}), Streams(seed, seeds)
        noise, scan = self.noise, self.scan
        shape = len(self.dz), scan.x.size
        # True pointing, where scan.x, scan.y are recorded; true focus and gain.
        pointing = {
            "jitter": noise.jitter * streams["jitter"].normal(size=(2, *shape)),
            "wander": noise.wander * np.stack([self._draw_slow_drift(streams["wander"]) for _ in "xy"]),
            "line_pointing": noise.line_pointing
            * np.stack([self._draw_lines(streams["line_pointing"]) for _ in "xy"]),
            "pointing": noise.pointing * streams["pointing"].normal(size=(2, shape[0], 1)),
        }
        x, y = sum(pointing.values(), np.stack([scan.x, scan.y])[:, None])
        dz = self.dz + noise.dz * streams["dz"].normal(size=shape[0])
        gain = 1 + noise.gain * streams["gain"].normal(size=shape[0])
        gains = {
            "line_gain": noise.line_gain * self._draw_lines(streams["line_gain"]),
            "gain_drift": noise.gain_drift
            * np.stack([draw_pink(shape[1], streams["gain_drift"]) for _ in self.dz]),
        }
        modulation = sum(gains.values(), np.ones(shape))
        smear = find_smear(self._still)
        model, clean = self._predict_clean(
            values, [MapGeometry(*m, smear) for m in zip(dz, x, y, strict=True)], progress
        )
        true = model.values()
        offset = np.array([[true[f"offset_{i}"]] for i in range(shape[0])])
        beam = gain[:, None] * modulation * (clean - offset)

        peak = float(np.max(np.abs(beam)))
        levels = {
            "drift": noise.drift * self._draw_slow_drift(streams["drift"]),
            "level": noise.baseline * self._draw_lines(streams["baseline"]),
            "slope": noise.slope * self._draw_lines(streams["slope"]) * _normalise(scan.phase),
        }
        level = sum(levels.values(), np.zeros(shape))
        sigma = self._find_white_sigma(peak)
        rng = streams["glitches"]
        hit = rng.uniform(size=shape) < noise.glitches
        recorded = (
            beam * (1 + noise.multiplicative * streams["multiplicative"].normal(size=shape))
            + offset
            + peak * level
            + (sigma or 0.0) * streams["white"].normal(size=shape)
            + noise.glitch_size * peak * np.where(hit, draw_glitches(shape, rng), 0.0)
        )
        for i in range(shape[0]):
            true[f"gain_{i}"] *= float(gain[i] * modulation[i].mean())
            true[f"offset_{i}"] += peak * float(level[i].mean())
            # Where the true pointing is farther out than the recorded one, the beam appears nearer in.
            true[f"dx_{i}"] -= float((x[i] - scan.x).mean())
            true[f"dy_{i}"] -= float((y[i] - scan.y).mean())
        usual_illumination = self.illumination.name == self.telescope.illumination.model
        observation = Observation(
            maps=tuple(
                replace(
                    self._still,
                    dz=self.dz[i],
                    power=recorded[i],
                    sigma=None if sigma is None else np.full(shape[1], sigma),
                    time=_DWELL * scan.time + self._time_order[i] * (_DWELL * scan.time[-1] + _PAUSE),
                )
                for i in range(shape[0])
            ),
            wavelength=self.wavelength,
            telescope=self._name,
            receiver=self.receiver,
            illumination=None if usual_illumination else self.illumination.name,
            object="simulated",
            format="simulated",
            notes=(
                f"simulated by ooftorch {__version__}, {self.pattern}, seed {seed}; {_describe_noise(noise)}",
            ),
            truth=self._build_truth(
                model,
                true,
                dz * true["dz_scale"] + true["dz"],
                _measure(pointing, "rad") | _measure(gains, "") | _measure(levels, "data", peak),
            ),
        )
        observation.check()
        return observation

    def _draw_slow_drift(self, rng: np.random.Generator) -> Array:
        """Draw 1/f noise of rms 1, continuous in time from map to map, (n_maps, n)."""
        return draw_pink(len(self.dz) * self.scan.x.size, rng).reshape(len(self.dz), -1)[self._time_order]

    def _draw_lines(self, rng: np.random.Generator) -> Array:
        """Draw a number of variance 1 for every scan line, (n_maps, n)."""
        line = self.scan.line
        return rng.normal(size=(len(self.dz), line.max() + 1))[:, line]

    def _predict_clean(
        self,
        values: Mapping[str, float],
        maps: list[MapGeometry],
        progress: Callable[[int, int], None] | None,
    ) -> tuple[BeamModel, Array]:
        """Return the model with these parameters, and its power without noise (n_maps, n)."""
        n = self.scan.x.size
        orders = _find_highest_order(values, "z"), _find_highest_order(values, "a")
        parts = []
        for first in range(0, n, _BLOCK):
            some = [m.select(slice(first, first + _BLOCK)) for m in maps]
            model = self._get_model(some, *orders)
            model.set(**values)
            with torch.no_grad():
                parts.append(model().numpy().reshape(len(maps), -1))
            if progress is not None:
                progress(len(maps) * min(first + _BLOCK, n), len(maps) * n)
        return model, np.concatenate(parts, -1)

    def _get_model(self, maps: list[MapGeometry], order: int, amplitude_order: int) -> BeamModel:
        """Return the model of these maps at its start values; the last one is reused if it is the same."""
        if self._last_model is not None:
            known, model = self._last_model
            same = (a.dz == b.dz and a.has_directions_of(b) for a, b in zip(known, maps, strict=True))
            orders = model.order, model.instrument.amplitude_order
            if orders == (order, amplitude_order) and all(same):
                model.reset()
                return model
        model = self._build_model(
            maps, order, self.receiver, self._sum_shapes if self.shapes else None, amplitude_order
        )
        self._last_model = maps, model
        return model

    def _build_model(
        self,
        maps: list[MapGeometry],
        order: int,
        receiver: Receiver,
        shape: Shape | None,
        amplitude_order: int = 0,
    ) -> BeamModel:
        return BeamModel(
            self.telescope,
            self.wavelength,
            maps,
            order=order,
            illumination=self.illumination,
            receiver=receiver,
            scale=self.peak,
            shape=shape,
            amplitude_order=amplitude_order,
            n=self._n,
            oversample=self._oversample,
        )

    def _sum_shapes(self, x: Array, y: Array) -> Array:
        return np.sum([shape(x, y) for shape in self.shapes], axis=0)

    def _find_white_sigma(self, peak: float) -> float | None:
        """Standard deviation of the white noise of a sample, given the peak; None without white noise."""
        if self.noise.snr is not None:
            return peak / self.noise.snr
        if self.noise.snr_per_beam is None:
            return None
        return peak / self.noise.snr_per_beam * math.sqrt(self.samples_per_beam())

    def samples_per_beam(self) -> float:
        """Effective number of samples in a beam, F**2 with F = sum(B) / sqrt(sum(B**2)).

        B is the beam of the perfect dish in focus; of a chopped pair, one of the two. White noise of one
        sample is F times that of the mean over a beam (original OOF software).
        """
        one = Receiver(disc_radius=self.receiver.disc_radius)
        model = self._build_model([MapGeometry(0.0, self.scan.x, self.scan.y)], 1, one, None)
        with torch.no_grad():
            beam = model().numpy()
        return float(beam.sum() ** 2 / np.sum(beam**2))

    def _choose_scan(self, reach: float | None, step: float) -> Scan:
        if self.pattern not in PATTERNS:
            raise InputError(f"pattern {self.pattern!r}; known are {', '.join(PATTERNS)}")
        beam = self.wavelength / (2 * self.telescope.radius)
        r = self.receiver
        if reach is None:
            half = _REACH * beam + self.telescope.steepness() * float(np.max(np.abs(self.dz))) + r.disc_radius
            wide, high = half + 0.5 * abs(r.chop_x), half + 0.5 * abs(r.chop_y)
        else:
            wide = high = reach * beam
        return PATTERNS[self.pattern](wide, high, step * beam)

    def _build_truth(
        self, model: BeamModel, values: Mapping[str, float], dz: Array, drawn: Mapping[str, TrueValue]
    ) -> Truth:
        parameters = {p.name: TrueValue(values[p.name], p.unit) for p in model.layout.parameters}
        parameters |= {f"dz_{i}": TrueValue(float(offset), "m") for i, offset in enumerate(dz)}
        parameters |= drawn
        radius = self.telescope.radius
        axis = radius * np.linspace(-1, 1, _ACROSS)
        x, y = np.meshgrid(axis, axis)
        is_open = self.telescope.open_at(x, y, widths=values)
        x, y = x[is_open], y[is_open]
        points = (torch.as_tensor(a / radius) for a in (x, y))
        named = {p.name: torch.tensor(values[p.name]) for p in model.parts.illumination.parameters}
        illumination = model.instrument.illumination
        amplitude = illumination.amplitude(*points, model.pixels.pitch / radius, **named).numpy()
        basis = model.instrument.basis
        true = np.array([values[name] for name in basis.names]) @ basis.evaluate(x / radius, y / radius)
        if self.shapes:
            true = true + self._sum_shapes(x, y)
        phase = np.full(is_open.shape, np.nan)
        phase[is_open] = np.where(amplitude > 1e-9 * amplitude.max(), true, np.nan)
        return Truth(parameters, axis, phase, radius)


def _find_highest_order(values: Mapping[str, float], letter: str) -> int:
    """Radial order of the highest coefficient "z<k>" or "a<k>"; at least 1 for z, and 0 for a without any."""
    numbers = [k for name in values if (k := zernike.number(name, letter)) is not None]
    order = max((zernike.order_of(k) for k in numbers), default=0)
    return max(order, 1) if letter == "z" else order * (order > 1)


def _choose_offsets(telescope: Telescope, wavelength: float, given: ArrayLike | None) -> Array:
    if given is None:
        usual = telescope.usual_defocus(wavelength)
        return np.array([0.0, -usual, usual])
    dz = np.atleast_1d(np.asarray(given, float))
    if dz.ndim != 1 or not 0 < dz.size <= MAX_MAPS or not (np.abs(dz) < 1).all():
        raise InputError(
            f"focus offsets {shorten(given)}; expected a list of offsets in metres, each below one metre, at "
            f"most {MAX_MAPS}"
        )
    return dz


def _normalise(phase: Array) -> Array:
    """Divide by the rms."""
    return phase / np.sqrt(np.mean(phase**2))


def _measure(errors: Mapping[str, Array], unit: str, scale: float = 1.0) -> dict[str, TrueValue]:
    """Rms of errors (..., n_maps, n) within each map, about the mean of the map: level_rms_0, ..."""
    return {
        f"{name}_rms_{i}": TrueValue(float(rms), unit)
        for name, error in errors.items()
        for i, rms in enumerate(scale * np.sqrt(error.var(-1).reshape(-1, error.shape[-2]).mean(0)))
        if rms > 0
    }


def _describe_noise(noise: Noise) -> str:
    """Describe the kinds of noise that are switched on, for the notes of an observation."""
    usual = Noise()
    on = {k: v for k, v in vars(noise).items() if v != getattr(usual, k)}
    return ", ".join(f"{name} {value:g}" for name, value in on.items()) or "no noise"
