"""Hostile run folders: links that lead out of them."""

import os
import shutil
from functools import partial

from case import Case
from inputs import link
from place import Place
from undisturbed import RESUME

SAMPLE = ("fastvae", "sample", "run", "--count", "4")
RECONSTRUCT = ("fastvae", "reconstruct", "run", "--count", "4")
_LINKS = (
    ("S01", "lock", RESUME),
    ("S02", "config.json.partial", RESUME),
    ("S03", "metrics.jsonl", RESUME),
    ("S04", "metrics.jsonl.partial", RESUME),
    ("S05", "samples.png", SAMPLE),
    ("S06", "reconstructions.png", RECONSTRUCT),
    ("S07", "loss.png", RESUME),
    ("S08", "checkpoints/step-000000048.partial", RESUME),
    ("S09", "checkpoints/best.partial", RESUME),
    ("S10", "checkpoints/best.safetensors", RESUME),
    ("S12", "config.json", RESUME),
    ("S13", "samples.png.partial", SAMPLE),
)


def _build(name: str, command: tuple[str, ...], hard: bool, place: Place) -> tuple[str, ...]:
    path = place.copy_run() / name
    if hard:
        path.unlink(missing_ok=True)
        os.link(place.victim, path)
    else:
        link(path, place.victim)
    return command


def _folder(place: Place) -> tuple[str, ...]:
    """Make the checkpoints folder a link to somebody else's folder, with other files in it."""
    run = place.copy_run()
    there = place.outside / "thesis"
    shutil.move(run / "checkpoints", there)
    (there / "thesis.partial").write_text("precious\n")
    (newest,) = there.glob("step-*.safetensors")
    for step in range(1, 6):
        shutil.copy(newest, there / f"step-{step:09}.safetensors")
    (run / "checkpoints").symlink_to(there)
    return RESUME


def _events(place: Place) -> tuple[str, ...]:
    """Replace the run's TensorBoard files by links."""
    for path in place.copy_run().glob("events.out.*"):
        link(path, place.victim)
    return RESUME


def _is_png(name: str, place: Place, _: object) -> str | None:
    """Check that a PNG that was written is a file of the run."""
    path = place.work / "run" / name
    return None if path.is_file() and not path.is_symlink() else f"{name} is still a link"


CASES = [
    *(
        Case(
            id=name,
            what=f"{path} is a link; {command[1]}",
            build=partial(_build, path, command, False),
            expect="either",
            wrong="written outside",
            check=partial(_is_png, path) if path.endswith(".png") else None,
            quick=name in {"S01", "S05", "S08"},
        )
        for name, path, command in _LINKS
    ),
    *(
        Case(id=f"{name}h", what=f"{path} is a hard link", build=partial(_build, path, command, True), expect="either")
        for name, path, command in _LINKS
        if name not in {"S03", "S12"}  # they must hold what a run wrote
    ),
    Case(id="S11", what="checkpoints is a link to a folder of files", build=_folder, expect="either", wrong="deleted"),
    Case(id="S14", what="TensorBoard's files are links", build=_events, expect="either"),
]
