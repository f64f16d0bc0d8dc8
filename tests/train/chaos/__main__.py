"""Break runs in every known way, go on, and compare with one that nothing happened to: `make chaos`.

What must hold of every trial: the fault befalls the run, else another run is broken at another moment; the run ends as
is documented; the same command with --resume ends it well; its weights, optimiser state, noise and sums are then those
of the undisturbed run, to the bit; and every checkpoint that was written can be read, but for those that the trial
itself damages.
"""

import json
import platform
import random
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro
from faults import ALONE, OF_THREE, THREE
from rich import box
from rich.console import Console
from rich.table import Table
from trial import MissedError, Run, Trial, learnt, readable

from fastvae.utils.machine import device_name

ATTEMPTS = 20  # of one trial, until its fault befalls a run


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Break runs of `fastvae train` on the embedded digits, and go on with them. Status 1 if one did not survive."""

    kills: int = 50
    """Of one process with SIGKILL, at random moments."""
    others: int = 4
    """Trials of each other fault."""
    three: int = 2
    """Trials of each fault of three processes."""
    seed: int = 0
    """Decides the moments, as far as the machine lets it."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Keep the table's figures."""


@dataclass
class Tally:
    """What became of one kind of fault. bytes_lost: of checkpoints that nobody damaged and that cannot be read."""

    fault: str
    tried: int = 0
    survived: int = 0
    bytes_lost: int = 0
    failures: list[str] = field(default_factory=list)


def main(settings: Settings) -> int:
    """Carry out all trials, and print the table."""
    console, dice, started = Console(highlight=False, soft_wrap=True), random.Random(settings.seed), time.monotonic()
    tallies = []
    with tempfile.TemporaryDirectory(prefix="fastvae-chaos-") as name:
        for kind, (faults, flags) in enumerate(((ALONE, ()), (OF_THREE, THREE))):
            counts = [settings.three if flags else settings.others] * len(faults)
            if not flags:
                counts[0] = settings.kills
            if not any(counts):
                continue
            undisturbed = Path(name) / f"undisturbed-{kind}"
            begun = time.monotonic()
            run = Run(undisturbed, flags)
            if run.end() != 0:
                raise SystemExit(run.log.read_text())
            seconds, expected = time.monotonic() - begun, learnt(undisturbed)
            console.print(f"undisturbed{' ' if flags else ''}{' '.join(flags)}: {seconds:.1f} s")
            for (fault, happen), count in zip(faults.items(), counts, strict=True):
                tally = Tally(fault)
                tallies.append(tally)
                for number in range(count):
                    folder = f"{name}/{happen.__name__}-{number}"
                    tally.tried += 1
                    try:
                        trials = (Trial(Path(f"{folder}-{n}"), flags, dice, seconds) for n in range(ATTEMPTS))
                        missed = land(trials, happen, expected, tally)
                        tally.survived += 1
                        if missed:
                            console.print(f"{fault}: tried {missed} times more, as it befell nothing")
                    except Exception as error:
                        tally.failures.append(f"{type(error).__name__}: {error}")
                        console.print(f"{fault}: {tally.failures[-1]}", style="red", markup=False)
    console.print(table(tallies))
    console.print(f"{time.monotonic() - started:.0f} s")
    if settings.json:
        of = {
            "device": device_name(torch.device("cpu")),
            "torch": torch.__version__,
            "python": platform.python_version(),
        }
        settings.json.write_text(json.dumps({**of, "faults": [asdict(tally) for tally in tallies]}, indent=1) + "\n")
    return int(any(tally.failures for tally in tallies))


def land(trials: Iterable[Trial], happen, expected: dict[str, bytes], tally: Tally) -> int:
    """Take one trial after the other until the fault befalls its run. Returns how many it missed."""
    missed = 0
    for trial in trials:
        if survive(trial, happen, expected, tally):
            return missed
        missed += 1
    raise AssertionError(f"the fault befell none of {missed} runs")


def survive(trial: Trial, happen, expected: dict[str, bytes], tally: Tally) -> bool:
    """Let the fault happen, go on, and compare. Returns whether it befell the run."""
    landed = True
    try:
        happen(trial)
    except MissedError:
        landed = False  # what follows holds all the same
    written = sum(path.stat().st_size for path in trial.folder.glob("checkpoints/step-*.safetensors"))
    lost = written - sum(path.stat().st_size for path in readable(trial.folder)) - trial.damaged
    tally.bytes_lost += max(lost, 0)
    run = trial.start()
    status = run.end()
    assert status == 0, run.log.read_text()
    assert not list(trial.folder.rglob("*.partial")), "something half written is left"
    found = learnt(trial.folder)
    different = [name for name in expected if found.get(name) != expected[name]]
    assert found.keys() == expected.keys()
    assert not different, f"other bits in {', '.join(different)}"
    assert lost <= 0, f"{lost} bytes of checkpoints cannot be read"
    return landed


def table(tallies: list[Tally]) -> Table:
    """Faults, and what became of them."""
    columns = Table("fault", "tried", "survived", "bytes lost", box=box.SIMPLE, pad_edge=False)
    for tally in tallies:
        columns.add_row(tally.fault, str(tally.tried), str(tally.survived), str(tally.bytes_lost))
    return columns


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings, description=__doc__)))
