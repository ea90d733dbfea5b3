"""`ooftorch telescopes`."""

import click

from ooftorch.cli.text import print_text

__all__ = ["command"]


@click.command("telescopes")
@click.argument("name", required=False)
def command(name: str | None) -> None:
    """List the telescopes, or describe one (NAME, or a TOML file)."""
    from ooftorch.optics.telescopes import load, names
    from ooftorch.reporting.describe import describe_telescope

    if name is not None:
        print_text(describe_telescope(load(name)))
        return
    for known in names():
        print_text(f"{known:12s} {load(known).description}")
