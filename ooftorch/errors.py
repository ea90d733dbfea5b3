"""The exception for input that cannot be used."""

__all__ = ["InputError"]


class InputError(ValueError):
    """Input given by the user cannot be used.

    The message is one line: what was given, what was expected, what to do. The command line prints it and
    exits with status 2; in Python it is a `ValueError`.
    """
