"""Out-of-focus holography for single-dish radio telescopes, on PyTorch.

From maps of a bright source taken in and out of focus, power alone, to the shape of the dish:

    import ooftorch
    observation = ooftorch.read("maps.fits")
    result = ooftorch.fit(observation, order=5)
    print(ooftorch.report(result))
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ooftorch.fitting.bootstrap import resample as resample
    from ooftorch.fitting.fitter import fit as fit
    from ooftorch.fitting.fitter import fit_many as fit_many
    from ooftorch.optim.minimizer import minimize as minimize
    from ooftorch.optim.residuals import least_squares as least_squares
    from ooftorch.reporting.text import report as report
    from ooftorch.simulation.simulator import simulate as simulate

__version__ = "0.1.0"

# Loaded when first used: importing the package must not cost the seconds that torch takes.
_HOMES = {
    "BeamMap": "observation",
    "BeamModel": "optics.model",
    "FitResult": "result",
    "InputError": "errors",
    "Noise": "simulation.noise",
    "Observation": "observation",
    "OO": "device",
    "ScipyOptimizer": "optim.scipy_optimizer",
    "Receiver": "optics.receiver",
    "Simulator": "simulation.simulator",
    "Telescope": "optics.telescope",
    "fit": "fitting.fitter",
    "fit_many": "fitting.fitter",
    "least_squares": "optim.residuals",
    "minimize": "optim.minimizer",
    "read": "io",
    "report": "reporting.text",
    "resample": "fitting.bootstrap",
    "simulate": "simulation.simulator",
    "write": "io",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'ooftorch' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ooftorch.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
