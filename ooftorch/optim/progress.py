"""The progress bar of a minimisation."""

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["show_progress"]


@contextmanager
def show_progress(wanted: bool | None) -> Iterator[Callable[[float], None] | None]:
    """Draw a bar of evaluations on stderr; yield what to call with every value, or None without a bar.

    Parameters
    ----------
    wanted : bool or None
        None draws a bar if stderr is a terminal.
    """
    if wanted is None:
        wanted = sys.stderr.isatty()
    if not wanted:
        yield None
        return
    from tqdm import tqdm

    with tqdm(unit=" evaluations", leave=False, miniters=1) as bar:
        lowest = math.inf

        def on_value(value: float) -> None:
            nonlocal lowest
            lowest = min(lowest, value)
            bar.set_postfix_str(f"lowest {lowest:.8g}", refresh=False)
            bar.update()

        yield on_value
