"""The certified nonlinear regressions of the NIST Statistical Reference Datasets, by `least_squares`.

27 problems, each from a far and a near start; the answers are certified to eleven digits. One setting does
for all: the trust region of `trf` with parameters scaled by the Jacobian's columns, run to rounding.
(Levenberg-Marquardt, `lm`, does as well but for BoxBOD from its far start, which it leaves for a flat plain.)
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import ooftorch

DATA = Path(__file__).parent.parent.parent / "shared" / "data" / "nist_strd"

# Tolerances below the double's rounding: the search ends where no step lowers the sum of squares.
SETTING = {"method": "trf", "x_scale": "jac", "xtol": 1e-15, "ftol": 1e-15, "gtol": 1e-15, "max_nfev": 20000}


def _peaks(b, x):
    return (
        b[0] * torch.exp(-b[1] * x)
        + b[2] * torch.exp(-(((x - b[3]) / b[4]) ** 2))
        + b[5] * torch.exp(-(((x - b[6]) / b[7]) ** 2))
    )


def _decays(b, x):
    return b[0] * torch.exp(-b[1] * x) + b[2] * torch.exp(-b[3] * x) + b[4] * torch.exp(-b[5] * x)


def _season(b, x):
    def wave(cosine, sine, period):
        return cosine * torch.cos(2 * np.pi * x / period) + sine * torch.sin(2 * np.pi * x / period)

    return b[0] + wave(b[1], b[2], 12) + wave(b[4], b[5], b[3]) + wave(b[7], b[8], b[6])


def _cubics(b, x):
    above = b[0] + b[1] * x + b[2] * x**2 + b[3] * x**3
    return above / (1 + b[4] * x + b[5] * x**2 + b[6] * x**3)


def _charge(b, x):
    return torch.exp(-b[0] * x) / (b[1] + b[2] * x)


def _saturation(b, x):
    return b[0] * -torch.expm1(-b[1] * x)


MODELS = {
    "Bennett5": lambda b, x: b[0] * (b[1] + x) ** (-1 / b[2]),
    "BoxBOD": _saturation,
    "Chwirut1": _charge,
    "Chwirut2": _charge,
    "DanWood": lambda b, x: b[0] * x ** b[1],
    "ENSO": _season,
    "Eckerle4": lambda b, x: b[0] / b[1] * torch.exp(-0.5 * ((x - b[2]) / b[1]) ** 2),
    "Gauss1": _peaks,
    "Gauss2": _peaks,
    "Gauss3": _peaks,
    "Hahn1": _cubics,
    "Kirby2": lambda b, x: (b[0] + b[1] * x + b[2] * x**2) / (1 + b[3] * x + b[4] * x**2),
    "Lanczos1": _decays,
    "Lanczos2": _decays,
    "Lanczos3": _decays,
    "MGH09": lambda b, x: b[0] * (x**2 + b[1] * x) / (x**2 + b[2] * x + b[3]),
    "MGH10": lambda b, x: b[0] * torch.exp(b[1] / (x + b[2])),
    "MGH17": lambda b, x: b[0] + b[1] * torch.exp(-b[3] * x) + b[2] * torch.exp(-b[4] * x),
    "Misra1a": _saturation,
    "Misra1b": lambda b, x: b[0] * (1 - (1 + b[1] * x / 2) ** -2),
    "Misra1c": lambda b, x: b[0] * (1 - (1 + 2 * b[1] * x) ** -0.5),
    "Misra1d": lambda b, x: b[0] * b[1] * x / (1 + b[1] * x),
    "Nelson": lambda b, x: b[0] - b[1] * x[0] * torch.exp(-b[2] * x[1]),
    "Rat42": lambda b, x: b[0] / (1 + torch.exp(b[1] - b[2] * x)),
    "Rat43": lambda b, x: b[0] / (1 + torch.exp(b[1] - b[2] * x)) ** (1 / b[3]),
    "Roszman1": lambda b, x: b[0] - b[1] * x - torch.arctan(b[2] / (x - b[3])) / np.pi,
    "Thurber": _cubics,
}


class Certified(NamedTuple):
    starts: np.ndarray  # (2, n)
    values: np.ndarray  # (n,)
    sigmas: np.ndarray  # (n,)
    sum_of_squares: float
    y: torch.Tensor  # (m,)
    x: torch.Tensor  # (m,), or (2, m) for Nelson


def certified(name, folder=DATA):
    lines = (folder / f"{name}.dat").read_text().splitlines()
    text = "\n".join(lines)
    # Rows like "b1 = start1 start2 value sigma".
    rows = [line.split("=")[1].split() for line in lines if re.match(r"\s*b\d+ =", line)]
    table = np.array(rows, dtype=float)
    span = re.search(r"Data\s+\(lines (\d+) to (\d+)\)", text)
    data = np.loadtxt(lines[int(span[1]) - 1 : int(span[2])])
    y, x = torch.from_numpy(data[:, 0].copy()), torch.from_numpy(data[:, 1:].T.copy())
    rest = float(re.search(r"Residual Sum of Squares:\s+(\S+)", text)[1])
    if name == "Nelson":  # certified for the logarithm
        y = y.log()
    return Certified(table[:, :2].T, table[:, 2], table[:, 3], rest, y, x if len(x) > 1 else x[0])


def digits(got, right):
    """Correct significant digits: those of the worst number, at most the eleven that are certified."""
    error = np.max(np.abs(np.asarray(got) / right - 1))
    return 11.0 if error < 1e-11 else -np.log10(error)


def solve(name, start, folder=DATA):
    known = certified(name, folder)
    return ooftorch.least_squares(
        lambda b: known.y - MODELS[name](b, known.x),
        torch.from_numpy(known.starts[start].copy()),
        **SETTING,
    )
