"""Hostile folders in the format of Hugging Face datasets, which is installed in the adapters' environment only."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from case import Case
from inputs import COUNT, ESCAPES, PICTURES, png, train
from place import Place

Change = Callable[[Path, Place], object]


def save(folder: Path) -> Path:
    """Save a data set of images to a folder, and return the folder."""
    import datasets  # noqa: PLC0415

    datasets.disable_progress_bars()
    rows = [{"bytes": png(number), "path": None} for number in range(COUNT)]
    features = datasets.Features({"image": datasets.Image()})
    datasets.Dataset.from_dict({"image": rows}, features=features).save_to_disk(str(folder))
    return folder


def _changed(change: Change, place: Place) -> list[str]:
    change(save(place.work / "saved"), place)
    return train("saved", *PICTURES)


def _json(name: str, edit: Callable[[dict[str, Any]], object]) -> Change:
    def change(folder: Path, _: Place) -> None:
        content = json.loads((folder / name).read_text())
        edit(content)
        (folder / name).write_text(json.dumps(content))

    return change


def _climb(folder: Path, place: Place) -> None:
    """Move the file of rows out of the folder, and point to it."""
    (rows,) = folder.glob("*.arrow")
    shutil.move(rows, place.outside / "x.arrow")
    _json("state.json", lambda state: state.update(_data_files=[{"filename": "../../outside/x.arrow"}]))(folder, place)


def _script(folder: Path, place: Place) -> None:
    (folder / "saved.py").write_text(f"open({str(place.ran)!r}, 'w')\n")
    (folder / "state.json").unlink()


def _bytes(name: str, content: bytes) -> Change:
    return lambda folder, _: (folder / name).write_bytes(content)


_FEATURE = {"image": {"_type": "os.system", "command": "touch RAN"}}
_FILES: tuple[tuple[str, str, Change, str, str], ...] = (
    ("D00", "a whole folder", lambda *_: None, "right", "silent"),
    ("D01", "a script in place of the rows", _script, "refused", "silent"),
    ("D02", "a feature of another type", _json("dataset_info.json", lambda info: info.update(features=_FEATURE)),
     "refused", "silent"),
    ("D05", "state.json: brackets", _bytes("state.json", b"[" * 100_000), "refused", "silent"),
    ("D06", "garbage in place of the rows", lambda folder, _: next(folder.glob("*.arrow")).write_bytes(b"\xff" * 999),
     "refused", "silent"),
    ("D07", "rows that are cut off",
     lambda folder, _: next(folder.glob("*.arrow")).write_bytes(next(folder.glob("*.arrow")).read_bytes()[:3000]),
     "refused", "silent"),
    ("D08", "escape sequences in the name of the file of rows",
     _json("state.json", lambda state: state.update(_data_files=[{"filename": f"{ESCAPES}x.arrow"}])), "refused",
     "silent"),
    ("D09", "state.json: ../ in the name of the file of rows", _climb, "refused", "read outside"),
    ("D10", "state.json: a number", _bytes("state.json", b"5"), "refused", "silent"),
    ("D11", "dataset_info.json: a list", _bytes("dataset_info.json", b"[]"), "either", "silent"),
)  # fmt: skip
CASES = [
    Case(
        id=name,
        what=f"Hugging Face: {what}",
        build=partial(_changed, change),
        expect=expect,
        wrong=wrong,
        needs="datasets",
    )
    for name, what, change, expect, wrong in _FILES
]
