"""The exception for input that a user can correct."""

from .text import printable


class InputError(ValueError):
    """Bad input: a flag, a file or a setting. The message is one line: what was found, what is needed, the remedy.

    The command line prints it without a traceback and exits with status 2. Unprintable characters are escaped when the
    error is created, so a message may quote any file name or any library's message.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def finding(error: InputError) -> str:
    """Return a message without its remedy, for a fault that needs no action.

    >>> finding(InputError("a.png cannot be decoded (it is empty): repair or remove it"))
    'a.png cannot be decoded (it is empty)'
    """
    return str(error).rpartition(": ")[0] or str(error)


class LocalError(InputError):
    """Bad input that one rank may have met alone, so that it has to report the error itself."""
