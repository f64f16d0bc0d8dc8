"""Write errors (a full disk, a lost folder) as one line for the user."""

import errno
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from fastvae.utils.errors import InputError

_REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of the quota",
    errno.EFBIG: "raise the limit on the size of files",
    errno.EROFS: "make it writable",
    errno.EACCES: "make it writable",
    errno.EPERM: "make it writable",
    errno.ENOENT: "do not remove a run's folder while it trains",
    errno.EIO: "use another disk",
}


@contextmanager
def writing(path: Path, partial: Path | None = None) -> Iterator[None]:
    """Turn an error of writing a file inside the context into an InputError, and remove the file ``partial``."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if partial is not None:
            with suppress(OSError):
                partial.unlink()
        number = error.errno if isinstance(error, OSError) else _number(str(error))
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        remedy = _REMEDIES.get(number or 0, "see to that")
        raise InputError(
            f"cannot write {path} ({reason or error}): {remedy}; checkpoints that were written before are whole, "
            "and --resume goes on from the last"
        ) from error


def _number(message: str) -> int | None:
    """Find the number of an error of safetensors, which is written in Rust: they end in ``(os error 28)``."""
    return next((number for number in _REMEDIES if f"os error {number})" in message), None)


@contextmanager
def quiet_writers() -> Iterator[None]:
    """Keep the traceback of TensorBoard's writing thread from the terminal: its next call raises the same error."""
    before = threading.excepthook

    def hook(arguments: threading.ExceptHookArgs) -> None:
        if not (isinstance(arguments.exc_value, OSError) and type(arguments.thread).__name__ == "_AsyncWriterThread"):
            before(arguments)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before
