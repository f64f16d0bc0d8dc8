"""Feed fastvae hostile input, and check that it runs no code, leaves its folder alone and survives.

`make attack`. Each case makes its input in a private folder, starts a command, and judges its end: right is the correct
result, or status 2 and one line on stderr. Then fuzzers read mutated files of every format in processes of this suite.
"""

import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

# Forked processes inherit a pool of threads without its threads, and would wait for them forever; torch.set_num_threads
# would start new ones in each process.
os.environ["OMP_NUM_THREADS"] = "1"

import cases
import fuzz
import tyro
from case import VERDICTS, Case
from place import Place
from rich import box
from rich.console import Console
from rich.table import Table
from undisturbed import make
from watch import end_with_parent

_WHOLE = 210_000  # mutations over all formats
_SAMPLE = 200  # mutations of each format, with --quick


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Attack fastvae. The status is 1 if any case is not ok."""

    only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="PREFIX ...")] = ()
    """Run only cases whose ids begin with one of these."""
    quick: bool = False
    """Run only the sample that the tests run."""
    mutations: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: 210,000)")] = None
    """Number of mutated files over all formats; with --quick, the default is 200 of each format."""
    seed: int = 0
    """Random seed of the mutations."""
    number: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: all)")] = None
    """Read only this mutation of each format, by its number."""
    jobs: int = 2
    """Number of cases or fuzzers that run at once."""
    result: Annotated[Path | None, tyro.conf.arg(metavar="FILE.json")] = None
    """Write the verdicts to this JSON file."""


@dataclass(frozen=True)
class Verdict:
    """The outcome of a case."""

    id: str
    what: str
    verdict: str
    words: str
    seconds: float


def main(settings: Settings) -> int:
    """Run all cases; print those that are not ok, and a table. Returns 1 if there are any, else 0."""
    console = Console(highlight=False, soft_wrap=True, markup=False)
    began = time.monotonic()
    wanted = [case for case in cases.ALL if not settings.quick or case.quick]
    wanted = [case for case in wanted if case.id.startswith(settings.only or ("",))]
    formats = [name for name in fuzz.FORMATS if f"FUZ-{name}".startswith(settings.only or ("",))]
    with tempfile.TemporaryDirectory(prefix="fastvae-attack-") as name:
        templates = make(Path(name) / "templates")
        found = []
        for verdict in _verdicts(wanted, Path(name), templates, settings.jobs):
            found.append(verdict)
            _tell(console, verdict)
        for tally in fuzz.run(_counts(formats, settings), settings.seed, settings.jobs, Path(name), settings.number):
            found.append(Verdict(f"FUZ-{tally.format}", tally.what, *tally.verdict(), tally.seconds))
            _tell(console, found[-1])
    counts = Counter(verdict.verdict for verdict in found)
    table = Table("verdict", "cases", box=box.SIMPLE, pad_edge=False)
    for verdict in (*VERDICTS, *sorted(counts.keys() - VERDICTS)):
        table.add_row(verdict, str(counts[verdict]))
    console.print(table)
    console.print(f"{time.monotonic() - began:.0f} s")
    if settings.result is not None:
        settings.result.write_text(json.dumps([vars(verdict) for verdict in found], indent=1) + "\n")
    return int(any(not _is_ok(verdict) for verdict in found))


def _counts(formats: list[str], settings: Settings) -> dict[str, int]:
    """Return the number of mutations to read of each format."""
    if settings.quick and settings.mutations is None:
        return dict.fromkeys(formats, _SAMPLE)
    wanted = _WHOLE if settings.mutations is None else settings.mutations
    shares = {name: 0.0 if fuzz.FORMATS[name].is_missing else fuzz.FORMATS[name].share for name in formats}
    return {name: math.ceil(wanted * share / (sum(shares.values()) or 1.0)) for name, share in shares.items()}


def _is_ok(verdict: Verdict) -> bool:
    return verdict.verdict == "ok" or verdict.verdict.startswith("skipped")


def _tell(console: Console, verdict: Verdict) -> None:
    if not _is_ok(verdict):
        words = ascii(verdict.words)[1:-1]
        console.print(f"{verdict.id}  {verdict.verdict}: {verdict.what}: {words[:300]} ({verdict.seconds:.0f} s)")


def _verdicts(wanted: list[Case], folder: Path, templates: Path, jobs: int):
    """Yield verdicts as cases end. Each case has a process that builds its input, watches the command and judges it."""
    todo = list(wanted)
    running: dict[int, tuple[Case, Path]] = {}
    while todo or running:
        while todo and len(running) < jobs:
            case = todo.pop(0)
            if case.is_missing:
                yield Verdict(case.id, case.what, f"skipped: {case.needs} is not installed", "", 0.0)
                continue
            root = folder / case.id
            pid = os.fork()
            if pid == 0:
                end_with_parent()
                _judge(case, root, templates)
            running[pid] = case, root
        if running:
            pid, status = os.wait()
            if pid not in running:  # a process left behind by a case whose own process died
                continue
            case, root = running.pop(pid)
            judged = root / "verdict.json"
            words = json.loads(judged.read_text()) if judged.exists() else ("broken", f"the case itself: {status}", 0.0)
            yield Verdict(case.id, case.what, *words)
            shutil.rmtree(root, ignore_errors=True)


def _judge(case: Case, root: Path, templates: Path) -> None:
    status = 1
    try:
        verdict = case.verdict(Place(root, templates))
        (root / "verdict.json").write_text(json.dumps(verdict))
        status = 0
    except Exception:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings, description=__doc__)))
