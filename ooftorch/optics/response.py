"""Receiver response: gain and baseline of each map, and the gain ratio of a chopped pair of beams."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ooftorch.optics.effect import Effect
from ooftorch.optics.instrument import Instrument
from ooftorch.optics.parameters import Parameter, Tie, declare_per_map
from ooftorch.optics.propagation import Gradients, Propagation

__all__ = ["BeamRatio", "Gains", "Offsets"]

# Relative standard deviation of the gains of the maps about their mean.
_GAIN_TIE = 0.03
# Relative standard deviation of the prior on the gain ratio of a chopped pair.
_GAIN_RATIO_PRIOR = 0.1


class Gains(Effect):
    """Gain of each map: peak power of the perfect telescope in focus, in the units of the data."""

    @classmethod
    def declare(cls, instrument: Instrument) -> Sequence[Parameter]:  # noqa: D102
        peak = instrument.peak
        return declare_per_map("gain", instrument.n_maps, "data", peak, peak, free=True, log=True)

    @classmethod
    def declare_ties(cls, instrument: Instrument) -> Sequence[Tie]:  # noqa: D102
        return [Tie(tuple(p.name for p in cls.declare(instrument)), _GAIN_TIE)]

    def vjp(self, values: Tensor, propagation: Propagation, gradients: Gradients) -> Tensor:  # noqa: D102
        return gradients.gain

    def jvp(self, values: Tensor, propagation: Propagation, out: Tensor, rows: Mapping[int, int]) -> None:  # noqa: D102
        propagation.write_by_map(out, self.find_rows_by_map("gain", rows), propagation.propagate_gain())


class Offsets(Effect):
    """Baseline of each map, in the units of the data."""

    @classmethod
    def declare(cls, instrument: Instrument) -> Sequence[Parameter]:  # noqa: D102
        return declare_per_map("offset", instrument.n_maps, "data", 0.0, instrument.peak, free=True)

    def vjp(self, values: Tensor, propagation: Propagation, gradients: Gradients) -> Tensor:  # noqa: D102
        return propagation.groups.join_maps([w.sum(-1) for w in gradients.samples], -1)

    def jvp(self, values: Tensor, propagation: Propagation, out: Tensor, rows: Mapping[int, int]) -> None:  # noqa: D102
        propagation.write_by_map(
            out, self.find_rows_by_map("offset", rows), torch.ones_like(propagation.samples)
        )


class BeamRatio(Effect):
    """Power of the negative beam of a chopped pair over that of the positive one; none for a single beam."""

    @classmethod
    def declare(cls, instrument: Instrument) -> Sequence[Parameter]:  # noqa: D102
        if not instrument.receiver.chopped:
            return []
        ratio = instrument.receiver.gain_ratio
        return [Parameter("gain_ratio", "", ratio, ratio, free=True, log=True, prior=_GAIN_RATIO_PRIOR)]

    def vjp(self, values: Tensor, propagation: Propagation, gradients: Gradients) -> Tensor:  # noqa: D102
        by_log = [
            (w * r.log_ratio_derivative()).sum((-1, -2))
            for w, r in zip(gradients.received, propagation.received, strict=True)
        ]
        return (torch.stack(by_log).sum(0) / values[..., 0])[..., None]

    def jvp(self, values: Tensor, propagation: Propagation, out: Tensor, rows: Mapping[int, int]) -> None:  # noqa: D102
        for row in rows.values():
            by_log = propagation.propagate_power([r.log_ratio_derivative() for r in propagation.received])
            out[..., row, :] = by_log / values
