"""The `ooftorch` command: the list of its commands, each loaded when it is called, and the exit status.

Exit status: 0 done; 1 the fit did not converge (results are written); 2 the input cannot be used, or the
results or standard output cannot be written; 130 and 143 interrupted by Ctrl-C (SIGINT) and by SIGTERM. One
line on standard error says what is written after an interrupt: the best result so far of a fit, or nothing.
"""

import gc
import importlib
import os
import signal
import sys

import click

from ooftorch import __version__
from ooftorch.cli.signals import Interrupted, raise_interrupts
from ooftorch.errors import InputError, shorten

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "fit": "Fit the surface to the beam maps in OBS.",
    "simulate": "Simulate beam maps of a known surface.",
    "plot": "Draw the result in FIT.",
    "info": "Describe the beam maps in OBS.",
    "telescopes": "List the telescopes, or describe one.",
}
"""The commands, and the line for each in ``ooftorch --help``; X is `command` of ``cli/X_command.py``."""


class _LazyGroup(click.Group):
    """A group that imports the module of a command when it is called, and none to list them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return importlib.import_module(f"ooftorch.cli.{cmd_name}_command").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ooftorch")
def _ooftorch() -> None:
    """Out-of-focus holography: from beam maps of a bright source to the surface of the dish."""


def main() -> None:
    """Run the `ooftorch` command and exit."""
    # Before torch is loaded. The maps of one observation are too small for two threads to gain much, and
    # threads wait for each other by spinning: a second program on the cores then costs a factor of twenty.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Imports allocate much and free little: at Python's own thresholds, looking for garbage after every 700
    # objects, they take an eighth longer.
    gc.set_threshold(100_000, 50, 100)
    # Where one is closed (`>&-`) Python has None, which libraries do not expect.
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    try:
        arguments = sys.argv[1:] or ["--help"]
        with raise_interrupts():
            sys.exit(_ooftorch.main(arguments, prog_name="ooftorch", standalone_mode=False) or 0)
    except InputError as error:
        message = str(error)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "ooftorch"
        message = f"{shorten(error.format_message(), 200)} See {command} --help."
    except OSError as error:  # from a path that cannot even be looked up, or from standard output
        message = str(error)
        if error.filename:
            message = f"{shorten(error.filename, 200)}: {error.strerror}; give another path"
    except MemoryError:
        message = "not enough memory for this; ask for less, or give it more"
    except (KeyboardInterrupt, click.Abort) as error:
        click.echo("ooftorch: interrupted; nothing was written", err=True)
        cause = error.__cause__ or error  # click makes an Abort of a KeyboardInterrupt
        sys.exit(128 + (cause.number if isinstance(cause, Interrupted) else signal.SIGINT))
    click.echo(f"ooftorch: {message}", err=True)
    sys.exit(2)
