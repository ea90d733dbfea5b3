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
    from ooftorch.device import OO as OO
    from ooftorch.errors import InputError as InputError
    from ooftorch.errors import StopFit as StopFit
    from ooftorch.fitting.bootstrap import resample as resample
    from ooftorch.fitting.fitter import fit as fit
    from ooftorch.fitting.fitter import fit_many as fit_many
    from ooftorch.fitting.problems import Problem as Problem
    from ooftorch.fitting.problems import problem as problem
    from ooftorch.io.observations import read as read
    from ooftorch.io.observations import write as write
    from ooftorch.io.result_file import read_fit as read_fit
    from ooftorch.io.result_file import write_fit as write_fit
    from ooftorch.observation import BeamMap as BeamMap
    from ooftorch.observation import Observation as Observation
    from ooftorch.optics.model import BeamModel as BeamModel
    from ooftorch.optics.receiver import Receiver as Receiver
    from ooftorch.optics.telescope import Telescope as Telescope
    from ooftorch.optim.minimizer import minimize as minimize
    from ooftorch.optim.residuals import least_squares as least_squares
    from ooftorch.optim.scipy_optimizer import ScipyOptimizer as ScipyOptimizer
    from ooftorch.reporting.checks import verdict as verdict
    from ooftorch.reporting.numbers import summary as summary
    from ooftorch.reporting.plot import plot_aperture as plot_aperture
    from ooftorch.reporting.plot import plot_beams as plot_beams
    from ooftorch.reporting.plot import plot_convergence as plot_convergence
    from ooftorch.reporting.text import report as report
    from ooftorch.result import FitResult as FitResult
    from ooftorch.simulation.noise import Noise as Noise
    from ooftorch.simulation.simulator import Simulator as Simulator
    from ooftorch.simulation.simulator import simulate as simulate

__version__ = "0.1.0"

# Public name to the module that has it. They are imported when first used: importing the package must not
# cost the seconds that torch takes.
_HOMES = {
    "BeamMap": "observation",
    "BeamModel": "optics.model",
    "FitResult": "result",
    "InputError": "errors",
    "Noise": "simulation.noise",
    "OO": "device",
    "Observation": "observation",
    "Problem": "fitting.problems",
    "Receiver": "optics.receiver",
    "ScipyOptimizer": "optim.scipy_optimizer",
    "Simulator": "simulation.simulator",
    "StopFit": "errors",
    "Telescope": "optics.telescope",
    "fit": "fitting.fitter",
    "fit_many": "fitting.fitter",
    "least_squares": "optim.residuals",
    "minimize": "optim.minimizer",
    "plot_aperture": "reporting.plot",
    "plot_beams": "reporting.plot",
    "plot_convergence": "reporting.plot",
    "problem": "fitting.problems",
    "read": "io.observations",
    "read_fit": "io.result_file",
    "report": "reporting.text",
    "resample": "fitting.bootstrap",
    "simulate": "simulation.simulator",
    "summary": "reporting.numbers",
    "verdict": "reporting.checks",
    "write": "io.observations",
    "write_fit": "io.result_file",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'ooftorch' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ooftorch.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
