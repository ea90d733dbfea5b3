"""Make the text maps in tests/data/srt_simulated: three maps of the Sardinia telescope, a large coma on it.

    python scripts/make_srt.py [DIRECTORY]

They are like the public maps of 26 April 2019 in all that a reader or a fit can get wrong: coordinates of the
source seen from boresight, x slow, each map with its own baseline and gain, stripes from scan line to scan
line, and some samples that something else has hit.
"""

import json
import sys
from pathlib import Path

import numpy as np

from ooftorch import Noise, simulate
from ooftorch.units import SPEED_OF_LIGHT

SEED = 20190426
FREQUENCY = 22.23e9
SURFACE = {
    "z3": -0.20, "z4": 1.20, "z5": 0.40, "z6": -0.30, "z7": 1.80, "z8": 0.35, "z11": -0.25, "z12": 0.15,
}  # fmt: skip
# Peak of the perfect telescope, and baseline, of each map, counts.
GAINS, BASELINES = (980.0, 1000.0, 1030.0), (43.0, 48.0, 86.0)
# Rms of the baselines of the lines, and fraction and size of glitches; sizes over the highest sample of all.
STRIPES, GLITCHES, GLITCH_SIZE = 0.01, 0.003, 0.5
DZ_NAMES = {-0.027: "OUT1", 0.0: "IN", 0.027: "OUT2"}


def text_map(x, y, power, peak, rng):
    """Rows of one map, line by line along y: direction of the source seen from boresight, and counts."""
    x, y = -x, -y
    line = np.unique(np.round(x, 9), return_inverse=True)[1]
    power = power + STRIPES * peak * rng.normal(size=line.max() + 1)[line]
    hit = rng.random(power.size) < GLITCHES
    power[hit] += GLITCH_SIZE * peak * rng.choice([-1, 1], size=hit.sum())
    order = np.lexsort((y, line))
    return "".join(f"{x[i]:.6f}\t{y[i]:.6f}\t{power[i]:.2f}\n" for i in order)


def main(directory: Path) -> None:
    """Write the three maps, observation.toml and truth.json."""
    observation = simulate(
        "srt",
        SURFACE | {f"gain_{i}": gain for i, gain in enumerate(GAINS)},
        wavelength=SPEED_OF_LIGHT / FREQUENCY,
        dz=list(DZ_NAMES),
        reach=7.7,
        step=0.385,
        noise=Noise(snr=150),
        seed=SEED,
    )
    rng = np.random.default_rng(SEED)
    peak = max(m.power.max() for m in observation.maps)
    lines = ["[observation]", 'telescope = "srt"', f"frequency_hz = {FREQUENCY:.4g}", 'sky = "source"']
    for m, baseline in zip(observation.maps, BASELINES, strict=True):
        name = f"{DZ_NAMES[m.dz]}.txt"
        (directory / name).write_text(text_map(m.x, m.y, m.power + baseline, peak, rng))
        lines += ["", "[[map]]", f'file = "{name}"', f"dz_m = {m.dz}"]
    (directory / "observation.toml").write_text("\n".join(lines) + "\n")
    truth = SURFACE | {f"gain_{i}": gain for i, gain in enumerate(GAINS)}
    truth |= {f"offset_{i}": baseline for i, baseline in enumerate(BASELINES)}
    (directory / "truth.json").write_text(json.dumps(truth, indent=1) + "\n")


if __name__ == "__main__":
    usual = Path(__file__).parent.parent / "tests" / "data" / "srt_simulated"
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else usual)
