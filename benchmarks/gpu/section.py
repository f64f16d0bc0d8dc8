"""A section of ``make gpu``: its order from the driver, its results, and the process that runs it."""

import importlib
import json
import os
import subprocess
import sys
import time
import types
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).resolve().parents[2]
RESULT, LOG = "result.json", "log.txt"
MOST_FAILURES = 30  # kept by name; the rest are counted
FASTVAE = (
    "import sys; from fastvae.cli import run; sys.exit(run(sys.argv[1:]))"  # the command, wherever it is installed
)


@dataclass(frozen=True)
class Order:
    """The driver's order to the process of a section.

    Attributes:
        name: name of the section and of its module.
        folder: the section's own empty folder.
        dry: True to run on the CPU with small sizes.
        data_dir: folder with MNIST, or None.
        limit: seconds until the process is killed.
    """

    name: str
    folder: str
    dry: bool
    data_dir: str | None
    limit: float


class Section:
    """A running section: its order and its results so far, which are written at every change."""

    def __init__(self, order: Order) -> None:
        self.dry = order.dry
        self.folder = Path(order.folder)
        self.data_dir = None if order.dry else order.data_dir
        self.figures: dict[str, Any] = {}
        self.failures: list[str] = []
        self._end = time.monotonic() + order.limit

    @cached_property
    def device(self) -> "torch.device":
        import torch  # noqa: PLC0415 -- sections that only start commands do not need it

        return torch.device("cpu") if self.dry else torch.device("cuda", 0)

    @property
    def data(self) -> str:
        return "digits" if self.data_dir is None else "mnist"

    @property
    def data_flags(self) -> list[str]:
        """Flags of fastvae's commands for the data."""
        return ["--data", self.data, *([] if self.data_dir is None else ["--data-dir", self.data_dir])]

    @property
    def device_flags(self) -> list[str]:
        return ["--device", "cpu" if self.dry else "cuda"]

    def seconds_left(self) -> float:
        """Return the seconds until the section is killed. Long sections stop in time, and report how far they came."""
        return self._end - time.monotonic()

    def keep(self, **figures: Any) -> None:
        """Add figures to the results. They survive if the section is killed later."""
        self.figures |= figures
        self._write("")

    def fail(self, failure: str) -> None:
        """Record a failure. The section continues."""
        self.failures.append(" ".join(failure.split())[:300])
        self._write("")

    def finish(self, summary: str) -> None:
        self._write(summary)

    def _write(self, summary: str) -> None:
        count = len(self.failures)
        content = {
            "summary": summary,
            "failures": [
                *self.failures[:MOST_FAILURES],
                *([f"and {count - 30} more"] if count > MOST_FAILURES else []),
            ],
            "figures": self.figures,
        }
        fresh = self.folder / "fresh.json"
        fresh.write_text(json.dumps(content))
        fresh.replace(self.folder / RESULT)

    def start(self, name: str, command: Sequence[str], **environment: str) -> "Command":
        """Start a command. Its output goes to NAME.log in the section's folder."""
        log = self.folder / f"{name}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                command, cwd=self.folder, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **environment}
            )
        return Command(name, process, log)

    def fastvae(self, name: str, *arguments: str) -> "Command":
        """Start the command ``fastvae ARGUMENTS``."""
        return self.start(name, [sys.executable, "-c", FASTVAE, *arguments])


class Done(NamedTuple):
    """Exit status and output of a command that has ended."""

    status: int
    text: str

    @property
    def last_line(self) -> str:
        lines = self.text.strip().splitlines()
        return lines[-1] if lines else ""


class Command(NamedTuple):
    """A running command."""

    name: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def wait(self) -> Done:
        status = self.process.wait()
        return Done(status, self.log.read_text(errors="replace"))


def test_module(module: str) -> types.ModuleType:
    """Import a module of tests/, such as "ops.cases", which is not an installed package."""
    package = types.ModuleType("tests")
    package.__path__ = [str(ROOT / "tests")]
    sys.modules.setdefault("tests", package)
    return importlib.import_module(f"tests.{module}")


def command(order: Order) -> list[str]:
    """Return the command that runs a section. Its process needs ``benchmarks`` in PYTHONPATH."""
    return [sys.executable, "-m", "gpu.section", json.dumps(asdict(order))]


def main() -> None:
    order = Order(**json.loads(sys.argv[1]))
    if order.dry:
        os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported
    section = Section(order)
    section.finish(importlib.import_module(f"gpu.{order.name}").run(section))


if __name__ == "__main__":
    main()
