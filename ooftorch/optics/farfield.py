"""Aperture field to far field.

The definition (CONVENTIONS 2) is the sum over the aperture

    F(DX, DY) = sum E(x, y) exp(-2 pi i (x DX + y DY) / wavelength).

`transform` evaluates it by FFT on the whole padded grid and is the reference. `DirectTransform`
evaluates the same sum at the observed directions only, from the pixels of the dish only; there is no
interpolation, so the two agree to rounding. Public functions take and return complex numbers as a last
dimension of two (real, imaginary); leading dimensions are a batch.
"""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ooftorch.device import Movable

__all__ = ["DirectTransform", "dot", "estimate_costs", "power", "sky_pitch", "transform"]


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
    """The far-field sum at given directions, as a linear operator.

    It uses one of three exact methods, the one with the lowest `estimate_costs`:

    - "matrix": directions on a grid (a regular map, whole or with holes); two matrix products.
    - "fft": a grid whose steps are those of an FFT of the pixels; pruned FFTs, without the empty rows.
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
        A real tensor with the dtype and device of the operator.

    Attributes
    ----------
    way : {"matrix", "fft", "scattered"}
        The method in use.
    costs : dict
        Cost of each possible method: see `estimate_costs`.
    shape : (ny, nx)
    n : int
        Number of directions.
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
        # Smallest difference of directions, radians: it changes the phase at the rim by 1e-9 rad.
        resolution = 1e-9 / (k * max(np.abs(ax).max(), np.abs(ay).max()))
        grid_u, iu = _find_distinct(u, resolution)
        grid_v, iv = _find_distinct(v, resolution)
        n, nx, ny, nu, nv = u.size, ax.size, ay.size, grid_u.size, grid_v.size
        periods = [_find_period(p, q, wavelength, resolution) for p, q in ((ay, grid_v), (ax, grid_u))]
        self.costs = estimate_costs(ny, nx, nv, nu, n, periods)
        self.way = min(self.costs, key=self.costs.__getitem__)
        self.shape, self.n = (ny, nx), n

        def kernel(a: np.ndarray, b: np.ndarray) -> Tensor:
            phase = torch.as_tensor(-k * np.outer(a, b), dtype=like.dtype, device=like.device)
            return torch.polar(torch.ones_like(phase), phase)

        if self.way == "scattered":
            self._sum: _Sum = _ScatteredSum(kernel(ax, u), kernel(ay, v))
            return
        index = iv * nu + iu
        whole = n == nu * nv and np.array_equal(index, np.arange(n))
        chosen = None if whole else torch.as_tensor(index, device=like.device)
        if self.way == "matrix":
            grid: _GridSum = _MatrixSum(kernel(ax, grid_u), kernel(grid_v, ay))
        else:
            # The first direction of an FFT is zero; a linear phase over the pixels moves it to the map's.
            shift = kernel(ay, grid_v[:1]) * kernel(ax, grid_u[:1])[:, 0]
            origin = [int(np.argmin(np.abs(a))) for a in (ay, ax)]
            grid = _FftSum(shift, [p for p in periods if p is not None], origin, (nv, nu))
        self._sum = _ChosenSum(grid, chosen, (nv, nu))

    def __call__(self, field: Tensor) -> Tensor:
        """Far field (..., n, 2) of the aperture field (..., ny, nx, 2)."""
        return torch.view_as_real(self._sum.forward(torch.view_as_complex(field)))

    def adjoint(self, samples: Tensor) -> Tensor:
        """Adjoint operator: samples (..., n, 2) to an aperture field (..., ny, nx, 2)."""
        return torch.view_as_real(self._sum.adjoint(torch.view_as_complex(samples)))


class _Sum(Movable, ABC):
    """The far-field sum by one method: complex field (..., ny, nx) to complex far field."""

    @abstractmethod
    def forward(self, e: Tensor) -> Tensor: ...

    @abstractmethod
    def adjoint(self, f: Tensor) -> Tensor: ...


# Directions that are evaluated at a time: what lies between the two sums has a number for each row of pixels.
_AT_A_TIME = 32768


class _ScatteredSum(_Sum):
    """Any directions; kernels (nx, n) and (ny, n)."""

    def __init__(self, kernel_x: Tensor, kernel_y: Tensor) -> None:
        self._x, self._y = kernel_x, kernel_y

    def forward(self, e: Tensor) -> Tensor:
        parts = [((e @ x) * y).sum(-2) for x, y in self._split(self._x, self._y)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def adjoint(self, f: Tensor) -> Tensor:
        parts = self._split(self._x, self._y, f.unsqueeze(-2))
        return functools.reduce(torch.add, ((y.conj() * g) @ x.mH for x, y, g in parts))

    @staticmethod
    def _split(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Parts of tensors (..., n) that fit into little memory."""
        return zip(*(t.split(_AT_A_TIME, -1) for t in tensors), strict=True)


class _GridSum(_Sum):
    """Directions on a grid: far field (..., nv, nu)."""


class _ChosenSum(_Sum):
    """Some directions of a grid, or all where `index` is None, one after the other (..., n)."""

    def __init__(self, grid: _GridSum, index: Tensor | None, shape: tuple[int, int]) -> None:
        self._grid, self._index, self._shape = grid, index, shape

    def forward(self, e: Tensor) -> Tensor:
        f = self._grid.forward(e).flatten(-2)
        return f if self._index is None else f[..., self._index]

    def adjoint(self, f: Tensor) -> Tensor:
        nv, nu = self._shape
        if self._index is not None:
            f = f.new_zeros((*f.shape[:-1], nv * nu)).index_add(-1, self._index, f)
        return self._grid.adjoint(f.unflatten(-1, (nv, nu)))


class _MatrixSum(_GridSum):
    """Two matrix products; kernels (nx, nu) and (nv, ny)."""

    def __init__(self, kernel_x: Tensor, kernel_y: Tensor) -> None:
        self._x, self._y = kernel_x, kernel_y
        (nx, nu), (nv, ny) = kernel_x.shape, kernel_y.shape
        right_first, left_first = _count_products(ny, nx, nv, nu)
        self._left_first = left_first < right_first

    def forward(self, e: Tensor) -> Tensor:
        return _multiply(self._y, e, self._x, self._left_first)

    def adjoint(self, f: Tensor) -> Tensor:
        # The order of the products that is cheaper forwards is the other way round in the adjoint.
        return _multiply(self._y.mH, f, self._x.mH, not self._left_first)


class _FftSum(_GridSum):
    """Pruned FFTs: along y only for the columns with pixels, along x only for the rows with directions.

    Always along the last dimension: an FFT with strided access takes several times as long.

    Parameters
    ----------
    shift : Tensor, (ny, nx)
        Linear phase that moves the first direction of the grid to that of an FFT.
    periods : lengths of the FFTs along y and x.
    origin : numbers of the pixels at the origin along y and x.
    shape : (nv, nu)
    """

    def __init__(
        self, shift: Tensor, periods: Sequence[int], origin: Sequence[int], shape: tuple[int, int]
    ) -> None:
        self._shift, self._periods, self._origin, self._shape = shift, tuple(periods), tuple(origin), shape

    def forward(self, e: Tensor) -> Tensor:
        (nv, nu), (my, mx) = self._shape, self._periods
        turned = (e * self._shift).mT
        rows = torch.fft.fft(_wrap(turned, my, self._origin[0]))[..., :nv].mT
        return torch.fft.fft(_wrap(rows, mx, self._origin[1]))[..., :nu]

    def adjoint(self, f: Tensor) -> Tensor:
        (ny, nx), (my, mx) = self._shift.shape, self._periods
        rows = _unwrap(torch.fft.ifft(f, n=mx, norm="forward"), nx, self._origin[1])
        turned = _unwrap(torch.fft.ifft(rows.mT, n=my, norm="forward"), ny, self._origin[0])
        return turned.mT * self._shift.conj()


def _wrap(e: Tensor, period: int, before: int) -> Tensor:
    """Zero-pad pixels (..., n) to the length `period` of an FFT: origin first, negative ones last."""
    n = e.shape[-1]
    out = e.new_zeros((*e.shape[:-1], period))
    out[..., : n - before] = e[..., before:]
    out[..., period - before :] = e[..., :before]
    return out


def _unwrap(e: Tensor, n: int, before: int) -> Tensor:
    """Inverse of `_wrap`."""
    return torch.cat([e[..., e.shape[-1] - before :], e[..., : n - before]], -1)


# Cost of an FFT in complex multiplications per point and per doubling of its length.
_FFT_POINT = 4.0


def estimate_costs(
    ny: int, nx: int, nv: int, nu: int, n: int, periods: Sequence[int | None] = (None, None)
) -> dict[str, float]:
    """Estimate the complex multiplications of each method of `DirectTransform` for one field.

    Parameters
    ----------
    ny, nx : pixels along y and x.
    nv, nu : distinct directions along y and x.
    n : directions.
    periods : lengths of the FFTs along y and x whose directions include these; None if there is none.

    Returns
    -------
    dict
        From method to cost, only for the methods that are possible.
    """
    costs = {"matrix": float(min(_count_products(ny, nx, nv, nu))), "scattered": float(n * ny * (nx + 1))}
    my, mx = periods
    if my is not None and mx is not None:
        costs["fft"] = _FFT_POINT * (nx * my * math.log2(my) + nv * mx * math.log2(mx))
    return costs


def _count_products(ny: int, nx: int, nv: int, nu: int) -> tuple[int, int]:
    """Complex multiplications of (nv, ny) @ (ny, nx) @ (nx, nu): right product first, left product first."""
    return ny * nu * (nx + nv), nv * nx * (ny + nu)


def _multiply(left: Tensor, middle: Tensor, right: Tensor, left_first: bool) -> Tensor:
    return (left @ middle) @ right if left_first else left @ (middle @ right)


def _find_period(
    pixels: np.ndarray, directions: np.ndarray, wavelength: float, resolution: float
) -> int | None:
    """Length of the FFT whose directions include these; None if there is none."""
    if pixels.size < 2 or directions.size < 2:
        return None
    pitch, step = (float(a[-1] - a[0]) / (a.size - 1) for a in (pixels, directions))
    if pitch <= 0:
        return None
    numbers = np.arange(directions.size)
    period = round(wavelength / (pitch * step))
    exact = wavelength / (pitch * max(period, 1))
    even = np.abs(directions - directions[0] - numbers * exact).max() <= resolution
    first = round(pixels[0] / pitch)
    at_zero = np.abs(pixels - (first + np.arange(pixels.size)) * pitch).max() <= 1e-12 * np.abs(pixels).max()
    enough = period >= max(pixels.size, directions.size) and -pixels.size < first <= 0
    return period if even and at_zero and enough else None


def _find_distinct(values: np.ndarray, resolution: float) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values to within `resolution`, ascending, and the index of each input among them."""
    order = np.argsort(values, kind="stable")
    ascending = values[order]
    first = np.concatenate(([True], np.diff(ascending) > resolution))
    index = np.empty(values.size, dtype=np.int64)
    index[order] = np.cumsum(first) - 1
    return ascending[first], index
