"""A run's steps by replay of CUDA graphs, where they can be captured."""

import time

from fastvae.data import Loader
from fastvae.train.checkpoint.rng import preserve_rng_state
from fastvae.train.engine import Engine
from fastvae.utils.terminal import Terminal

from .step_graphs import StepGraphs


class Replay:
    """The graphs of a run's steps: captured before its first step, and again after the model has changed.

    Args:
        enabled: False for a run that launches all of its steps from Python.
    """

    def __init__(self, engine: Engine, loader: Loader, console: Terminal, *, enabled: bool) -> None:
        self._engine = engine
        self._loader = loader
        self._console = console
        self._is_due = enabled
        self._graphs: StepGraphs | None = None
        self.capture_s = 0.0  # seconds of capturing, without tracing and compiling

    def prepare(self) -> None:
        """Capture the steps, if that is due and possible on every rank. Collective.

        torch's generators are restored: the warm-up must not change what the run draws.
        """
        if not self._is_due:
            return
        self._is_due = False
        started = time.perf_counter()
        traced = self._engine.startup_s
        with preserve_rng_state(self._engine.world.device):
            self._graphs = StepGraphs.where_possible(self._engine, self._loader, self._tell)
        if self._engine.world.any(self._graphs is None):  # ranks have to meet in collectives after the same steps
            self.release()
        else:
            self.capture_s += time.perf_counter() - started - (self._engine.startup_s - traced)

    def _tell(self, why: str) -> None:
        self._console.print(f"fastvae: {why}", markup=False)

    def fitting(self, limit: int) -> int:
        """Return the steps of the largest graph within ``limit`` and the epoch's remaining full batches, or 0."""
        return 0 if self._graphs is None else self._graphs.fitting(limit)

    def run(self, steps: int) -> None:
        """Take ``steps`` steps, a number above 0 that :meth:`fitting` gave."""
        assert self._graphs is not None
        self._graphs.run(steps)

    def recheck(self) -> None:
        """Drop the graphs if the caller's code has changed the model's steps; :meth:`prepare` makes new ones."""
        if self._graphs is not None and not self._graphs.still_hold(self._engine, self._loader.fetch(0)):
            self.release()
            self._is_due = True

    def release(self) -> None:
        """Release the graphs, if there are any."""
        if self._graphs is not None:
            self._graphs.release()
            self._graphs = None
