"""The command line: parse, call the library once, write.

Exit status: 0 done, 1 the fit did not converge (results are written), 2 the input cannot be used, 130
interrupted. With the last two nothing is written.
"""

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ooftorch import __version__
from ooftorch.errors import InputError

if TYPE_CHECKING:
    from ooftorch.fitting.fitter import Progress

__all__ = ["main"]

_PRODUCTS = ("summary.json", "fit.fits", "aperture.png", "beams.png")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ooftorch")
def commands() -> None:
    """Out-of-focus holography: from beam maps of a bright source to the shape of the dish."""


@commands.command()
@click.argument("obs")
@click.option("--telescope", metavar="NAME|FILE.toml", help="Telescope; by default the one the file names.")
@click.option("--order", default=5, show_default=True, help="Highest Zernike order.")
@click.option(
    "--likelihood", default="gaussian", show_default=True, help="gaussian, or cauchy to forgive glitches."
)
@click.option("--illumination", help="gaussian, pedestal, squashed or tophat; default: as the receiver asks.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option(
    "--free", multiple=True, metavar="NAME", help="Free one more parameter: x0, y0, dz, dx, ... (repeatable)."
)
@click.option("--fix", multiple=True, metavar="NAME=VALUE", help="Hold a parameter at a value (repeatable).")
@click.option("--out", metavar="DIR", help="Directory for the results; by default OBS-oof-001, -002, ...")
@click.option("--overwrite", is_flag=True, help="Replace the results in DIR.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON instead of the report.")
def fit(
    obs: str,
    telescope: str | None,
    order: int,
    likelihood: str,
    illumination: str | None,
    device: str,
    free: tuple[str, ...],
    fix: tuple[str, ...],
    out: str | None,
    overwrite: bool,
    as_json: bool,
) -> int:
    """Fit the surface to the beam maps in OBS (FITS, or an observation .toml)."""
    begin = time.perf_counter()
    from ooftorch import io
    from ooftorch.fitting.fitter import fit as run
    from ooftorch.reporting.numbers import summary
    from ooftorch.reporting.text import report

    held = dict(_assignment(text, "--fix", "sigma=0.6") for text in fix)
    observation = io.read(obs)
    _check_target(_new_directory(obs) if out is None else Path(out), overwrite)  # before a long fit, too
    read = time.perf_counter()
    with _watcher(order, quiet=as_json) as progress:
        result = run(
            observation,
            telescope,
            order=order,
            likelihood=likelihood,
            illumination=illumination,
            device=device,
            free=free,
            fixed=held,
            progress=progress,
        )
    fitted = time.perf_counter()
    target = _new_directory(obs) if out is None else Path(out)
    with _directory(target, overwrite) as directory:
        from ooftorch.io.result_file import write_fit
        from ooftorch.reporting import plot

        write_fit(result, directory / "fit.fits")
        plot.save(plot.plot_aperture(result), directory / "aperture.png")
        plot.save(plot.plot_beams(result), directory / "beams.png")
        end = time.perf_counter()
        seconds = {"read": read - begin, "fit": fitted - read, "write": end - fitted, "total": end - begin}
        text = json.dumps(summary(result, seconds), indent=1, allow_nan=False)
        (directory / "summary.json").write_text(text + "\n")
    _say(
        text
        if as_json
        else f"\n{report(result, orders=False)}\n\nwritten to {target}/: {', '.join(_PRODUCTS)}"
    )
    return 0 if result.converged else 1


# Options of `simulate` for the kinds of noise: attribute of Noise, its unit, and help.
_ARCSEC = math.radians(1 / 3600)
_NOISE = {
    "snr": ("snr", 1.0, "Peak over the white noise of a sample."),
    "snr-per-beam": ("snr_per_beam", 1.0, "The same with the noise of the mean over a beam."),
    "multiplicative": ("multiplicative", 1.0, "Relative error of every sample."),
    "drift": ("drift", 1.0, "1/f drift along the scan, rms over the peak."),
    "baseline": ("baseline", 1.0, "Levels of the scan lines, rms over the peak."),
    "jitter-arcsec": ("jitter", _ARCSEC, "Pointing error of every sample, rms on each axis."),
    "wander-arcsec": ("wander", _ARCSEC, "Slow pointing error, rms on each axis."),
    "dz-error-mm": ("dz", 1e-3, "Error of the focus of each map, rms."),
    "gain-error": ("gain", 1.0, "Relative error of the gain of each map, rms."),
    "glitches": ("glitches", 1.0, "Fraction of the samples that are hit by something else."),
    "glitch-size": ("glitch_size", 1.0, "Largest glitch over the peak."),
}


def _noise_options(command: Callable) -> Callable:
    """Add an option for each kind of noise."""
    for name, (attribute, _, words) in reversed(_NOISE.items()):
        command = click.option(f"--{name}", attribute, type=float, help=words)(command)
    return command


@commands.command()
@click.argument("out")
@click.option("--telescope", metavar="NAME|FILE.toml", required=True, help="Telescope.")
@click.option("--frequency-ghz", type=float, help="By default the one at which the telescope is measured.")
@click.option("--order", type=int, help="Random surface: highest Zernike order; 5 by default.")
@click.option("--rms", type=float, metavar="RAD", help="Random surface: rms of the phase.")
@click.option(
    "--spectrum", type=float, metavar="P", help="Random surface: order n goes as n**-P; 0 by default."
)
@click.option("--gravity", type=float, metavar="RAD", help="Smooth figure, even in x, of that rms.")
@click.option(
    "--coeffs", metavar="FILE", help="Coefficients: JSON, lines such as 'z5 1.1', or a fit's result."
)
@click.option("--phase-map", metavar="FILE", help="FITS image across the aperture: rad, or half-path um.")
@click.option(
    "--bump", multiple=True, metavar="X,Y,WIDTH,UM", help="Bump: metres, and its height (repeatable)."
)
@click.option("--set", "assigned", multiple=True, metavar="NAME=VALUE", help="A parameter (repeatable).")
@click.option("--illumination", help="gaussian, pedestal, squashed or tophat; default: the telescope's.")
@click.option("--dz-mm", metavar="LIST", help="Focus offsets such as -20,0,20, in the order taken.")
@click.option(
    "--chop-arcsec", metavar="X,Y", help="From the negative to the positive beam of a chopped pair."
)
@click.option("--disc-arcsec", type=float, default=0.0, help="Radius of a planet, uniformly bright.")
@click.option("--pattern", default="map", show_default=True, help="map, otf (scans forth and back) or daisy.")
@click.option(
    "--reach", type=float, metavar="BEAMS", help="Half width of the maps, wavelengths over diameter."
)
@click.option("--step", type=float, default=0.4, show_default=True, metavar="BEAMS", help="Between samples.")
@click.option(
    "--peak", type=float, default=1.0, show_default=True, help="Power of the perfect dish in focus."
)
@_noise_options
@click.option("--seed", default=0, show_default=True, help="Of everything random.")
@click.option(
    "--seed-of", multiple=True, metavar="KIND=K", help="Seed of one kind, or of the surface (repeatable)."
)
@click.option(
    "--format", "layout", type=click.Choice(["oof", "pyoof", "image"]), default="oof", show_default=True
)
@click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")
def simulate(
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
    **options: Any,
) -> None:
    """Simulate beam maps of a known surface, and write them with the truth to OUT.

    Random surface, gravity, coefficients, phase map and bumps add up; with none of them the dish is perfect.
    Fractions are of the highest power in any map. `ooftorch fit OUT` then says how far off it is.
    """
    from ooftorch import io
    from ooftorch.files import check_new
    from ooftorch.optics.receiver import Receiver
    from ooftorch.optics.telescope import load
    from ooftorch.reporting.describe import describe_observation
    from ooftorch.simulation.noise import Noise
    from ooftorch.simulation.simulator import Simulator, usual_wavelength
    from ooftorch.units import SPEED_OF_LIGHT

    check_new(Path(out), overwrite)  # before a long simulation, too
    seeds = dict(_seed(text) for text in seed_of)
    scope = load(telescope)
    if frequency_ghz is None:
        wavelength = usual_wavelength(scope)
    elif frequency_ghz > 0:
        wavelength = SPEED_OF_LIGHT / (1e9 * frequency_ghz)
    else:
        raise InputError(f"--frequency-ghz {frequency_ghz}; expected a positive number")
    values, shapes = _surface(options, seeds.pop("surface", seed), wavelength, scope.radius)
    values |= dict(_assignment(text, "--set", "sigma=0.6") for text in assigned)
    chop = _numbers(chop_arcsec or "0,0", "--chop-arcsec", "-57.8,0", 2)
    noise = {name: unit * options[name] for name, unit, _ in _NOISE.values() if options[name] is not None}
    simulator = Simulator(
        telescope,
        wavelength=wavelength,
        dz=None if dz_mm is None else [1e-3 * dz for dz in _numbers(dz_mm, "--dz-mm", "-20,0,20")],
        receiver=Receiver(_ARCSEC * chop[0], _ARCSEC * chop[1], disc_radius=_ARCSEC * disc_arcsec),
        illumination=illumination,
        shapes=shapes,
        pattern=pattern,
        reach=reach,
        step=step,
        peak=peak,
        noise=Noise(**noise),
    )
    with _samples() as progress:
        observation = simulator.observe(values, seed=seed, seeds=seeds, progress=progress)
    io.write(observation, out, overwrite, layout)
    _say(f"{describe_observation(io.read(out))}\n\nwritten to {out}")


def _surface(
    options: dict[str, Any], seed: int, wavelength: float, radius: float
) -> tuple[dict[str, float], list]:
    """Coefficients and shapes that the options of `simulate` ask for, on a dish of that radius."""
    from ooftorch.io.surfaces import read_coefficients, read_phase_map
    from ooftorch.simulation import surfaces as surface

    rms, order, spectrum = options["rms"], options["order"], options["spectrum"]
    if rms is None and not (order is None and spectrum is None):
        raise InputError("--order or --spectrum without --rms; give the rms of the random surface in rad")
    parts = []
    if rms is not None:
        parts.append(surface.random(5 if order is None else order, rms, spectrum=spectrum or 0.0, seed=seed))
    if options["gravity"] is not None:
        parts.append(surface.gravity(options["gravity"], seed=seed))
    if options["coeffs"] is not None:
        parts.append(read_coefficients(options["coeffs"]))
    values = {name: sum(p.get(name, 0.0) for p in parts) for part in parts for name in part}
    shapes: list = [] if options["phase_map"] is None else [read_phase_map(options["phase_map"], wavelength)]
    for text in options["bump"]:
        x, y, width, height = _numbers(text, "--bump", "10,-5,8,200", 4)
        if math.hypot(x, y) > radius:
            raise InputError(f"--bump {text!r} is off the dish; its radius is {radius:g} m")
        shapes.append(surface.bump(x, y, width, 1e-6 * height, wavelength))
    return values, shapes


@commands.command()
@click.argument("obs")
def info(obs: str) -> None:
    """Say what OBS holds, as it is understood."""
    from ooftorch import io
    from ooftorch.reporting import describe

    _say(describe.describe_observation(io.read(obs)))


@commands.command()
@click.argument("fit")
@click.option("--what", type=click.Choice(["aperture", "beams"]), default="aperture", show_default=True)
@click.option(
    "--out", metavar="FILE", help="Picture to write (.png, .pdf, .svg); by default aperture.png or beams.png."
)
@click.option("--overwrite", is_flag=True, help="Replace the picture if it exists.")
def plot(fit: str, what: str, out: str | None, overwrite: bool) -> None:
    """Draw the result in FIT (a directory that `fit` made, or its fit.fits)."""
    from ooftorch.io.result_file import read_fit
    from ooftorch.reporting import plot as plots

    target = Path(out or f"{what}.png")
    if target.exists() and not overwrite:
        raise InputError(f"{target} exists; give another --out, or --overwrite")
    source = Path(fit)
    result = read_fit(source / "fit.fits" if source.is_dir() else source)
    figure = plots.plot_aperture(result) if what == "aperture" else plots.plot_beams(result)
    plots.save(figure, target, overwrite=overwrite)
    _say(f"written to {target}")


@commands.command()
@click.argument("name", required=False)
def telescopes(name: str | None) -> None:
    """List the telescopes, or say what is known about one (NAME, or a TOML file)."""
    from ooftorch.optics import telescope
    from ooftorch.reporting import describe

    if name is not None:
        _say(describe.describe_telescope(telescope.load(name)))
        return
    for known in telescope.names():
        _say(f"{known:12s} {telescope.load(known).description}")


def _assignment(text: str, option: str, example: str) -> tuple[str, float]:
    name, equals, value = text.partition("=")
    try:
        if not (name and equals):
            raise ValueError
        if not math.isfinite(number := float(value)):
            raise ValueError
        return name, number
    except ValueError:
        raise InputError(f"{option} {text!r}; expected NAME=VALUE, such as {option} {example}") from None


def _seed(text: str) -> tuple[str, int]:
    name, value = _assignment(text, "--seed-of", "white=7")
    if not value.is_integer():
        raise InputError(f"--seed-of {text!r}; expected a whole number, such as --seed-of white=7")
    return name, int(value)


def _numbers(text: str, option: str, example: str, n: int | None = None) -> list[float]:
    """Numbers separated by commas; n of them, where it matters."""
    try:
        numbers = [float(word) for word in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or len(numbers) != (n or len(numbers)) or not all(map(math.isfinite, numbers)):
        raise InputError(f"{option} {text!r}; expected numbers, such as {option} {example}")
    return numbers


def _new_directory(obs: str) -> Path:
    """First OBS-oof-NNN that is not there yet, in the current directory."""
    number = 1
    while (path := Path(f"{Path(obs).stem}-oof-{number:03d}")).exists():
        number += 1
    return path


def _say(text: str) -> None:
    """Print a line; where nobody reads any more (`| head`), go on without: the results still count."""
    try:
        click.echo(text)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _check_target(target: Path, overwrite: bool) -> None:
    """Refuse a directory for the results that is none, holds something already, or cannot be written."""
    if target.exists() and not target.is_dir():
        raise InputError(f"{target} is a file; give a directory as --out")
    if not overwrite and target.is_dir() and any(target.iterdir()):
        raise InputError(f"{target} exists and is not empty; give another --out, or --overwrite")
    if not target.parent.is_dir():
        raise InputError(f"{target.parent}: no such directory; make it first, or give another --out")
    if not os.access(target if target.is_dir() else target.parent, os.W_OK):
        raise InputError(f"{target} cannot be written; give another --out")


@contextmanager
def _directory(target: Path, overwrite: bool) -> Iterator[Path]:
    """Yield a scratch directory; its files appear in `target`, all of them, when the block ends well."""
    _check_target(target, overwrite)
    there = target.is_dir()
    # Where a rename never has to cross file systems.
    scratch = (target if there else target.parent) / f".{target.name}.{os.getpid()}.part"
    try:
        scratch.mkdir()
        yield scratch
        if there:
            for file in scratch.iterdir():
                file.replace(target / file.name)
        else:
            scratch.rename(target)
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror or error})") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _watcher(order: int, quiet: bool) -> "Iterator[Callable[[Progress], None]]":
    """Yield a progress callback: a row per order, and a bar while a person is watching."""
    from tqdm import tqdm

    from ooftorch.reporting.text import order_header, order_line

    bar = tqdm(
        total=order,
        disable=None if not quiet else True,  # None: no bar unless the terminal is one
        miniters=0,  # drawn again after evaluations, and not after orders alone
        leave=False,
        bar_format="order {n_fmt}/{total_fmt} |{bar:20}| {elapsed}{postfix}",
    )

    def progress(step: "Progress") -> None:
        if step.finished is None:
            bar.set_postfix_str(f"{step.n_eval} evaluations, objective {step.objective:.6g}", refresh=False)
            bar.update(0)
            return
        bar.update(1)
        if not quiet:
            with tqdm.external_write_mode(file=sys.stdout):
                if step.order == 1:
                    _say(order_header())
                _say(order_line(step.finished))

    with bar:
        yield progress


@contextmanager
def _samples() -> Iterator[Callable[[int, int], None]]:
    """Yield a progress callback that draws a bar of samples while a person is watching."""
    from tqdm import tqdm

    with tqdm(disable=None, leave=False, unit=" samples", unit_scale=True) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress


def main() -> None:
    """Entry point of the `ooftorch` command."""
    # Before torch is loaded. The maps of one observation are too small to share out: two threads gain little,
    # and lose a factor of twenty when another program wants a core, for they wait by spinning.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        arguments = sys.argv[1:] or ["--help"]
        sys.exit(commands.main(arguments, prog_name="ooftorch", standalone_mode=False) or 0)
    except InputError as error:
        message = str(error)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "ooftorch"
        message = f"{error.format_message()} See {command} --help."
    except OSError as error:  # of a path that not even a look at it is possible
        message = f"{error.filename}: {error.strerror}; give another path"
    except (KeyboardInterrupt, click.Abort):
        click.echo("ooftorch: interrupted; nothing was written", err=True)
        sys.exit(130)
    click.echo(f"ooftorch: {message}", err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
