"""Illumination models: amplitude of the field that the feed puts on the dish. One module for each model.

Amplitude means field, not power: an edge taper in decibels is 20 log10 of the ratio edge to centre.
"""

import importlib
from typing import TYPE_CHECKING, NamedTuple

from ooftorch.errors import InputError

if TYPE_CHECKING:
    from ooftorch.optics.illumination.base import Illumination

__all__ = ["NAMES", "TAPERED", "choose"]


class _Model(NamedTuple):
    """Module and class of a model, and whether a telescope file must give its edge taper.

    The class is imported only when it is chosen, since it needs torch; reading a telescope or a result must
    not load torch.
    """

    module: str
    name: str
    tapered: bool = True


# Models by name, as on the command line, in telescope files and in results.
_MODELS = {
    "gaussian": _Model("gaussian", "Gaussian"),
    "pedestal": _Model("pedestal", "Pedestal"),
    "squashed": _Model("squashed", "SquashedGaussian"),
    "tophat": _Model("tophat", "TopHat", tapered=False),
}

NAMES = tuple(_MODELS)
"""The names that `choose` accepts."""

TAPERED = tuple(name for name, model in _MODELS.items() if model.tapered)
"""Those of them that have an edge taper."""


def choose(illumination: "str | Illumination") -> "Illumination":
    """Return the model of this name, or a model object unchanged.

    Parameters
    ----------
    illumination : str or Illumination
        A name in `NAMES`, or an object.

    Returns
    -------
    Illumination

    Raises
    ------
    InputError
        If the name is unknown.
    """
    if not isinstance(illumination, str):
        return illumination
    if illumination not in _MODELS:
        raise InputError(f"unknown illumination {illumination!r}; known are {', '.join(sorted(NAMES))}")
    model = _MODELS[illumination]
    return getattr(importlib.import_module(f"{__name__}.{model.module}"), model.name)()
