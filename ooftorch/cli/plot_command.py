"""`ooftorch plot`."""

from pathlib import Path

import click

from ooftorch.cli.text import print_text
from ooftorch.errors import InputError

__all__ = ["command"]


@click.command("plot")
@click.argument("fit")
@click.option("--what", type=click.Choice(["aperture", "beams"]), default="aperture", show_default=True)
@click.option(
    "--out", metavar="FILE", help="Picture to write (.png, .pdf, .svg); by default aperture.png or beams.png."
)
@click.option("--overwrite", is_flag=True, help="Replace the picture if it exists.")
def command(fit: str, what: str, out: str | None, overwrite: bool) -> None:
    """Draw the result in FIT (a directory that `fit` made, or its fit.fits)."""
    target = Path(out or f"{what}.png")
    if target.exists() and not overwrite:
        raise InputError(f"{target} exists; give another --out, or --overwrite")

    from ooftorch.io.result_file import read_fit
    from ooftorch.reporting import plot

    source = Path(fit)
    result = read_fit(source / "fit.fits" if source.is_dir() else source)
    figure = plot.plot_aperture(result) if what == "aperture" else plot.plot_beams(result)
    plot.save(figure, target, overwrite=overwrite)
    print_text(f"written to {target}")
