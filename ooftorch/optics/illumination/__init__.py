"""Amplitude of the aperture field: how the feed lights the dish. A module for each model.

Amplitude means field, not power: an edge taper in decibels is 20 log10 of the ratio edge to centre.
"""

import importlib
from typing import TYPE_CHECKING, NamedTuple

from ooftorch.errors import InputError

if TYPE_CHECKING:
    from ooftorch.optics.illumination.base import Illumination

__all__ = ["NAMES", "TAPERED", "choose"]


class _Model(NamedTuple):
    """Where a model is, and whether a telescope file has to give its edge taper.

    The class is imported when it is chosen, for it needs torch, and reading a telescope or a result does not.
    """

    module: str
    name: str
    tapered: bool = True


# By the name on the command line, in telescope files and in results.
_MODELS = {
    "gaussian": _Model("gaussian", "Gaussian"),
    "pedestal": _Model("pedestal", "Pedestal"),
    "squashed": _Model("squashed", "SquashedGaussian"),
    "tophat": _Model("tophat", "TopHat", tapered=False),
}

NAMES = tuple(_MODELS)
"""The names that `choose` knows."""

TAPERED = tuple(name for name, model in _MODELS.items() if model.tapered)
"""Those of them that have an edge taper."""


def choose(illumination: "str | Illumination") -> "Illumination":
    """Return the model of that name, or a model as it is; InputError with the known names otherwise."""
    if not isinstance(illumination, str):
        return illumination
    if illumination not in _MODELS:
        raise InputError(f"unknown illumination {illumination!r}; known are {', '.join(sorted(NAMES))}")
    model = _MODELS[illumination]
    return getattr(importlib.import_module(f"{__name__}.{model.module}"), model.name)()
