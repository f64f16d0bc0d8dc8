"""The one exception for what a user can mend."""

from .text import printable


class InputError(ValueError):
    """Bad input: a flag, a file, a setting. The message is one line: what, both offending values, the remedy.

    The command line prints it without a traceback and exits with status 2. Characters that are not printable are
    escaped when it is made, so a message may hold any name or any library's words.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class LocalError(InputError):
    """Bad input that one of several processes may have met alone: it says so itself."""
