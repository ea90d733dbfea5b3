"""Out-of-focus holography for single-dish radio telescopes, on PyTorch.

From maps of a bright source taken in and out of focus, power alone, to the shape of the dish:

    import ooftorch
    observation = ooftorch.read("maps.fits")
    result = ooftorch.fit(observation, order=5)
    print(ooftorch.report(result))
"""

import importlib
import sys
import types
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ooftorch.fit import fit as fit
    from ooftorch.fit import fit_many as fit_many
    from ooftorch.minimize import least_squares as least_squares
    from ooftorch.minimize import minimize as minimize
    from ooftorch.report import report as report
    from ooftorch.resample import resample as resample
    from ooftorch.simulate import simulate as simulate

__version__ = "0.1.0"

# Loaded when first used: importing the package must not cost the seconds that torch takes.
_HOMES = {
    "BeamMap": "observation",
    "BeamModel": "model",
    "FitResult": "result",
    "InputError": "errors",
    "Noise": "noise",
    "Observation": "observation",
    "OO": "device",
    "ScipyOptimizer": "optimizer",
    "Receiver": "receiver",
    "Simulator": "simulate",
    "Telescope": "telescope",
    "fit": "fit",
    "fit_many": "fit",
    "least_squares": "minimize",
    "minimize": "minimize",
    "read": "io",
    "report": "report",
    "resample": "resample",
    "simulate": "simulate",
    "write": "io",
}

__all__ = ["__version__", *_HOMES]


class _Package(types.ModuleType):
    """The package, in which a function wins over the module of the same name that holds it."""

    def __setattr__(self, name: str, value: object) -> None:
        # Importing the module ooftorch.fit would bind it here as "fit" and hide the function.
        if name in _HOMES and isinstance(value, types.ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'ooftorch' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ooftorch.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
