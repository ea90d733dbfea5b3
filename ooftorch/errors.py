"""The one exception that means "what was given cannot be used"."""

__all__ = ["InputError"]


class InputError(ValueError):
    """Something a user gave cannot be used.

    The message is one line: what came, what was expected, what to do. The command line prints it and
    exits with status 2; from Python it is an ordinary `ValueError`.
    """
