"""Aperture field to far field.

The definition (CONVENTIONS 2) is the sum over the aperture

    F(DX, DY) = sum E(x, y) exp(-2 pi i (x DX + y DY) / wavelength).

`transform` evaluates it by FFT on the whole padded grid and is the reference. `DirectTransform`
evaluates the same sum only at the wanted directions from only the pixels that hold the dish; there is no
interpolation, so the two agree to rounding. Complex numbers are stored as a last dimension of two (real,
imaginary) at every public door; leading dimensions are a batch.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ooftorch.device import Movable

__all__ = ["DirectTransform", "dot", "power", "sky_pitch", "transform", "transform_costs"]


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
    return dot(field, field)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Real part of conj(a) b for fields stored as (..., 2)."""
    return torch.addcmul(a[..., 0] * b[..., 0], a[..., 1], b[..., 1])


class DirectTransform(Movable):
    """The far-field sum at chosen directions, as a linear operator that can be kept.

    One of three ways, all of them exact, whichever `transform_costs` puts lowest:

    - "matrix": directions that form a grid (a regular map, whole or with holes) cost two matrix products.
    - "fft": a grid whose steps suit the pixels costs FFTs that skip the rows without pixels (pruned).
    - "scattered": any directions; one matrix product along x and one weighted sum along y.

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

    Attributes
    ----------
    way : {"matrix", "fft", "scattered"}
    costs : dict
        What each possible way would cost, as `transform_costs` has it.
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
        periods = [_period(p, q, wavelength, resolution) for p, q in ((ay, grid_v), (ax, grid_u))]
        self.costs = transform_costs(ny, nx, nv, nu, n, periods)
        self.way = min(self.costs, key=self.costs.__getitem__)
        self.shape = (ny, nx)
        self.n = n
        self._grid = (nv, nu)
        right_first, left_first = _products(ny, nx, nv, nu)
        self._left_first = left_first < right_first

        def kernel(a: np.ndarray, b: np.ndarray) -> Tensor:
            phase = torch.as_tensor(-k * np.outer(a, b), dtype=like.dtype, device=like.device)
            return torch.polar(torch.ones_like(phase), phase)

        if self.way == "scattered":
            self._ex = kernel(ax, u)  # (nx, n)
            self._ey = kernel(ay, v)  # (ny, n)
        elif self.way == "matrix":
            self._ex = kernel(ax, grid_u)  # (nx, nu)
            self._ey = kernel(grid_v, ay)  # (nv, ny)
        else:
            # The FFT's first direction is zero; the map's is reached by a slope of phase over the pixels.
            self._ex = kernel(ax, grid_u[:1])[:, 0]  # (nx,)
            self._ey = kernel(ay, grid_v[:1])  # (ny, 1)
            self._periods = [p for p in periods if p is not None]
            self._before_zero = [int(np.argmin(np.abs(a))) for a in (ay, ax)]
        index = iv * nu + iu
        whole = n == nu * nv and np.array_equal(index, np.arange(n))
        self._index = None if whole or self.way == "scattered" else torch.as_tensor(index, device=like.device)

    @property
    def on_grid(self) -> bool:
        """Whether the directions are taken as a grid."""
        return self.way != "scattered"

    def __call__(self, field: Tensor) -> Tensor:
        """Far field (..., n, 2) of the aperture field (..., ny, nx, 2)."""
        e = torch.view_as_complex(field)
        if self.way == "scattered":
            f = ((e @ self._ex) * self._ey).sum(-2)
        else:
            f = _product(self._ey, e, self._ex, self._left_first) if self.way == "matrix" else self._fft(e)
            f = f.flatten(-2)
            f = f if self._index is None else f[..., self._index]
        return torch.view_as_real(f)

    def adjoint(self, samples: Tensor) -> Tensor:
        """Adjoint operator: samples (..., n, 2) to an aperture field (..., ny, nx, 2)."""
        f = torch.view_as_complex(samples)
        if self.way == "scattered":
            return torch.view_as_real((self._ey.conj() * f.unsqueeze(-2)) @ self._ex.mH)
        nv, nu = self._grid
        if self._index is not None:
            f = f.new_zeros((*f.shape[:-1], nv * nu)).index_add(-1, self._index, f)
        f = f.unflatten(-1, (nv, nu))
        if self.way == "matrix":
            # The order that is cheap one way is dear the other.
            e = _product(self._ey.mH, f, self._ex.mH, not self._left_first)
        else:
            e = self._fft_adjoint(f)
        return torch.view_as_real(e)

    def _fft(self, e: Tensor) -> Tensor:
        # Along y only for the columns that hold pixels, along x only for the rows that hold directions.
        # Always along the last dimension: an FFT across memory takes several times as long.
        nv, nu = self._grid
        my, mx = self._periods
        turned = (e * self._ex * self._ey).mT
        rows = torch.fft.fft(_wrapped(turned, my, self._before_zero[0]))[..., :nv].mT
        return torch.fft.fft(_wrapped(rows, mx, self._before_zero[1]))[..., :nu]

    def _fft_adjoint(self, f: Tensor) -> Tensor:
        my, mx = self._periods
        ny, nx = self.shape
        rows = _unwrapped(torch.fft.ifft(f, n=mx, norm="forward"), nx, self._before_zero[1])
        turned = _unwrapped(torch.fft.ifft(rows.mT, n=my, norm="forward"), ny, self._before_zero[0])
        return turned.mT * (self._ex * self._ey).conj()

    def nbytes(self) -> int:
        """Memory the operator holds, bytes."""
        return sum(t.nbytes for t in (self._ex, self._ey, self._index) if t is not None)


def _wrapped(e: Tensor, period: int, before: int) -> Tensor:
    """Pixels (..., n) as an FFT of that length wants them: zero first, the `before` ones wrapped round."""
    n = e.shape[-1]
    out = e.new_zeros((*e.shape[:-1], period))
    out[..., : n - before] = e[..., before:]
    out[..., period - before :] = e[..., :before]
    return out


def _unwrapped(e: Tensor, n: int, before: int) -> Tensor:
    """Inverse of `_wrapped`."""
    return torch.cat([e[..., e.shape[-1] - before :], e[..., : n - before]], -1)


# Complex multiplications that one point of an FFT costs per doubling of its length.
_FFT_POINT = 4.0


def transform_costs(
    ny: int, nx: int, nv: int, nu: int, n: int, periods: Sequence[int | None] = (None, None)
) -> dict[str, float]:
    """Complex multiplications that each way of `DirectTransform` takes for one field.

    Parameters
    ----------
    ny, nx : pixels along y and x.
    nv, nu : distinct directions along y and x.
    n : directions.
    periods : points of the FFT along y and x on which the directions lie; None where there is none.

    Returns
    -------
    dict
        From way to cost; only the possible ways, and for n directions that leave most of a grid empty
        "scattered" comes out lowest.
    """
    costs = {"matrix": float(min(_products(ny, nx, nv, nu))), "scattered": float(n * ny * (nx + 1))}
    my, mx = periods
    if my is not None and mx is not None:
        costs["fft"] = _FFT_POINT * (nx * my * math.log2(my) + nv * mx * math.log2(mx))
    return costs


def _products(ny: int, nx: int, nv: int, nu: int) -> tuple[int, int]:
    """Complex multiplications of (nv, ny) @ (ny, nx) @ (nx, nu), the right product first and the left one."""
    return ny * nu * (nx + nv), nv * nx * (ny + nu)


def _product(left: Tensor, middle: Tensor, right: Tensor, left_first: bool) -> Tensor:
    return (left @ middle) @ right if left_first else left @ (middle @ right)


def _period(pixels: np.ndarray, directions: np.ndarray, wavelength: float, resolution: float) -> int | None:
    """Length of the FFT that has these directions among its own, if there is one."""
    if pixels.size < 2 or directions.size < 2:
        return None
    pitch, step = (float(a[-1] - a[0]) / (a.size - 1) for a in (pixels, directions))
    if pitch <= 0:
        return None
    places = np.arange(directions.size)
    period = round(wavelength / (pitch * step))
    exact = wavelength / (pitch * max(period, 1))
    even = np.abs(directions - directions[0] - places * exact).max() <= resolution
    first = round(pixels[0] / pitch)
    at_zero = np.abs(pixels - (first + np.arange(pixels.size)) * pitch).max() <= 1e-12 * np.abs(pixels).max()
    enough = period >= max(pixels.size, directions.size) and -pixels.size < first <= 0
    return period if even and at_zero and enough else None


def _distinct(values: np.ndarray, resolution: float) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values to within `resolution`, ascending, and the place of each input among them."""
    order = np.argsort(values, kind="stable")
    ascending = values[order]
    first = np.concatenate(([True], np.diff(ascending) > resolution))
    index = np.empty(values.size, dtype=np.int64)
    index[order] = np.cumsum(first) - 1
    return ascending[first], index
