"""Make the example observation in data/: the Green Bank Telescope at 3 mm, in focus and 10 mm out of it.

    python scripts/make_data.py [DIRECTORY]

The same seed gives the same bytes. The truth is written beside the maps.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from ooftorch import telescope, write
from ooftorch.model import BeamModel, MapGeometry
from ooftorch.observation import SPEED_OF_LIGHT, BeamMap, Observation
from ooftorch.receiver import Receiver

FREQUENCY_HZ = 90e9
DZ_M = (-0.010, 0.0, 0.010)
SAMPLES = 41  # on a side
REACH = 7.0  # half width of a map, wavelengths over diameter
PEAK = 2.0  # of the perfect, in-focus dish, kelvin
NOISE = 0.002
STEP = 1e-6  # of the recorder: rounding to it makes the file the same on every processor
SEED = 20261121

# Radians of phase: gravity's astigmatism and coma, some trefoil, and a little of what panels do.
SURFACE = {
    "z1": 0.35, "z2": -0.55, "z3": 0.45, "z4": -0.30, "z5": 1.10, "z6": 0.55, "z7": -0.90, "z8": 0.40,
    "z9": -0.35, "z10": 0.30, "z11": -0.20, "z12": 0.25, "z13": 0.35, "z14": -0.45, "z15": 0.30,
    "z16": -0.25, "z17": 0.20, "z18": -0.30, "z19": 0.15, "z20": 0.40,
}  # fmt: skip
# What the fit is not told either: the maps' gains differ a little, and the sky has a level.
RECEIVER = {"sigma": 0.62, "gain_0": 0.985, "gain_1": 1.0, "gain_2": 1.012}
LEVELS = (0.013, -0.008, 0.021)


def main(directory: Path) -> None:
    """Write gbt_3mm.fits and gbt_3mm_truth.json."""
    scope = telescope.load("gbt")
    wavelength = SPEED_OF_LIGHT / FREQUENCY_HZ
    axis = np.round(np.linspace(-REACH, REACH, SAMPLES) * wavelength / (2 * scope.radius), 9)
    x, y = (a.ravel() for a in np.meshgrid(axis, axis))
    model = BeamModel(scope, wavelength, [MapGeometry(dz, x, y) for dz in DZ_M], order=5, n=512)
    model.set(**SURFACE, **RECEIVER)
    with torch.no_grad():
        power = PEAK * model().numpy().reshape(len(DZ_M), -1)
    noise = np.random.default_rng(SEED).normal(scale=NOISE, size=power.shape)
    power = np.round((power + noise + np.array(LEVELS)[:, None]) / STEP) * STEP
    observation = Observation(
        maps=tuple(
            BeamMap(dz, x, y, p, sigma=np.full(p.size, NOISE)) for dz, p in zip(DZ_M, power, strict=True)
        ),
        wavelength=wavelength,
        telescope="gbt",
        receiver=Receiver(),
        object="simulated",
        date_obs="2026-11-21",
        mean_el_deg=55.0,
        notes=("simulated by scripts/make_data.py; the truth is in gbt_3mm_truth.json",),
    )
    write(observation, directory / "gbt_3mm.fits", overwrite=True)
    truth = {**SURFACE, **RECEIVER, **{f"offset_{i}": level for i, level in enumerate(LEVELS)}}
    truth |= {name: PEAK * value for name, value in RECEIVER.items() if name.startswith("gain")}
    (directory / "gbt_3mm_truth.json").write_text(json.dumps(truth, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent / "data")
