"""Where processes that were started together find one another, and none of those before them."""

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
    """Seconds that a process waits for the others. Raises InputError for an environment that has no such number."""
    text = os.environ.get(_PATIENCE, str(_SECONDS))
    if not (text.isascii() and text.isdecimal() and int(text[:7]) > 0 and len(text) < 7):
        raise InputError(f"{_PATIENCE}={text!r} in the environment is no number of seconds from 1 to 999999: unset it")
    return int(text)


def meet(store: Store, rank: int, size: int, patience: float) -> PrefixStore:
    """A part of ``store`` that is new to these ``size`` processes, of which this is ``rank``. All have to ask.

    torch 2.11's agents hand workers that they start again the store of those before, with the addresses of the dead.
    How often an agent has started them does not tell which are which: each machine's agent counts for itself. So each
    process but the first leaves a name that nobody had, the first offers a place to those whose names it sees, until
    all of them have accepted the same offer.

    Raises:
        TimeoutError: not all came.
    """
    board = PrefixStore("fastvae", store)
    looks = _looks(f"process {rank} of {size} waited {patience:g} s for the others: are all of them there?", patience)
    place = _offer(board, size, looks) if rank == 0 else _accept(board, rank, looks)
    return PrefixStore(place, board)


def _offer(board: Store, size: int, looks: Iterator[None]) -> str:
    keys = [f"name of {rank}" for rank in range(1, size)]
    names: list[str] = []
    place = ""
    for _ in looks:
        if not board.check(keys):
            continue
        if names != (names := [board.get(key).decode() for key in keys]):
            place = uuid.uuid4().hex
            board.set("offer", json.dumps([place, names]))
        elif board.check([f"{place} suits {name}" for name in names]):
            board.set(f"{place} is open", "")
            break
    return place


def _accept(board: Store, rank: int, looks: Iterator[None]) -> str:
    name = uuid.uuid4().hex
    board.set(f"name of {rank}", name)
    place = ""
    for _ in looks:
        if not board.check(["offer"]):
            continue
        place, names = parse_json(board.get("offer"))
        if name in names:
            board.set(f"{place} suits {name}", "")
            if board.check([f"{place} is open"]):
                break
    return place


def _looks(complaint: str, patience: float) -> Iterator[None]:
    """Give leave to look, again and again with a pause in between."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        yield
        time.sleep(_PAUSE)
    raise TimeoutError(complaint)
