"""What a fit learns from the maps before it begins: samples, levels, noise, and a place to start from."""

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import scipy.spatial
import torch

from ooftorch.fitting.likelihood import Likelihood
from ooftorch.optics.model import BeamModel
from ooftorch.optics.parameters import Layout, Parameter

if TYPE_CHECKING:
    from ooftorch.observation import BeamMap, Observation

__all__ = [
    "Samples",
    "chi2",
    "directions",
    "errors_known",
    "levels",
    "map_noise",
    "noise_parameter",
    "perfect_beams",
    "placed",
    "samples",
    "start",
    "steady",
]


def placed(m: "BeamMap") -> np.ndarray:
    """Samples whose position can be used: a sample that was never observed may have none, or nonsense."""
    reach = np.max(np.abs((m.x[m.valid], m.y[m.valid])))
    return m.valid | ((np.abs(m.x) <= reach) & (np.abs(m.y) <= reach))


def directions(m: "BeamMap") -> tuple[np.ndarray, np.ndarray]:
    """Directions x, y of all samples, radians; zero for those of no known place."""
    known = placed(m)
    return np.where(known, m.x, 0.0), np.where(known, m.y, 0.0)


class Samples(NamedTuple):
    """Samples of all maps, (n,) each: power, errors, which are valid; and what to say about the errors."""

    power: np.ndarray
    errors: np.ndarray
    valid: np.ndarray
    notes: list[str]


def samples(maps: "tuple[BeamMap, ...]") -> Samples:
    """Samples of all maps, one map after the other; errors of 1 where none are known."""
    valid = np.concatenate([m.valid for m in maps])
    power = np.concatenate([np.where(m.valid, m.power, 0.0) for m in maps])
    errors = [np.where(m.valid, m.sigma, 1.0) for m in maps if m.sigma is not None]
    if errors_known(maps):
        return Samples(power, np.concatenate(errors), valid, [])
    notes = []
    if len(errors) == len(maps):
        notes.append("errors of 1 throughout are a writer's placeholder: noise estimated from the data")
    elif errors:
        notes.append(f"errors given for only {len(errors)} of {len(maps)} maps: noise estimated for all")
    return Samples(power, np.ones_like(power), valid, notes)


def errors_known(maps: "tuple[BeamMap, ...]") -> bool:
    """Whether every map has errors, and not all of them 1."""
    given = [m.sigma[m.valid] for m in maps if m.sigma is not None]
    return len(given) == len(maps) and not all((sigma == 1).all() for sigma in given)


def noise_parameter(known_errors: bool, judge: Likelihood, peak: float) -> Parameter:
    """The noise scale: times the file's errors, or, where it has none, in the data's units.

    A standard error is taken at its word. A Cauchy half width is not one, and is fitted always.
    """
    if known_errors:
        return Parameter("noise", "errors", 1.0, free=judge.name != "gaussian", log=True)
    return Parameter("noise", "data", 0.1 * peak, peak, free=True, log=True)


def steady(m: "BeamMap", values: np.ndarray) -> np.ndarray:
    """Values at the samples of a map, each the median of itself and its four neighbours; zero where invalid.

    One glitch can be brighter than a whole defocused beam; a beam is never a sample alone.
    """
    valid = m.valid
    places = np.stack([m.x[valid], m.y[valid]], 1)
    _, nearest = scipy.spatial.KDTree(places).query(places, k=5)
    found = np.zeros(values.shape)
    found[valid] = np.median(values[valid][nearest], axis=1)
    return found


def levels(maps: "tuple[BeamMap, ...]") -> tuple[float, list[float]]:
    """Largest excursion from the baseline in any map, glitches aside; and the baseline of each map."""
    baselines, peak = [], 0.0
    for m in maps:
        x, y, power = m.x[m.valid], m.y[m.valid], m.power[m.valid]
        r = np.hypot(x - np.median(x), y - np.median(y))
        baselines.append(float(np.median(power[r >= np.quantile(r, 0.75)])))
        peak = max(peak, float(np.max(np.abs(steady(m, m.power)[m.valid] - baselines[-1]))))
    return peak, baselines


def map_noise(m: "BeamMap", residual: np.ndarray, known_errors: bool) -> float:
    """Standard error of a sample: the file's, or the scatter from sample to sample away from the beam.

    Fourth differences along the scan: a beam sampled a few times over its width hardly shows in them. Where
    neighbours in the file are none on the sky they do show it, and the residuals scatter less.
    """
    if known_errors and m.sigma is not None:
        return float(np.median(m.sigma[m.valid]))
    x, y, power = m.x[m.valid], m.y[m.valid], m.power[m.valid]
    r = np.hypot(x - np.median(x), y - np.median(y))[2:-2]
    differences = np.convolve(power, (1, -4, 6, -4, 1), mode="valid")[r >= np.median(r)]
    scatter = np.median(np.abs(differences)) / math.sqrt(70)
    return float(1.4826 * min(scatter, np.median(np.abs(residual[m.valid]))))


def chi2(maps: "tuple[BeamMap, ...]", residual: np.ndarray, noises: list[float], known_errors: bool) -> float:
    """Sum of the squared residuals over the noise; NaN without noise."""
    sigma = np.concatenate(
        [
            np.where(m.valid, m.sigma, 1.0)
            if known_errors and m.sigma is not None
            else np.full(m.valid.size, noise)
            for m, noise in zip(maps, noises, strict=True)
        ]
    )
    return float(np.sum((residual / sigma) ** 2)) if (sigma > 0).all() else math.nan


def perfect_beams(model: BeamModel, layout: Layout) -> list[np.ndarray]:
    """Maps of the perfect dish in units of its in-focus peak."""
    perfect = model.oo(layout.coordinates({f"offset_{i}": 0.0 for i in range(len(model.dz))}))
    with torch.no_grad():
        beams = model.split(model(perfect).cpu().numpy())
    return [beam / layout.parameters[layout.index("gain_0")].start for beam in beams]


def start(
    model: BeamModel,
    layout: Layout,
    observation: "Observation",
    baselines: list[float],
    beams: list[np.ndarray],
) -> np.ndarray:
    """Coordinates to start from: a perfect dish, whose `beams` are given, of the right flux and pointing.

    Flux and centroid are what aberrations leave alone: the power in a map does not depend on the phase,
    and the centroid of the power is the mean slope of the wavefront.
    """
    maps = observation.maps
    flux = expected = 0.0
    excesses = [
        np.where(m.valid, steady(m, m.power) - level, 0.0) for m, level in zip(maps, baselines, strict=True)
    ]
    for m, excess, beam in zip(maps, excesses, beams, strict=True):
        bright = np.abs(excess) > 0.05 * np.abs(excess).max()
        flux += float(np.sum(np.abs(excess), where=bright))
        expected += float(np.sum(np.abs(steady(m, beam))))
    centroids = [_centroid(m, excess, observation) for m, excess in zip(maps, excesses, strict=True)]
    shift = np.mean(centroids, axis=0)
    tilt = 2 * math.pi * model.telescope.radius / model.wavelength * shift
    guess = {f"gain_{i}": flux / expected for i in range(len(maps))}
    guess |= {f"offset_{i}": level for i, level in enumerate(baselines)}
    guess |= {"z2": float(tilt[0]), "z1": float(tilt[1])}
    guess = {k: v for k, v in guess.items() if layout.parameters[layout.index(k)].free}
    return layout.coordinates(guess)


def _centroid(m: "BeamMap", excess: np.ndarray, observation: "Observation") -> np.ndarray:
    """Where the beam points, (x, y) rad: centroid of the excess, or the mean over a chopped pair's two."""
    receiver = observation.receiver
    found = []
    for sign in (1, -1) if receiver.chopped else (1,):
        weight = np.clip(sign * excess, 0, None)
        weight = np.where(weight > 0.15 * weight.max(), weight, 0)
        expected = 0.5 * sign * np.array([receiver.chop_x, receiver.chop_y])
        where = np.stack([np.where(m.valid, m.x, 0.0), np.where(m.valid, m.y, 0.0)])
        if weight.sum() > 0:
            found.append((where @ weight) / weight.sum() - expected)
    return np.mean(found, axis=0) if found else np.zeros(2)
