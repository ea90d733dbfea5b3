"""Illuminations that the fit does not have: shaped, blocked off axis, elliptical; writes scripts/results/.

python scripts/amplitudes.py            everything, a minute on two cores
python scripts/amplitudes.py --quick    one observation of each, to see that it runs; writes nothing

The maps are made with illuminations written here, and fitted with the telescope's usual one: as it is, and
with the freedoms that a fit has by default.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from freedoms import DEFAULT, compare, hold, summarise
from matplotlib.figure import Figure
from results_page import run, table
from torch import Tensor

import ooftorch
from ooftorch.optics import telescopes
from ooftorch.optics.illumination.base import Illumination, LogDerivatives, declare_amplitude
from ooftorch.optics.parameters import Parameter
from ooftorch.optics.telescope import Telescope, UsualIllumination
from ooftorch.simulation import surfaces as surface

ORDER, RMS, SNR = 5, 0.5, 200.0
REACH, STEP = 6.0, 0.375  # 33 x 33 samples
TELESCOPES = {"effelsberg": 9.37e-3, "alma": 3e-3, "apex": 0.87e-3}
SURFACES = 10
# Targets: error over that of the fit with the illumination of the telescope's file, and over its error bar.
TARGET, TARGET_BARS = 0.4, 2.0
# Field at the rim of the elliptical taper along its axes, decibels, and the angle of the first, radians.
_TAPERS_DB, _ANGLE = (-7.0, -17.0), 0.5


@dataclass(frozen=True)
class Given(Illumination):
    """An illumination of a given shape, with nothing to fit.

    Attributes
    ----------
    name : of the illumination.
    shape : amplitude as a function of x, y in dish radii.
    """

    name: str
    shape: Callable[[Tensor, Tensor], Tensor]

    def declare(self, usual: UsualIllumination, dish_radius: float) -> Sequence[Parameter]:
        return [declare_amplitude()]

    def amplitude(self, x: Tensor, y: Tensor, pitch: float, *, amp) -> Tensor:
        return amp * self.shape(x, y)

    def log_derivatives(self, x: Tensor, y: Tensor, pitch: float, *, amp) -> LogDerivatives:
        return {"amp": lambda: (1 / amp).expand_as(x)}


def make_shaped(flat: float = 0.9) -> Given:
    """Return the illumination of a shaped dish: flat to a radius, then steep, -15 dB at the rim."""

    def shape(x: Tensor, y: Tensor) -> Tensor:
        beyond = (torch.hypot(x, y) - flat).clamp(min=0) / (1 - flat)
        return 10 ** (-15 / 20 * beyond.square())

    return Given(f"flat to {flat:g} R", shape)


def make_off_axis(centre: float = 0.15) -> Given:
    """Return that of a feed that looks beside the centre, with a soft shadow of something in its way."""

    def shape(x: Tensor, y: Tensor) -> Tensor:
        taper = 10 ** (-12 / 20 * ((x - centre) ** 2 + (y + 0.5 * centre) ** 2))
        shadow = 0.7 * torch.exp(-((x + 0.4) ** 2 + (y - 0.2) ** 2) / (2 * 0.15**2))
        return taper * (1 - shadow)

    return Given(f"off axis by {centre:g} R, blocked", shape)


def make_elliptical(tapers: tuple[float, float] = _TAPERS_DB) -> Given:
    """Return an elliptical taper, with these decibels at the rim along its axes."""

    def shape(x: Tensor, y: Tensor) -> Tensor:
        turn = torch.tensor(_ANGLE, dtype=x.dtype)
        u, v = x * turn.cos() + y * turn.sin(), y * turn.cos() - x * turn.sin()
        return 10 ** ((tapers[0] * u**2 + tapers[1] * v**2) / 20)

    return Given(f"elliptical, {tapers[0]:g} and {tapers[1]:g} dB", shape)


ILLUMINATIONS = {
    "shaped dish": make_shaped(),
    "blocked off-axis feed": make_off_axis(),
    "elliptical taper": make_elliptical(),
}


def fits(telescope: Telescope) -> Mapping[str, Mapping]:
    """Options that are compared."""
    return {"default": DEFAULT, "as in the file": hold(telescope)}


def study(name: str, numbers: Mapping[str, Sequence[int]]) -> list[dict]:
    """Fit observations with an illumination, these numbers for each telescope."""
    true, rows = ILLUMINATIONS[name], []
    for telescope_name, some in numbers.items():
        telescope = telescopes.load(telescope_name)
        simulator = ooftorch.Simulator(
            telescope,
            wavelength=TELESCOPES[telescope_name],
            illumination=true,
            reach=REACH,
            step=STEP,
            noise=ooftorch.Noise(snr=SNR),
        )
        maps = [simulator.observe(surface.random(ORDER, RMS, seed=i), seed=i) for i in some]
        row = {"illumination": name, "telescope": telescope_name}
        for fit, options in fits(telescope).items():
            usual = telescope.illumination.model
            results = ooftorch.fit_many(maps, telescope, order=ORDER, illumination=usual, **options)
            row[fit] = summarise(maps, results)
        rows.append(row)
        print(
            f"{name}, {telescope_name}:", *(f"{fit} {row[fit]['error']:.4f} rad" for fit in fits(telescope))
        )
    return rows


def measure(quick: bool) -> dict:
    found = []
    for k, name in enumerate(ILLUMINATIONS):
        numbers: dict[str, list[int]] = {}
        for i in range(1 if quick else SURFACES):
            telescope = list(TELESCOPES)[(i + k) % len(TELESCOPES)]
            numbers.setdefault(telescope, []).append(100 * k + i)
        found += study(name, numbers)
    errors = {fit: [e for row in found for e in row[fit]["errors"]] for fit in ("default", "as in the file")}
    ratio, ratio_error = compare(errors["default"], errors["as in the file"])
    claimed = sum(row["default"]["claimed"] ** 2 * row["default"]["fits"] for row in found)
    bars = (sum(e**2 for e in errors["default"]) / claimed) ** 0.5
    return {"rows": found, "ratio": ratio, "ratio_error": ratio_error, "bars": bars}


def section(found: dict) -> str:
    rows = []
    for row in found["rows"]:
        default, held = row["default"], row["as in the file"]
        orders = default["amplitude_orders"]
        rows.append(
            [
                row["illumination"],
                row["telescope"],
                str(default["fits"]),
                f"{held['error']:.4f}",
                f"{held['claimed']:.4f}",
                f"{default['error']:.4f}",
                f"{default['claimed']:.4f}",
                f"{default['error'] / held['error']:.2f}",
                f"{default['error'] / default['claimed']:.1f}",
                ", ".join(map(str, sorted(set(orders)))),
            ]
        )
    head = ["illumination", "telescope", "surfaces", "as in the file: error, rad", "error bar"]
    head += ["default: error, rad", "error bar", "ratio", "error over bar", "bent to order"]
    total = sum(row["default"]["fits"] for row in found["rows"])
    shapes = "; ".join(f"{name}, {true.name}" for name, true in ILLUMINATIONS.items())
    good, honest = found["ratio"] <= TARGET, found["bars"] <= TARGET_BARS
    return "\n\n".join(
        [
            f"{total} random surfaces of order {ORDER} and {RMS:g} rad rms, S/N {SNR:g} in a sample, 33 x "
            f"33 samples, usual defocus of each telescope. The true illuminations: {shapes}. The fit has "
            "the telescope's usual illumination: with width, gains and baselines free alone (as in the "
            "file), or with all that is free by default.",
            table(head, rows),
            f"Targets, over all {total}: rms error at most {TARGET:g} of that with the illumination of the "
            f"file, and within {TARGET_BARS:g} error bars. {'Met' if good else 'Missed'}: "
            f"{found['ratio']:.2f} ± {found['ratio_error']:.2f}. {'Met' if honest else 'Missed'}: "
            f"{found['bars']:.2f} error bars.",
        ]
    )


def picture(found: dict) -> Figure:
    """Error with the freedoms against error without, every surface."""
    figure = Figure(figsize=(5.2, 4.4), layout="constrained")
    axes = figure.subplots()
    for name, colour in zip(ILLUMINATIONS, ("C0", "C1", "C2"), strict=True):
        rows = [row for row in found["rows"] if row["illumination"] == name]
        held, default = (
            [e for row in rows for e in row[fit]["errors"]] for fit in ("as in the file", "default")
        )
        axes.plot(held, default, "o", color=colour, label=name)
    errors = [e for row in found["rows"] for fit in ("default", "as in the file") for e in row[fit]["errors"]]
    limits = 0.8 * min(errors), 1.25 * max(errors)
    axes.plot(limits, limits, color="0.5", lw=0.8)
    axes.plot(limits, [TARGET * limit for limit in limits], "--", color="0.5", label=f"{TARGET:g} of it")
    axes.set(xscale="log", yscale="log", xlim=limits, ylim=limits)
    axes.set_xlabel("error with the illumination of the file (rad)")
    axes.set_ylabel("error by default (rad)")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


if __name__ == "__main__":
    run("amplitudes", measure, section, picture)
