"""The exceptions: input that cannot be used, and a fit that is to end."""

__all__ = ["InputError", "StopFit"]


class InputError(ValueError):
    """Input given by the user cannot be used.

    The message is one line: what was given, what was expected, what to do. The command line prints it and
    exits with status 2; in Python it is a `ValueError`.
    """


class StopFit(Exception):
    """Raised by the progress callback of a fit to end it with the best result so far.

    The result is marked as interrupted. Where no order has been fitted yet the exception comes out of the fit
    again.
    """
