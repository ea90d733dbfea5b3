"""Logistic regression, an nn.Module, by CG and by trust-ncg behind the interface of a torch optimiser.

    python scripts/examples/logistic.py [PICTURE]

`ScipyOptimizer.step` runs the whole minimisation. The module is torch's usual one, in single precision; the
optimiser, which has the module, calls it with parameters in double precision, so that the end is sharp, and
writes back what it found. Iteratively reweighted least squares, in NumPy alone, gives the minimum to compare
with.
"""

import sys

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from ooftorch import ScipyOptimizer
from ooftorch.reporting.plot import plot_convergence, save

METHODS = {"CG": {"gtol": 1e-8}, "trust-ncg": {"gtol": 1e-8}}
TRUTH = np.array([1.5, -2.0, 0.7, 0.0, 0.5])  # weights, and the bias


def data(n: int = 400, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features (n, 4) and labels 0 or 1, (n, 1)."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 4))
    chance = 1 / (1 + np.exp(-(features @ TRUTH[:4, None] + TRUTH[4])))
    return torch.as_tensor(features), torch.as_tensor(rng.uniform(size=(n, 1)) < chance).double()


def train(method: str, features: Tensor, labels: Tensor) -> tuple[nn.Linear, dict]:
    """Train a module by one method; returns it, and the result of the minimisation."""
    module = nn.Linear(4, 1)
    nn.init.zeros_(module.weight)
    nn.init.zeros_(module.bias)
    optimizer = ScipyOptimizer(module, method=method, options=METHODS[method])

    def closure(module) -> Tensor:
        return binary_cross_entropy_with_logits(module(features), labels)

    optimizer.step(closure)
    return module, optimizer.result


def reweighted(features: Tensor, labels: Tensor) -> np.ndarray:
    """Weights and bias by Newton's method, written out."""
    rows = np.concatenate([features.numpy(), np.ones((len(features), 1))], 1)
    w = np.zeros(5)
    for _ in range(20):
        chance = 1 / (1 + np.exp(-rows @ w))
        curvature = (rows * (chance * (1 - chance))[:, None]).T @ rows
        w += np.linalg.solve(curvature, rows.T @ (labels[:, 0].numpy() - chance))
    return w


def main(path: str | None = None) -> None:
    """Train by each method, and compare."""
    features, labels = data()
    exact = reweighted(features, labels)
    print("true weights and bias", *(f"{v:+.4f}" for v in TRUTH))
    print("reweighted           ", *(f"{v:+.4f}" for v in exact))
    results = {}
    for method in METHODS:
        module, results[method] = train(method, features, labels)
        found = torch.cat([p.detach().flatten() for p in module.parameters()])
        r = results[method]
        away = np.abs(torch.cat([p.flatten() for p in r.x]).numpy() - exact).max()
        print(f"{method:21s}", *(f"{v:+.4f}" for v in found.tolist()))
        print(
            f"{'':21s} {r.nit} iterations: {r.nfev} values, {r.njev} gradients, {r.nhev} products with the "
            f"Hessian; {away:.1e} away"
        )
    right = ((module(features.float()) > 0) == (labels > 0)).float().mean()
    print(f"{100 * right:.1f} % of the labels are on the right side")
    if path is not None:
        save(plot_convergence(results), path)


if __name__ == "__main__":
    main(*sys.argv[1:2])
