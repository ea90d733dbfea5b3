"""`ooftorch fit`: read, fit, print the report, write the files."""

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ooftorch.cli.signals import Interrupted, Interrupts, hold_interrupts
from ooftorch.cli.text import Output, parse_assignment
from ooftorch.errors import InputError, StopFit
from ooftorch.files import check_new_directory, whole_directory
from ooftorch.reporting.drawing import PICTURES, prepare_drawing

if TYPE_CHECKING:
    from ooftorch.fitting.fitter import Progress

__all__ = ["command"]

_FILES = ("summary.json", "fit.fits", *PICTURES)


@click.command("fit")
@click.argument("obs")
@click.option("--telescope", metavar="NAME|FILE.toml", help="Telescope; by default the one named in OBS.")
@click.option(
    "--order",
    default="5",
    show_default=True,
    metavar="N|auto",
    help="Highest Zernike order; auto goes up or down from 5 until the maps ask for no other.",
)
@click.option(
    "--likelihood",
    default="auto",
    show_default=True,
    help="auto (Student's t: outliers as the maps have them), gaussian or cauchy.",
)
@click.option(
    "--illumination",
    default="auto",
    show_default=True,
    help="auto (that of the receiver, or the usual one), gaussian, pedestal, squashed or tophat.",
)
@click.option(
    "--amplitude-order",
    type=int,
    metavar="M",
    help="Let the illumination depart from its model by Zernikes of order 2 to M; by default as far as the "
    "evidence asks for.",
)
@click.option(
    "--nuisance",
    default="auto",
    show_default=True,
    metavar="WORDS",
    help="Errors of scan lines to integrate out: auto (those that the evidence asks for), none, or some of "
    "level,slope,gain,pointing.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option(
    "--free", multiple=True, metavar="NAME", help="Fit this parameter, too: dz, q, rho, ... (repeatable)."
)
@click.option("--fix", multiple=True, metavar="NAME=VALUE", help="Hold a parameter at a value (repeatable).")
@click.option("--out", metavar="DIR", help="Directory for the results; by default OBS-oof-001, -002, ...")
@click.option("--overwrite", is_flag=True, help="Replace the results in DIR.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON instead of the report.")
def command(
    obs: str,
    telescope: str | None,
    order: str,
    likelihood: str,
    illumination: str,
    amplitude_order: int | None,
    nuisance: str,
    device: str,
    free: tuple[str, ...],
    fix: tuple[str, ...],
    out: str | None,
    overwrite: bool,
    as_json: bool,
) -> int:
    """Fit the surface to the beam maps in OBS (FITS, or an observation .toml).

    The report is printed as soon as the fit has ended; then summary.json, fit.fits, aperture.png and
    beams.png are written. Ctrl-C ends the fit with the best result so far, and again at once with nothing.
    """
    begin = time.perf_counter()
    output = Output()
    highest = int(order) if re.fullmatch(r"[+-]?[0-9]{1,4000}", order) else order
    fixed = dict(parse_assignment(text, "--fix", "sigma=0.6") for text in fix)
    with prepare_drawing() as draw:  # first: its imports take as long as those below
        from ooftorch import io
        from ooftorch.fitting import fitter
        from ooftorch.io.result_file import write_fit
        from ooftorch.reporting.numbers import summary
        from ooftorch.reporting.text import report

        observation = io.read(obs)
        check_new_directory(_results_directory(obs, out), overwrite)  # now, and not only after a long fit
        read = time.perf_counter()
        with hold_interrupts() as interrupts:
            with _progress(highest, as_json, output, interrupts) as progress:
                try:
                    result = fitter.fit(
                        observation,
                        telescope,
                        order=highest,
                        likelihood=likelihood,
                        illumination=illumination,
                        amplitude_order=amplitude_order,
                        nuisance=nuisance,
                        device=device,
                        free=free,
                        fixed=fixed,
                        progress=progress,
                    )
                except StopFit:  # before there was a result
                    raise Interrupted(interrupts.number or 0) from None
            fitted = time.perf_counter()
            if not as_json:
                output.print(f"\n{report(result, orders=False)}")
            target = _results_directory(obs, out)
            with whole_directory(target, overwrite) as directory:
                with draw(result, directory):
                    write_fit(result, directory / "fit.fits")
                end = time.perf_counter()
                seconds = {
                    "read": read - begin,
                    "fit": fitted - read,
                    "write": end - fitted,
                    "total": end - begin,
                }
                text = json.dumps(summary(result, seconds), indent=1, allow_nan=False)
                (directory / "summary.json").write_text(text + "\n")
    output.print(text if as_json else f"\nwritten to {target}/: {', '.join(_FILES)}")
    if output.error is not None:
        raise InputError(f"{output.error}; the results are in {target}")
    if interrupts.number is not None:
        return 128 + interrupts.number
    return 0 if result.converged else 1


def _results_directory(obs: str, out: str | None) -> Path:
    """`out`, or the first OBS-oof-NNN in the current directory that does not exist."""
    if out is not None:
        return Path(out)
    number = 1
    while (path := Path(f"{Path(obs).stem}-oof-{number:03d}")).exists():
        number += 1
    return path


@contextmanager
def _progress(
    order: int | str, quiet: bool, output: Output, interrupts: Interrupts
) -> "Iterator[Callable[[Progress], None]]":
    """Yield a progress callback that prints a row per order, and draws a bar on a terminal.

    After an interrupt it ends the fit.
    """
    from tqdm import tqdm

    from ooftorch.reporting.text import order_header, order_line

    bar = tqdm(
        total=order if isinstance(order, int) else None,
        disable=None if not quiet else True,  # None: no bar unless standard error is a terminal
        miniters=0,  # redraw after evaluations, and not after orders alone
        leave=False,
        bar_format="order {n_fmt}/{total_fmt} |{bar:20}| {elapsed}{postfix}",
    )

    def progress(step: "Progress") -> None:
        if step.finished is None:
            bar.set_postfix_str(f"{step.n_eval} evaluations, objective {step.objective:.6g}", refresh=False)
            bar.update(0)
            interrupts.check()
            return
        bar.update(1)
        if not quiet:
            with tqdm.external_write_mode(file=sys.stdout):
                if step.order == 1:
                    output.print(order_header())
                output.print(order_line(step.finished))
        interrupts.check()

    with bar:
        yield progress
