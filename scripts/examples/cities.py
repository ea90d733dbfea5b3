"""Place 36 European cities on a plane from nothing but their mutual distances.

    python scripts/examples/cities.py [PICTURE]

The distances are great circles on a sphere of 6371 km. A plane cannot have them all, for a sphere does not
lie flat, but it comes near. What is minimised, the squared errors of squared distances, is smooth everywhere,
and BFGS finds its minimum from a random start in some forty evaluations; gradient descent takes several times
as many, and only with a step that suits. The distances do not determine position, rotation and
reflection of the map.
"""

import sys

import numpy as np
import scipy.optimize
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ooftorch import minimize
from ooftorch.reporting.plot import plot_convergence, save

# Latitude and longitude, degrees.
CITIES = {
    "Amsterdam": (52.37, 4.90),
    "Athens": (37.98, 23.73),
    "Barcelona": (41.39, 2.17),
    "Belgrade": (44.79, 20.45),
    "Berlin": (52.52, 13.40),
    "Brussels": (50.85, 4.35),
    "Bucharest": (44.43, 26.10),
    "Budapest": (47.50, 19.04),
    "Copenhagen": (55.68, 12.57),
    "Dublin": (53.35, -6.26),
    "Gibraltar": (36.14, -5.35),
    "Helsinki": (60.17, 24.94),
    "Istanbul": (41.01, 28.98),
    "Kiruna": (67.86, 20.23),
    "Kyiv": (50.45, 30.52),
    "Lisbon": (38.72, -9.14),
    "London": (51.51, -0.13),
    "Madrid": (40.42, -3.70),
    "Milan": (45.46, 9.19),
    "Moscow": (55.76, 37.62),
    "Munich": (48.14, 11.58),
    "Oslo": (59.91, 10.75),
    "Paris": (48.86, 2.35),
    "Prague": (50.08, 14.44),
    "Reykjavik": (64.15, -21.94),
    "Riga": (56.95, 24.11),
    "Rome": (41.90, 12.50),
    "Sofia": (42.70, 23.32),
    "Stockholm": (59.33, 18.07),
    "Tallinn": (59.44, 24.75),
    "Toulouse": (43.60, 1.44),
    "Trondheim": (63.43, 10.40),
    "Vienna": (48.21, 16.37),
    "Vilnius": (54.69, 25.28),
    "Warsaw": (52.23, 21.01),
    "Zurich": (47.38, 8.54),
}
EARTH_KM = 6371.0
N = len(CITIES)
PAIRS = np.triu_indices(N, 1)


def places() -> np.ndarray:
    """Latitudes and longitudes, (n, 2), radians."""
    return np.radians(np.array(list(CITIES.values())))


def great_circles(places: np.ndarray) -> np.ndarray:
    """Distances (n, n) along the sphere, km."""
    latitude, longitude = places.T
    x, y = np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude)
    to = np.stack([x, y, np.sin(latitude)], -1)
    # Of small angles the sine is exact, of large ones the cosine: the arctangent takes both.
    sines = np.linalg.norm(np.cross(to[:, None], to), axis=-1)
    return EARTH_KM * np.arctan2(sines, to @ to.T)


KM = great_circles(places())
# Where the minimisers work, distances have an rms of one.
UNIT = float(np.sqrt(np.mean(KM[PAIRS] ** 2)))
TARGET = torch.as_tensor((KM[PAIRS] / UNIT) ** 2)


def stress(x: Tensor) -> Tensor:
    """Half the sum over pairs of the squared error of squared distances, per city, of positions x (n, 2)."""
    squares = (x[PAIRS[0]] - x[PAIRS[1]]).square().sum(-1)
    return (squares - TARGET).square().sum() / (2 * N)


def stress_by_hand(flat: np.ndarray) -> tuple[float, np.ndarray]:
    """The same and its gradient, without torch, for positions in one vector."""
    x = flat.reshape(N, 2)
    step = x[:, None] - x
    error = (step**2).sum(-1) - (KM / UNIT) ** 2
    return float((error**2).sum() / (4 * N)), (2 / N * (error[..., None] * step).sum(1)).ravel()


def random_start(seed: int) -> Tensor:
    """Positions whose distances have an rms of about one."""
    return torch.as_tensor(0.5 * np.random.default_rng(seed).normal(size=(N, 2)))


def rms_percent(x: np.ndarray) -> float:
    """Rms error of the distances of positions x, per cent of their rms."""
    there = np.linalg.norm(x[PAIRS[0]] - x[PAIRS[1]], axis=-1)
    return 100 * float(np.sqrt(np.mean((there - KM[PAIRS] / UNIT) ** 2)))


def classical() -> tuple[np.ndarray, float]:
    """Positions from the eigenvectors of the squared distances, and a bound that no stress can go below.

    With J the projection that takes means off, -J D^2 J / 2 holds the scalar products of positions. Those of
    a plane map have rank two, so the other eigenvalues are error (Eckart & Young 1936), and a projection
    makes no error larger. The positions fit scalar products best, which is not the least stress.
    """
    mean_off = np.eye(N) - 1 / N
    values, vectors = np.linalg.eigh(-0.5 * mean_off @ (KM / UNIT) ** 2 @ mean_off)
    return vectors[:, -2:] * np.sqrt(values[-2:]), float(4 * np.sum(values[:-2] ** 2) / (4 * N))


def plane() -> np.ndarray:
    """A map of the cities to compare with, north up: azimuthal equidistant about their middle, UNIT = 1."""
    latitude, longitude = places().T
    lat0, lon0 = latitude.mean(), longitude.mean()
    east = np.cos(latitude) * np.sin(longitude - lon0)
    north = np.cos(lat0) * np.sin(latitude) - np.sin(lat0) * np.cos(latitude) * np.cos(longitude - lon0)
    middle = np.sin(lat0) * np.sin(latitude) + np.cos(lat0) * np.cos(latitude) * np.cos(longitude - lon0)
    sine = np.hypot(east, north)
    return EARTH_KM / UNIT * (np.arctan2(sine, middle) / sine)[:, None] * np.stack([east, north], -1)


def aligned(x: np.ndarray, to: np.ndarray) -> np.ndarray:
    """Positions x moved, turned and reflected, but not stretched, to lie as near as can be (Procrustes)."""
    left, _, right = np.linalg.svd((x - x.mean(0)).T @ (to - to.mean(0)))
    return (x - x.mean(0)) @ left @ right + to.mean(0)


def descents(start: Tensor) -> dict:
    """BFGS, and gradient descent in two forms, from one start."""

    def slower(steps: int):
        return lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    return {
        "BFGS": minimize(stress, start, method="BFGS"),
        "adam": minimize(
            stress, start, method="adam", options={"lr": 0.1, "maxiter": 1000, "schedule": slower(1000)}
        ),
        "sgd": minimize(stress, start, method="sgd", options={"lr": 0.1, "maxiter": 4000}),
    }


def picture(results: dict) -> Figure:
    """The map, and how each method got there."""
    figure = Figure(figsize=(13, 6.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    true = UNIT * plane()
    found = UNIT * aligned(results["BFGS"].x.numpy(), plane())
    left.plot(*true.T, "o", color="0.7", markersize=9, label="azimuthal equidistant map")
    left.plot(*found.T, ".", color="C0", label="from the distances")
    for name, (x, y) in zip(CITIES, found, strict=True):
        left.annotate(name, (x, y), xytext=(4, 3), textcoords="offset points", fontsize="small")
    left.set(xlabel="east (km)", ylabel="north (km)", aspect="equal")
    left.margins(x=0.12)
    left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    plot_convergence(results, right)
    return figure


def main(path: str | None = None) -> None:
    """Place the cities, and print how well that is possible."""
    results = descents(random_start(0))
    print(f"{N} cities, {len(TARGET)} distances from {KM[PAIRS].min():.0f} to {KM.max():.0f} km")
    for name, r in results.items():
        print(
            f"{name:5s} {r.nit:5d} iterations, {r.nfev:5d} evaluations: stress {r.fun:.9g}, "
            f"distances to {rms_percent(r.x.numpy()):.4f} % rms"
        )
    by_hand = scipy.optimize.minimize(stress_by_hand, random_start(0).numpy().ravel(), jac=True)
    print(f"SciPy, gradient by hand: {by_hand.nit} iterations, {by_hand.nfev} evaluations: {by_hand.fun:.9g}")
    many = [minimize(stress, random_start(seed)) for seed in range(50)]
    steps = [r.nit for r in many]
    print(
        f"from 50 random starts: stress {min(r.fun for r in many):.9g} to {max(r.fun for r in many):.9g}, "
        f"iterations {min(steps)} to {max(steps)}, median {np.median(steps):g}"
    )
    x, bound = classical()
    print(f"no plane map has a stress below {bound:.9g}")
    there = float(stress(torch.as_tensor(x)))
    print(f"classical scaling: stress {there:.9g}, distances to {rms_percent(x):.4f} % rms")
    if path is not None:
        save(picture(results), path)


if __name__ == "__main__":
    main(*sys.argv[1:2])
