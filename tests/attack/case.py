"""What a case is, and the verdict on how its command ended."""

import os
import re
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from place import Place
from watch import MEMORY, Outcome, Watched

VERDICTS = (
    "ok", "code ran", "written outside", "read outside", "deleted", "hang", "memory", "traceback", "silent",
    "escape sequences", "killed", "listening",
)  # fmt: skip
SECONDS = 15.0
_ANNOUNCED = re.compile(
    r": its config\.json names the images, in "
    r"|: \d[\d,]* of its (files lies? outside of it|pictures are files of their own), "
)
IMPORTS = 25.0  # seconds more for an interpreter of its own, on a busy machine


@dataclass(frozen=True, kw_only=True)
class Case:
    """One input, and what must become of it.

    Args:
        id: as in the report of the attack, where it was there.
        what: the input, in a few words.
        build: makes the input in a place, and gives the command: "fastvae" or "python", and arguments.
        expect: "refused" is status 2 and one line; "right" is status 0; either may do.
        check: of a command that was not refused: what is wrong, or None.
        wrong: the verdict where something is, or where what had to be refused was not.
        during: called again and again while the command runs, until it returns True.
        quick: one of the sample that the tests run.
        needs: a package without which the case is skipped.
        fresh: start an interpreter, as a shell does; else the command is called in a forked process.
    """

    id: str
    what: str
    build: Callable[[Place], Sequence[str]]
    expect: Literal["refused", "right", "either"] = "refused"
    check: Callable[[Place, Outcome], str | None] | None = None
    wrong: str = "silent"
    during: Callable[[Place, Watched], bool] | None = None
    quick: bool = False
    needs: str = ""
    fresh: bool = False
    seconds: float = SECONDS

    @property
    def is_missing(self) -> bool:
        """Whether its package is not installed."""
        return bool(self.needs) and find_spec(self.needs) is None

    def verdict(self, place: Place) -> tuple[str, str, float]:
        """Run it: a verdict, what happened, and the seconds that it took."""
        command = self.build(place)
        before = place.snapshot()
        fresh = self.fresh or command[0] != "fastvae"
        watched = Watched(place, command, fresh=fresh)
        outcome = watched.end(self.seconds + (IMPORTS if fresh else 0), self.during)
        return (*self._judged(place, outcome, before), outcome.seconds)

    def _judged(self, place: Place, outcome: Outcome, before: dict[str, str]) -> tuple[str, str]:
        said = outcome.stdout + outcome.stderr
        after, status = place.snapshot(), outcome.status
        for verdict, words in (
            ("code ran", place.ran.exists() and f"it made the file RAN: {_read(place)}"),
            ("deleted", _names(before.keys() - after.keys())),
            ("written outside", _names(name for name in after if after[name] != before.get(name))),
            ("memory", outcome.peak > MEMORY and f"{outcome.peak / 2**30:.1f} GiB"),
            ("hang", outcome.stopped == "hang" and f"stopped after {outcome.seconds:.0f} s"),
            ("traceback", "Traceback (most recent call last)" in said and said.rstrip().rpartition("\n")[2]),
            ("killed", status < 0 and f"by {signal.Signals(-status).name}: {outcome.stderr[:300]}"),
            ("escape sequences", not _is_clean(said) and "characters that cannot be printed reach the terminal"),
        ):
            if words:
                return verdict, f"status {status}: {words}"
        # What draws progress may end an empty line; files that a run names are said before they are read.
        lines = [line for line in outcome.stderr.split("\n") if line and not _ANNOUNCED.search(line)]
        if status == 2 and len(lines) == 1 and lines[0].startswith("fastvae: error: "):
            refused = f"status 2: {lines[0].removeprefix('fastvae: error: ')}"
            return (self.wrong, refused) if self.expect == "right" else ("ok", refused)
        if status != 0:
            return "traceback", f"status {status}, {len(lines)} lines: {' | '.join(lines[-2:])}"
        if self.expect == "refused":
            return self.wrong, "status 0: was not refused"
        complaint = self.check(place, outcome) if self.check is not None else None
        seen = "; ".join(sorted(set(place.notes)))
        return (self.wrong, f"status 0: {complaint}") if complaint else ("ok", f"status 0 {seen}".rstrip())


def _is_clean(text: str) -> bool:
    return all(character.isprintable() or character == "\n" for character in text)


def _names(names) -> str:
    return ", ".join(sorted(names))


def _read(place: Place) -> str:
    return place.ran.read_text(errors="replace")[:60] if os.path.isfile(place.ran) else "(no file)"
