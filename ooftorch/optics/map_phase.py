"""Aperture phase that differs from map to map: defocus and pointing.

Each is a sum of phase screens across the aperture, every screen times one coefficient per map. To add one,
write a subclass of `MapPhase` and add it to `MAP_PHASES`.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ooftorch.optics.effect import Context, Effect
from ooftorch.optics.instrument import Instrument
from ooftorch.optics.parameters import Parameter, Tie, declare_per_map
from ooftorch.optics.pixels import Pixels
from ooftorch.optics.propagation import Gradients, Propagation

__all__ = ["MAP_PHASES", "Defocus", "MapPhase", "Pointing"]

# Standard deviation of dx and dy of a map about their mean, in units of wavelength over diameter.
_POINTING_TIE = 0.25


class MapPhase(Effect):
    """Phase of each map: the sum over k of coefficient[map, k] times screen[k, pixel].

    Parameters
    ----------
    context : Context

    Attributes
    ----------
    screens : Tensor, (k, n_pixels)
        Phase screens, radians per unit of their coefficient.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.screens = context.oo(self.build_screens(context.instrument, context.pixels))
        self._nominal_dz = context.oo(context.dz)

    @staticmethod
    @abstractmethod
    def build_screens(instrument: Instrument, pixels: Pixels) -> np.ndarray:
        """Phase screens (k, n_pixels), radians per unit of their coefficient."""

    @abstractmethod
    def coefficients(self, values: Tensor) -> Tensor:
        """Coefficients (..., n_maps, k) at the values (..., n_parameters)."""

    @abstractmethod
    def rates(self, values: Tensor) -> Tensor:
        """Derivatives of the coefficients with respect to the values, (..., n_parameters, n_maps, k)."""

    def vjp(self, values: Tensor, propagation: Propagation, gradients: Gradients) -> Tensor:  # noqa: D102
        by_coefficient = gradients.phase @ self.screens.mT  # (..., n_maps, k)
        return (self.rates(values) * by_coefficient.unsqueeze(-3)).sum((-1, -2))

    def jvp(self, values: Tensor, propagation: Propagation, out: Tensor, rows: Mapping[int, int]) -> None:  # noqa: D102
        rates = self.rates(values)
        for kind in {self.parameters[i].kind: None for i in rows}:
            members = [i for i in rows if self.parameters[i].kind == kind]
            # Parameters of one map each affect different samples: one forward pass serves all of a kind.
            phase = rates[..., members, :, :].sum(-3) @ self.screens
            change = propagation.propagate_phase(phase)
            if self.parameters[members[0]].map is None:
                out[..., rows[members[0]], :] = change
            else:
                propagation.write_by_map(out, self.find_rows_by_map(kind, rows), change)


class Defocus(MapPhase):
    """Defocus: phase -k dL (CONVENTIONS 3), with the path dL a polynomial in the focus offset dz.

    The focus offsets of all maps are the nominal ones times dz_scale, plus dz (metres).
    """

    @classmethod
    def declare(cls, instrument: Instrument) -> Sequence[Parameter]:  # noqa: D102
        telescope = instrument.telescope
        shift = telescope.focus_shift_error(instrument.wavelength)
        return [
            Parameter("dz", "m", 0.0, shift, prior=shift),
            Parameter("dz_scale", "", 1.0, free=True, log=True, prior=telescope.focus_errors.scale),
        ]

    @staticmethod
    def build_screens(instrument: Instrument, pixels: Pixels) -> np.ndarray:  # noqa: D102
        k = 2 * math.pi / instrument.wavelength
        return -k * instrument.telescope.path_powers(pixels.x, pixels.y)

    def _offsets(self, values: Tensor) -> Tensor:
        """Focus offsets (..., n_maps), metres."""
        shift, scale = values.split(1, -1)
        return self._nominal_dz * scale + shift

    def coefficients(self, values: Tensor) -> Tensor:  # noqa: D102
        dz = self._offsets(values)
        return torch.stack([dz, *(dz ** (p + 1) for p in range(1, len(self.screens)))], -1)

    def rates(self, values: Tensor) -> Tensor:  # noqa: D102
        dz = self._offsets(values)
        by_offset = torch.stack([(p + 1) * dz**p for p in range(len(self.screens))], -1)
        return torch.stack([by_offset, self._nominal_dz.unsqueeze(-1) * by_offset], -3)


class Pointing(MapPhase):
    """Pointing error of each map: phase k (x dx + y dy) moves its beam by (dx, dy) rad (CONVENTIONS 2).

    Where the surface has tilts, these stand for what the maps have in common.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        n = context.instrument.n_maps
        # dx_i is the first coefficient of map i, dy_i the second one.
        self._rates = context.oo(np.eye(2 * n).reshape(2 * n, 2, n).swapaxes(1, 2))

    @classmethod
    def declare(cls, instrument: Instrument) -> Sequence[Parameter]:  # noqa: D102
        beam, n = instrument.beam, instrument.n_maps
        return [
            *declare_per_map("dx", n, "rad", 0.0, beam, free=True),
            *declare_per_map("dy", n, "rad", 0.0, beam, free=True),
        ]

    @classmethod
    def declare_ties(cls, instrument: Instrument) -> Sequence[Tie]:  # noqa: D102
        names, n, basis = [p.name for p in cls.declare(instrument)], instrument.n_maps, instrument.basis
        return [
            Tie(tuple(names[:n]), _POINTING_TIE, instead=basis.x_tilt),
            Tie(tuple(names[n:]), _POINTING_TIE, instead=basis.y_tilt),
        ]

    @staticmethod
    def build_screens(instrument: Instrument, pixels: Pixels) -> np.ndarray:  # noqa: D102
        k = 2 * math.pi / instrument.wavelength
        return k * np.stack([pixels.x, pixels.y])

    def coefficients(self, values: Tensor) -> Tensor:  # noqa: D102
        return values.unflatten(-1, (2, -1)).mT

    def rates(self, values: Tensor) -> Tensor:  # noqa: D102
        return self._rates


MAP_PHASES: tuple[type[MapPhase], ...] = (Defocus, Pointing)
"""The per-map phases of every model, in the order of their parameters."""
