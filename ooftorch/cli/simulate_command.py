"""`ooftorch simulate`: the surface and the noise from options, the maps to a file."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ooftorch.cli.text import parse_assignment, parse_numbers, print_text
from ooftorch.errors import InputError
from ooftorch.files import check_new
from ooftorch.units import ARCSEC, SPEED_OF_LIGHT

if TYPE_CHECKING:
    from ooftorch.optics.telescope import Telescope

__all__ = ["command"]

# Options for the noise: attribute of Noise, its unit, and help.
_NOISE = {
    "snr": ("snr", 1.0, "Peak over the standard deviation of one sample (white noise)."),
    "snr-per-beam": ("snr_per_beam", 1.0, "Peak over the standard deviation of the mean over a beam."),
    "multiplicative": ("multiplicative", 1.0, "Relative error of each sample, rms."),
    "drift": ("drift", 1.0, "1/f drift rms over the peak."),
    "baseline": ("baseline", 1.0, "Per-scan-line baseline rms over the peak."),
    "jitter-arcsec": ("jitter", ARCSEC, "Pointing jitter rms, each axis, independent between samples."),
    "wander-arcsec": ("wander", ARCSEC, "1/f pointing drift rms, each axis."),
    "dz-error-mm": ("dz", 1e-3, "Focus error of each map, rms."),
    "gain-error": ("gain", 1.0, "Relative gain error of each map, rms."),
    "glitches": ("glitches", 1.0, "Outlier fraction: samples with a glitch over all samples."),
    "slope": ("slope", 1.0, "Slope of each scan line in time, as rms of the level it causes over the peak."),
    "line-gain": ("line_gain", 1.0, "Relative gain error of each scan line, rms."),
    "gain-drift": ("gain_drift", 1.0, "1/f relative gain drift within each map, rms."),
    "line-pointing-arcsec": ("line_pointing", ARCSEC, "Pointing error of each scan line, rms, each axis."),
    "pointing-arcsec": ("pointing", ARCSEC, "Pointing error of each map, rms, each axis."),
    "glitch-size": ("glitch_size", 1.0, "Size of the largest glitch over the peak; 1 by default."),
}


def _add_noise_options(function: Callable) -> Callable:
    """Add an option for each kind of noise."""
    for name, (attribute, _, words) in reversed(_NOISE.items()):
        function = click.option(f"--{name}", attribute, type=float, help=words)(function)
    return function


@click.command("simulate")
@click.argument("out")
@click.option("--telescope", metavar="NAME|FILE.toml", required=True, help="Telescope.")
@click.option("--frequency-ghz", type=float, help="Frequency; by default the telescope's usual one for OOF.")
@click.option("--order", type=int, help="Random surface: highest Zernike order; 5 by default.")
@click.option("--rms", type=float, metavar="RAD", help="Random surface: rms of the phase.")
@click.option(
    "--spectrum", type=float, metavar="P", help="Random surface: order n is scaled by n**-P; 0 by default."
)
@click.option(
    "--gravity", type=float, metavar="RAD", help="Gravity-like surface, even in x, with this phase rms."
)
@click.option(
    "--coeffs", metavar="FILE", help="Coefficients: JSON, lines such as 'z5 1.1', or a fit's result."
)
@click.option(
    "--phase-map",
    metavar="FILE",
    help="FITS image across the aperture, phase in rad or half-path error in um.",
)
@click.option(
    "--bump", multiple=True, metavar="X,Y,WIDTH,UM", help="Gaussian bump: metres, height in um (repeatable)."
)
@click.option(
    "--set", "assigned", multiple=True, metavar="NAME=VALUE", help="Value of a model parameter (repeatable)."
)
@click.option("--illumination", help="gaussian, pedestal, squashed or tophat; default: the telescope's.")
@click.option("--dz-mm", metavar="LIST", help="Focus offsets such as -20,0,20, in the order observed.")
@click.option(
    "--chop-arcsec", metavar="X,Y", help="Chop throw: from the negative to the positive beam; 0,0 by default."
)
@click.option("--disc-arcsec", type=float, default=0.0, help="Radius of the source, a uniform disc.")
@click.option("--pattern", default="map", show_default=True, help="map, otf (scans back and forth) or daisy.")
@click.option("--reach", type=float, metavar="BEAMS", help="Half width of the maps, in wavelength/diameter.")
@click.option("--step", type=float, default=0.4, show_default=True, metavar="BEAMS", help="Sample spacing.")
@click.option(
    "--peak", type=float, default=1.0, show_default=True, help="Peak power of the perfect dish in focus."
)
@click.option(
    "--smear-arcsec", type=float, default=0.0, help="Length on the sky over which each sample is averaged."
)
@_add_noise_options
@click.option("--seed", default=0, show_default=True, help="Random seed of the noise and the surface.")
@click.option(
    "--seed-of",
    multiple=True,
    metavar="KIND=K",
    help="Random seed of one kind of noise, or of the surface (repeatable).",
)
@click.option(
    "--format",
    "layout",
    type=click.Choice(["oof", "pyoof", "image"]),
    default="oof",
    show_default=True,
    help="Layout of the FITS file.",
)
@click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")
def command(
    out: str,
    telescope: str,
    frequency_ghz: float | None,
    dz_mm: str | None,
    chop_arcsec: str | None,
    disc_arcsec: float,
    assigned: tuple[str, ...],
    seed: int,
    seed_of: tuple[str, ...],
    layout: str,
    overwrite: bool,
    illumination: str | None,
    pattern: str,
    reach: float | None,
    step: float,
    peak: float,
    smear_arcsec: float,
    **options: Any,
) -> None:
    """Simulate beam maps of a known surface, and write them with the truth to OUT.

    Random surface, gravity, coefficients, phase map and bumps add up; with none of them the dish is perfect.
    The peak that noise is given in is the highest power in any map. `ooftorch fit OUT` reports its error
    against the truth.
    """
    check_new(Path(out), overwrite)  # now, and not only after a long simulation
    from ooftorch import io
    from ooftorch.optics import telescopes
    from ooftorch.optics.receiver import Receiver
    from ooftorch.reporting.describe import describe_observation
    from ooftorch.simulation.noise import Noise
    from ooftorch.simulation.simulator import Simulator

    seeds = dict(_parse_seed(text) for text in seed_of)
    dish = telescopes.load(telescope)
    wavelength = _wavelength(frequency_ghz, dish)
    values, shapes = _surface(options, seeds.pop("surface", seed), wavelength, dish.radius)
    values |= dict(parse_assignment(text, "--set", "sigma=0.6") for text in assigned)
    chop_x, chop_y = parse_numbers(chop_arcsec or "0,0", "--chop-arcsec", "-57.8,0", 2)
    noise = {name: unit * options[name] for name, unit, _ in _NOISE.values() if options[name] is not None}
    simulator = Simulator(
        telescope,
        wavelength=wavelength,
        dz=None if dz_mm is None else [1e-3 * dz for dz in parse_numbers(dz_mm, "--dz-mm", "-20,0,20")],
        receiver=Receiver(ARCSEC * chop_x, ARCSEC * chop_y, disc_radius=ARCSEC * disc_arcsec),
        illumination=illumination,
        shapes=shapes,
        pattern=pattern,
        reach=reach,
        step=step,
        peak=peak,
        noise=Noise(**noise),
        smear=ARCSEC * smear_arcsec,
    )
    with _progress() as progress:
        observation = simulator.observe(values, seed=seed, seeds=seeds, progress=progress)
    io.write(observation, out, overwrite, layout)
    print_text(f"{describe_observation(io.read(out))}\n\nwritten to {out}")


def _wavelength(frequency_ghz: float | None, dish: "Telescope") -> float:
    """Wavelength in metres; at the telescope's usual frequency if none is given."""
    if frequency_ghz is None:
        return dish.usual_wavelength()
    if not frequency_ghz > 0:
        raise InputError(f"--frequency-ghz {frequency_ghz}; expected a positive number")
    return SPEED_OF_LIGHT / (1e9 * frequency_ghz)


def _surface(
    options: dict[str, Any], seed: int, wavelength: float, radius: float
) -> tuple[dict[str, float], list]:
    """Coefficients and shapes that the options ask for, on a dish of that radius."""
    from ooftorch.io.surfaces import read_coefficients, read_phase_map
    from ooftorch.simulation import surfaces

    rms, order, spectrum = options["rms"], options["order"], options["spectrum"]
    if rms is None and not (order is None and spectrum is None):
        raise InputError("--order or --spectrum without --rms; give the rms of the random surface in rad")
    parts = []
    if rms is not None:
        order = 5 if order is None else order
        parts.append(surfaces.random(order, rms, spectrum=spectrum or 0.0, seed=seed))
    if options["gravity"] is not None:
        parts.append(surfaces.gravity(options["gravity"], seed=seed))
    if options["coeffs"] is not None:
        parts.append(read_coefficients(options["coeffs"]))
    values = {name: sum(p.get(name, 0.0) for p in parts) for part in parts for name in part}
    shapes: list = [] if options["phase_map"] is None else [read_phase_map(options["phase_map"], wavelength)]
    for text in options["bump"]:
        x, y, width, height = parse_numbers(text, "--bump", "10,-5,8,200", 4)
        if math.hypot(x, y) > radius:
            raise InputError(f"--bump {text!r} is off the dish; its radius is {radius:g} m")
        shapes.append(surfaces.bump(x, y, width, 1e-6 * height, wavelength))
    return values, shapes


def _parse_seed(text: str) -> tuple[str, int]:
    """Read KIND=K."""
    name, value = parse_assignment(text, "--seed-of", "white=7")
    if not value.is_integer():
        raise InputError(f"--seed-of {text!r}; expected a whole number, such as --seed-of white=7")
    return name, int(value)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Yield a progress callback that draws a bar of samples on a terminal."""
    from tqdm import tqdm

    with tqdm(disable=None, leave=False, unit=" samples", unit_scale=True) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress
