"""The console that all commands write to: rich's, made safe against untrusted text and streams that fail.

Nothing else in fastvae prints: ``tests/utils/test_terminal.py`` and ruff's T20 and TID251 enforce it.
"""

import errno
import os
import sys
from contextlib import suppress
from typing import IO, Any

from rich.console import Console
from rich.text import Text

from .text import printable

NARROWEST = 20  # columns; a terminal that reports fewer does not know its width
_DEFAULT_WIDTH = 80
_lost: OSError | None = None


class Terminal(Console):
    """A console that shows strings literally: no markup, no emoji codes, no escape sequences.

    If a write fails (a full disk, or a pipe whose reader has exited), the stream gets no more output and the program
    continues. :func:`refusal` returns the error at the end.
    """

    def __init__(self, *, stderr: bool = False, quiet: bool = False) -> None:
        super().__init__(stderr=stderr, quiet=quiet, markup=False, emoji=False, highlight=False, soft_wrap=True)
        if self.width < NARROWEST:
            self.width = _DEFAULT_WIDTH

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)

    def print(self, *objects: Any, **options: Any) -> None:
        try:
            super().print(*objects, **options)
        except OSError as error:
            _give_up(self.file, error)

    def on_broken_pipe(self) -> None:
        """Give up the stream. Rich calls this when a pipe's reader has exited; its own version ends the program."""
        _give_up(self.file, BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)))


def prepare() -> None:
    """Make standard output and error accept every character: those that their encoding lacks are escaped."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a test's stand-in may lack it
            with suppress(OSError):  # a stream that was redirected below Python
                stream.reconfigure(errors="backslashreplace")


def complain(message: str) -> None:
    """Write one line to standard error, if that can be written to."""
    Terminal(stderr=True).print(message)


def refusal() -> OSError | None:
    """Return the error that lost output, if any. A pipe whose reader has exited does not count: nobody waits."""
    return None if _lost is None or _lost.errno == errno.EPIPE else _lost


def _give_up(stream: IO[str], error: OSError) -> None:
    """Send all further output to /dev/null: otherwise Python would fail again when it flushes the stream at exit."""
    global _lost  # noqa: PLW0603 -- one for the process, as are its streams
    _lost = _lost or error
    devnull = os.open(os.devnull, os.O_WRONLY)
    try:
        with suppress(OSError):  # a stream without a file descriptor, such as StringIO
            os.dup2(devnull, stream.fileno())
    finally:
        os.close(devnull)
