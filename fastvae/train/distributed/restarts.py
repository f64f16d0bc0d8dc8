"""Keep ranks that were restarted apart from the dead ones before them, in the same store."""

import json
import os
import time
import uuid
from collections.abc import Iterator

from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]  # it does not say that it exports them

from fastvae.utils.errors import InputError
from fastvae.utils.files import parse_json

_PATIENCE = "FASTVAE_RENDEZVOUS_TIMEOUT"
_SECONDS = 300  # as torch waits in a rendezvous
_PAUSE = 0.01


def patience() -> int:
    """Return the seconds that a rank waits for the others. Raises InputError if the environment has no such number."""
    text = os.environ.get(_PATIENCE, str(_SECONDS))
    if not (text.isascii() and text.isdecimal() and int(text[:7]) > 0 and len(text) < 7):
        raise InputError(
            f"{_PATIENCE}={text!r} in the environment is not a number of seconds from 1 to 999999: unset it"
        )
    return int(text)


def meet(store: Store, rank: int, size: int, patience: float) -> PrefixStore:
    """Return a part of ``store`` that only these ``size`` ranks use, of which this is ``rank``. Collective.

    torchrun in torch 2.11 reuses the rendezvous store when it restarts workers, so they may read the addresses of dead
    processes. A restart count does not help, because each machine's agent counts separately. So every rank but 0
    publishes a fresh id, rank 0 proposes a new key prefix for the ids it sees, and the prefix is used once all of them
    have accepted it.

    Raises:
        TimeoutError: a rank did not come.
    """
    board = PrefixStore("fastvae", store)
    polls = _polls(f"process {rank} of {size} waited {patience:g} s for the others: are all of them there?", patience)
    prefix = _propose(board, size, polls) if rank == 0 else _accept(board, rank, polls)
    return PrefixStore(prefix, board)


def _propose(board: Store, size: int, polls: Iterator[None]) -> str:
    """Propose prefixes, until the ranks whose ids are there have all accepted the last one."""
    keys = [f"name of {rank}" for rank in range(1, size)]
    proposed_to: list[str] = []
    prefix = ""
    for _ in polls:
        if not board.check(keys):
            continue
        ids = [board.get(key).decode() for key in keys]
        if ids != proposed_to:
            proposed_to = ids
            prefix = uuid.uuid4().hex
            board.set("offer", json.dumps([prefix, ids]))
        elif board.check([f"{prefix} suits {own}" for own in ids]):
            board.set(f"{prefix} is open", "")
            break
    return prefix


def _accept(board: Store, rank: int, polls: Iterator[None]) -> str:
    """Publish a fresh id and accept every prefix proposed to it, until one is open."""
    own = uuid.uuid4().hex
    board.set(f"name of {rank}", own)
    prefix = ""
    for _ in polls:
        if not board.check(["offer"]):
            continue
        prefix, ids = parse_json(board.get("offer"))
        if own in ids:
            board.set(f"{prefix} suits {own}", "")
            if board.check([f"{prefix} is open"]):
                break
    return prefix


def _polls(complaint: str, patience: float) -> Iterator[None]:
    """Yield again and again, with a pause in between. Raises TimeoutError when the patience is over."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        yield
        time.sleep(_PAUSE)
    raise TimeoutError(complaint)
