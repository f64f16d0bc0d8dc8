"""Where the processes of one run leave what the others need to know to reach them.

On one machine that is a file in a folder which no other user can open: no port is bound. The elastic agents of torch
bind one on all interfaces, and unpickle what anybody writes there. Where torchrun or a cluster started the processes it
is the server that MASTER_ADDR and MASTER_PORT name, which trusts its network.
"""

import os
import queue
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from torch.distributed import FileStore, Store  # type: ignore[attr-defined]  # it does not say that it exports it
from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    rendezvous_handler_registry,
)
from torch.distributed.elastic.rendezvous.api import RendezvousStoreInfo
from torch.distributed.rendezvous import rendezvous

from fastvae.utils.errors import LocalError
from fastvae.utils.files import own_folder, reason

from .restarts import meet, patience

BACKEND = "fastvae"
_FOLDER = "FASTVAE_RENDEZVOUS"  # of the workers: the run's id, a colon, the folder
_LOOPBACK = "lo"
_MERCY = 2  # seconds more, for torch to say itself what it waited for


class OneMachine(RendezvousHandler):
    """The rendezvous of an agent that has no other to wait for: it is complete at once, each time.

    Args:
        run_id: of the run. folder: private to this user; every start of the workers gets a new file in it.
    """

    def __init__(self, run_id: str, folder: Path) -> None:
        self._run_id, self._folder, self._starts = run_id, folder, 0

    def get_backend(self) -> str:
        return BACKEND

    def next_rendezvous(self) -> RendezvousInfo:
        self._starts += 1
        store = FileStore(str(self._folder / f"agent-{self._starts}"), 1)
        # torch wants an address for the workers; they do not use it.
        return RendezvousInfo(store, 0, 1, RendezvousStoreInfo("127.0.0.1", 0))

    def is_closed(self) -> bool:
        return False

    def set_closed(self) -> None:
        """Nobody else could come."""

    def num_nodes_waiting(self) -> int:
        return 0

    def get_run_id(self) -> str:
        return self._run_id

    def shutdown(self) -> bool:
        return True


def _create(parameters: RendezvousParameters) -> RendezvousHandler:
    return OneMachine(parameters.run_id, Path(parameters.endpoint))


rendezvous_handler_registry.register(BACKEND, _create)


@contextmanager
def private_folder(run_id: str) -> Iterator[Path]:
    """A new folder of this user alone, which the workers of a run will find in their environment."""
    with tempfile.TemporaryDirectory(prefix="fastvae-") as name:
        os.environ[_FOLDER] = f"{run_id}:{name}"
        yield Path(name)


def join(rank: int, size: int, *, one_machine: bool) -> tuple[Store, int, int]:
    """The store of this run's processes, this one's rank, and how many they are. Waits until all are there.

    Processes of one machine are told to reach one another over loopback, where the user named no interface.

    Raises:
        LocalError: there is no such server, it does not answer, or not all came within
            FASTVAE_RENDEZVOUS_TIMEOUT seconds (300).
    """
    if one_machine and _LOOPBACK in (name for _, name in socket.if_nameindex()):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", _LOOPBACK)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={_LOOPBACK}")
    folder, seconds = _folder_of_this_run(), patience()
    try:
        if folder is not None:
            start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            store: Store = FileStore(str(own_folder(folder) / f"workers-{start}"), size)
        else:
            # torch would look for a name that nobody knows until its patience ends.
            socket.getaddrinfo(os.environ["MASTER_ADDR"], None)
            store, rank, size = _reached(seconds)
        return meet(store, rank, size, seconds), rank, size
    except (OSError, RuntimeError) as error:  # torch's errors of a store are RuntimeErrors
        where = folder or f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise LocalError(
            f"process {rank} of {size} cannot meet the others at {where} ({reason(error)}): see that all of them run, "
            "and that MASTER_ADDR and MASTER_PORT, if you set them, name the first one's machine and a free port of it"
        ) from error


def _reached(seconds: int) -> tuple[Store, int, int]:
    """The store at MASTER_ADDR and MASTER_PORT. Raises TimeoutError where what listens there does not answer.

    torch waits for the answer of a server that is not its own without any limit, so it does that in a thread.
    """
    found: queue.Queue[tuple[Store, int, int] | Exception] = queue.Queue()

    def reach() -> None:
        try:
            found.put(next(iter(rendezvous("env://", timeout=timedelta(seconds=seconds)))))
        except Exception as error:
            found.put(error)

    threading.Thread(target=reach, name="fastvae-rendezvous", daemon=True).start()
    try:
        result = found.get(timeout=seconds + _MERCY)
    except queue.Empty:
        raise TimeoutError(f"no answer in {seconds + _MERCY} s") from None
    if isinstance(result, Exception):
        raise result
    return result


def _folder_of_this_run() -> Path | None:
    """The folder of the agent that started this process; not that of a run which started another torchrun."""
    run_id, _, folder = os.environ.get(_FOLDER, "").partition(":")
    return Path(folder) if folder and run_id == os.environ.get("TORCHELASTIC_RUN_ID") else None
