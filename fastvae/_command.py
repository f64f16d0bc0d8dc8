"""The first moments of a command, before torch is imported, which takes seconds.

:func:`begin` is called where ``fastvae`` is imported first. It imports nothing but what Python has loaded already.
"""

import os
import signal
import sys
from types import FrameType

STOPS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)  # the signals that ask a program to end
# Any of these, set by the user, says how OpenMP's threads wait for each other.
WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")
# Turns that a waiting thread spins before it sleeps. libgomp's own 300,000 take a core from whoever could use it: two
# runs at once on two cores (leaky, MNIST, bf16) made 12,000 images/s each, or 500, where one alone makes 66,000. With
# 1,000 turns they make 22,000 to 24,000, and one alone loses nothing; with none, a third (41,000).
_TURNS = "1000"
# Turns of a run alone, or one that takes fewer threads beside others: it waits awake while Python prepares the next
# operators. leaky in fp32 takes 6.0 to 7.9 ms a step, with 1,000 turns 7.5 to 8.2.
_LONG_TURNS = "30000"


def begin() -> None:
    """Prepare this process if it is one of fastvae's commands; a program that merely imports fastvae is left alone.

    - ``python -m fastvae.train`` searches the current folder before all others, so that a user's ``statistics.py``
      would take the place of Python's. The folder leaves the search path.
    - A stream that is closed (``>&-``) is /dev/null from here on: else the next file to be opened gets its number, and
      whatever prints would write into that file.
    - Ctrl-C, SIGTERM and SIGHUP end the process at once, with status 128 + the signal's number and no traceback, until
      there is something to save. A SIGHUP that is ignored (nohup) stays so.
    """
    name = sys.argv[0] if sys.argv else ""
    if name == "-m":  # while the packages above the module are imported
        name = sys.orig_argv[-len(sys.argv)].removeprefix("-m")
        if name.partition(".")[0] != "fastvae":
            return
        if not getattr(sys.flags, "safe_path", False) and sys.path[:1] == [os.getcwd()]:
            del sys.path[0]
    elif os.path.basename(name) != "fastvae":
        return
    prepare()


def shorten_waits() -> None:
    """Have the OpenMP threads of this process and its children sleep soon while they wait, unless the user chose.

    torch's OpenMP library reads the variable when ``import torch`` loads it. Where torch came first, it is too late,
    and the environment stays as it is.
    """
    if "torch" not in sys.modules and not any(name in os.environ for name in WAITING):
        os.environ["GOMP_SPINCOUNT"] = _TURNS


def lengthen_waits() -> None:
    """Undo most of :func:`shorten_waits` before torch is loaded, for a command that slows no other program by that."""
    if "torch" not in sys.modules and os.environ.get("GOMP_SPINCOUNT") == _TURNS:
        os.environ["GOMP_SPINCOUNT"] = _LONG_TURNS


def prepare() -> None:
    """Open the streams that are closed, and have the signals end the process at once."""
    for descriptor, (stream, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, stream) is None:
            _fill(descriptor)
            setattr(sys, stream, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    for number in STOPS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, exit_at_once)


def exit_at_once(number: int, _frame: FrameType | None) -> None:
    """End the process with status 128 + ``number``: a handler of signals."""
    os._exit(128 + number)


def _fill(descriptor: int) -> None:
    """Open /dev/null as a descriptor that nothing uses."""
    try:
        os.fstat(descriptor)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
