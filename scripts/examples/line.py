"""Fit a straight line with unknown scatter by maximum likelihood, and give it error bars.

    python scripts/examples/line.py [PICTURE]

The parameters are a dict, as one would name them; the scatter enters by its logarithm, so that it stays
positive without a bound. At the maximum the inverse of the Hessian, which torch finds, is the covariance.
Least squares has all of it in closed form, so every number can be checked.
"""

import math
import sys

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ooftorch import minimize
from ooftorch.reporting.plot import save

TRUTH = {"intercept": 1.0, "slope": -0.4, "log_sigma": math.log(0.3)}
START = {name: torch.zeros((), dtype=torch.float64) for name in TRUTH}


def data(n: int = 40, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points (x, y) about the true line."""
    rng = np.random.default_rng(seed)
    x = np.sort(rng.uniform(0, 10, n))
    y = TRUTH["intercept"] + TRUTH["slope"] * x + math.exp(TRUTH["log_sigma"]) * rng.normal(size=n)
    return torch.as_tensor(x), torch.as_tensor(y)


def loss(p: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Negative log-likelihood of the points."""
    r = (y - p["intercept"] - p["slope"] * x) * torch.exp(-p["log_sigma"])
    return 0.5 * r.square().sum() + len(x) * (p["log_sigma"] + 0.5 * math.log(2 * math.pi))


def fit(x: Tensor, y: Tensor) -> tuple[dict[str, float], dict[str, float], int]:
    """Most likely parameters, their standard errors, and evaluations."""
    result = minimize(loss, START, args=(x, y), method="trust-exact", options={"gtol": 1e-9})
    blocks = torch.func.jacrev(torch.func.grad(loss))(result.x, x, y)
    covariance = torch.linalg.inv(torch.tensor([[blocks[a][b] for b in START] for a in START]))
    errors = dict(zip(START, covariance.diagonal().sqrt().tolist(), strict=True))
    return {name: value.item() for name, value in result.x.items()}, errors, result.nfev


def closed_form(x: Tensor, y: Tensor) -> tuple[dict[str, float], dict[str, float]]:
    """The same by least squares.

    The most likely scatter is the rms of the residuals, without the usual allowance for the two parameters.
    """
    rows = np.stack([np.ones(len(x)), x.numpy()], 1)
    (intercept, slope), (squares,), *_ = np.linalg.lstsq(rows, y.numpy())
    sigma = math.sqrt(squares / len(x))
    errors = sigma * np.sqrt(np.diag(np.linalg.inv(rows.T @ rows)))
    values = {"intercept": float(intercept), "slope": float(slope), "log_sigma": math.log(sigma)}
    return values, dict(zip(values, [*errors.tolist(), math.sqrt(0.5 / len(x))], strict=True))


def picture(x: Tensor, y: Tensor, values: dict[str, float], path: str) -> None:
    """Points, line and scatter."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    ax = figure.subplots()
    line, sigma = values["intercept"] + values["slope"] * x, math.exp(values["log_sigma"])
    ax.fill_between(x, line - sigma, line + sigma, color="C0", alpha=0.2, label="scatter")
    ax.plot(x, line, color="C0", label="most likely line")
    ax.plot(x, y, "k.", label="data")
    ax.set(xlabel="x", ylabel="y")
    ax.legend()
    save(figure, path)


def main(path: str | None = None) -> None:
    """Fit, and print both ways."""
    x, y = data()
    values, errors, n_eval = fit(x, y)
    by_hand, errors_by_hand = closed_form(x, y)
    print(f"{len(x)} points, {n_eval} evaluations")
    for name, true in TRUTH.items():
        print(
            f"{name:9s} {values[name]:+.6f} +- {errors[name]:.6f}, "
            f"least squares {by_hand[name]:+.6f} +- {errors_by_hand[name]:.6f}, truth {true:+.6f}"
        )
    if path is not None:
        picture(x, y, values, path)


if __name__ == "__main__":
    main(*sys.argv[1:2])
