"""Zernike polynomials on the dish, in the order and normalisation of the original OOF software.

Mode k has radial order n and azimuthal index l, k = n(n+1)/2 + (n+l)/2: inside each n, l is -n, -n+2, ..., n.

    U_k = R_n^|l|(rho) cos(l phi)      l >= 0
          R_n^|l|(rho) sin(|l| phi)    l < 0

with rho = r/R, phi counted from +x towards +y, and R_n^m(1) = 1 (the "peak" normalisation of Born & Wolf,
Principles of Optics, 9.2). Coefficients are named z0, z1, ... and are radians of phase.

Other numberings of the same polynomials are reached through `convert_to` and `convert_from`.
"""

# The azimuthal index is called l throughout, as in the field.
# ruff: noqa: E741

import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ooftorch.errors import InputError

__all__ = [
    "CONVENTIONS",
    "convention_index",
    "convert_from",
    "convert_to",
    "gram",
    "index",
    "label",
    "mean_square",
    "n_terms",
    "name",
    "nl",
    "number",
    "order_of",
    "radial",
    "raster",
]

# Digits of the largest index in a name: more are no coefficient of anything.
_DIGITS = 9

_LABELS = (
    "piston",
    "y tilt",
    "x tilt",
    "astigmatism 45/135",
    "defocus",
    "astigmatism 0/90",
    "y trefoil",
    "y coma",
    "x coma",
    "x trefoil",
    "quatrefoil 22.5",
    "secondary astigmatism 45/135",
    "spherical",
    "secondary astigmatism 0/90",
    "quatrefoil 0",
)


# --------------------------------------------------------------------------------------------- modes


def n_terms(order: int) -> int:
    """Count the polynomials of radial order 0 to `order`: (order+1)(order+2)/2."""
    order = _check_whole("Zernike order", order)
    return (order + 1) * (order + 2) // 2


def order_of(k: int) -> int:
    """Return the radial order n of mode `k`."""
    k = _check_whole("Zernike index", k)
    return (math.isqrt(8 * k + 1) - 1) // 2


def nl(k: int) -> tuple[int, int]:
    """Return (n, l) of mode `k`; l < 0 is a sine term."""
    n = order_of(k)
    return n, 2 * (operator.index(k) - n * (n + 1) // 2) - n


def index(n: int, l: int) -> int:
    """Return k of mode (n, l).

    Raises
    ------
    InputError
        If there is no such mode: it takes n >= |l| with n - |l| even.
    """
    _check_mode(n, abs(l))
    return n * (n + 1) // 2 + (n + l) // 2


def name(k: int) -> str:
    """Return the parameter name of mode `k`: "z<k>"."""
    return f"z{_check_whole('Zernike index', k)}"


def number(name: str, letter: str = "z") -> int | None:
    """Return k of the parameter name "z<k>", None for any other name: the inverse of `name`.

    Another `letter` is that of other coefficients of the polynomials.
    """
    digits = name[1:]
    is_index = name[:1] == letter and digits.isascii() and digits.isdigit() and len(digits) <= _DIGITS
    return int(digits) if is_index else None


def label(k: int) -> str:
    """Return a short name of mode `k` for tables: "y coma" for 7; from k = 15 on "(n, l)".

    "x" and "y" name the axis along which the mode is odd. Angles (degrees, from +x towards +y) are those of
    the first maximum and, for astigmatism, of the minimum at right angles to it.
    """
    n, l = nl(k)
    return _LABELS[k] if k < len(_LABELS) else f"({n}, {l})"


# --------------------------------------------------------------------------------------- polynomials


def radial(n: int, m: int, rho: ArrayLike) -> NDArray[np.float64]:
    """Evaluate the radial polynomial R_n^m, R_n^m(1) = 1.

    Parameters
    ----------
    n, m : int
        n >= m >= 0 with n - m even.
    rho : array_like
        Radius over the dish radius, any shape.

    Returns
    -------
    ndarray
        float64, the shape of `rho`.

    Raises
    ------
    InputError
        If there is no such polynomial.
    """
    _check_mode(n, m)
    rho = np.asarray(rho, dtype=np.float64)
    *_, last = _radial_over_power(m, n, rho * rho)
    return rho**m * last


def raster(order: int, x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
    """Evaluate all polynomials of radial order 0 to `order`.

    Evaluate on the dish only: outside the rim high orders grow as rho^n. Pixels a little beyond the rim do no
    harm.

    Parameters
    ----------
    order : int
        Highest radial order.
    x, y : array_like
        Aperture coordinates over the dish radius, of one shape.

    Returns
    -------
    ndarray
        float64, shape (n_terms(order), *x.shape).

    Raises
    ------
    InputError
        If `order` is not a whole number >= 0, or `x` and `y` differ in shape.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.shape != y.shape:
        raise InputError(f"x has shape {x.shape} and y {y.shape}; give both coordinates of every point")
    rho2 = x * x + y * y
    out = np.empty((n_terms(order), *x.shape))
    # (x + iy)^m = rho^m (cos m phi + i sin m phi) needs neither arctan2 nor a division at rho = 0.
    step = x + 1j * y
    power = np.ones_like(step)
    for m in range(order + 1):
        for n, rest in zip(range(m, order + 1, 2), _radial_over_power(m, order, rho2), strict=True):
            out[index(n, m)] = power.real * rest
            if m:
                out[index(n, -m)] = power.imag * rest
        power = power * step
    return out


def gram(order: int, radius: float = 1.0) -> NDArray[np.float64]:
    """Mean of U_j U_k, less the product of their means, over a disc within the dish.

    Parameters
    ----------
    order : int
    radius : float
        Of the disc, over the dish radius. At 1 the matrix is diagonal: `mean_square`, and zero for piston.

    Returns
    -------
    ndarray, (n_terms(order), n_terms(order))
        The variance over the disc of a phase with coefficients z is ``z @ gram @ z``.
    """
    # Gauss-Legendre in r**2 and equal angles: exact for products of polynomials of this order.
    nodes, weights = np.polynomial.legendre.leggauss(order + 1)
    r = radius * np.sqrt((nodes + 1) / 2)[:, np.newaxis]
    angle = 2 * np.pi * np.arange(2 * order + 1) / (2 * order + 1)
    u = raster(order, r * np.cos(angle), r * np.sin(angle)).reshape(n_terms(order), -1)
    weight = np.repeat(weights / 2, angle.size) / angle.size
    mean = u @ weight
    return (u * weight) @ u.T - np.outer(mean, mean)


def mean_square(order: int) -> NDArray[np.float64]:
    """Return the mean of U_k^2 over the unit disc, shape (n_terms(order),).

    It is 1/(n+1) for l = 0 and 1/(2(n+1)) otherwise.
    """
    return np.array([_mean_square(*nl(k)) for k in range(n_terms(order))])


def _mean_square(n: int, l: int) -> float:
    return 1.0 / (n + 1) if l == 0 else 0.5 / (n + 1)


def _radial_over_power(m: int, n_max: int, rho2: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """Yield R_n^m / rho^m for n = m, m+2, ... up to `n_max`.

    These are the Jacobi polynomials P_j^(0,m)(2 rho^2 - 1), j = (n-m)/2. Their three-term recurrence (DLMF
    18.9.1; for R itself Kintner 1976, Optica Acta 23, 679) keeps full accuracy, where the sum of alternating
    factorials loses about a digit every three orders.
    """
    t = 2.0 * rho2 - 1.0
    before, now = np.ones_like(t), 0.5 * ((m + 2) * t - m)
    yield before
    if n_max >= m + 2:
        yield now
    for n in range(m + 4, n_max + 1, 2):
        j = (n - m) // 2
        after = (n - 1) * (n * (n - 2) * t - m * m) * now - 2 * (j - 1) * (j + m - 1) * n * before
        before, now = now, after / (2 * j * (j + m) * (n - 2))
        yield now


# ------------------------------------------------------------------------------------ index conventions


@dataclass(frozen=True)
class _Convention:
    first: int  # the lowest index, that of piston
    of_mode: Callable[[int, int], int]  # (n, l) to index
    group: Callable[[int], list[tuple[int, int]]]  # index - first to the few modes it must be one of
    rms: bool  # every polynomial has mean square 1, instead of peak 1
    sine_sign: int  # sign of the convention's sine terms against ours

    def scale(self, n: int, l: int) -> float:
        """Return the convention's polynomial over ours."""
        norm = 1.0 / math.sqrt(_mean_square(n, l)) if self.rms else 1.0
        return norm * (self.sine_sign if l < 0 else 1)


def _noll_index(n: int, l: int) -> int:
    j = n * (n + 1) // 2 + abs(l)
    # |l| ascends inside n, and of each pair the even index goes to the cosine.
    return j + (1 if l == 0 or (j % 2 == 1) == (l > 0) else 0)


def _fringe_index(n: int, l: int) -> int:
    return (1 + (n + abs(l)) // 2) ** 2 - 2 * abs(l) + (1 if l < 0 else 0)


def _schwab_index(n: int, l: int) -> int:
    return n * (n + 1) // 2 + (n - l) // 2 + 1


def _radial_group(i: int) -> list[tuple[int, int]]:
    n = order_of(i)
    return [(n, l) for l in range(-n, n + 1, 2)]


def _fringe_group(i: int) -> list[tuple[int, int]]:
    half = math.isqrt(i)  # (n + |l|) / 2
    return [(2 * half - abs(l), l) for l in range(-half, half + 1)]


_CONVENTIONS = {
    "oof": _Convention(0, index, _radial_group, rms=False, sine_sign=1),
    "noll": _Convention(1, _noll_index, _radial_group, rms=True, sine_sign=1),
    # (n(n+2) + l)/2 is our own order: OSA/ANSI differs from it by the normalisation alone.
    "osa": _Convention(0, index, _radial_group, rms=True, sine_sign=1),
    "fringe": _Convention(1, _fringe_index, _fringe_group, rms=False, sine_sign=1),
    "schwab": _Convention(1, _schwab_index, _radial_group, rms=False, sine_sign=-1),
}

CONVENTIONS = tuple(_CONVENTIONS)
"""The names that `convert_to`, `convert_from` and `convention_index` accept."""


def convention_index(k: int, convention: str) -> int:
    """Return the index that mode `k` has in `convention` (one of `CONVENTIONS`).

    Raises
    ------
    InputError
        If the convention is unknown.
    """
    return _find_convention(convention).of_mode(*nl(k))


def convert_to(z: ArrayLike, convention: str) -> dict[int, float]:
    """Write OOF coefficients in another convention for the same phase.

    ========== ===== ============== ==================================================================
    convention first normalised to  order, source
    ========== ===== ============== ==================================================================
    oof        0     peak 1         ours
    noll       1     mean square 1  Noll 1976, J. Opt. Soc. Am. 66, 207: even index for cosine
    osa        0     mean square 1  OSA/ANSI Z80.28, Thibos et al. 2002, J. Refract. Surg. 18, S652
    fringe     1     peak 1         University of Arizona, by n + |l|, then falling |l|, cosine first
    schwab     1     peak 1         GBT surface tables: l falling inside n, sine terms with changed sign
    ========== ===== ============== ==================================================================

    Fringe indices follow the general rule to any order. The classical set of 37 agrees with it up to 36, and
    gives index 37 to (12, 0), which is 49 by the rule.

    All coefficients are kept, including piston and tilts, in radians of phase. Files for the GBT's active
    surface have z1 and z2 set to zero and are in micrometres; this function does neither.

    Parameters
    ----------
    z : array_like
        Coefficients z0, z1, ... (radians), shape (K,).
    convention : str
        One of `CONVENTIONS`.

    Returns
    -------
    dict
        Coefficient (radians) by index in that convention, in rising order; K entries.

    Raises
    ------
    InputError
        If the convention is unknown or `z` is not one-dimensional.
    """
    target = _find_convention(convention)
    z = np.asarray(z, dtype=np.float64)
    if z.ndim != 1:
        raise InputError(f"Zernike coefficients have shape {z.shape}; give one list z0, z1, ...")
    modes = [nl(k) for k in range(len(z))]
    pairs = (
        (target.of_mode(n, l), float(c) / target.scale(n, l)) for (n, l), c in zip(modes, z, strict=True)
    )
    return dict(sorted(pairs))


def convert_from(coefficients: Mapping[int, float], convention: str) -> NDArray[np.float64]:
    """Write coefficients of another convention as OOF coefficients; the inverse of `convert_to`.

    Parameters
    ----------
    coefficients : mapping
        Coefficient (radians) by index in `convention`. An index that is left out is zero.
    convention : str
        One of `CONVENTIONS`.

    Returns
    -------
    ndarray
        z0, z1, ... (radians), shape (K,), up to the highest mode named.

    Raises
    ------
    InputError
        If the convention is unknown or has no such index.
    """
    source = _find_convention(convention)
    values = {}
    for j, value in coefficients.items():
        i = _check_whole(f"{convention} Zernike index", j, source.first) - source.first
        n, l = next(mode for mode in source.group(i) if source.of_mode(*mode) == j)
        values[index(n, l)] = float(value) * source.scale(n, l)
    z = np.zeros(max(values, default=-1) + 1)
    for k, value in values.items():
        z[k] = value
    return z


def _find_convention(convention: str) -> _Convention:
    try:
        return _CONVENTIONS[convention]
    except KeyError:
        known = ", ".join(CONVENTIONS)
        raise InputError(f"unknown Zernike convention {convention!r}; use one of {known}") from None


# ---------------------------------------------------------------------------------------------- checks


def _check_whole(what: str, value: SupportsIndex, least: int = 0) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise InputError(f"{what} {value!r} does not exist; give a whole number from {least} up")
    return number


def _check_mode(n: int, m: int) -> None:
    n, m = _check_whole("Zernike radial order n", n), _check_whole("Zernike azimuthal index |l|", m)
    if m > n or (n - m) % 2:
        raise InputError(f"no Zernike mode has n = {n}, |l| = {m}; take |l| = n, n-2, ... down to 0 or 1")
