"""Random damage to bytes, and to the fields of JSON."""

import copy
import json
import math
from random import Random
from typing import Any

_NUMBERS = [number.to_bytes(8, "little") for number in (0, 1, 2**31 - 1, 2**32 - 1, 2**62, 2**63, 2**64 - 1)]
_VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 1.5, 255, 2**31, 2**63, 10**30, 1e308, math.nan, math.inf, "", "x", "1", "../x",
    "\x1b[31m\r\n", "\x00", "\ud800", "a" * 5000, "[/red]", [], {}, [[]], [1, 2, 3], ["x", "x", "x"], {"x": 1},
]  # fmt: skip
_DEEP = 5000


def damaged(dice: Random, content: bytes, others: list[bytes]) -> bytes:
    """Make one to four random changes to bytes."""
    changed = bytearray(content)
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        _change(dice, changed, others)
    return bytes(changed)


def _change(dice: Random, content: bytearray, others: list[bytes]) -> None:
    size = len(content)
    # Headers matter most and are short: half of all changes hit the first bytes.
    at = dice.randrange(min(size, 128) if dice.random() < 0.5 and size else size or 1)
    end = min(size, at + dice.choice((1, 4, 16, 512)))
    kind = dice.randrange(8)
    if kind == 0 and size:
        content[at] ^= 1 << dice.randrange(8)
    elif kind == 1 and size:
        content[at] = dice.randrange(256)
    elif kind == 2:
        del content[at:]
    elif kind == 3:
        content[at:at] = dice.randbytes(dice.choice((1, 4, 64)))
    elif kind == 4:
        del content[at:end]
    elif kind == 5:
        content[at:at] = content[at:end] * dice.choice((1, 8, 100))
    elif kind == 6:
        other = dice.choice(others)
        content[at:] = other[dice.randrange(len(other)) :]
    else:
        number = dice.choice(_NUMBERS)[: dice.choice((1, 2, 4, 8))]
        content[at : at + len(number)] = number if dice.random() < 0.5 else number[::-1]


def damaged_json(dice: Random, content: bytes, others: list[bytes]) -> bytes:
    """Change values, names or fields of JSON, of one line or several; in a fifth of cases, change bytes instead."""
    if dice.random() < 0.2:
        return damaged(dice, content, others)
    lines = content.splitlines() if content.count(b"\n{") else [content]
    number = dice.randrange(len(lines))
    root = [json.loads(lines[number])]
    for _ in range(dice.choice((1, 1, 2))):
        if fields := list(_fields(root)):
            _edit(dice, *dice.choice(fields))
    text = json.dumps(root[0] if root else None)
    if dice.random() < 0.02:
        text = text.replace(dice.choice(text.split()), dice.choice(("[", '{"a":')) * _DEEP, 1)
    lines[number] = text.encode()
    return b"\n".join(lines)


def _fields(holder: Any):
    for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
        yield holder, key
        if isinstance(holder[key], (dict, list)):
            yield from _fields(holder[key])


def _edit(dice: Random, holder: Any, key: Any) -> None:
    kind = dice.randrange(10)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        letters = list(key) or ["x"]
        letters[dice.randrange(len(letters))] = chr(dice.randrange(1, 127))
        holder["".join(letters)] = holder.pop(key)
    elif kind == 2 and isinstance(holder[key], (int, float)) and math.isfinite(holder[key]):
        holder[key] = holder[key] * dice.choice((-1, 2, 1000, 0.5)) + dice.choice((0, 1))
    else:
        holder[key] = copy.deepcopy(dice.choice(_VALUES))  # a copy, because later changes may modify it
