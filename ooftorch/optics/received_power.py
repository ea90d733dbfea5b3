"""Power that a receiver records at given directions, with its derivatives.

All receivers are built on the same far-field sum, so a regular map stays two matrix products whatever the
receiver.
"""

import functools
from collections.abc import Iterable, Sequence

import numpy as np
import scipy.special
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ooftorch.device import Movable
from ooftorch.optics.farfield import DirectTransform, dot, power
from ooftorch.optics.receiver import Receiver

__all__ = ["Received", "ReceivedPower"]

# Gauss-Legendre nodes, as fractions of the way that the telescope moves during a sample, and weights. Three
# are exact to 5e-4 of the peak for a way of one wavelength over diameter, to 1e-5 for half of it.
_NODES, _WEIGHTS = (0.5 * a for a in np.polynomial.legendre.leggauss(3))


class ReceivedPower(Movable):
    """Recorded power at given directions as a function of the aperture field (not normalised).

    Parameters
    ----------
    receiver : Receiver
    x, y : array_like, (nx,), (ny,)
        Aperture coordinates, metres, evenly spaced with the same pitch on both axes.
    sky_x, sky_y : array_like, (n,)
        Directions, radians.
    wavelength : float
        Metres.
    smear : array_like, (2, n), optional
        Vector along x and y, radians, that the telescope moves by during each sample, with the direction in
        its middle; the power is the mean over it.
    like : Tensor
        A real tensor with the dtype and device of the operator.
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
        smear: ArrayLike | None = None,
        like: Tensor,
    ) -> None:
        self.receiver = receiver
        u, v = np.asarray(sky_x, float), np.asarray(sky_y, float)
        if smear is not None:
            u, v = (np.stack([u, v]) + _NODES[:, None, None] * np.asarray(smear, float)).transpose(1, 0, 2)
        half = 0.5 * receiver.chop_x, 0.5 * receiver.chop_y
        centres = [half, (-half[0], -half[1])] if receiver.chopped else [(0.0, 0.0)]
        beam = _PointBeam if receiver.disc_radius == 0 else _DiscBeam
        beams = [
            beam(x, y, np.ravel(u - cx), np.ravel(v - cy), wavelength, receiver.disc_radius, like)
            for cx, cy in centres
        ]
        self.beams = beams if smear is None else [_SmearedBeam(one, like) for one in beams]

    def __call__(self, field: Tensor, gain_ratio: Tensor | float | None = None) -> Tensor:
        """Power (..., n) of the field (..., ny, nx, 2).

        `gain_ratio`, (..., 1) or a number, replaces that of the receiver; a fit passes its own parameter.
        """
        return self.at(field, gain_ratio).power

    def at(self, field: Tensor, gain_ratio: Tensor | float | None = None) -> "Received":
        """Power of the field (..., ny, nx, 2), with derivatives: see `Received`."""
        beams = [beam.at(field) for beam in self.beams]
        if not self.receiver.chopped:
            return Received(beams, [None])
        ratio = self.receiver.gain_ratio if gain_ratio is None else gain_ratio
        g = torch.as_tensor(ratio, dtype=field.dtype, device=field.device).sqrt()
        return Received(beams, [1 / g, -g])


class Received:
    """Power of the beams of a receiver, weighted and summed, and its derivatives.

    Attributes
    ----------
    power : Tensor, (..., n)
    """

    def __init__(
        self, beams: "Sequence[_PointPower | _DiscPower | _SmearedPower]", weights: Sequence[Tensor | None]
    ) -> None:
        self._beams, self._weights = beams, weights
        self.power = self._sum(_weight(b.power, w) for b, w in zip(beams, weights, strict=True))

    def vjp(self, by_power: Tensor) -> Tensor:
        """Gradient by the field (..., ny, nx, 2) of a function, given its gradient by the power (..., n)."""
        return self._sum(b.vjp(_weight(by_power, w)) for b, w in zip(self._beams, self._weights, strict=True))

    def jvp(self, change: Tensor) -> Tensor:
        """Change of the power (..., n) for a small change of the field (..., ny, nx, 2)."""
        return self._sum(_weight(b.jvp(change), w) for b, w in zip(self._beams, self._weights, strict=True))

    @staticmethod
    def _sum(parts: Iterable[Tensor]) -> Tensor:
        return functools.reduce(torch.add, parts)

    def log_ratio_derivative(self) -> Tensor:
        """Derivative of the power (..., n) with respect to the logarithm of the gain ratio."""
        (positive, negative), (up, down) = self._beams, self._weights
        return 0.5 * (_weight(negative.power, down) - _weight(positive.power, up))


def _weight(power: Tensor, weight: Tensor | None) -> Tensor:
    # A single beam has no weight, which saves a multiplication of all samples.
    return power if weight is None else power * weight


class _PointBeam(Movable):
    """Power pattern: the squared modulus of the far field."""

    def __init__(self, x, y, u, v, wavelength, disc_radius, like):
        self.transform = DirectTransform(x, y, u, v, wavelength, like=like)

    def at(self, field: Tensor) -> "_PointPower":
        return _PointPower(self.transform, field)


class _PointPower:
    def __init__(self, transform: DirectTransform, field: Tensor) -> None:
        self._transform = transform
        self._far = transform(field)
        self.power = power(self._far)

    def vjp(self, by_power: Tensor) -> Tensor:
        return 2 * self._transform.adjoint(by_power.unsqueeze(-1) * self._far)

    def jvp(self, change: Tensor) -> Tensor:
        return 2 * dot(self._far, self._transform(change))


class _DiscBeam(Movable):
    """Power pattern averaged over a uniform disc.

    The power pattern is the Fourier transform of the autocorrelation of the field over separations b in the
    aperture; averaging over a disc of angular radius a multiplies that by 2 J1(s)/s, s = 2 pi a b/wavelength.
    Exact for the given pixels.
    """

    def __init__(self, x, y, u, v, wavelength, disc_radius, like):
        bx, by = _find_baselines(np.asarray(x, float)), _find_baselines(np.asarray(y, float))
        self.shape = by.size, bx.size
        s = 2 * np.pi * disc_radius / wavelength * np.hypot(by[:, None], bx)
        s[0, 0] = 1.0
        visibility = 2 * scipy.special.j1(s) / s
        visibility[0, 0] = 1.0
        self.visibility = torch.as_tensor(visibility, dtype=like.dtype, device=like.device)
        self.transform = DirectTransform(bx, by, u, v, wavelength, like=like)

    def at(self, field: Tensor) -> "_DiscPower":
        return _DiscPower(self, field)

    def spectrum(self, field: Tensor) -> Tensor:
        """Transform of the field on a raster twice its size."""
        return torch.view_as_real(torch.fft.fft2(torch.view_as_complex(field), s=self.shape))

    def mean_power(self, power_spectrum: Tensor) -> Tensor:
        """Disc-averaged power (..., n) from the squared modulus of the spectrum (..., by, bx)."""
        autocorrelation = torch.fft.ifft2(power_spectrum)
        return self.transform(torch.view_as_real(autocorrelation * self.visibility))[..., 0]

    def mean_power_adjoint(self, by_power: Tensor) -> Tensor:
        """Adjoint of `mean_power`."""
        weights = torch.stack([by_power, torch.zeros_like(by_power)], -1)
        lags = torch.view_as_complex(self.transform.adjoint(weights)) * self.visibility
        return torch.fft.fft2(lags, norm="forward").real

    def spectrum_adjoint(self, spectrum: Tensor, shape: torch.Size) -> Tensor:
        """Adjoint of `spectrum`."""
        field = torch.fft.ifft2(torch.view_as_complex(spectrum), norm="forward")
        return torch.view_as_real(field[..., : shape[-3], : shape[-2]])


class _DiscPower:
    def __init__(self, beam: _DiscBeam, field: Tensor) -> None:
        self._beam, self._shape = beam, field.shape
        self._spectrum = beam.spectrum(field)
        self.power = beam.mean_power(power(self._spectrum))

    def vjp(self, by_power: Tensor) -> Tensor:
        by_spectrum = 2 * self._beam.mean_power_adjoint(by_power).unsqueeze(-1) * self._spectrum
        return self._beam.spectrum_adjoint(by_spectrum, self._shape)

    def jvp(self, change: Tensor) -> Tensor:
        return self._beam.mean_power(2 * dot(self._spectrum, self._beam.spectrum(change)))


class _SmearedBeam(Movable):
    """Mean of a beam over the way that the telescope moves during each sample.

    `beam` has the directions of all samples at the first node of the quadrature, then at the second, ...
    """

    def __init__(self, beam: "_PointBeam | _DiscBeam", like: Tensor) -> None:
        self._beam = beam
        self._weights = torch.as_tensor(_WEIGHTS, dtype=like.dtype, device=like.device)[:, None]

    def at(self, field: Tensor) -> "_SmearedPower":
        return _SmearedPower(self._beam.at(field), self._weights)


class _SmearedPower:
    def __init__(self, along: "_PointPower | _DiscPower", weights: Tensor) -> None:
        self._along, self._weights = along, weights
        self.power = self._average(along.power)

    def vjp(self, by_power: Tensor) -> Tensor:
        return self._along.vjp((self._weights * by_power.unsqueeze(-2)).flatten(-2))

    def jvp(self, change: Tensor) -> Tensor:
        return self._average(self._along.jvp(change))

    def _average(self, power: Tensor) -> Tensor:
        return (self._weights * power.unflatten(-1, (len(self._weights), -1))).sum(-2)


def _find_baselines(x: np.ndarray) -> np.ndarray:
    """Separations of evenly spaced pixels in FFT order, zero-padded so that none wraps around."""
    n = 2 * x.size
    return np.fft.fftfreq(n, d=1 / (n * (x[1] - x[0])))
