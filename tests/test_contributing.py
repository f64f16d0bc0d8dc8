"""The map of the rooms in CONTRIBUTING.md names files and folders that exist, and leaves out no room."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
MAP = TEXT[TEXT.index("| to change ...") : TEXT.index("Imports point one way")]


def test_every_path_of_the_map_exists() -> None:
    paths = re.findall(r"`([\w/.]+(?:/|\.py))`", MAP)
    assert len(paths) > 20
    for path in paths:
        assert (ROOT / path).exists() or (ROOT / "fastvae" / path).exists(), path


def test_every_room_is_on_the_map() -> None:
    rooms = {str(path.parent.relative_to(ROOT / "fastvae")) for path in (ROOT / "fastvae").glob("**/__init__.py")}
    missing = {room for room in rooms - {"."} if f"`{room}/" not in MAP and not room.startswith("bench/")}
    assert missing <= {"data", "train", "train/step"}, missing


def test_the_scripts_that_it_calls_exist() -> None:
    for path in re.findall(r"(?:benchmarks|tests)/[\w/]+\.py", TEXT):
        assert (ROOT / path).exists() or path.endswith("_X.py"), path
