"""Prepare a fit: from observations of the same shape to models, samples, parameters and start points."""

import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from ooftorch.device import OO
from ooftorch.errors import InputError
from ooftorch.fitting import likelihood as likelihoods
from ooftorch.fitting import noise_model as noise_models
from ooftorch.fitting.alternatives import describe_reliance, find_symmetries
from ooftorch.fitting.cells import average_dense
from ooftorch.fitting.likelihood import Likelihood
from ooftorch.fitting.noise_model import IndependentNoise, NoiseModel
from ooftorch.fitting.resolution import Resolutions, build_resolutions
from ooftorch.fitting.samples import (
    collect_samples,
    describe_errors,
    find_directions,
    has_errors,
    is_recorded_in_steps,
)
from ooftorch.fitting.scan_terms import Term, choose_terms
from ooftorch.fitting.start import build_filters, choose_start, find_excess, predict_perfect_beams
from ooftorch.observation import BeamMap, Observation
from ooftorch.optics import basis as bases
from ooftorch.optics import illumination as illuminations
from ooftorch.optics import telescopes, zernike
from ooftorch.optics.basis import SurfaceBasis
from ooftorch.optics.illumination.base import Illumination
from ooftorch.optics.instrument import Instrument, MapGeometry
from ooftorch.optics.model import BeamModel
from ooftorch.optics.parameters import Layout
from ooftorch.optics.parts import declare_layout
from ooftorch.optics.pixels import choose_raster
from ooftorch.optics.telescope import Telescope
from ooftorch.scans import find_lines, find_smear

__all__ = ["FitOptions", "Setup", "check_shape", "set_up"]

# Least scale of the noise where it is fitted, over the peak: below it is what the model's pixels leave out.
_LEAST_NOISE = 3e-5
# Highest order of the amplitude terms that a fit may take up by itself.
_AUTO_AMPLITUDE_ORDER = 8


@dataclass(frozen=True)
class FitOptions:
    """The options of a fit, as documented at `ooftorch.fit`.

    `trying` says whether alternatives are tried where the maps fit badly: of a single observation.
    """

    order: int | str | None = None
    likelihood: str | Likelihood = "auto"
    illumination: str | Illumination = "auto"
    basis: str | SurfaceBasis = "zernike"
    noise: str | NoiseModel = "independent"
    nuisance: str | Iterable[str] = "auto"
    device: str = "auto"
    free: Iterable[str] = ()
    fixed: Mapping[str, float] | None = None
    amplitude_order: int | None = None
    n: int | None = None
    oversample: float = 2.0
    trying: bool = True


@dataclass(frozen=True, eq=False)
class Setup:
    """Observations of the same shape, ready to be fitted side by side.

    Attributes
    ----------
    observations : tuple of Observation
    levels : Resolutions
        Models and samples at three resolutions, likelihood and noise model.
    layout : Layout
        The parameters, and which of them are free at the highest order.
    starts : Tensor, (b, n_parameters)
        Start point of each observation, in coordinates: a perfect dish.
    errors_known : bool
        Whether the observations have errors.
    coarse_steps : bool
        Whether the likelihood is Gaussian because power is recorded in coarse steps.
    terms : tuple of Term
        The terms of scan lines that may be taken up; none where no lines are known.
    bends : tuple of tuple of str
        Names of the amplitude terms that may be taken up together, fewest first.
    """

    observations: tuple[Observation, ...]
    levels: Resolutions
    layout: Layout
    starts: Tensor
    errors_known: bool
    terms: tuple[Term, ...] = ()
    bends: tuple[tuple[str, ...], ...] = ()
    coarse_steps: bool = False

    @functools.cached_property
    def symmetries(self) -> frozenset[str]:
        """Changes of all maps that no data can tell: see `find_symmetries`."""
        return find_symmetries(self.levels.exact.model)

    def notes(self, row: int) -> tuple[str, ...]:
        """Assumptions made about one of the observations, one line each."""
        observation = self.observations[row]
        steps = ("power is recorded in coarse steps: Gaussian likelihood",) if self.coarse_steps else ()
        relied_on = describe_reliance(self.symmetries)
        return (*relied_on, *observation.notes, *describe_errors(observation.maps), *steps)


def set_up(
    observations: Sequence[Observation], telescope: Telescope | str | Path | None, options: FitOptions
) -> Setup:
    """Prepare observations of the same shape for a fit.

    Parameters
    ----------
    observations : sequence of Observation
        For the likelihood "auto", with power in coarse steps in all of them or none.
    telescope : Telescope, str, Path or None
    options : FitOptions

    Returns
    -------
    Setup

    Raises
    ------
    InputError
        As in `ooftorch.fit_many`.
    """
    check_shape(observations)
    one = observations[0]
    telescope = _choose_telescope(one, telescope)
    coarse_steps = options.likelihood == "auto" and all(map(is_recorded_in_steps, observations))
    dense = average_dense(observations, one.wavelength / (2 * telescope.radius))
    if dense is not None:
        observations = dense.observations
        one = observations[0]
    likelihood = likelihoods.choose("gaussian" if coarse_steps else options.likelihood)
    noise = noise_models.choose(options.noise)
    terms = choose_terms(options.nuisance)
    basis = bases.choose(options.basis, options.order)
    illumination = options.illumination
    if illumination == "auto":
        illumination = one.illumination or telescope.illumination.model
    illumination = illuminations.choose(illumination)
    n_data = min(sum(m.n_valid for m in o.maps) for o in observations)
    n_terms = sum(name != basis.piston for name in basis.names)
    if n_terms >= n_data:
        raise InputError(
            f"order {basis.order} has {n_terms} coefficients, but the maps have only {n_data} "
            "valid samples; choose a lower order"
        )
    filters = build_filters(observations)
    excesses = [
        [find_excess(m, f) for m, f in zip(o.maps, of_maps, strict=True)]
        for o, of_maps in zip(observations, filters, strict=True)
    ]
    peaks = [max(float(np.max(np.abs(excess))) for _, excess in of_maps) for of_maps in excesses]
    peak = float(np.exp(np.mean(np.log(peaks))))
    errors_known = has_errors(one.maps)
    oo = OO(options.device)

    amplitude_order = _AUTO_AMPLITUDE_ORDER if options.amplitude_order is None else options.amplitude_order
    instrument = Instrument(
        telescope,
        one.wavelength,
        one.receiver,
        illumination,
        basis,
        len(one.maps),
        peak,
        amplitude_order,
    )
    layout = declare_layout(instrument).with_added(
        noise.declare_scale(errors_known, likelihood.robust, peak), *likelihood.declare()
    )
    chosen = {name for given in (*options.free, *(options.fixed or {})) for name in layout.expand(given)}
    given = [m.sigma[m.valid] for m in one.maps if m.sigma is not None]
    typical = float(np.median(np.concatenate(given))) if errors_known else 1.0
    layout = layout.with_floor("noise", _LEAST_NOISE * peak / typical)
    bends = () if options.amplitude_order is not None else _group_bends(chosen)
    layout = layout.with_held(name for names in bends for name in names)
    layout = layout.with_free(options.free).with_fixed(options.fixed or {})
    _check_free(layout, likelihood.search_values, basis, n_data)
    smears = [find_smear(m) for m in one.maps] if dense is None else dense.smears
    maps = [MapGeometry(m.dz, *find_directions(m), s) for m, s in zip(one.maps, smears, strict=True)]
    n = options.n
    if n is None:
        directions = [(m.x, m.y) for m in maps]
        n = choose_raster(telescope, one.wavelength, one.receiver, directions, options.oversample)

    def build_model(maps: Sequence[MapGeometry], n: int) -> BeamModel:
        return BeamModel(
            telescope,
            one.wavelength,
            maps,
            basis=basis,
            illumination=illumination,
            receiver=one.receiver,
            scale=peak,
            n=n,
            oversample=options.oversample,
            amplitude_order=amplitude_order,
            layout=layout,
            oo=oo,
        )

    given_with = () if dense is None else (dense.errors, dense.lines)
    samples = collect_samples(observations, oo, *given_with)
    levels = build_resolutions(build_model, maps, samples, likelihood, noise, n, options.oversample)
    model = levels.exact.model
    beams = predict_perfect_beams(model)
    if not all(np.isfinite(beam).all() for beam in beams):
        raise InputError(
            "the model of a perfect dish is not finite; check the values that are held, and the file of the "
            "telescope"
        )
    starts = [
        choose_start(model, o, e, beams, f) for o, e, f in zip(observations, excesses, filters, strict=True)
    ]
    if samples.line is None or not isinstance(noise, IndependentNoise):
        if terms and options.nuisance != "auto":
            raise InputError(
                "errors of scan lines are asked for, but no lines are known (or the noise model is not of "
                'independent samples); say how the maps were scanned, or leave nuisance at "auto"'
            )
        terms = ()
    return Setup(
        tuple(observations), levels, layout, oo(np.stack(starts)), errors_known, terms, bends, coarse_steps
    )


def _group_bends(chosen: Collection[str]) -> tuple[tuple[str, ...], ...]:
    """Names of the amplitude terms up to each even order, less those that the user has chosen about."""
    orders = {f"a{k}": zernike.order_of(k) for k in range(3, zernike.n_terms(_AUTO_AMPLITUDE_ORDER))}
    return tuple(
        tuple(name for name, order in orders.items() if order <= step and name not in chosen)
        for step in range(2, _AUTO_AMPLITUDE_ORDER + 1, 2)
    )


def _check_free(layout: Layout, own: Iterable[str], basis: SurfaceBasis, n_data: int) -> None:
    noise = {"noise", *own}
    if all(layout.parameters[i].name in noise for i in layout.free):
        raise InputError("every parameter is held; leave at least one free")
    if len(layout.free) >= n_data:
        raise InputError(
            f"{len(layout.free)} free parameters at order {basis.order}, but only {n_data} valid samples; "
            "choose a lower order"
        )


def check_shape(observations: Sequence[Observation]) -> None:
    """Raise InputError for observations that cannot be fitted, or not side by side."""
    one = observations[0]
    for i, other in enumerate(observations, 1):
        other.check()
        differs = [
            name
            for name, same in (
                ("telescope", other.telescope == one.telescope),
                ("wavelength", other.wavelength == one.wavelength),
                ("receiver", other.receiver == one.receiver),
                ("illumination", other.illumination == one.illumination),
                ("focus offsets", [m.dz for m in other.maps] == [m.dz for m in one.maps]),
                ("directions", _has_same_directions(one, other)),
                ("scan lines", _has_same_lines(one, other)),
                ("smearing", [m.smear for m in other.maps] == [m.smear for m in one.maps]),
                ("errors (given or not)", has_errors(other.maps) == has_errors(one.maps)),
            )
            if not same
        ]
        if differs:
            raise InputError(
                f"observation {i} of {len(observations)} is not of the first one's shape: another "
                f"{differs[0]}; fit it by itself"
            )


def _has_same_directions(a: Observation, b: Observation) -> bool:
    pairs = zip(a.maps, b.maps, strict=False)
    return all(np.array_equal(find_directions(m), find_directions(n)) for m, n in pairs)


def _has_same_lines(a: Observation, b: Observation) -> bool:
    return all(map(_is_scanned_alike, a.maps, b.maps))


def _is_scanned_alike(m: BeamMap, n: BeamMap) -> bool:
    """Whether two maps of the same directions have the same lines."""
    if m.scans != n.scans:
        return False
    if m.time is not None and n.time is not None:
        # The usual case, without a search for the lines: the same times but for an offset.
        known = np.isfinite(m.time) & np.isfinite(n.time)
        late = (m.time - n.time)[known]
        if known.any() and np.ptp(late) <= 0.1 * np.ptp(m.time[known]) / m.time.size:
            return True
    elif m.time is n.time:
        return True
    first, second = find_lines(m), find_lines(n)
    if first is None or second is None:
        return first is second
    return np.array_equal(first.number, second.number)


def _choose_telescope(observation: Observation, given: Telescope | str | Path | None) -> Telescope:
    if isinstance(given, Telescope):
        return given
    name = given or observation.telescope
    if name is None:
        raise InputError(
            f"{observation.source or 'the observation'} does not name its telescope; give one of "
            f"{', '.join(telescopes.names())}, or a TOML file"
        )
    return telescopes.load(name)
