"""The exceptions: input that cannot be used, in one line, and a fit that is to end."""

__all__ = ["InputError", "StopFit", "shorten"]

# Longest message, characters: what is in the middle of a longer one is left out.
_LONGEST = 300


def shorten(text: object, length: int = 60) -> str:
    """Write a text from outside as one line that a terminal can show.

    Parameters
    ----------
    text : object
        Its `str` is taken.
    length : int
        Longest line, characters; the middle of a longer one is left out.

    Returns
    -------
    str
        Line breaks are blanks; other characters that cannot be printed are Python escapes.
    """
    given = str(text)
    if len(given) > 4 * length:  # escapes of what is left out anyway would cost time
        given = f"{given[: 2 * length]} ... {given[-2 * length :]}"
    line = " ".join(given.split())
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)
    if len(line) <= length:
        return line
    begin = (2 * length) // 3
    return f"{line[: begin - 5]} ... {line[begin - length :]}"


class InputError(ValueError):
    """Input given by the user cannot be used.

    The message is one line: what was given, what was expected, what to do. The command line prints it and
    exits with status 2; in Python it is a `ValueError`. Whatever it quotes, it stays one line of at most 300
    characters.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(shorten(message, _LONGEST))


class StopFit(Exception):
    """Raised by the progress callback of a fit to end it with the best result so far.

    The result is marked as interrupted. Where no order has been fitted yet the exception comes out of the fit
    again.
    """
