"""Hostile caches in folders that others may write to: decoded images, autotuning, compiled code."""

import getpass
import json
import os
from functools import partial
from pathlib import Path

from case import Case
from inputs import PICTURES, fifo, folder_of_pictures, link, train
from place import Place
from watch import Outcome, Watched

COMMAND = train("d", *PICTURES, "--cache", "kept")


def filled(place: Place) -> Path:
    """Let a run fill a cache, and return the folder of its training images."""
    folder_of_pictures(place.work / "d")
    _train_first(COMMAND, place)
    (folder,) = (place.work / "kept").glob("train-*")
    return folder


def _train_first(command: list[str], place: Place) -> None:
    """Run a command with another run folder, to fill the caches."""
    outcome = Watched(place, ["first" if word == "out" else word for word in command], fresh=False).end(120.0, None)
    if outcome.status != 0:
        raise RuntimeError(outcome.stderr)


def _filled(place: Place) -> list[str]:
    filled(place)
    return COMMAND


def _links(names: tuple[str, ...], gone: tuple[str, ...], place: Place) -> list[str]:
    """Put links into a cache; the files in ``gone`` are removed and will be made again."""
    folder = filled(place)
    for name in gone:
        (folder / name).unlink(missing_ok=True)
    for name in names:
        link(folder / name, place.victim)
    return COMMAND


def _forged(place: Place) -> list[str]:
    """Replace the pixels, and forge a verified.json that says they were checked."""
    folder = filled(place)
    pixels = folder / "images.bin"
    pixels.write_bytes(bytes(pixels.stat().st_size))
    status = pixels.stat()
    state = {"size": status.st_size, "inode": status.st_ino, "mtime_ns": status.st_mtime_ns}
    (folder / "verified.json").write_text(json.dumps({**state, "ctime_ns": status.st_ctime_ns}))
    return COMMAND


def _spoilt(name: str, content: bytes, place: Place) -> list[str]:
    (filled(place) / name).write_bytes(content)
    return COMMAND


def _learnt_alike(place: Place, _: Outcome) -> str | None:
    """Compare the losses, which are the same if the pixels are."""
    losses = [json.loads((place.work / run / "metrics.jsonl").read_text().splitlines()[0]) for run in ("first", "out")]
    return None if losses[0]["loss"] == losses[1]["loss"] else "trained on other pixels"


_AUTOTUNED = ["fastvae", "train", "--device", "cpu", "--max-steps", "1", "--out", "out"]
_COMPILED = [*_AUTOTUNED, "--no-autotune", "--execution", "compiled"]


def _autotune(content: bytes | None, words: object, place: Place) -> list[str]:
    """Spoil autotune.json, either after a run has written it (``words``), or from the start (``content``)."""
    if words is None:
        file = place.root / "cache" / "fastvae" / "autotune.json"
        file.parent.mkdir()
        file.write_bytes(content) if content is not None else fifo(file)
        return _AUTOTUNED
    _train_first(_AUTOTUNED, place)
    (file,) = (place.root / "cache").rglob("autotune.json")
    kept = json.loads(file.read_text())
    for choice in kept.values():
        choice["milliseconds"] = words
    file.write_text(json.dumps(kept))
    return _AUTOTUNED


def _loose(place: Place) -> list[str]:
    """Make the folder of compiled steps writable for all users."""
    folder = place.root / "cache" / "fastvae" / "inductor"
    folder.mkdir(parents=True)
    os.chmod(folder, 0o777)
    return _COMPILED


def _is_private(place: Place, _: Outcome) -> str | None:
    """Check that torch keeps only headers in the shared temporary folder, in a folder of mode 0700."""
    for path in (place.root / "tmp").glob("*inductor*"):
        held = sorted(inner.name for inner in path.iterdir())
        if held != ["precompiled_headers"] or path.stat().st_mode & 0o777 != 0o700:
            return f"$TMPDIR/{path.name} has {', '.join(held)}, mode {path.stat().st_mode:o}"
    return None


def _taken(place: Place) -> list[str]:
    """Let another user own the folder that torch would use."""
    folder = place.root / "tmp" / f"torchinductor_{getpass.getuser()}"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    return _COMPILED


def _is_left(place: Place, outcome: Outcome) -> str | None:
    """Check that the folder is still empty, so that nothing was loaded from it."""
    folder = place.root / "cache" / "fastvae" / "inductor"
    return "the folder is used" if any(folder.iterdir()) else _is_private(place, outcome)


_ESCAPED = {"a\x1b[31m\n": 1.0}
CASES = [
    Case(id="Q00", what="--cache, made by a run", build=_filled, expect="right",
         check=_learnt_alike),
    Case(id="Q04", what="--cache: pixels replaced, verified.json forged to match", build=_forged, expect="either",
         check=_learnt_alike),
    Case(id="Q05", what="--cache: pixels cut off", build=partial(_spoilt, "images.bin", b"x")),
    Case(id="Q06", what="--cache: cache.json of brackets", build=partial(_spoilt, "cache.json", b"[" * 100_000)),
    Case(id="Q09", what="--cache: cache.json.partial is a link", expect="either", quick=True,
         check=_learnt_alike, build=partial(_links, ("cache.json.partial", "images.bin.partial"), ("cache.json",))),
    Case(id="Q10", what="--cache: verified.json.partial is a link", expect="either",
         check=_learnt_alike, build=partial(_links, ("verified.json.partial",), ("verified.json",))),
    Case(id="Q11", what="--cache: .lock and verified.json are links", expect="either",
         check=_learnt_alike, build=partial(_links, (".lock", "verified.json"), ("verified.json",))),
    Case(id="U01", what="autotune.json: milliseconds of strings", expect="right", seconds=40,
         build=partial(_autotune, None, {"a": "b"})),
    Case(id="U02", what="autotune.json: 100,000 brackets", expect="right", seconds=40,
         build=partial(_autotune, b"[" * 100_000, None)),
    Case(id="U03", what="autotune.json: escape sequences", expect="right", seconds=40,
         build=partial(_autotune, None, _ESCAPED)),
    Case(id="U04", what="autotune.json: a list of milliseconds", expect="right", seconds=40,
         build=partial(_autotune, None, [1])),
    Case(id="U05", what="autotune.json: a FIFO", expect="right", seconds=40, build=partial(_autotune, None, None)),
    Case(id="IND1", what="compiled steps, and the shared temporary folder", build=lambda _: _COMPILED, expect="right",
         check=_is_private, wrong="code ran", fresh=True, seconds=90),
    Case(id="IND2", what="the folder of compiled steps can be written by others", build=_loose, expect="either",
         check=_is_left, wrong="code ran", fresh=True, seconds=90),
    Case(id="IND3", what="torch's folder for compiled steps is another user's", build=_taken, wrong="code ran",
         fresh=True, seconds=90),
]  # fmt: skip
