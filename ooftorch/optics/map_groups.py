"""Maps with the same samples share one operator and one batched product."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ooftorch.device import Movable
from ooftorch.optics.instrument import Instrument, MapGeometry
from ooftorch.optics.received_power import ReceivedPower

__all__ = ["MapGroups"]


class MapGroups(Movable):
    """The maps of a model, grouped by their directions.

    Parameters
    ----------
    instrument : Instrument
    maps : sequence of MapGeometry
    axis : ndarray, (side,)
        Pixel centres of the aperture raster along x and y, metres.
    like : Tensor
        Real tensor whose dtype and device the operators take.

    Attributes
    ----------
    beams : list of ReceivedPower
        Operator of each group.
    """

    def __init__(
        self, instrument: Instrument, maps: Sequence[MapGeometry], axis: np.ndarray, like: Tensor
    ) -> None:
        members: list[list[int]] = []
        for i, m in enumerate(maps):
            for group in members:
                first = maps[group[0]]
                if np.array_equal(first.x, m.x) and np.array_equal(first.y, m.y):
                    group.append(i)
                    break
            else:
                members.append([i])
        self._members = tuple(map(tuple, members))
        firsts = [maps[group[0]] for group in members]
        receiver, wavelength = instrument.receiver, instrument.wavelength
        self.beams = [ReceivedPower(receiver, axis, axis, m.x, m.y, wavelength, like=like) for m in firsts]
        self._sizes = tuple(len(m.x) for m in maps)
        order = [i for group in members for i in group]
        self._index = [torch.tensor(group, device=like.device) for group in members]
        self._back = torch.tensor(np.argsort(order), device=like.device)

    def of(self, tensor: Tensor, dim: int) -> list[Tensor]:
        """Each group's part of a tensor whose dimension `dim` counts the maps."""
        if len(self._members) == 1:
            return [tensor]
        return [tensor.index_select(dim, index) for index in self._index]

    def ordered(self, parts: list[Tensor], dim: int) -> Tensor:
        """Inverse of `of`."""
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim).index_select(dim, self._back)

    def apart(self, samples: Tensor) -> list[Tensor]:
        """Each group's part (..., n_maps, n) of the samples of all maps (..., n_samples)."""
        if len(self._members) == 1:
            return [samples.unflatten(-1, (len(self._sizes), -1))]
        by_map = samples.split(self._sizes, -1)
        return [torch.stack([by_map[i] for i in group], -2) for group in self._members]

    def joined(self, parts: list[Tensor]) -> Tensor:
        """Inverse of `apart`."""
        if len(parts) == 1:
            return parts[0].flatten(-2)
        by_map = [row for part in parts for row in part.unbind(-2)]
        return torch.cat([by_map[i] for i in self._back.tolist()], -1)
