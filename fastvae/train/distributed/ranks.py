"""The place of this process among the ranks, as the environment says: without torch, for what comes before it."""

import os
from dataclasses import dataclass

from fastvae.utils.errors import InputError

_MOST = 1 << 24  # the largest world size


class LostRankError(RuntimeError):
    """The end of another rank, which this one needs: its own message says why it ended."""


@dataclass(frozen=True)
class Ranks:
    """The place of this process among the ranks, as torchrun's environment says."""

    rank: int
    local_rank: int
    size: int
    local_size: int
    is_one_machine: bool = False  # if the launcher says so: some leave LOCAL_WORLD_SIZE out


ALONE = Ranks(rank=0, local_rank=0, size=1, local_size=1)


def read_ranks() -> Ranks | None:
    """Read torchrun's environment variables, or return None if none is set.

    Raises:
        InputError: a variable is missing beside the others, is not a whole number, or is out of range.
    """
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
    given = [name for name in names if name in os.environ]
    if not given:
        return None
    absent = [name for name in names if name not in given]
    if absent:
        raise InputError(f"the environment has {given[0]} but no {absent[0]}: unset {given[0]}, or start with torchrun")
    size = _read_integer("WORLD_SIZE", 1, _MOST)
    if size > 1:
        for name in ("MASTER_ADDR", "MASTER_PORT"):
            if name not in os.environ:
                raise InputError(f"the environment has WORLD_SIZE={size} but no {name}: start with torchrun")
        _read_integer("MASTER_PORT", 0, 65535)
    told = "LOCAL_WORLD_SIZE" in os.environ
    local_size = _read_integer("LOCAL_WORLD_SIZE", 1, size) if told else size
    rank = _read_integer("RANK", 0, size - 1)
    local_rank = _read_integer("LOCAL_RANK", 0, local_size - 1)
    return Ranks(rank, local_rank, size, local_size, is_one_machine=told and local_size == size)


def _read_integer(name: str, low: int, high: int) -> int:
    text = os.environ[name]
    bounds = f"{low} to {high}"
    if not text.isdecimal() or len(text) > len(str(_MOST)) or not low <= int(text) <= high:
        raise InputError(f"{name}={text!r} in the environment is not a whole number, {bounds}: start with torchrun")
    return int(text)
