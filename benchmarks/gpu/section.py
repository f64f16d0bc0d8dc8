"""What a section is given, what it leaves behind, and the process that runs one (started by driver.py)."""

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
MOST_FAILURES = 30  # that are kept by name
FASTVAE = (
    "import sys; from fastvae.cli import run; sys.exit(run(sys.argv[1:]))"  # the command, wherever it is installed
)


@dataclass(frozen=True)
class Order:
    """What the driver tells a section's process.

    folder: of the section, empty. dry: on the CPU, with small sizes. data_dir: of MNIST, or None. limit: seconds until
    the process is killed.
    """

    name: str
    folder: str
    dry: bool
    data_dir: str | None
    limit: float


class Section:
    """A section that runs: its order, and what it has found so far, which is written at every change."""

    def __init__(self, order: Order) -> None:
        self.dry, self.folder = order.dry, Path(order.folder)
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
        """For the commands."""
        return ["--data", self.data, *([] if self.data_dir is None else ["--data-dir", self.data_dir])]

    @property
    def device_flags(self) -> list[str]:
        return ["--device", "cpu" if self.dry else "cuda"]

    def seconds_left(self) -> float:
        """Before the section is killed. Sections with much to do stop in time, and say how far they came."""
        return self._end - time.monotonic()

    def keep(self, **figures: Any) -> None:
        """Add to the figures. A section that is killed leaves those that it kept before."""
        self.figures |= figures
        self._write("")

    def fail(self, failure: str) -> None:
        """Note what is wrong; the section goes on."""
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
        """Start a command, whose output goes to NAME.log in the section's folder."""
        log = self.folder / f"{name}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                command, cwd=self.folder, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **environment}
            )
        return Command(name, process, log)

    def fastvae(self, name: str, *arguments: str) -> "Command":
        """Start ``fastvae ARGUMENTS``."""
        return self.start(name, [sys.executable, "-c", FASTVAE, *arguments])


class Done(NamedTuple):
    """An exit status, and all that was printed."""

    status: int
    text: str

    @property
    def last_line(self) -> str:
        lines = self.text.strip().splitlines()
        return lines[-1] if lines else ""


class Command(NamedTuple):
    """A command that runs."""

    name: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def wait(self) -> Done:
        status = self.process.wait()
        return Done(status, self.log.read_text(errors="replace"))


def of_tests(module: str) -> types.ModuleType:
    """A module of tests/, such as "ops.cases"; they are no package that is installed."""
    package = types.ModuleType("tests")
    package.__path__ = [str(ROOT / "tests")]
    sys.modules.setdefault("tests", package)
    return importlib.import_module(f"tests.{module}")


def command(order: Order) -> list[str]:
    """What runs a section; its process needs ``benchmarks`` on its path."""
    return [sys.executable, "-m", "gpu.section", json.dumps(asdict(order))]


def main() -> None:
    order = Order(**json.loads(sys.argv[1]))
    if order.dry:
        os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported
    section = Section(order)
    section.finish(importlib.import_module(f"gpu.{order.name}").run(section))


if __name__ == "__main__":
    main()
