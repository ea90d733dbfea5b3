"""Amplitude of the aperture field: how the feed lights the dish.

Every model is a function of the aperture coordinates in units of the dish radius and of named
parameters, each a number or a tensor that broadcasts against the coordinates (give a batch of
parameters a trailing dimension of one). Amplitude means field, not power: an edge taper in decibels is
20 log10 of the ratio edge to centre. Formulas and their origins: Nikolic (2018), figure 1 for the
Gaussian; the original OOF software for the squashed Gaussian and the top hat; pyoof for the taper on a
pedestal.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ooftorch.errors import InputError

__all__ = [
    "MODELS",
    "Illumination",
    "gaussian",
    "model",
    "pedestal",
    "sigma_from_taper",
    "squashed",
    "tophat",
]

# Derivatives of the logarithm of an amplitude by parameter, each computed when it is called for.
Slopes = Mapping[str, Callable[[], Tensor]]

# A power of zero has an infinite slope for exponents below one; this floor, far below any amplitude
# that matters, keeps the gradient finite at and beyond the rim.
_FLOOR = 1e-24


def gaussian(x: Tensor, y: Tensor, *, x0, y0, amp, sigma, rho, diff) -> Tensor:
    """Elliptical Gaussian, as in the paper (Nikolic 2018, figure 1).

    Parameters
    ----------
    x, y : Tensor, (..., n)
        Aperture coordinates over the dish radius.
    x0, y0 : centre, same units.
    amp : peak amplitude.
    sigma : width; the edge taper is -4.343 / sigma**2 decibels.
    rho, diff : ellipticity, the coefficients of dx*dy and of dx**2 - dy**2; the form stays a bell while
        (rho/2)**2 + diff**2 < 1.
    """
    return amp * torch.exp(_form(x - x0, y - y0, rho, diff) / (-2 * sigma**2))


def gaussian_slopes(x: Tensor, y: Tensor, *, x0, y0, amp, sigma, rho, diff) -> Slopes:
    """Derivatives of the logarithm of `gaussian`."""
    dx, dy = x - x0, y - y0
    by_form = -0.5 / sigma**2
    return {
        "x0": lambda: by_form * ((-2 - 2 * diff) * dx - rho * dy),
        "y0": lambda: by_form * ((2 * diff - 2) * dy - rho * dx),
        "amp": lambda: (1 / amp).expand_as(dx),
        "sigma": lambda: by_form * (-2 / sigma) * _form(dx, dy, rho, diff),
        "rho": lambda: by_form * dx * dy,
        "diff": lambda: by_form * (dx - dy) * (dx + dy),
    }


def _form(dx, dy, rho, diff):
    # r**2 directly: the square root of it has no gradient at the centre of the dish.
    return dx * ((1 + diff) * dx + rho * dy) + (1 - diff) * dy * dy


def pedestal(x: Tensor, y: Tensor, *, x0, y0, amp, taper_db, q) -> Tensor:
    """Parabolic taper on a pedestal: C + (1 - C)(1 - r**2)**q with C = 10**(taper_db/20).

    Parameters
    ----------
    x, y : Tensor, (..., n)
        Aperture coordinates over the dish radius.
    x0, y0 : centre, same units.
    amp : peak amplitude.
    taper_db : edge taper, decibels (negative).
    q : exponent, 1 to 2 in practice. Beyond r = 1 the amplitude stays at the pedestal.
    """
    c = _db_to_field(taper_db)
    base = torch.clamp(1 - (x - x0) ** 2 - (y - y0) ** 2, min=_FLOOR)
    return amp * (c + (1 - c) * base**q)


def pedestal_slopes(x: Tensor, y: Tensor, *, x0, y0, amp, taper_db, q) -> Slopes:
    """Derivatives of the logarithm of `pedestal`."""
    c = _db_to_field(taper_db)
    dx, dy = x - x0, y - y0
    base = torch.clamp(1 - dx * dx - dy * dy, min=_FLOOR)
    bell = base**q
    value = c + (1 - c) * bell
    by_r2 = torch.where(base > _FLOOR, -q * (1 - c) * bell / (base * value), 0.0)
    return {
        "x0": lambda: -2 * dx * by_r2,
        "y0": lambda: -2 * dy * by_r2,
        "amp": lambda: (1 / amp).expand_as(dx),
        "taper_db": lambda: math.log(10) / 20 * c * (1 - bell) / value,
        "q": lambda: (1 - c) * bell * torch.log(base) / value,
    }


def squashed(x: Tensor, y: Tensor, *, x0, y0, amp, sigma) -> Tensor:
    """Squashed Gaussian of the ALMA antennas: sqrt(1 - (1 - g)**2), g = exp(-r**2 / sigma**2).

    Parameters
    ----------
    x, y : Tensor, (..., n)
        Aperture coordinates over the dish radius.
    x0, y0 : centre, same units.
    amp : peak amplitude.
    sigma : width; 0.55 gives an edge taper of -11.4 decibels.
    """
    s = ((x - x0) ** 2 + (y - y0) ** 2) / sigma**2
    # 1 - (1 - g)**2 = g (2 - g): written so, the square root never meets a zero.
    return amp * torch.exp(-s / 2) * torch.sqrt(2 - torch.exp(-s))


def squashed_slopes(x: Tensor, y: Tensor, *, x0, y0, amp, sigma) -> Slopes:
    """Derivatives of the logarithm of `squashed`."""
    dx, dy = x - x0, y - y0
    s = (dx * dx + dy * dy) / sigma**2
    g = torch.exp(-s)
    by_s = (g - 1) / (2 - g)
    return {
        "x0": lambda: by_s * -2 * dx / sigma**2,
        "y0": lambda: by_s * -2 * dy / sigma**2,
        "amp": lambda: (1 / amp).expand_as(dx),
        "sigma": lambda: by_s * -2 * s / sigma,
    }


def tophat(x: Tensor, y: Tensor, *, amp, radius, pitch: float) -> Tensor:
    """Uniform disc (cold stop), its edge graded over one pixel.

    Parameters
    ----------
    x, y : Tensor, (..., n)
        Aperture coordinates over the dish radius.
    amp : amplitude inside.
    radius : of the disc, over the dish radius.
    pitch : pixel size over the dish radius: a pixel cut by the edge counts by how far it lies inside.
    """
    return amp * torch.clamp((radius - torch.hypot(x, y)) / pitch + 0.5, 0.0, 1.0)


def tophat_slopes(x: Tensor, y: Tensor, *, amp, radius, pitch: float) -> Slopes:
    """Derivatives of the logarithm of `tophat`; zero where it is dark."""
    inside = (radius - torch.hypot(x, y)) / pitch + 0.5
    return {
        "amp": lambda: torch.where(inside > 0, 1 / amp, 0.0),
        "radius": lambda: torch.where((inside > 0) & (inside < 1), 1 / (inside * pitch), 0.0),
    }


def _db_to_field(db):
    return 10 ** (db / 20)


def sigma_from_taper(model_name: str, taper_db: float) -> float:
    """Width of a Gaussian or squashed Gaussian whose edge taper is `taper_db` (negative decibels)."""
    if model_name == "gaussian":
        return math.sqrt(-10 / (math.log(10) * taper_db))
    if model_name == "squashed":
        # Solve g (2 - g) = edge**2 for g = exp(-1 / sigma**2).
        g = 1 - math.sqrt(1 - _db_to_field(taper_db) ** 2)
        return 1 / math.sqrt(-math.log(g))
    raise InputError(f"illumination {model_name!r} has no width sigma; gaussian and squashed have")


@dataclass(frozen=True)
class Illumination:
    """One amplitude model: its function and its parameters with their usual values.

    Attributes
    ----------
    name : as on the command line.
    amplitude : function (x, y, **parameters) to a Tensor.
    slopes : function (x, y, **parameters) to the derivatives of the logarithm of the amplitude.
    defaults : parameter name to value, in the order of the summary.
    free : names that a fit frees by default, each with the standard deviation of its prior (relative
        for the widths, which are positive by nature).
    """

    name: str
    amplitude: Callable[..., Tensor]
    slopes: Callable[..., Slopes]
    defaults: Mapping[str, float]
    free: Mapping[str, float]


# The priors are mild: some two decibels of edge taper. Without them the taper runs away on good data
# and takes the surface with it. The top hat reaches beyond the rim until a telescope says otherwise.
MODELS: dict[str, Illumination] = {
    "gaussian": Illumination(
        "gaussian",
        gaussian,
        gaussian_slopes,
        {"sigma": 0.6, "x0": 0.0, "y0": 0.0, "amp": 1.0, "rho": 0.0, "diff": 0.0},
        {"sigma": 0.1},
    ),
    "pedestal": Illumination(
        "pedestal",
        pedestal,
        pedestal_slopes,
        {"taper_db": -12.0, "q": 1.5, "x0": 0.0, "y0": 0.0, "amp": 1.0},
        {"taper_db": 2.0, "q": 0.25},
    ),
    "squashed": Illumination(
        "squashed",
        squashed,
        squashed_slopes,
        {"sigma": 0.55, "x0": 0.0, "y0": 0.0, "amp": 1.0},
        {"sigma": 0.1},
    ),
    "tophat": Illumination("tophat", tophat, tophat_slopes, {"radius": 2.0, "amp": 1.0}, {}),
}


def model(name: str) -> Illumination:
    """Return the model called `name`; InputError with the known names otherwise."""
    try:
        return MODELS[name]
    except KeyError:
        raise InputError(f"unknown illumination {name!r}; known are {', '.join(sorted(MODELS))}") from None
