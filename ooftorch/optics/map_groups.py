"""Groups of maps that have the same sample directions: one far-field operator serves all maps of a group."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ooftorch.device import Movable
from ooftorch.optics.instrument import Instrument, MapGeometry
from ooftorch.optics.received_power import ReceivedPower

__all__ = ["MapGroups"]


class MapGroups(Movable):
    """The maps of a model, grouped by their sample directions.

    Parameters
    ----------
    instrument : Instrument
    maps : sequence of MapGeometry
    axis : ndarray, (side,)
        Pixel centres of the aperture raster along x and along y, metres.
    like : Tensor
        A real tensor with the dtype and device of the operators.

    Attributes
    ----------
    beams : list of ReceivedPower
        The operator of each group, from aperture field to received power.
    """

    def __init__(
        self, instrument: Instrument, maps: Sequence[MapGeometry], axis: np.ndarray, like: Tensor
    ) -> None:
        members: list[list[int]] = []
        for i, m in enumerate(maps):
            for group in members:
                if m.has_directions_of(maps[group[0]]):
                    group.append(i)
                    break
            else:
                members.append([i])
        self._members = tuple(map(tuple, members))
        firsts = [maps[group[0]] for group in members]
        receiver, wavelength = instrument.receiver, instrument.wavelength
        self.beams = [
            ReceivedPower(receiver, axis, axis, m.x, m.y, wavelength, smear=m.smear, like=like)
            for m in firsts
        ]
        self._sizes = tuple(len(m.x) for m in maps)
        order = [i for group in members for i in group]
        self._index = [torch.tensor(group, device=like.device) for group in members]
        self._back = torch.tensor(np.argsort(order), device=like.device)

    def split(self, samples: Tensor | np.ndarray) -> list:
        """Split an array along its last dimension, the samples of all maps, into one array per map."""
        ends = np.cumsum(self._sizes)
        return [samples[..., end - size : end] for size, end in zip(self._sizes, ends, strict=True)]

    def split_maps(self, tensor: Tensor, dim: int) -> list[Tensor]:
        """Split a tensor along its dimension `dim`, which counts the maps, into one tensor per group."""
        if len(self._members) == 1:
            return [tensor]
        return [tensor.index_select(dim, index) for index in self._index]

    def join_maps(self, parts: list[Tensor], dim: int) -> Tensor:
        """Inverse of `split_maps`."""
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim).index_select(dim, self._back)

    def split_samples(self, samples: Tensor) -> list[Tensor]:
        """Split the samples of all maps (..., n_samples) into one tensor (..., n_maps, n) per group."""
        if len(self._members) == 1:
            return [samples.unflatten(-1, (len(self._sizes), -1))]
        by_map = samples.split(self._sizes, -1)
        return [torch.stack([by_map[i] for i in group], -2) for group in self._members]

    def join_samples(self, parts: list[Tensor]) -> Tensor:
        """Inverse of `split_samples`."""
        if len(parts) == 1:
            return parts[0].flatten(-2)
        by_map = [row for part in parts for row in part.unbind(-2)]
        return torch.cat([by_map[i] for i in self._back.tolist()], -1)
