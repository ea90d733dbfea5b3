"""Make the example observation in data/: the Green Bank Telescope at 3 mm, in focus and 10 mm out of it.

    python scripts/make_data.py [DIRECTORY]

The same seed gives the same bytes on one machine; on another processor a number may fall on the other side of
its rounding. The truth is in the file, and beside it as JSON.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from ooftorch import Noise, Simulator, write
from ooftorch.observation import BeamMap
from ooftorch.units import SPEED_OF_LIGHT

SEED = 20261121

# Radians of phase: astigmatism and coma as by gravity, some trefoil, and small higher orders as by panels.
SURFACE = {
    "z1": 0.35, "z2": -0.55, "z3": 0.45, "z4": -0.30, "z5": 1.10, "z6": 0.55, "z7": -0.90, "z8": 0.40,
    "z9": -0.35, "z10": 0.30, "z11": -0.20, "z12": 0.25, "z13": 0.35, "z14": -0.45, "z15": 0.30,
    "z16": -0.25, "z17": 0.20, "z18": -0.30, "z19": 0.15, "z20": 0.40,
}  # fmt: skip
# Also unknown to the fit: gains of the maps (kelvin), which differ slightly, and baselines.
RECEIVER = {
    "sigma": 0.62, "gain_0": 1.97, "gain_1": 2.0, "gain_2": 2.024,
    "offset_0": 0.013, "offset_1": -0.008, "offset_2": 0.021,
}  # fmt: skip


def rounded(m: BeamMap) -> BeamMap:
    """Round the samples, so that the file is the same on every processor, except for ties."""
    x, y = np.round(m.x, 9), np.round(m.y, 9)
    power = np.round(m.power, 6)
    return replace(m, x=x, y=y, power=power, sigma=np.round(m.sigma, 6), time=np.round(m.time, 3))


def main(directory: Path) -> None:
    """Write gbt_3mm.fits and gbt_3mm_truth.json."""
    simulator = Simulator(
        "gbt",
        wavelength=SPEED_OF_LIGHT / 90e9,
        dz=(-0.010, 0.0, 0.010),
        reach=7.0,
        step=0.35,
        noise=Noise(snr=300),
    )
    observation = simulator.observe(SURFACE | RECEIVER, seed=SEED)
    truth = observation.truth
    observation = replace(
        observation,
        maps=tuple(map(rounded, observation.maps)),
        date_obs="2026-11-21",
        mean_el_deg=55.0,
        truth=replace(truth, phase=np.round(truth.phase, 9)),
    )
    write(observation, directory / "gbt_3mm.fits", overwrite=True)
    values = {name: truth.parameters[name].value for name in SURFACE | RECEIVER}
    (directory / "gbt_3mm_truth.json").write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent / "data")
