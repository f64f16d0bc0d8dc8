"""The console that all commands write to: rich's, held to what is safe and to what can be written.

Nothing else in fastvae prints (``tests/utils/test_terminal.py`` and ruff's T20 and TID251 hold that).
"""

import errno
import os
import sys
from contextlib import suppress
from typing import IO, Any

from rich.console import Console
from rich.text import Text

from .text import printable

_NARROWEST = 20  # columns; a terminal that claims fewer says nothing about itself
_UNKNOWN = 80
_lost: OSError | None = None


class Terminal(Console):
    """A console on which strings appear as they are: no markup, no emoji codes, no escape sequences.

    A stream that refuses what is written, a full disk or a pipe whose reader has left, gets nothing more, and the work
    goes on: :func:`refusal` says so at the end.
    """

    def __init__(self, *, stderr: bool = False, quiet: bool = False) -> None:
        super().__init__(stderr=stderr, quiet=quiet, markup=False, emoji=False, highlight=False, soft_wrap=True)
        if self.width < _NARROWEST:
            self.width = _UNKNOWN

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)

    def print(self, *objects: Any, **options: Any) -> None:
        try:
            super().print(*objects, **options)
        except OSError as error:
            _give_up(self.file, error)

    def on_broken_pipe(self) -> None:
        """Rich calls this when the reader of a pipe has left; its own version would end the program."""
        _give_up(self.file, BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)))


def prepare() -> None:
    """Let standard output and error take every character, escaped where their encoding has it not."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a test's stand-in may not
            with suppress(OSError):  # what was redirected below Python
                stream.reconfigure(errors="backslashreplace")


def complain(message: str) -> None:
    """Write one line to standard error, where it can be written."""
    Terminal(stderr=True).print(message)


def refusal() -> OSError | None:
    """Why output was lost, if any was that somebody still waits for: the reader of a pipe may leave."""
    return None if _lost is None or _lost.errno == errno.EPIPE else _lost


def _give_up(stream: IO[str], error: OSError) -> None:
    """Send what is still to come to nowhere, else Python would complain again when it ends."""
    global _lost  # noqa: PLW0603 -- of the process, as its streams are
    _lost = _lost or error
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        with suppress(OSError):  # a stream of a program's own, without a file below it
            os.dup2(nowhere, stream.fileno())
    finally:
        os.close(nowhere)
