"""What a receiver makes of the beam: a single beam, a chopped pair, an extended source.

A receiver records power at the map's directions. All receivers are built on the same far-field sum, so a
regular map stays two matrix products whatever the receiver.
"""

from dataclasses import dataclass

import numpy as np
import scipy.special
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ooftorch.farfield import DirectTransform, power

__all__ = ["ReceivedPower", "Receiver"]


@dataclass(frozen=True)
class Receiver:
    """How the power was recorded.

    Attributes
    ----------
    chop_x, chop_y : float
        Separation of the two beams of a differencing receiver, radians; the positive beam sits at plus
        half of it, the negative one at minus half (original OOF software, `hchop`, `vchop`). Zero: a
        single beam.
    gain_ratio : float
        Power of the negative beam over that of the positive one (`beamgainf`).
    disc_radius : float
        Angular radius of a uniform source, radians. Zero: a point.
    """

    chop_x: float = 0.0
    chop_y: float = 0.0
    gain_ratio: float = 1.0
    disc_radius: float = 0.0

    @property
    def chopped(self) -> bool:
        """Whether two beams are differenced."""
        return self.chop_x != 0.0 or self.chop_y != 0.0


class ReceivedPower:
    """Recorded power at given directions as a function of the aperture field.

    Parameters
    ----------
    receiver : Receiver
    x, y : array_like, (nx,), (ny,)
        Aperture coordinates, metres, evenly spaced with the same pitch on both axes.
    sky_x, sky_y : array_like, (n,)
        Directions, radians.
    wavelength : float
        Metres.
    like : Tensor
        Real tensor whose dtype and device the operator takes.
    """

    def __init__(
        self,
        receiver: Receiver,
        x: ArrayLike,
        y: ArrayLike,
        sky_x: ArrayLike,
        sky_y: ArrayLike,
        wavelength: float,
        *,
        like: Tensor,
    ) -> None:
        self.receiver = receiver
        u, v = np.asarray(sky_x, float), np.asarray(sky_y, float)
        half = 0.5 * receiver.chop_x, 0.5 * receiver.chop_y
        centres = [half, (-half[0], -half[1])] if receiver.chopped else [(0.0, 0.0)]
        beam = _PointBeam if receiver.disc_radius == 0 else _DiscBeam
        self.beams = [
            beam(x, y, u - cx, v - cy, wavelength, receiver.disc_radius, like) for cx, cy in centres
        ]

    def __call__(self, field: Tensor, gain_ratio: Tensor | float | None = None) -> Tensor:
        """Power (..., n) of the field (..., ny, nx, 2).

        `gain_ratio`, (..., 1) or a number, replaces the receiver's own: it is what a fit frees.
        """
        if not self.receiver.chopped:
            return self.beams[0](field)
        ratio = self.receiver.gain_ratio if gain_ratio is None else gain_ratio
        g = torch.as_tensor(ratio, dtype=field.dtype, device=field.device).sqrt()
        positive, negative = (beam(field) for beam in self.beams)
        return positive / g - negative * g


class _PointBeam:
    """Power pattern: the squared modulus of the far field."""

    def __init__(self, x, y, u, v, wavelength, disc_radius, like):
        self.transform = DirectTransform(x, y, u, v, wavelength, like=like)

    def __call__(self, field: Tensor) -> Tensor:
        return power(self.transform(field))


class _DiscBeam:
    """Power pattern averaged over a uniform disc.

    The power pattern is the transform of the field's autocorrelation over baselines; averaging over a
    disc multiplies that by 2 J1(s)/s, s = 2 pi radius baseline/wavelength. Exact for the pixels at hand.
    """

    def __init__(self, x, y, u, v, wavelength, disc_radius, like):
        bx, by = _baselines(np.asarray(x, float)), _baselines(np.asarray(y, float))
        self.shape = by.size, bx.size
        s = 2 * np.pi * disc_radius / wavelength * np.hypot(by[:, None], bx)
        s[0, 0] = 1.0
        visibility = 2 * scipy.special.j1(s) / s
        visibility[0, 0] = 1.0
        self.visibility = torch.as_tensor(visibility, dtype=like.dtype, device=like.device)
        self.transform = DirectTransform(bx, by, u, v, wavelength, like=like)

    def __call__(self, field: Tensor) -> Tensor:
        spectrum = torch.fft.fft2(torch.view_as_complex(field), s=self.shape)
        autocorrelation = torch.fft.ifft2(torch.view_as_real(spectrum).square().sum(-1))
        return self.transform(torch.view_as_real(autocorrelation * self.visibility))[..., 0]


def _baselines(x: np.ndarray) -> np.ndarray:
    """Separations of evenly spaced pixels in FFT order, long enough that none wraps round."""
    n = 2 * x.size
    return np.fft.fftfreq(n, d=1 / (n * (x[1] - x[0])))
