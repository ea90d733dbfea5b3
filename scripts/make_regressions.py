"""Make the regressions in tests/data/regressions: data of our own, whose least squares are known exactly.

    python scripts/make_regressions.py [DIRECTORY]

The models and the format are those of the NIST datasets that nist.py reads; the data are not. y is the model
at known parameters plus residuals that are orthogonal to all derivatives there, so these parameters are the
answer. All of it in 80 decimal digits, without NumPy or torch; the same bytes everywhere.
"""

import sys
from collections.abc import Callable, Sequence
from decimal import Decimal, getcontext
from pathlib import Path
from typing import NamedTuple

getcontext().prec = 80
STEP = Decimal("1e-25")  # whose square is the relative error of a derivative by differences
D = Decimal


class Regression(NamedTuple):
    """A model of parameters b and one row of x, the answer, two starts, and residuals as a fraction of y."""

    model: Callable
    values: Sequence[str]
    starts: tuple[Sequence[str], Sequence[str]]
    x: list[Sequence[D]]
    size: str


def steps(first, step, n):
    """Evenly spaced x, one a row."""
    return [(D(first) + i * D(step),) for i in range(n)]


def peaks(b, x):
    """Two Gaussians on a decay."""
    bells = (b[i] * (-(((x - b[i + 1]) / b[i + 2]) ** 2)).exp() for i in (2, 5))
    return b[0] * (-b[1] * x).exp() + sum(bells)


REGRESSIONS = {
    "Misra1a": Regression(
        lambda b, x: b[0] * (1 - (-b[1] * x).exp()),
        ("180", "0.02"),
        (("400", "0.003"), ("150", "0.03")),
        steps(5, 11, 14),
        "2e-3",
    ),
    "DanWood": Regression(
        lambda b, x: b[0] * x ** b[1],
        ("1.25", "2.5"),
        (("1", "5"), ("2", "2")),
        steps("0.8", "0.15", 10),
        "1e-2",
    ),
    "Chwirut1": Regression(
        lambda b, x: (-b[0] * x).exp() / (b[1] + b[2] * x),
        ("0.3", "0.02", "0.05"),
        (("0.1", "0.05", "0.1"), ("0.25", "0.03", "0.04")),
        steps("0.4", "0.21", 24),
        "2e-2",
    ),
    "Rat43": Regression(
        lambda b, x: b[0] / (1 + (b[1] - b[2] * x).exp()) ** (1 / b[3]),
        ("500", "4", "0.6", "0.8"),
        (("100", "8", "1", "1"), ("450", "5", "0.5", "1")),
        steps(1, 1, 16),
        "5e-3",
    ),
    "MGH09": Regression(
        lambda b, x: b[0] * (x**2 + b[1] * x) / (x**2 + b[2] * x + b[3]),
        ("0.35", "0.5", "0.3", "0.2"),
        (("2", "3", "3", "3"), ("0.3", "0.4", "0.4", "0.3")),
        steps("0.1", "0.25", 14),
        "1e-3",
    ),
    "Gauss1": Regression(
        peaks,
        ("60", "0.02", "80", "50", "15", "40", "120", "30"),
        (
            ("50", "0.01", "60", "45", "10", "60", "130", "20"),
            ("65", "0.025", "90", "55", "18", "35", "115", "35"),
        ),
        steps(0, 4, 51),
        "1e-2",
    ),
    "Lanczos3": Regression(
        lambda b, x: sum(b[i] * (-b[i + 1] * x).exp() for i in (0, 2, 4)),
        ("0.4", "0.5", "1.1", "2", "0.7", "6"),
        (("1", "0.2", "2", "3", "1", "9"), ("0.5", "0.7", "0.9", "2.5", "0.9", "5")),
        steps(0, "0.1", 30),
        "1e-5",
    ),
    # Its data are y; the regression is of the logarithm.
    "Nelson": Regression(
        lambda b, x: b[0] - b[1] * x[0] * (-b[2] * x[1]).exp(),
        ("3", "0.004", "-0.05"),
        (("2", "0.001", "-0.02"), ("3.5", "0.006", "-0.06")),
        [(D(week), D(temperature)) for week in (2, 5, 12, 30) for temperature in (17, 21, 24, 28)],
        "2e-2",
    ),
}  # fmt: skip


def solve(matrix, right):
    """Gauss's elimination."""
    rows = [[*row, b] for row, b in zip(matrix, right, strict=True)]
    n = len(rows)
    for i in range(n):
        rows[i:] = sorted(rows[i:], key=lambda row: -abs(row[i]))
        for j in range(n):
            if j != i:
                factor = rows[j][i] / rows[i][i]
                rows[j] = [a - factor * b for a, b in zip(rows[j], rows[i], strict=True)]
    return [row[-1] / row[i] for i, row in enumerate(rows)]


def dot(a, b):
    return sum(p * q for p, q in zip(a, b, strict=True))


def text(name: str, regression: Regression) -> str:
    """The file: starts, answer and its standard deviations, sum of squares, and the data."""
    model, values = regression.model, [D(v) for v in regression.values]
    rows = [x if len(x) > 1 else x[0] for x in regression.x]
    fit = [model(values, x) for x in rows]
    columns = []
    for i, value in enumerate(values):
        high, low = ([*values[:i], value * (1 + s * STEP), *values[i + 1 :]] for s in (1, -1))
        columns.append([(model(high, x) - model(low, x)) / (2 * STEP * value) for x in rows])
    normal = [[dot(a, b) for b in columns] for a in columns]
    # Something irregular, less what the parameters could take up of it.
    scale = D(regression.size) * max(map(abs, fit)) / 9
    rough = [scale * ((37 * i * i + 11 * i) % 19 - 9) for i in range(len(rows))]
    taken = solve(normal, [dot(c, rough) for c in columns])
    rest = [r - dot(taken, row) for r, row in zip(rough, zip(*columns, strict=True), strict=True)]
    squares = dot(rest, rest)
    variance = squares / (len(rows) - len(values))
    unit = [[D(i == j) for j in range(len(values))] for i in range(len(values))]
    sigmas = [(variance * solve(normal, e)[i]).sqrt() for i, e in enumerate(unit)]
    y = [f + r for f, r in zip(fit, rest, strict=True)]
    y = [v.exp() for v in y] if name == "Nelson" else y
    head = [
        f"Data of our own for the model of {name}, made by scripts/make_regressions.py",
        *(
            f"  b{i} = {first} {second} {value} {sigma:.10E}"
            for i, (first, second, value, sigma) in enumerate(
                zip(*regression.starts, regression.values, sigmas, strict=True), 1
            )
        ),
        f"Residual Sum of Squares: {squares:.10E}",
    ]
    begin = len(head) + 2
    head.append(f"Data (lines {begin} to {begin + len(rows) - 1})")
    data = (" ".join([f"{v:.20E}", *map(str, x)]) for v, x in zip(y, regression.x, strict=True))
    return "\n".join([*head, *data]) + "\n"


def main(directory: Path) -> None:
    """Write a file for each."""
    for name, regression in REGRESSIONS.items():
        (directory / f"{name}.dat").write_text(text(name, regression))


if __name__ == "__main__":
    usual = Path(__file__).parent.parent / "tests" / "data" / "regressions"
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else usual)
