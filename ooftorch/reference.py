"""Reference implementation of the whole out-of-focus holography model in plain NumPy.

Written directly from the formulas, to be read from top to bottom, and sharing no code with the rest of the
package: the tests compare the PyTorch model with it. It is not optimised for speed. The conventions are those
of ``CONVENTIONS.md``:

* aperture x, y in metres and phase in radians; arrays indexed [y, x]; all angles on the sky in radians;
* far field = sum of A exp(i phase) exp(-2 pi i (x DX + y DY) / wavelength);
* defocus phase = -(2 pi / wavelength) dL, for a subreflector or feed moved by dz > 0 away from the primary.

A telescope is the parsed content (a dict) of one of the package's ``telescopes/*.toml``. The method is that
of B. Nikolic, R. E. Hills and J. S. Richer, A&A 465, 679 (2007).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np


def zernike(k: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Zernike polynomial in OOF order, 1 at the rim, sine for negative l: the explicit factorial sum.

    Parameters
    ----------
    k : int
        Sequential index n (n + 1) / 2 + (n + l) / 2; z1 is y, z2 is x, z4 is 2 r^2 - 1.
    x, y : array
        Position over dish radius; broadcast together.
    """
    n = (math.isqrt(8 * k + 1) - 1) // 2
    l = 2 * k - n * (n + 2)  # noqa: E741  (its name in every text)
    m = abs(l)
    r, angle = np.hypot(x, y), np.arctan2(y, x)
    radial = np.zeros(r.shape)
    for s in range((n - m) // 2 + 1):
        below = math.factorial(s) * math.factorial((n + m) // 2 - s) * math.factorial((n - m) // 2 - s)
        radial += (-1) ** s * (math.factorial(n - s) // below) * r ** (n - 2 * s)
    return radial * (np.sin(m * angle) if l < 0 else np.cos(m * angle))


def illumination(params: dict[str, Any], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Amplitude of the aperture field, without blockage and rim of the dish.

    Parameters
    ----------
    params : dict
        "model" and its parameters, lengths over dish radius: "gaussian" (x0, y0, amp, sigma, rho, diff),
        "pedestal" (taper_db, q, x0, y0, amp), "squashed" (sigma, x0, y0, amp) or
        "tophat" (radius, amp, pitch of the pixels).
        Those left out among x0, y0, rho, diff are 0, and amp is 1.
    x, y : array
        Position over dish radius; broadcast together.

    Raises
    ------
    ValueError
        If the model has another name.
    """
    dx, dy = x - params.get("x0", 0.0), y - params.get("y0", 0.0)
    r2, amp = dx**2 + dy**2, params.get("amp", 1.0)
    match params["model"]:
        case "gaussian":
            skew = params.get("rho", 0.0) * dx * dy + params.get("diff", 0.0) * (dx**2 - dy**2)
            return amp * np.exp(-(r2 + skew) / (2 * params["sigma"] ** 2))
        case "pedestal":
            edge = 10 ** (params["taper_db"] / 20)
            return amp * (edge + (1 - edge) * np.maximum(0.0, 1 - r2) ** params["q"])
        case "squashed":
            g = np.exp(-r2 / params["sigma"] ** 2)
            return amp * np.sqrt(g * (2 - g))  # = sqrt(1 - (1 - g)^2), without its cancellation
        case "tophat":
            return amp * np.clip((params["radius"] - np.sqrt(r2)) / params["pitch"] + 0.5, 0, 1)
    raise ValueError(f"unknown illumination model {params['model']!r}")


def open_mask(spec: dict[str, Any], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Open part of the dish: outside its central blockage, holes and legs with their shadows.

    Parameters
    ----------
    spec : dict
        The telescope.
    x, y : array
        Position in metres; broadcast together.
    """
    radius, blockage = spec["radius_m"], spec.get("blockage", {})
    r = np.hypot(x, y)
    mask = (r >= blockage.get("inner_radius_m", 0.0)) & (r <= radius)
    for hole in blockage.get("holes", []):
        mask &= np.hypot(x - hole["x_m"], y - hole["y_m"]) >= hole["radius_m"]
    if "legs" not in blockage:
        return mask

    legs = blockage["legs"]
    a, foot, opening = legs["half_width_m"], legs.get("outer_radius_m", radius), legs.get("shadow_deg", 0.0)
    width = np.interp(r, legs["radius_m"], a) if isinstance(a, list) else a
    turn = {"plus": 0.0, "x": math.pi / 4}[legs["shape"]]
    u = np.abs(math.cos(turn) * x + math.sin(turn) * y)
    v = np.abs(math.cos(turn) * y - math.sin(turn) * x)
    for along, across in ((u, v), (v, u)):
        wedge = 0.0  # half width of the shadow of a spherical wave, beyond the foot of the leg
        if opening:  # its side runs from (foot, a) to (d / tan, a + d), which lies on the rim
            sine = math.sin(math.radians(opening))
            d = (math.sqrt(a**2 + (radius**2 - a**2) / sine**2) - a) * sine**2
            wedge = a + d * (along - foot) / (d / math.tan(math.radians(opening)) - foot)
        mask &= across >= np.where(along < foot, width, wedge)
    return mask


def _ray(r2: np.ndarray, f: float) -> tuple[np.ndarray, np.ndarray]:
    """Cosine of the angle between axis and ray at the focus of a paraboloid, and its sine over r."""
    a2 = r2 / (2 * f) ** 2
    return (1 - a2) / (1 + a2), 1 / (f * (1 + a2))


def path(spec: dict[str, Any], x: np.ndarray, y: np.ndarray, dz: float) -> np.ndarray:
    """Growth in metres of the optical path when the subreflector (or feed) moves out by dz metres.

    Parameters
    ----------
    spec : dict
        The telescope.
    x, y : array
        Position in metres; broadcast together. On an offset Gregorian +y points to the parent's vertex.
    dz : float
        Motion away from the primary.

    Raises
    ------
    ValueError
        If the type of optics has another name.
    """
    optics, radius, r2 = spec["optics"], spec["radius_m"], x**2 + y**2
    kind, f, effective = optics["type"], optics.get("focal_length_m"), optics.get("effective_focal_length_m")
    if kind == "shaped":
        terms = [c * zernike(int(name[1:]), x / radius, y / radius) for name, c in optics["path"].items()]
        growth = dz * np.sum(terms, axis=0)
    elif kind == "prime-focus":
        growth = dz * _ray(r2, f)[0]
    elif kind in ("cassegrain", "gregorian"):
        growth = dz * (_ray(r2, f)[0] + _ray(r2, effective)[0])
    elif kind == "offset-gregorian":
        p = math.radians(optics["subreflector_angle_deg"])
        xi = p - math.radians(optics["feed_angle_deg"])
        out1, out2 = optics["vertex_offset_m"] - y, -y  # y outwards, from the parent's vertex and our centre
        (cos1, sin1), (cos2, sin2) = _ray(x**2 + out1**2, f), _ray(r2, effective)
        growth = dz * (math.cos(p) * cos1 + math.sin(p) * out1 * sin1)
        growth = growth + dz * (math.cos(xi) * cos2 + math.sin(xi) * out2 * sin2)
    else:
        raise ValueError(f"unknown type of optics {kind!r}")
    for row, (c3, c2, c1) in enumerate(optics.get("path_correction", [])):
        growth = growth + (c3 * dz**3 + c2 * dz**2 + c1 * dz) * np.sqrt(r2) ** (8 - row)
    return growth


def _pixel_mean(function: Callable[[np.ndarray, np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
    """Mean of function(x, y) over 8 x 8 points inside each pixel."""
    shifts = ((np.arange(8) + 0.5) / 8 - 0.5) * (x[1] - x[0])
    points = [(x[np.newaxis, :] + a, x[:, np.newaxis] + b) for a in shifts for b in shifts]
    return np.mean([function(*point) for point in points], axis=0)


def aperture(
    spec: dict[str, Any],
    wavelength: float,
    dz: float,
    z: Sequence[float] | np.ndarray,
    illumination_params: dict[str, Any],
    n: int,
    oversample: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Aperture field on n x n pixels of pitch 2 oversample R / n, with x = 0 at pixel n / 2.

    Parameters
    ----------
    spec : dict
        The telescope.
    wavelength, dz : float
        Metres.
    z : sequence of float
        Zernike coefficients z0, z1, ... in radians of phase.
    illumination_params : dict
        As for `illumination`.
    n : int
        Pixels a side.
    oversample : float
        Half width of the grid over the dish radius.

    Returns
    -------
    x : (n,) array
        Pixel centres in metres, for both axes.
    field : (n, n) complex array
        Amplitude times coverage times exp(i phase).
    """
    radius = spec["radius_m"]
    x = (np.arange(n) - n / 2) * (2 * oversample * radius / n)
    across, up = x[np.newaxis, :], x[:, np.newaxis]
    pixel = {"pitch": (x[1] - x[0]) / radius}  # over which a top hat grades its edge
    amplitude = illumination(illumination_params | pixel, across / radius, up / radius)
    coverage = _pixel_mean(lambda px, py: open_mask(spec, px, py), x)
    phase = -(2 * math.pi / wavelength) * path(spec, across, up, dz)
    for k, coefficient in enumerate(z):
        phase = phase + coefficient * zernike(k, across / radius, up / radius)
    return x, amplitude * coverage * np.exp(1j * phase)


def _power(x: np.ndarray, field: np.ndarray, wavelength: float, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """|far field|^2 by direct summation over the aperture, over its peak for the same amplitude in phase."""
    wave_x = np.exp(-2j * math.pi / wavelength * u[..., np.newaxis] * x)
    wave_y = np.exp(-2j * math.pi / wavelength * v[..., np.newaxis] * x)
    return np.abs(np.sum((wave_y @ field) * wave_x, axis=-1)) ** 2 / np.sum(np.abs(field)) ** 2


def _disc(radius: float, scale: float) -> Iterator[tuple[float, float, float]]:
    """Yield weights and points (w, x, y) of the mean over a disc: Gauss-Legendre in r, equal steps in angle.

    The number of nodes suffices to average waves up to exp(i scale x) to rounding.
    """
    nodes, weights = np.polynomial.legendre.leggauss(20 + math.ceil(scale * radius / 2))
    n_angle = 40 + 2 * math.ceil(scale * radius)
    for r, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        for angle in 2 * math.pi * np.arange(n_angle) / n_angle:
            yield 2 * r * weight / n_angle, radius * r * math.cos(angle), radius * r * math.sin(angle)


def beam(
    spec: dict[str, Any],
    wavelength: float,
    dz: float,
    z: Sequence[float] | np.ndarray,
    illumination_params: dict[str, Any],
    DX: np.ndarray,
    DY: np.ndarray,
    *,
    n: int = 64,
    oversample: float = 2,
    pointing: tuple[float, float] = (0.0, 0.0),
    chop: tuple[float, float] = (0.0, 0.0),
    gain_ratio: float = 1.0,
    disc_radius: float = 0.0,
    smear: np.ndarray | tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """Power that the receiver records in the directions DX, DY; 1 at the peak of a perfect dish in focus.

    Gain and offset of a map are not included: data = gain * beam + offset.

    Parameters
    ----------
    spec, wavelength, dz, z, illumination_params, n, oversample
        As for `aperture`.
    DX, DY : array
        Telescope pointing minus source, radians; any shape, the same for both.
    pointing : (dx, dy)
        Pointing error of the map, radians: the beam of a perfect dish is at (dx, dy).
    chop : (hx, hy)
        Throw in radians: a positive beam at +h/2 minus a negative one at -h/2; zero for a single beam.
    gain_ratio : float
        Power of the negative beam over that of the positive one; not used for a single beam.
    disc_radius : float
        Angular radius of a uniform source, radians; the power is its mean over the disc.
    smear : (x, y)
        Vector in radians that the telescope moves by during each sample, with DX, DY in the middle; each of
        the shape of DX, or a number. The power is the mean over 16 points of it.

    Returns
    -------
    array
        Power, of the shape of DX.
    """
    x, field = aperture(spec, wavelength, dz, z, illumination_params, n, oversample)
    u, v = np.asarray(DX) - pointing[0], np.asarray(DY) - pointing[1]
    beams = source = [(1.0, 0.0, 0.0)]  # (weight, x, y) of each beam and of each point of the source
    if tuple(chop) != (0.0, 0.0):
        root, hx, hy = math.sqrt(gain_ratio), chop[0] / 2, chop[1] / 2
        beams = [(1 / root, hx, hy), (-root, -hx, -hy)]
    if disc_radius:
        source = list(_disc(disc_radius, 4 * math.pi * spec["radius_m"] / wavelength))
    way = [(1.0, 0.0)]  # (weight, fraction) of each point of the way during a sample
    if np.any(smear):
        nodes, weights = np.polynomial.legendre.leggauss(16)
        way = list(zip(weights / 2, nodes / 2, strict=True))
    power = np.zeros(u.shape)
    for gain, hx, hy in beams:
        for weight, sx, sy in source:
            for share, t in way:
                a, b = u - hx - sx + t * smear[0], v - hy - sy + t * smear[1]
                power += gain * weight * share * _power(x, field, wavelength, a, b)
    return power


def gaussian_nll(model: np.ndarray, data: np.ndarray, sigma: np.ndarray | float) -> float:
    """Negative log-likelihood of independent Gaussian errors of standard deviation sigma."""
    return float(np.sum(0.5 * ((data - model) / sigma) ** 2 + np.log(sigma) + 0.5 * math.log(2 * math.pi)))


def cauchy_nll(model: np.ndarray, data: np.ndarray, gamma: np.ndarray | float) -> float:
    """Negative log-likelihood of independent Cauchy errors of half width at half maximum gamma."""
    return float(np.sum(np.log(math.pi * gamma) + np.log(1 + ((data - model) / gamma) ** 2)))
