"""The exception for input that a user can correct."""

from .text import printable


class InputError(ValueError):
    """Bad input: a flag, a file or a setting. The message is one line: what was found, what is needed, the remedy.

    The command line prints it without a traceback and exits with status 2. Unprintable characters are escaped when the
    error is created, so a message may quote any file name or any library's message.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class LocalError(InputError):
    """Bad input that one rank may have met alone, so that it has to report the error itself."""
