"""`fit`: from an observation to the surface of the telescope; `fit_many`: for a batch of observations.

Observations of the same directions and focus offsets share their models and are fitted side by side.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ooftorch.errors import StopFit
from ooftorch.fitting.causes import find_causes
from ooftorch.fitting.likelihood import Likelihood
from ooftorch.fitting.noise_model import NoiseModel
from ooftorch.fitting.orders import Progress, fit_orders
from ooftorch.fitting.results import build_result
from ooftorch.fitting.samples import is_recorded_in_steps
from ooftorch.fitting.setup import FitOptions, Setup, check_shape, set_up
from ooftorch.observation import Observation
from ooftorch.optics.basis import SurfaceBasis
from ooftorch.optics.illumination.base import Illumination
from ooftorch.optics.telescope import Telescope
from ooftorch.result import FitResult

__all__ = ["Progress", "fit", "fit_many"]

# Memory for a batch of observations with one start each, bytes; a search has two starts at a time.
_BATCH_BYTES = 2.5e8
# Highest order that order="auto" goes to.
_HIGHEST_ORDER = 12


def fit(
    observation: Observation,
    telescope: Telescope | str | Path | None = None,
    *,
    order: int | str | None = None,
    likelihood: str | Likelihood = "auto",
    illumination: str | Illumination = "auto",
    basis: str | SurfaceBasis = "zernike",
    noise: str | NoiseModel = "independent",
    nuisance: str | Iterable[str] = "auto",
    device: str = "auto",
    free: Iterable[str] = (),
    fixed: Mapping[str, float] | None = None,
    amplitude_order: int | None = None,
    n: int | None = None,
    oversample: float = 2.0,
    progress: Callable[[Progress], None] | None = None,
) -> FitResult:
    """Fit the surface of a telescope to beam maps taken in and out of focus.

    Parameters
    ----------
    observation : Observation
        From `ooftorch.read`, or built from arrays.
    telescope : Telescope, str or Path, optional
        A telescope, the name of one of the package, or a TOML file; by default that of the observation.
    order : int or "auto", optional
        Highest order of the basis, 5 for Zernikes by default; orders 1 to this one are fitted in turn. "auto"
        goes up or down from the default until the maps ask for no other (`OrderEvidence`).
    likelihood : {"auto", "student", "gaussian", "cauchy"} or Likelihood
        "auto" is Student's t, whose degrees of freedom are found from the maps: as good as "gaussian" on
        clean maps and as robust against outliers as "cauchy".
    illumination : str or Illumination
        "gaussian", "pedestal", "squashed", "tophat", or a model; "auto" is that of the observation's
        receiver, else the usual one of the telescope.
    basis : {"zernike"} or SurfaceBasis
        Functions whose sum is the phase of the surface.
    noise : {"independent"} or NoiseModel
        Covariance of the noise of the samples.
    nuisance : str or iterable of str
        Errors of single scan lines that may be integrated out: "auto" for those that the evidence asks for,
        "none", or some of "level", "slope", "gain" and "pointing".
    device : {"auto", "cpu", "cuda"}
        "auto" uses a CUDA device if there is one.
    free : iterable of str
        Parameters to free in addition to the default ones: "q", "dz", "rho", "diff", ...
    fixed : mapping of str to float, optional
        Parameters to hold, with their values, in their units.
    amplitude_order : int, optional
        Let the illumination depart from its model by Zernike polynomials up to this radial order; 0: by none.
        By default up to the order, 8 at most, that the evidence asks for.
    n, oversample : int, float, optional
        Aperture raster (see `Pixels`); n by default 256, or more for maps that reach farther out.
    progress : callable, optional
        Called with a `Progress` after every evaluation and every order. If it raises `StopFit`, the fit ends
        with the best result so far, marked as interrupted.

    Returns
    -------
    FitResult

    Raises
    ------
    InputError
        If the observation cannot be fitted, the telescope is unknown or not given, a name is unknown, or
        there are more parameters than samples.
    StopFit
        If `progress` raised it before the first order was finished.
    """
    options = FitOptions(
        order=order,
        likelihood=likelihood,
        illumination=illumination,
        basis=basis,
        noise=noise,
        nuisance=nuisance,
        device=device,
        free=free,
        fixed=fixed,
        amplitude_order=amplitude_order,
        n=n,
        oversample=oversample,
    )
    (result,) = _fit([observation], telescope, options, progress)
    return result


def fit_many(
    observations: Sequence[Observation],
    telescope: Telescope | str | Path | None = None,
    *,
    progress: Callable[[Progress], None] | None = None,
    **options,
) -> list[FitResult]:
    """Fit many observations of the same shape side by side: an archive, simulations, bootstrap samples.

    Each result equals that of `fit` to within the tolerance of the minimum. A batch uses the cores, or the
    GPU, better than one fit after the other. Alternatives are not tried where maps fit badly: `causes` are
    those that show without a trial. Fit such an observation by itself.

    Parameters
    ----------
    observations : sequence of Observation
        With the same directions, scan lines, smearing, focus offsets, wavelength and receiver; power, errors
        and missing samples may differ.
    telescope, progress, **options
        As in `fit`.

    Returns
    -------
    list of FitResult
        In the order of the observations.

    Raises
    ------
    InputError
        As `fit`, or if the observations are not of the same shape; the message names the first that differs.
    StopFit
        If `progress` raised it and some of the observations had not finished an order; it goes on through
        them in batches.
    """
    observations = list(observations)
    given = replace(FitOptions(**options), trying=False)
    return _fit(observations, telescope, given, progress) if observations else []


def _fit(
    observations: Sequence[Observation],
    telescope: Telescope | str | Path | None,
    options: FitOptions,
    progress: Callable[[Progress], None] | None,
) -> list[FitResult]:
    begin = time.perf_counter()
    check_shape(observations)
    if options.order == "auto":
        results = _choose_orders(observations, telescope, options, progress)
    else:
        results = _fit_order(observations, telescope, options, progress)
    seconds = (time.perf_counter() - begin) / len(results)
    return [replace(result, seconds=seconds) for result in results]


def _choose_orders(
    observations: Sequence[Observation],
    telescope: Telescope | str | Path | None,
    options: FitOptions,
    progress: Callable[[Progress], None] | None,
) -> list[FitResult]:
    """Fit each observation with the order that it asks for; if that is stopped, with the order before it."""
    results = _fit_order(observations, telescope, replace(options, order=None), progress)
    tried = [{result.order} for result in results]
    while isinstance(options.basis, str) and not any(result.interrupted for result in results):
        asked: dict[int, list[int]] = {}
        for i, result in enumerate(results):
            order = result.recommended_order
            if order <= _HIGHEST_ORDER and order not in tried[i]:
                asked.setdefault(order, []).append(i)
        if not asked:
            break
        for order, numbers in asked.items():
            some = [observations[i] for i in numbers]
            try:
                fits = _fit_order(some, telescope, replace(options, order=order), progress)
            except StopFit:
                fits = []
            if not fits or any(fit.interrupted for fit in fits):
                return [
                    _interrupt(result, order) if i in numbers else result for i, result in enumerate(results)
                ]
            for i, result in zip(numbers, fits, strict=True):
                results[i] = result
                tried[i].add(order)
    return results


def _interrupt(result: FitResult, order: int) -> FitResult:
    """Mark a result as one that a fit of another order was to replace."""
    message = f"interrupted; this is order {result.order}, and order {order} was on the way"
    return replace(result, interrupted=True, converged=False, message=message)


def _fit_order(
    observations: Sequence[Observation],
    telescope: Telescope | str | Path | None,
    options: FitOptions,
    progress: Callable[[Progress], None] | None,
) -> list[FitResult]:
    """Fit observations of the same shape, all with the order that is asked for."""
    results: list[FitResult] = []
    # Power in coarse steps has a likelihood of its own.
    in_steps = [options.likelihood == "auto" and is_recorded_in_steps(o) for o in observations]
    order = sorted(range(len(observations)), key=lambda i: in_steps[i])
    for _, numbers in itertools.groupby(order, key=lambda i: in_steps[i]):
        results += _fit_alike([observations[i] for i in numbers], telescope, options, progress)
    placed = dict(zip(order, results, strict=True))
    return [placed[i] for i in range(len(results))]


def _fit_alike(
    observations: Sequence[Observation],
    telescope: Telescope | str | Path | None,
    options: FitOptions,
    progress: Callable[[Progress], None] | None,
) -> list[FitResult]:
    """Fit observations that have one setup."""
    setup = set_up(observations, telescope, options)
    rows = torch.arange(len(observations), device=setup.starts.device)
    found = [
        fitted
        for some in rows.split(_choose_batch_size(setup))
        for fitted in fit_orders(setup, some, progress)
    ]
    results = [build_result(setup, row, fitted) for row, fitted in enumerate(found)]
    return [
        r if r.interrupted else replace(r, causes=find_causes(setup, row, r, options))
        for row, r in enumerate(results)
    ]


def _choose_batch_size(setup: Setup) -> int:
    """Number of observations to fit side by side within `_BATCH_BYTES`."""
    levels = setup.levels
    # Bytes per observation: about three Jacobians of the search level in float64, and about forty float64
    # numbers for every sample of the exact model.
    n_free = len(setup.layout.free) + (len(setup.bends[-1]) if setup.bends else 0)
    cheap = levels.coarse if setup.terms else levels.search
    each = 24 * n_free * sum(cheap.model.sizes) + 320 * sum(levels.exact.model.sizes)
    return max(1, int(_BATCH_BYTES / each))
