"""An attack case, and the verdict on its outcome."""

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
IMPORTS = 25.0  # more seconds for a fresh interpreter, on a busy machine


@dataclass(frozen=True, kw_only=True)
class Case:
    """A hostile input and the outcome that is right for it.

    Args:
        id: name of the case, the same as in the report of the first attack.
        what: short description of the input.
        build: makes the input in a place and returns the command: "fastvae" or "python", and its arguments.
        expect: "refused" means status 2 and one line, "right" means status 0, and "either" allows both.
        check: called if the command was not refused; returns a description of what is wrong, or None.
        wrong: the verdict if ``check`` finds something, or if the outcome is not as expected.
        during: called repeatedly while the command runs, until it returns True.
        quick: True if the case belongs to the sample that the tests run.
        needs: a package without which the case is skipped.
        fresh: start a new interpreter, as a shell does; otherwise the command runs in a forked process.
        seconds: time limit of the command.
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
        """True if the case needs a package that is not installed."""
        return bool(self.needs) and find_spec(self.needs) is None

    def verdict(self, place: Place) -> tuple[str, str, float]:
        """Run the case. Returns a verdict, a description of what happened, and the seconds that it took."""
        command = self.build(place)
        before = place.snapshot()
        fresh = self.fresh or command[0] != "fastvae"
        watched = Watched(place, command, fresh=fresh)
        outcome = watched.end(self.seconds + (IMPORTS if fresh else 0), self.during)
        return (*self._judged(place, outcome, before), outcome.seconds)

    def _judged(self, place: Place, outcome: Outcome, before: dict[str, str]) -> tuple[str, str]:
        said = outcome.stdout + outcome.stderr
        after = place.snapshot()
        status = outcome.status
        for verdict, words in (
            ("code ran", place.ran.exists() and f"it made the file RAN: {_read(place)}"),
            ("deleted", _names(before.keys() - after.keys())),
            ("written outside", _names(name for name in after if after[name] != before.get(name))),
            ("memory", outcome.peak > MEMORY and f"{outcome.peak / 2**30:.1f} GiB"),
            ("hang", outcome.stopped == "hang" and f"stopped after {outcome.seconds:.0f} s"),
            ("traceback", "Traceback (most recent call last)" in said and said.rstrip().rpartition("\n")[2]),
            ("killed", status < 0 and f"by {signal.Signals(-status).name}: {outcome.stderr[:300]}"),
            ("escape sequences", not _is_clean(said) and "unprintable characters reach the terminal"),
        ):
            if words:
                return verdict, f"status {status}: {words}"
        # A progress bar may leave an empty line, and files that a run names are announced before they are read.
        lines = [line for line in outcome.stderr.split("\n") if line and not _ANNOUNCED.search(line)]
        if status == 2 and len(lines) == 1 and lines[0].startswith("fastvae: error: "):
            refused = f"status 2: {lines[0].removeprefix('fastvae: error: ')}"
            return (self.wrong, refused) if self.expect == "right" else ("ok", refused)
        if status != 0:
            return "traceback", f"status {status}, {len(lines)} lines: {' | '.join(lines[-2:])}"
        if self.expect == "refused":
            return self.wrong, "status 0: it was not refused"
        complaint = self.check(place, outcome) if self.check is not None else None
        seen = "; ".join(sorted(set(place.notes)))
        return (self.wrong, f"status 0: {complaint}") if complaint else ("ok", f"status 0 {seen}".rstrip())


def _is_clean(text: str) -> bool:
    return all(character.isprintable() or character == "\n" for character in text)


def _names(names) -> str:
    return ", ".join(sorted(names))


def _read(place: Place) -> str:
    return place.ran.read_text(errors="replace")[:60] if os.path.isfile(place.ran) else "(no file)"
