"""What has disturbed an observation, as far as it shows in the samples and the parameters of its fit.

Nothing is fitted here, and most of it costs nothing.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ooftorch.fitting.samples import is_recorded_in_steps
from ooftorch.fitting.start import MedianFilter
from ooftorch.observation import BeamMap, Observation
from ooftorch.result import Cause, FitResult, MapFit

__all__ = ["find_spikes", "find_symptoms"]

Array = NDArray[np.float64]

# Chi-square per degree of freedom, and degrees of freedom of Student's t above one, beyond which residuals
# are worth a search.
_LEAST_CHI2, _MOST_EXCESS = 2.0, 9.0
# Deviation from the neighbours, in scatters of all samples and of those around, that is a glitch; and the
# share of the samples from which on it is said.
_SPIKE, _LEAST_SPIKES = 7.0, 0.01
# Pointing of one map against the others, wavelengths over diameter, from which on it is displaced.
_DISPLACED = 0.3
# Factor between fitted and given focus offsets, from which on it is said.
_SCALED = 1.1
# Errors of scan lines, in the units of `ScanTerm`, from which on they are said.
_DRIFT = {"level": 0.005, "slope": 0.005}
_WANDER = {"gain": 0.03, "pointing": 0.05, "pointing_drift": 0.05}
# Power at the end of a map over its peak for which the beam is cut off; directions looked at, the number of
# those that must have it, and the samples of which the median is taken.
_CUT, _SECTORS, _LEAST_SECTORS, _LAST = 0.2, 16, 2, 3
# Samples at exactly the highest power of all, and how many times as many as at other powers, for which a
# receiver or recorder has reached its end.
_EQUAL, _MORE_THAN_USUAL = 4, 3.0
# Share of the squared residuals that is one wave for which there are stripes, samples of a map that are
# looked at, and the frequencies along each axis.
_STRIPES, _SOME, _FREQUENCIES = 0.35, 1500, 25


def find_symptoms(observation: Observation, result: FitResult) -> tuple[Cause, ...]:
    """Find what has disturbed an observation.

    Parameters
    ----------
    observation : Observation
    result : FitResult

    Returns
    -------
    tuple of Cause
        Without factors.
    """
    excess = result.parameters.get("excess_degrees")
    has_tails = excess is not None and excess.value < _MOST_EXCESS
    misfit = result.chi2_reduced >= _LEAST_CHI2
    may_have_spikes = (misfit or has_tails) and not is_recorded_in_steps(observation)
    maps = observation.maps
    texts = {
        "displaced": "" if misfit else _describe_displacement(result),
        "dz_scale": _describe_scale(result),
        "clipped": _describe_cut(result),
        "saturated": _describe_flat_top(maps),
        "glitches": _describe_glitches(maps, result) if may_have_spikes else "",
        "stripes": _describe_stripes(result) if misfit else "",
        "drift": _describe_terms(result, _DRIFT, "The level drifted from scan line to scan line"),
        "wander": _describe_terms(result, _WANDER, "Gain or pointing wandered from scan line to scan line"),
    }
    return tuple(Cause(name, math.nan, text) for name, text in texts.items() if text)


def _name(m: MapFit | BeamMap) -> str:
    return f"the map at dz {1e3 * m.dz:+.4g} mm"


def _describe_displacement(result: FitResult) -> str:
    n = len(result.maps)
    at = np.array([[result.parameters[f"{axis}_{i}"].value for axis in ("dx", "dy")] for i in range(n)])
    off = np.hypot(*(at - np.median(at, axis=0)).T) / result.beam
    worst = int(np.argmax(off))
    if n < 2 or off[worst] < _DISPLACED:
        return ""
    return (
        f"The beam in {_name(result.maps[worst])} lies {off[worst]:.2g} lambda/D from where it is in the "
        "others: check its pointing."
    )


def _describe_scale(result: FitResult) -> str:
    scale = result.parameters["dz_scale"]
    if not scale.free or abs(math.log(scale.value)) < math.log(_SCALED):
        return ""
    return (
        f"The focus offsets in the maps are {scale.value:.3g} times those in the file: check the unit of dz, "
        "and the travel of the subreflector."
    )


def _describe_cut(result: FitResult) -> str:
    shares = [_find_cut(m) for m in result.maps]
    worst = int(np.argmax(shares))
    if shares[worst] < _CUT:
        return ""
    return (
        f"{_name(result.maps[worst]).capitalize()} ends where its beam still has {shares[worst]:.0%} of its "
        "peak: map farther out."
    )


def _find_cut(m: MapFit) -> float:
    """Power over the peak where a map ends, in the second worst of the directions from its beam."""
    seen = np.isfinite(m.data)
    # Both have to be there: the model may be wrong, and the data disturbed.
    power = np.minimum(np.abs(m.data - m.offset), np.abs(m.model - m.offset))[seen] / m.peak
    x, y = m.x[seen], m.y[seen]
    weight = np.where(power > 0.3 * power.max(), power, 0.0)
    if not weight.any():
        return 0.0
    x, y = x - np.sum(weight * x) / weight.sum(), y - np.sum(weight * y) / weight.sum()
    sector = np.floor(_SECTORS * (0.5 + np.arctan2(y, x) / (2 * math.pi))).astype(int) % _SECTORS
    r, ends = np.hypot(x, y), []
    for i in range(_SECTORS):
        mine = np.flatnonzero(sector == i)
        last = mine[np.argsort(r[mine])[-_LAST:]]
        ends.append(float(np.median(power[last])) if len(last) == _LAST else 0.0)
    return sorted(ends)[-_LEAST_SECTORS]


def _describe_flat_top(maps: Sequence[BeamMap]) -> str:
    power = np.concatenate([m.power[m.valid] for m in maps])
    counts = np.unique(power, return_counts=True)[1]
    # The highest powers of a map are the rarest, unless the receiver goes no higher.
    if counts[-1] < _EQUAL or counts[-1] < _MORE_THAN_USUAL * np.mean(counts):
        return ""
    return (
        f"{counts[-1]} samples have exactly the highest power: the receiver or recorder was saturated; map a "
        "weaker source, or attenuate."
    )


def find_spikes(maps: Sequence[BeamMap], result: FitResult) -> list[NDArray[np.bool_]]:
    """Find the glitches of each map, (n,): samples that miss the model by more than their neighbours."""
    found = []
    for m, fit in zip(maps, result.maps, strict=True):
        residual = np.where(m.valid, fit.residual, 0.0)
        filter_median = MedianFilter(m)
        off = np.abs(residual - filter_median(residual))
        around = filter_median(off)
        typical = float(np.median(off[m.valid]))
        found.append(m.valid & (off > _SPIKE * np.maximum(1.4826 * np.maximum(around, typical), fit.noise)))
    return found


def _describe_glitches(maps: Sequence[BeamMap], result: FitResult) -> str:
    spikes = find_spikes(maps, result)
    share = sum(int(s.sum()) for s in spikes) / max(result.n_data, 1)
    if share < _LEAST_SPIKES:
        return ""
    return f"{share:.1%} of the samples are glitches, far from their neighbours: look at them in beams.png."


def _describe_stripes(result: FitResult) -> str:
    extent = max(max(np.ptp(m.x), np.ptp(m.y)) for m in result.maps)
    # Waves along every direction, shorter than half the map.
    axis = np.arange(-_FREQUENCIES, _FREQUENCIES + 1) * 0.5
    u, v = (a.ravel() for a in np.meshgrid(axis, axis))
    kept = (np.hypot(u, v) > 2.0) & (np.hypot(u, v) <= axis[-1]) & ((v > 0) | ((v == 0) & (u > 0)))
    u, v = u[kept], v[kept]
    waves, total = np.zeros(u.size), 0.0
    for m in result.maps:
        some = np.flatnonzero(np.isfinite(m.residual))
        some = some[:: max(1, math.ceil(some.size / _SOME))]
        r = m.residual[some] - np.mean(m.residual[some])
        phase = 2 * math.pi / extent * (np.outer(u, m.x[some]) + np.outer(v, m.y[some]))
        waves += 2 / some.size * ((np.cos(phase) @ r) ** 2 + (np.sin(phase) @ r) ** 2)
        total += float(r @ r)
    best = int(np.argmax(waves))
    if not waves[best] > _STRIPES * total:
        return ""
    period = extent / math.hypot(u[best], v[best]) / result.beam
    return (
        f"{waves[best] / total:.0%} of the squared residuals are stripes of {period:.2g} lambda/D: look for "
        "standing waves, or an interference."
    )


def _describe_terms(result: FitResult, limits: dict[str, float], what: str) -> str:
    largest = {term.name: (max(term.rms), term.unit) for term in result.scan_terms if term.name in limits}
    amounts = {"beam": "{:.2g} lambda/D", "peak": "{:.1%} of peak", "": "{:.1%}"}
    parts = [
        f"{name.replace('_', ' ')} {amounts[unit].format(rms)}"
        for name, (rms, unit) in largest.items()
        if rms > limits[name]
    ]
    return f"{what} ({', '.join(parts)}, rms); the fit has taken it up." if parts else ""
