"""From the aperture field of every map to the power of every sample, and the derivatives of that step.

Written by hand, because autograd would build the same graph again at every evaluation. The intermediate
results are kept, so each derivative costs one more pass.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ooftorch.optics.map_groups import MapGroups

__all__ = ["Gradients", "Propagation", "Raster"]


class Raster(NamedTuple):
    """Where the dish pixels are on the square raster of the aperture.

    Attributes
    ----------
    positions : Tensor, (n_pixels,)
        Flat position of each dish pixel.
    side : int
        Pixels along each side.
    """

    positions: Tensor
    side: int

    def fill(self, field: Tensor) -> Tensor:
        """Complex field of the dish pixels (..., n_pixels) on the whole raster (..., side, side, 2)."""
        # In two dimensions: index_copy on more is several times slower.
        flat = field.reshape(-1, field.shape[-1])
        square = flat.new_zeros((len(flat), self.side**2)).index_copy_(-1, self.positions, flat)
        return torch.view_as_real(square.reshape(*field.shape[:-1], self.side, self.side))


class Gradients(NamedTuple):
    """Gradients of a scalar function of the samples with respect to the intermediate results.

    Attributes
    ----------
    samples : list of Tensor, (..., n_maps of the group, n)
        With respect to the samples, one tensor per group of maps.
    received : list of Tensor, the same shapes
        With respect to the received power.
    phase : Tensor, (..., n_maps, n_pixels)
        With respect to the aperture phase of each map, per radian.
    log_amplitude : Tensor, (..., n_pixels)
        With respect to the logarithm of the aperture amplitude.
    gain : Tensor, (..., n_maps)
        With respect to the gain of each map.
    """

    samples: list[Tensor]
    received: list[Tensor]
    phase: Tensor
    log_amplitude: Tensor
    gain: Tensor


class Propagation:
    """Power of every sample for one aperture amplitude (or a batch) and the phase of each map.

    Parameters
    ----------
    raster : Raster
    groups : MapGroups
    amplitude : Tensor, (..., n_pixels)
    phase : Tensor, (..., n_maps, n_pixels)
        Radians, with defocus and pointing.
    gain, offset : Tensor, (..., n_maps)
        In the units of the data.
    ratio : Tensor, (..., 1), or None
        Gain ratio of a chopped pair of beams; None for a single beam.

    Attributes
    ----------
    groups : MapGroups
    samples : Tensor, (..., n_samples)
        Power of every sample, in the units of the data, all maps one after the other.
    received : list of Received
        Received power of each group of maps, before gain and baseline.
    """

    def __init__(
        self,
        raster: Raster,
        groups: MapGroups,
        *,
        amplitude: Tensor,
        phase: Tensor,
        gain: Tensor,
        offset: Tensor,
        ratio: Tensor | None,
    ) -> None:
        self._raster, self.groups = raster, groups
        self._amplitude, self._map_gain = amplitude, gain
        bright = amplitude.unsqueeze(-2)
        self._field = torch.complex(bright * torch.cos(phase), bright * torch.sin(phase))
        self._total = amplitude.sum(-1)[..., None, None]
        # The power is normalised to the peak of the perfect telescope in focus, (sum of the amplitude)^2.
        self._gain = groups.split_maps(gain.unsqueeze(-1) / self._total.square(), -2)
        offsets = groups.split_maps(offset.unsqueeze(-1), -2)
        fields = groups.split_maps(raster.fill(self._field), -4)
        self.received = [beam.at(field, ratio) for beam, field in zip(groups.beams, fields, strict=True)]
        self.samples = groups.join_samples(
            [torch.addcmul(o, g, r.power) for o, g, r in zip(offsets, self._gain, self.received, strict=True)]
        )

    def vjp(self, by_samples: Tensor) -> Gradients:
        """Gradients with respect to the intermediate results, from the gradient (..., n_samples)."""
        groups = self.groups
        parts = groups.split_samples(by_samples)
        by_map = [torch.linalg.vecdot(w, r.power) for w, r in zip(parts, self.received, strict=True)]
        by_gain = groups.join_maps(by_map, -1) / self._total[..., 0].square()
        by_power = [w * g for w, g in zip(parts, self._gain, strict=True)]
        by_field = [r.vjp(w) for r, w in zip(self.received, by_power, strict=True)]
        on_raster = torch.view_as_complex(groups.join_maps(by_field, -4)).flatten(-2)
        # Real part: gradient by the logarithm of the amplitude. Imaginary part: gradient by the phase.
        by_log_field = self._field.conj() * on_raster[..., self._raster.positions]
        # More amplitude also raises the peak of the perfect telescope, to which the power is normalised.
        rise = torch.linalg.vecdot(by_gain, self._map_gain)[..., None]
        by_log_amplitude = by_log_field.real.sum(-2) - (2 * rise / self._total[..., 0]) * self._amplitude
        return Gradients(parts, by_power, by_log_field.imag, by_log_amplitude, by_gain)

    # ------------------------------------------------------------------- first-order changes of the samples

    def propagate_phase(self, change: Tensor) -> Tensor:
        """Change of the samples (..., n_samples) for a change of the phase (..., n_maps or 1, n_pixels)."""
        return self._propagate_field((1j * self._field) * change)

    def propagate_log_amplitude(self, change: Tensor) -> Tensor:
        """Change of the samples (..., n_samples) for a change of the log amplitude (..., n_pixels)."""
        fall = 2 * torch.linalg.vecdot(self._amplitude, change)[..., None, None] / self._total
        fallen = [g * r.power * fall for g, r in zip(self._gain, self.received, strict=True)]
        return self._propagate_field(change.unsqueeze(-2) * self._field) - self.groups.join_samples(fallen)

    def propagate_gain(self) -> Tensor:
        """Change of the samples (..., n_samples) of each map per unit of its gain."""
        return self.groups.join_samples([r.power / self._total.square() for r in self.received])

    def propagate_power(self, power: list[Tensor]) -> Tensor:
        """Change of the samples (..., n_samples) for a change of the received power of each group of maps."""
        return self.groups.join_samples([g * p for g, p in zip(self._gain, power, strict=True)])

    def write_by_map(self, out: Tensor, rows: Mapping[int, int], change: Tensor) -> None:
        """Write the samples of each map from `change` (..., n_samples) into that map's row of `out`.

        `rows` maps the number of a map to its row; the rest of the row stays as it is.
        """
        parts, targets = self.groups.split(change), self.groups.split(out)
        for number, row in rows.items():
            targets[number][..., row, :] = parts[number]

    def _propagate_field(self, change: Tensor) -> Tensor:
        """Change of the samples for a change of the field, complex (..., n_maps, n_pixels)."""
        changes = self.groups.split_maps(self._raster.fill(change), -4)
        return self.groups.join_samples(
            [r.jvp(c) * g for r, c, g in zip(self.received, changes, self._gain, strict=True)]
        )
