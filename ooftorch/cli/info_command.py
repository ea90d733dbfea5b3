"""`ooftorch info`."""

import click

from ooftorch.cli.text import print_text

__all__ = ["command"]


@click.command("info")
@click.argument("obs")
def command(obs: str) -> None:
    """Describe the beam maps in OBS (FITS, or an observation .toml) as `fit` reads them."""
    from ooftorch import io
    from ooftorch.reporting.describe import describe_observation

    print_text(describe_observation(io.read(obs)))
