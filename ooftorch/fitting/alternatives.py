"""What may be wrong with an observation as the file gives it, and the observation with that put right.

Some mistakes no data can tell. With an amplitude and a path of point symmetry, dz reversed in all maps is the
surface -z(-x, -y), and the sky turned the surface z(-x, -y) (CONVENTIONS 9); a mirrored or transposed sky is
a mirrored or transposed surface where amplitude and path have that symmetry. To exchange two maps of opposite
dz, where all others are in focus, is to reverse dz in all. These are left out: see `find_symmetries`.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ooftorch.fitting.start import MedianFilter, find_excess
from ooftorch.observation import BeamMap, Observation
from ooftorch.optics.model import BeamModel
from ooftorch.optics.telescope import Telescope
from ooftorch.units import ARCSEC

__all__ = ["KINDS", "Alternative", "Kind", "describe_reliance", "find_centres", "find_symmetries"]

Array = NDArray[np.float64]

# Rms over the dish of the phase, rad, and of the open fraction by which a mirrored aperture has to differ.
_PHASE, _OPEN = 0.05, 0.05
# Defocus that an observer may have chosen, over the usual one.
_LEAST_DEFOCUS, _MOST_DEFOCUS = 0.25, 6.0


class Alternative(NamedTuple):
    """One thing that may be wrong.

    Attributes
    ----------
    words : str
        What is changed, as it follows "the maps fit better with".
    change : callable
        From the observation to the one with that put right.
    size : float
        How much, for what has a size; else NaN.
    resize : callable or None
        From another size to that alternative; None for what has no size.
    """

    words: str
    change: Callable[[Observation], Observation]
    size: float = math.nan
    resize: "Callable[[float], Alternative] | None" = None


class Kind(NamedTuple):
    """A row of the table.

    Attributes
    ----------
    name : str
        Of the cause.
    advice : str
        What to check.
    propose : callable
        From an observation, its telescope and its symmetries (`find_symmetries`) to the alternatives.
    """

    name: str
    advice: str
    propose: Callable[[Observation, Telescope, frozenset[str]], list[Alternative]]


# ------------------------------------------------------------------------------------ what no data can tell

_MIRRORS: dict[str, Callable[[Array], Array]] = {
    "turned": lambda a: a[..., ::-1, ::-1],
    "mirrored in DX": lambda a: a[..., :, ::-1],
    "mirrored in DY": lambda a: a[..., ::-1, :],
    "transposed": lambda a: np.swapaxes(a, -1, -2),
}


def find_symmetries(model: BeamModel) -> frozenset[str]:
    """Find the mirrors of the sky, names of `_MIRRORS`, of which the maps say nothing.

    Those that leave the aperture, and the path of the defocus but for a tilt, as they are; of a chopped pair
    also its two beams. "reversed", the sign of all dz, is silent where "turned" is and the path is odd in dz.
    """
    pixels, telescope, receiver = model.pixels, model.telescope, model.receiver
    largest = float(np.abs(model.dz).max())
    paths = telescope.path_powers(pixels.x, pixels.y)
    scales = 2 * math.pi / model.wavelength * largest ** np.arange(1, len(paths) + 1)
    phases = scales[:, np.newaxis] * paths
    plane = np.stack([np.ones_like(pixels.x), pixels.x, pixels.y])
    phases = phases - np.linalg.lstsq(plane.T, phases.T, rcond=None)[0].T @ plane
    opening = pixels.fill_square(pixels.coverage, 0.0)
    screens = np.stack([pixels.fill_square(phase, 0.0) for phase in phases])
    chop = np.array([receiver.chop_x, receiver.chop_y])
    chops = {"turned": -chop, "mirrored in DX": chop * (-1, 1), "mirrored in DY": chop * (1, -1)}
    chops["transposed"] = chop[::-1]

    def is_silent(name: str) -> bool:
        mirror = _MIRRORS[name]
        phase, hole = mirror(screens) - screens, mirror(opening) - opening
        n = pixels.x.size
        return bool(
            np.sqrt((phase**2).sum((-1, -2)).max() / n) < _PHASE
            and np.sqrt((hole**2).sum() / n) < _OPEN
            and np.array_equal(chops[name], chop)
        )

    silent = {name for name in _MIRRORS if is_silent(name)}
    # P is the same under dz reversed and the aperture turned, whatever the receiver does with it.
    turned = _MIRRORS["turned"]
    same = np.sqrt(((turned(screens) - screens) ** 2).sum() / pixels.x.size) < _PHASE
    same &= np.sqrt(((turned(opening) - opening) ** 2).sum() / pixels.x.size) < _OPEN
    even_in_dz = float(np.sqrt((phases[1::2] ** 2).mean())) if len(phases) > 1 else 0.0
    return frozenset(silent | ({"reversed"} if same and even_in_dz < _PHASE else set()))


def describe_reliance(symmetries: frozenset[str]) -> tuple[str, ...]:
    """Say what the answer relies on because no data can tell it: a note, or none."""
    mirrors = [name for name in _MIRRORS if name in symmetries]
    relied = [*(["the sign of dz"] if "reversed" in symmetries else [])]
    changes = [*(["dz reversed"] if "reversed" in symmetries else [])]
    if mirrors:
        relied.append("the sense of DX and DY")
        changes.append(f"the sky {_join(mirrors)}")
    if not relied:
        return ()
    return (
        f"the answer relies on {' and '.join(relied)} in the file, which no data can tell: with "
        f"{' or '.join(changes)} in all maps another surface fits as well",
    )


def _join(words: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


# ------------------------------------------------------------------------------------------ what can be told


def _change_maps(change: Callable[[BeamMap], BeamMap], numbers: Sequence[int]) -> Callable:
    """Function that changes the maps of an observation that have these numbers."""
    return lambda o: replace(o, maps=tuple(change(m) if i in numbers else m for i, m in enumerate(o.maps)))


def _name_maps(o: Observation, numbers: Sequence[int]) -> str:
    if len(numbers) == len(o.maps):
        return "all maps"
    names = [f"{1e3 * o.maps[i].dz:+.4g}" for i in numbers]
    return f"the map{'s' * (len(names) > 1)} at dz {' and '.join(names)} mm"


def _propose_sizes(
    words: str,
    change: Callable[[Observation, float], Observation],
    sizes: Sequence[float],
    unit: float = 1.0,
    form: str = "{:.3g}",
) -> list[Alternative]:
    """Alternatives of several sizes; in the words the size over a unit, in a form, takes the place of {}."""

    def resize(size: float) -> Alternative:
        return Alternative(words.format(form.format(size / unit)), lambda o: change(o, size), size, resize)

    return [resize(size) for size in sizes]


def _propose_signs(o: Observation, telescope: Telescope, silent: frozenset[str]) -> list[Alternative]:
    """The sign of dz of one map; and of all, where that can be told."""
    choices: list[tuple[int, ...]] = [(i,) for i, m in enumerate(o.maps) if m.dz]
    if "reversed" not in silent:
        choices.append(tuple(range(len(o.maps))))
    return [
        Alternative(
            f"the sign of dz of {_name_maps(o, some)} reversed",
            _change_maps(lambda m: replace(m, dz=-m.dz), some),
        )
        for some in choices
    ]


def _propose_scales(o: Observation, telescope: Telescope, silent: frozenset[str]) -> list[Alternative]:
    """A factor on all dz, as far as it leads to a defocus that somebody may have chosen."""
    largest = max(abs(m.dz) for m in o.maps) / telescope.usual_defocus(o.wavelength)
    factors = (1e-3, 0.01, 0.1, 0.3, 3.0, 10.0, 100.0, 1e3)
    return _propose_sizes(
        "all dz {} times as large",
        lambda o, factor: replace(o, maps=tuple(replace(m, dz=factor * m.dz) for m in o.maps)),
        [f for f in factors if _LEAST_DEFOCUS < f * largest < _MOST_DEFOCUS],
    )


def _propose_beams(o: Observation, telescope: Telescope, silent: frozenset[str]) -> list[Alternative]:
    """A factor on wavelength over diameter."""
    return _propose_sizes(
        "a wavelength {} times as long, or a dish so much smaller",
        lambda o, factor: replace(o, wavelength=factor * o.wavelength),
        (0.6, 0.8, 1.25, 1.6),
    )


_FLIPS: dict[str, Callable[[BeamMap], BeamMap]] = {
    "mirrored in DX": lambda m: replace(m, x=-m.x),
    "mirrored in DY": lambda m: replace(m, y=-m.y),
    "turned": lambda m: replace(m, x=-m.x, y=-m.y),
    "transposed": lambda m: replace(m, x=m.y, y=m.x),
}


def _propose_flips(o: Observation, telescope: Telescope, silent: frozenset[str]) -> list[Alternative]:
    """The sky of one map mirrored, turned or transposed; and of all, where that can be told."""
    everything = tuple(range(len(o.maps)))
    choices: list[tuple[str, tuple[int, ...]]] = [(name, (i,)) for name in _FLIPS for i in everything]
    choices += [(name, everything) for name in _FLIPS if name not in silent]
    return [
        Alternative(f"the sky of {_name_maps(o, some)} {name}", _change_maps(_FLIPS[name], some))
        for name, some in choices
    ]


def _propose_swaps(o: Observation, telescope: Telescope, silent: frozenset[str]) -> list[Alternative]:
    """Focus offsets of two maps exchanged, unless that reverses all."""
    dz = [m.dz for m in o.maps]

    def reverses(i: int, j: int) -> bool:
        tolerance = 0.1 * abs(dz[j] - dz[i])
        rest = (d for k, d in enumerate(dz) if k not in (i, j))
        return abs(dz[i] + dz[j]) < tolerance and all(abs(d) < tolerance for d in rest)

    def swap(o: Observation, i: int, j: int) -> Observation:
        maps = list(o.maps)
        maps[i], maps[j] = replace(maps[i], dz=dz[j]), replace(maps[j], dz=dz[i])
        return replace(o, maps=tuple(maps))

    return [
        Alternative(f"dz of {_name_maps(o, (i, j))} exchanged", functools.partial(swap, i=i, j=j))
        for j in range(len(dz))
        for i in range(j)
        if dz[i] != dz[j] and not reverses(i, j)
    ]


def _propose_offsets(o: Observation, telescope: Telescope, silent: frozenset[str]) -> list[Alternative]:
    """The focus offset of one map of three or more."""
    if len(o.maps) < 3:
        return []
    span = o.maps[-1].dz - o.maps[0].dz

    def shift(o: Observation, size: float, number: int) -> Observation:
        return _change_maps(lambda m: replace(m, dz=m.dz + size), (number,))(o)

    return [
        alternative
        for i in range(len(o.maps))
        for alternative in _propose_sizes(
            f"dz of {_name_maps(o, (i,))} changed by {{}} mm",
            functools.partial(shift, number=i),
            (-0.07 * span, 0.07 * span),
            1e-3,
            "{:+.2g}",
        )
    ]


def find_centres(o: Observation) -> Array:
    """Centroid of each map, (n_maps, 2), radians: that of the power does not depend on the focus."""
    centres = []
    for m in o.maps:
        excess = np.abs(find_excess(m, MedianFilter(m))[1])
        weight = np.where(excess > 0.1 * excess.max(), excess, 0.0)
        position = np.stack([np.where(m.valid, axis, 0.0) for axis in (m.x, m.y)], 1)
        centres.append(weight @ position / weight.sum())
    return np.array(centres)


def _propose_centring(o: Observation, telescope: Telescope, silent: frozenset[str]) -> list[Alternative]:
    """All maps shifted so that their centroids agree."""

    def centre(o: Observation) -> Observation:
        centres = find_centres(o)
        shifts = zip(o.maps, centres - np.median(centres, axis=0), strict=True)
        return replace(o, maps=tuple(replace(m, x=m.x - dx, y=m.y - dy) for m, (dx, dy) in shifts))

    return [Alternative("each map centred on its beam", centre)]


def _propose_discs(o: Observation, telescope: Telescope, silent: frozenset[str]) -> list[Alternative]:
    beam, known = o.wavelength / (2 * telescope.radius), o.receiver.disc_radius
    return _propose_sizes(
        "a source of {} arcsec radius",
        lambda o, size: replace(o, receiver=replace(o.receiver, disc_radius=size)),
        [math.hypot(known, beams * beam) for beams in (0.55, 0.95)],
        ARCSEC,
    )


def _propose_smears(o: Observation, telescope: Telescope, silent: frozenset[str]) -> list[Alternative]:
    beam = o.wavelength / (2 * telescope.radius)
    return _propose_sizes(
        "samples averaged over {} arcsec along the scan lines",
        lambda o, size: replace(o, maps=tuple(replace(m, smear=size) for m in o.maps)),
        [beams * beam for beams in (0.9, 1.4)],
        ARCSEC,
    )


def _propose_expansions(o: Observation, telescope: Telescope, silent: frozenset[str]) -> list[Alternative]:
    """Undo a compression, power / (1 + c power), that takes some share of the highest peak."""

    def expand(o: Observation, share: float) -> Observation:
        found = [find_excess(m, MedianFilter(m)) for m in o.maps]
        peak = max(float(np.abs(excess).max()) for _, excess in found)
        maps = []
        for m, (baseline, _) in zip(o.maps, found, strict=True):
            left = 1 - share * np.clip(np.abs(m.power - baseline) / peak, 0, 1)
            # An error grows as the slope of the curve.
            sigma = None if m.sigma is None else m.sigma / left**2
            maps.append(replace(m, power=baseline + (m.power - baseline) / left, sigma=sigma))
        return replace(o, maps=tuple(maps))

    return _propose_sizes("power compressed by {} at the peak", expand, (0.12, 0.28), form="{:.0%}")


KINDS = (
    Kind("dz_sign", "check it there", _propose_signs),
    Kind("dz_scale", "check its unit, and the travel of the subreflector", _propose_scales),
    Kind("beam_size", "check the frequency, the telescope, and the unit of DX and DY", _propose_beams),
    Kind("flipped", "check the sense of its axes", _propose_flips),
    Kind("swapped", "check which map is which", _propose_swaps),
    Kind("dz_of_one_map", "check it there", _propose_offsets),
    Kind("displaced", "check the pointing of the maps", _propose_centring),
    Kind("extended", "give the size of the source, or map a smaller one", _propose_discs),
    Kind("smeared", "give the smearing of the maps", _propose_smears),
    Kind("saturated", "map a weaker source, or attenuate", _propose_expansions),
)
"""What may be wrong and can be told from the maps, a row for each cause."""
