"""From observations to surfaces: `fit`, and `fit_many` for observations of the same shape side by side."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ooftorch.fitting.likelihood import Likelihood
from ooftorch.fitting.noise_model import NoiseModel
from ooftorch.fitting.orders import Progress, fit_orders
from ooftorch.fitting.results import build_result
from ooftorch.fitting.setup import FitOptions, Setup, set_up
from ooftorch.observation import Observation
from ooftorch.optics.basis import SurfaceBasis
from ooftorch.optics.illumination.base import Illumination
from ooftorch.optics.telescope import Telescope
from ooftorch.result import FitResult

__all__ = ["Progress", "fit", "fit_many"]

# Memory for the observations fitted side by side, with one start each; a search has two at once.
_BATCH_BYTES = 2.5e8


def fit(
    observation: Observation,
    telescope: Telescope | str | Path | None = None,
    *,
    order: int | None = None,
    likelihood: str | Likelihood = "gaussian",
    illumination: str | Illumination | None = None,
    basis: str | SurfaceBasis = "zernike",
    noise: str | NoiseModel = "independent",
    device: str = "auto",
    free: Iterable[str] = (),
    fixed: Mapping[str, float] | None = None,
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
        A telescope, a name the package knows, or a TOML file; the observation's own when not given.
    order : int, optional
        Highest order of the basis, 5 for Zernikes by default; orders 1 to this one are fitted in turn.
    likelihood : {"gaussian", "cauchy"} or Likelihood
    illumination : str or Illumination, optional
        "gaussian", "pedestal", "squashed", "tophat", or a model; by default what the receiver asks for, else
        the telescope's usual one.
    basis : {"zernike"} or SurfaceBasis
        What the surface is a sum of.
    noise : {"independent"} or NoiseModel
        How samples scatter about the model.
    device : {"auto", "cpu", "cuda"}
    free : iterable of str
        Parameters to free beyond the default ones: "x0", "y0", "q", "dz", "dx" (one per map), ...
    fixed : mapping of str to float, optional
        Parameters to hold, with their values, in their units.
    n, oversample : int, float, optional
        Aperture raster (see `Pixels`); n by default 256, or more for maps that reach farther out.
    progress : callable, optional
        Gets a `Progress` after every evaluation and every order.

    Returns
    -------
    FitResult

    Raises
    ------
    InputError
        If the observation cannot be fitted, the telescope is not known or not given, a name is not
        known, or there are more parameters than samples.
    """
    options = FitOptions(
        order=order,
        likelihood=likelihood,
        illumination=illumination,
        basis=basis,
        noise=noise,
        device=device,
        free=free,
        fixed=fixed,
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
    """Fit many observations of the same shape side by side: a night's archive, simulations, resamples.

    Each result is what `fit` would give, to within the tolerance of the minimum; the work of many is shared
    out better over the cores or the GPU.

    Parameters
    ----------
    observations : sequence of Observation
        The same directions, defocuses, wavelength and receiver; power, errors and missing samples may differ.
    telescope, progress, **options
        As of `fit`.

    Returns
    -------
    list of FitResult
        In the order of the observations.

    Raises
    ------
    InputError
        As `fit`, or if the observations are not of the same shape; the first that differs is named.
    """
    observations = list(observations)
    return _fit(observations, telescope, FitOptions(**options), progress) if observations else []


def _fit(
    observations: Sequence[Observation],
    telescope: Telescope | str | Path | None,
    options: FitOptions,
    progress: Callable[[Progress], None] | None,
) -> list[FitResult]:
    begin = time.perf_counter()
    setup = set_up(observations, telescope, options)
    rows = torch.arange(len(observations), device=setup.starts.device)
    found = [
        fitted for some in rows.split(_count_at_once(setup)) for fitted in fit_orders(setup, some, progress)
    ]
    results = [build_result(setup, row, fitted) for row, fitted in enumerate(found)]
    return [replace(result, seconds=(time.perf_counter() - begin) / len(results)) for result in results]


def _count_at_once(setup: Setup) -> int:
    """Observations fitted side by side that memory has room for."""
    levels = setup.levels
    # Jacobians of the search, and fields and samples of the exact model, some twenty of each.
    each = 24 * len(setup.layout.free) * sum(levels.search.model.sizes) + 320 * sum(levels.exact.model.sizes)
    return max(1, int(_BATCH_BYTES / each))
