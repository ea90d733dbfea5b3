"""Aperture field to far field.

The definition (CONVENTIONS 2) is the sum over the aperture

    F(DX, DY) = sum E(x, y) exp(-2 pi i (x DX + y DY) / wavelength).

`transform` evaluates it by FFT on the whole padded grid and is the reference. `DirectTransform`
evaluates the same sum only at the wanted directions from only the pixels that hold the dish; there is no
interpolation, so the two agree to rounding. Complex numbers are stored as a last dimension of two (real,
imaginary) at every public door; leading dimensions are a batch.
"""

import math

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

__all__ = ["DirectTransform", "power", "sky_pitch", "transform"]


def transform(field: Tensor) -> Tensor:
    """Far field of an aperture field by FFT.

    Parameters
    ----------
    field : Tensor, (..., ny, nx, 2)
        Aperture field on the padded grid, pixel p at (p - n/2) times the pitch on each axis.

    Returns
    -------
    Tensor, (..., ny, nx, 2)
        Unnormalised far field; direction zero at index n/2, spacing `sky_pitch`.
    """
    axes = (-2, -1)
    e = torch.fft.ifftshift(torch.view_as_complex(field), dim=axes)
    return torch.view_as_real(torch.fft.fftshift(torch.fft.fft2(e, dim=axes), dim=axes))


def sky_pitch(wavelength: float, n: int, pitch: float) -> float:
    """Spacing of the directions of `transform`, radians, for n pixels of size `pitch` metres."""
    return wavelength / (n * pitch)


def power(field: Tensor) -> Tensor:
    """Squared modulus of a field stored as (..., 2)."""
    return field.square().sum(-1)


class DirectTransform:
    """The far-field sum at chosen directions, as a linear operator that can be kept.

    Directions that form a grid (a regular map, whole or with holes) cost two small matrix products.
    Scattered directions cost one matrix product along x and one weighted sum along y. Both are exact.

    Parameters
    ----------
    x, y : array_like, (nx,), (ny,)
        Coordinates of the aperture pixels, metres.
    sky_x, sky_y : array_like, (n,)
        Directions, radians.
    wavelength : float
        Metres.
    like : Tensor
        A real tensor whose dtype and device the operator takes.
    """

    def __init__(
        self,
        x: ArrayLike,
        y: ArrayLike,
        sky_x: ArrayLike,
        sky_y: ArrayLike,
        wavelength: float,
        *,
        like: Tensor,
    ) -> None:
        ax, ay = np.asarray(x, float), np.asarray(y, float)
        u, v = np.asarray(sky_x, float), np.asarray(sky_y, float)
        k = 2 * math.pi / wavelength
        # Directions closer than this shift the phase at the rim by less than 1e-9 rad.
        resolution = 1e-9 / (k * max(np.abs(ax).max(), np.abs(ay).max()))
        grid_u, iu = _distinct(u, resolution)
        grid_v, iv = _distinct(v, resolution)
        n, nx, ny, nu, nv = u.size, ax.size, ay.size, grid_u.size, grid_v.size
        # Complex multiplications of the two ways; the cheaper is taken.
        self.on_grid = nv * nx * (ny + nu) <= n * ny * (nx + 1)
        self.shape = (ny, nx)
        self.n = n

        def kernel(a: np.ndarray, b: np.ndarray) -> Tensor:
            phase = torch.as_tensor(-k * np.outer(a, b), dtype=like.dtype, device=like.device)
            return torch.polar(torch.ones_like(phase), phase)

        if self.on_grid:
            self._ex = kernel(ax, grid_u)  # (nx, nu)
            self._ey = kernel(grid_v, ay)  # (nv, ny)
            index = iv * nu + iu
            whole = n == nu * nv and np.array_equal(index, np.arange(n))
            self._index = None if whole else torch.as_tensor(index, device=like.device)
        else:
            self._ex = kernel(ax, u)  # (nx, n)
            self._ey = kernel(ay, v)  # (ny, n)
            self._index = None

    def __call__(self, field: Tensor) -> Tensor:
        """Far field (..., n, 2) of the aperture field (..., ny, nx, 2)."""
        e = torch.view_as_complex(field)
        if self.on_grid:
            f = (self._ey @ (e @ self._ex)).flatten(-2)
            f = f if self._index is None else f[..., self._index]
        else:
            f = ((e @ self._ex) * self._ey).sum(-2)
        return torch.view_as_real(f)

    def adjoint(self, samples: Tensor) -> Tensor:
        """Adjoint operator: samples (..., n, 2) to an aperture field (..., ny, nx, 2)."""
        f = torch.view_as_complex(samples)
        if self.on_grid:
            nv, nu = self._ey.shape[0], self._ex.shape[1]
            if self._index is not None:
                grid = f.new_zeros((*f.shape[:-1], nv * nu))
                f = grid.index_add(-1, self._index, f)
            f = f.unflatten(-1, (nv, nu))
            e = self._ey.mH @ f @ self._ex.mH
        else:
            e = (self._ey.conj() * f.unsqueeze(-2)) @ self._ex.mH
        return torch.view_as_real(e)

    def nbytes(self) -> int:
        """Memory the operator holds, bytes."""
        return sum(t.nbytes for t in (self._ex, self._ey, self._index) if t is not None)


def _distinct(values: np.ndarray, resolution: float) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values to within `resolution`, ascending, and the place of each input among them."""
    order = np.argsort(values, kind="stable")
    ascending = values[order]
    first = np.concatenate(([True], np.diff(ascending) > resolution))
    index = np.empty(values.size, dtype=np.int64)
    index[order] = np.cumsum(first) - 1
    return ascending[first], index
