"""Rendezvous: how the ranks of one run find each other's addresses.

On one machine they exchange them in a file, in a folder that no other user can open: no port is bound. (torch's elastic
agents bind a port on all interfaces, and unpickle what anybody sends there.) If torchrun or a cluster started the
processes, they use the server that MASTER_ADDR and MASTER_PORT name, which trusts its network.
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
_FOLDER = "FASTVAE_RENDEZVOUS"  # in the workers' environment: the run's id, a colon, the folder
_LOOPBACK = "lo"
_MERCY = 2  # more seconds, so that torch can say itself what it waited for


class OneMachine(RendezvousHandler):
    """The rendezvous of an agent that is the only one: it is complete at once.

    Args:
        run_id: names the run.
        folder: a folder that is private to this user; every start of the workers gets a new file in it.
    """

    def __init__(self, run_id: str, folder: Path) -> None:
        self._run_id = run_id
        self._folder = folder
        self._starts = 0

    def get_backend(self) -> str:
        return BACKEND

    def next_rendezvous(self) -> RendezvousInfo:
        self._starts += 1
        store = FileStore(str(self._folder / f"agent-{self._starts}"), 1)
        # torch demands an address for the workers; they do not use it.
        return RendezvousInfo(store, 0, 1, RendezvousStoreInfo("127.0.0.1", 0))

    def is_closed(self) -> bool:
        return False

    def set_closed(self) -> None:
        """Do nothing: no other agent could join."""

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
    """Make a folder that is private to this user, and tell the run's workers of it in their environment."""
    with tempfile.TemporaryDirectory(prefix="fastvae-") as name:
        os.environ[_FOLDER] = f"{run_id}:{name}"
        yield Path(name)


def join(rank: int, size: int, *, one_machine: bool) -> tuple[Store, int, int]:
    """Return the store of this run's ranks, this process's rank, and the world size. Waits until all ranks are there.

    Ranks on one machine connect over loopback, unless the user named an interface.

    Raises:
        LocalError: there is no such server, it does not answer, or a rank is missing after
            FASTVAE_RENDEZVOUS_TIMEOUT seconds (300).
    """
    if one_machine and _LOOPBACK in (name for _, name in socket.if_nameindex()):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", _LOOPBACK)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={_LOOPBACK}")
    folder = _folder_of_this_run()
    seconds = patience()
    try:
        if folder is not None:
            start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            store: Store = FileStore(str(own_folder(folder) / f"workers-{start}"), size)
        else:
            # torch would try to resolve an unknown name until its timeout.
            socket.getaddrinfo(os.environ["MASTER_ADDR"], None)
            store, rank, size = _connect(seconds)
        return meet(store, rank, size, seconds), rank, size
    except (OSError, RuntimeError) as error:  # torch's errors of a store are RuntimeErrors
        where = folder or f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise LocalError(
            f"process {rank} of {size} cannot meet the others at {where} ({reason(error)}): see that all of them run, "
            "and that MASTER_ADDR and MASTER_PORT, if you set them, name the first one's machine and a free port of it"
        ) from error


def _connect(seconds: int) -> tuple[Store, int, int]:
    """Connect to the store at MASTER_ADDR and MASTER_PORT. Raises TimeoutError if the server there does not answer.

    torch waits for a server that is not its own without a limit, so it does so in a thread.
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
    """Return the folder of the agent that started this process, not one that an outer run's agent left behind."""
    run_id, _, folder = os.environ.get(_FOLDER, "").partition(":")
    return Path(folder) if folder and run_id == os.environ.get("TORCHELASTIC_RUN_ID") else None
