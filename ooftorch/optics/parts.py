"""The parts of the forward model, built for one instrument and its maps.

The order of the parts is the order of their parameters. To add a part, write a subclass of `Effect` and add
it to the list here; `prediction.py` says how the parts work together.
"""

from collections.abc import Sequence
from typing import TypeVar

import torch

from ooftorch.device import Movable
from ooftorch.optics.amplitude import AMPLITUDE_FACTORS, AmplitudeFactor, IlluminationModel, OpenFraction
from ooftorch.optics.effect import Context, Effect
from ooftorch.optics.instrument import Instrument, MapGeometry
from ooftorch.optics.map_groups import MapGroups
from ooftorch.optics.map_phase import MAP_PHASES, MapPhase
from ooftorch.optics.parameters import Layout, Units
from ooftorch.optics.propagation import Raster
from ooftorch.optics.response import BeamRatio, Gains, Offsets
from ooftorch.optics.surface import Surface

__all__ = ["Parts", "declare_layout"]

_E = TypeVar("_E", bound=Effect)

_EFFECTS: tuple[type[Effect], ...] = (
    Surface,
    *AMPLITUDE_FACTORS,
    Gains,
    Offsets,
    *MAP_PHASES,
    BeamRatio,
)


def declare_layout(instrument: Instrument) -> Layout:
    """All parameters of the model of an instrument, with default free flags, priors and ties."""
    return Layout(
        tuple(p for effect in _EFFECTS for p in effect.declare(instrument)),
        tuple(tie for effect in _EFFECTS for tie in effect.declare_ties(instrument)),
    )


class Parts(Movable):
    """Everything that the forward model is computed with: effects, units, raster and far-field operators.

    Parameters
    ----------
    context : Context
    maps : sequence of MapGeometry

    Attributes
    ----------
    effects : list of Effect
        In the order of their parameters.
    units : Units
    screens : Tensor, (k, n_pixels)
        Phase screens of all `map_phases`, one after the other: one product serves them all.
    groups : MapGroups
    """

    def __init__(self, context: Context, maps: Sequence[MapGeometry]) -> None:
        self.units = Units(context.layout, context.oo)
        self.effects = [effect(context) for effect in _EFFECTS]
        self.screens = torch.cat([effect.screens for effect in self.map_phases])
        own = self.screens.split([len(effect.screens) for effect in self.map_phases])
        for effect, screens in zip(self.map_phases, own, strict=True):
            effect.screens = screens
        self._pixel_index = context.oo(context.pixels.index)
        self._side = len(context.pixels.axis)
        self.groups = MapGroups(context.instrument, maps, context.pixels.axis, self.screens)

    @property
    def raster(self) -> Raster:
        """Where the dish pixels are on the aperture raster."""
        return Raster(self._pixel_index, self._side)

    @property
    def surface(self) -> Surface:
        """The phase of the surface."""
        return self._find(Surface)

    @property
    def amplitude_factors(self) -> list[AmplitudeFactor]:
        """The factors of the amplitude that are not 1."""
        return [
            effect for effect in self.effects if isinstance(effect, AmplitudeFactor) and not effect.is_one
        ]

    @property
    def illumination(self) -> IlluminationModel:
        """The illumination model."""
        return self._find(IlluminationModel)

    @property
    def open_fraction(self) -> OpenFraction:
        """The open fraction of each pixel."""
        return self._find(OpenFraction)

    @property
    def gains(self) -> Gains:
        """The gain of each map."""
        return self._find(Gains)

    @property
    def offsets(self) -> Offsets:
        """The baseline of each map."""
        return self._find(Offsets)

    @property
    def map_phases(self) -> list[MapPhase]:
        """The phases that differ from map to map."""
        return [effect for effect in self.effects if isinstance(effect, MapPhase)]

    @property
    def beam_ratio(self) -> BeamRatio:
        """The gain ratio of a chopped pair."""
        return self._find(BeamRatio)

    def _find(self, kind: type[_E]) -> _E:
        """Return the one effect of a kind."""
        return next(effect for effect in self.effects if isinstance(effect, kind))
