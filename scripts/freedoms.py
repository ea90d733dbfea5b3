"""Tools of the studies of a model that bends: options with its freedoms held, and what a fit has taken up."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ooftorch.observation import Observation
from ooftorch.optics import zernike
from ooftorch.optics.illumination.gaussian import find_width
from ooftorch.optics.telescope import Telescope
from ooftorch.result import FitResult

DEFAULT: Mapping = {"likelihood": "auto"}
# Error bars from its start at which a parameter counts as taken up.
_SIGNIFICANT = 3.0
# Scan lines' terms below this fraction of the peak, rms, are not worth a word.
_LEAST = 1e-5


def find_widths(telescope: Telescope) -> tuple[str, ...]:
    """Names of the widths of the legs and their shadows, if the telescope has any."""
    return telescope.blockage.legs.widths if telescope.blockage.legs else ()


def hold(telescope: Telescope, **fixed: float) -> dict:
    '""Options of the fit without the freedoms: a Gaussian likelihood, and all of the telescope as in its'
    'file.""'
    nominal = {"dx": 0.0, "dy": 0.0, "x0": 0.0, "y0": 0.0, "dz_scale": 1.0}
    nominal |= dict.fromkeys(find_widths(telescope), 1.0)
    return {
        "likelihood": "gaussian",
        "nuisance": "none",
        "amplitude_order": 0,
        "fixed": nominal | fixed,
    }


def rms(values: Sequence[float]) -> float:
    return math.sqrt(np.mean(np.square(values)))


def summarise(observations: Sequence[Observation], results: Sequence[FitResult]) -> dict:
    """Errors of some fits against the truth, and the error bars that they claim."""
    pairs = list(zip(observations, results, strict=True))
    errors = [o.truth.rms_error(r.coefficients) for o, r in pairs]
    pulls = [p for o, r in pairs for p in o.truth.pulls(r).values()]
    return {
        "errors": errors,
        "error": rms(errors),
        "claimed": rms([r.phase_error for r in results]),
        "pulls": rms(pulls),
        "converged": sum(r.converged for r in results),
        "fits": len(results),
        "seconds": float(np.mean([r.seconds for r in results])),
        "scan_terms": rms([find_scan_terms(r) for r in results]),
        "amplitude_orders": [find_amplitude_order(r) for r in results],
    }


def compare(errors: Sequence[float], others: Sequence[float]) -> tuple[float, float]:
    """Ratio of the rms errors on the same surfaces and noise, and its standard error by bootstrap."""
    a, b = np.square(errors), np.square(others)
    draws = np.random.default_rng(0).integers(len(a), size=(2000, len(a)))
    ratios = np.sqrt(a[draws].mean(1) / b[draws].mean(1))
    return float(np.sqrt(a.mean() / b.mean())), float(ratios.std())


def find_scan_terms(result: FitResult) -> float:
    """Rms of what the scan lines add to the model, over the highest peak."""
    added = [m.scan_terms[np.isfinite(m.data)] for m in result.maps]
    return rms(np.concatenate(added)) / max(m.peak for m in result.maps)


def find_amplitude_order(result: FitResult) -> int:
    """Highest order of the amplitude terms that are free; 0 for none."""
    numbers = [zernike.number(name, "a") for name in result.free_names]
    return max((zernike.order_of(k) for k in numbers if k is not None), default=0)


def describe_taken(results: Sequence[FitResult], telescope: Telescope) -> str:
    """Describe what fits of the same telescope took up, in words: significant parameters alone."""
    found, beam = [], results[0].wavelength / (2 * telescope.radius)

    def is_significant(names: Sequence[str], start: float = 0.0) -> bool:
        estimates = [r.parameters[name] for r in results for name in names]
        pulls = [(e.value - start) / e.sigma for e in estimates if e.free and e.sigma > 0]
        return bool(pulls) and rms(pulls) > _SIGNIFICANT

    def mean(name: str) -> float:
        return float(np.mean([r.parameters[name].value for r in results]))

    one = results[0].parameters
    usual = telescope.illumination.taper_db
    if "sigma" in one and usual is not None and is_significant(["sigma"], find_width(usual)):
        found.append(f"taper {-10 / (math.log(10) * mean('sigma') ** 2):.1f} dB")
    if is_significant(["dz_scale"], 1.0):
        found.append(f"dz times {mean('dz_scale'):.3f}")
    found += [
        f"{name} times {mean(name):.2f}"
        for name in ("legs", "shadow")
        if name in one and is_significant([name], 1.0)
    ]
    pointing = [f"{axis}_{i}" for axis in ("dx", "dy") for i in range(len(results[0].maps))]
    if is_significant(pointing):
        size = rms([r.parameters[name].value for r in results for name in pointing]) / beam
        found.append(f"pointing of maps {size:.2g} beams rms")
    if "x0" in one and is_significant(["x0", "y0"]):
        size = rms([math.hypot(r.parameters["x0"].value, r.parameters["y0"].value) for r in results])
        found.append(f"centre off by {size:.2g} R")
    if is_significant(["dz"]):
        found.append(f"focus {1e3 * mean('dz'):+.2g} mm")
    orders = [find_amplitude_order(r) for r in results]
    bent = [order for order in orders if order]
    if bent:
        number = "" if len(bent) == len(orders) else f" ({len(bent)} of {len(orders)})"
        found.append(f"amplitude to order {max(bent)}{number}")
    lines = rms([find_scan_terms(r) for r in results])
    if lines > _LEAST:
        found.append(f"scan lines {100 * lines:.2g} % of the peak rms")
    return ", ".join(found)
