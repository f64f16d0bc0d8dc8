"""What the settings leave open, chosen for the machine: the type of the products, and how a step is run.

The trial times the engine itself on the run's own batches, in CUDA graphs where the run has them, all candidates in
turns, so that a machine that slows down slows all of them. The choice is kept by machine, versions, network and batch:
the next run makes the same one at once.
"""

import contextlib
import copy
import hashlib
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from fastvae.data import Batch, OrderedLoader, ResidentLoader
from fastvae.data.sources.files import cache_folder
from fastvae.models import VAE, Preset
from fastvae.train.checkpoint.rng import preserve_rng_state
from fastvae.train.config import ResolvedConfig, SettledConfig, SettledExecution, SettledPrecision, settle
from fastvae.train.config.plan import plan
from fastvae.train.cuda_graph import STEPS, CaptureError, Replay, can_replay
from fastvae.train.distributed.world import World
from fastvae.train.engine import Engine
from fastvae.utils.files import own_folder, read_json, write_text
from fastvae.utils.machine import device_name
from fastvae.utils.settings import marked
from fastvae.utils.version import __version__

_TURNS, _STEPS = 7, 5  # of each candidate, and the steps in one
_SECONDS = 5.0  # after which no further turn begins, for networks with long steps
# Seconds of a run. On a CPU, compiling takes 3 to 8 s for each shape of a batch, and an epoch has two, but only the
# first time (Inductor keeps its work); it saves 7 to 17 % of a step (measured: leaky, batch 100 and 1024, 2-core EPYC).
# NOT YET MEASURED ON A GPU, where replays take the launches that compiling would save.
_WORTH_COMPILING = 60.0
_TIE = 0.97  # traced steps stay unless another way takes less than this of their time


@dataclass(frozen=True)
class Choice:
    """A candidate, the milliseconds that its step took (none in a fixed choice), and what to tell about it."""

    precision: SettledPrecision
    execution: SettledExecution
    milliseconds: dict[str, float]
    source: str

    def apply(self, config: ResolvedConfig) -> SettledConfig:
        """Return the configuration with this choice of precision and execution."""
        return settle(config, self.precision, self.execution)

    def __str__(self) -> str:
        times = ", ".join(f"{name} {value:.2f} ms" for name, value in self.milliseconds.items())
        return f"{self.precision}, {self.execution} ({self.source}{': ' if times else ''}{times})"


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the device multiplies matrices in bf16 by instructions of its own."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def fixed(config: ResolvedConfig, device: torch.device) -> Choice:
    """The choice without a trial."""
    precision = config.precision
    if precision == "auto":
        precision = "bf16" if has_fast_bf16(device) else "fp32"
    return Choice(precision, _executions(config)[-1], {}, "fixed")


def _executions(config: ResolvedConfig) -> list[SettledExecution]:
    """What is open to be tried, the fixed choice last."""
    if config.execution != "auto":
        return [config.execution]
    if config.parallel == "fsdp":  # a trace has whole weights
        return ["eager"]
    return ["eager", "traced"]  # compiled is tried where the run is long enough to earn what it takes


def choose(
    config: ResolvedConfig, model: VAE, recipe: Preset, loader: OrderedLoader, steps: int, world: World
) -> Choice:
    """The fastest candidate for a run of so many steps: from the cache, or by a trial that leaves no trace."""
    has_bf16 = world.broadcast_object(has_fast_bf16(world.device))  # machines, and their caches, may differ
    precisions: list[SettledPrecision] = ["fp32", "bf16"] if has_bf16 else ["fp32"]
    if config.precision != "auto":
        precisions = [config.precision]
    executions = _executions(config)
    candidates = list(itertools.product(precisions, executions))
    if len(candidates) == 1 and len(executions) == 1:
        return Choice(*candidates[0], {}, "asked for")
    batch = loader.fetch(0)
    key = _key(config, model, batch, loader, steps, world)
    known = _known(world.broadcast_object(_read().get(key) if world.is_rank_0 else None), precisions)
    if known is not None:
        return known

    def turn(precision: SettledPrecision, execution: SettledExecution) -> _Turn:
        settings = settle(config, precision, execution)
        engine = Engine(copy.deepcopy(model), settings, recipe, world, plan(config, len(loader)), loader.count)
        replays = config.replay == "auto" and isinstance(loader, ResidentLoader) and can_replay(engine, loader)
        return _Turn(engine, batch, replays)

    times = _time(candidates, turn, world)
    fastest = _fastest(times)
    if len(executions) > 1 and not config.deterministic and times[fastest] * steps > _WORTH_COMPILING:
        compiled: _Candidate = (fastest[0], "compiled")
        again = _time([fastest, compiled], turn, world)
        if again.keys() >= {fastest, compiled}:
            times[compiled] = again[compiled] * times[fastest] / again[fastest]
    precision, execution = _fastest(times)
    shown = {f"{p} {e}": round(1e3 * seconds, 3) for (p, e), seconds in times.items()}
    if world.is_rank_0:
        _keep(key, {"precision": precision, "execution": execution, "milliseconds": shown})
    return Choice(precision, execution, shown, "by trial")


_Candidate = tuple[SettledPrecision, SettledExecution]


def _fastest(times: dict[_Candidate, float]) -> _Candidate:
    return min(times, key=lambda candidate: times[candidate] * (_TIE if candidate[1] == "traced" else 1.0))


class _Again:
    """The same batch again and again, as a :class:`fastvae.train.cuda_graph.Replay` takes batches."""

    def __init__(self, batch: Batch) -> None:
        self._batch, self.batch_size = batch, batch.rows
        self.place = torch.zeros((), dtype=torch.int64, device=batch.images.device)

    def follow(self) -> Batch:
        return self._batch

    def full_steps_left(self) -> int:
        return STEPS

    def skip(self, steps: int) -> None:
        """Stay there."""


class _Turn:
    """Some steps of an engine over one batch: as the run takes them, in one replay where it can."""

    def __init__(self, engine: Engine, batch: Batch, replays: bool) -> None:
        self._engine, self._batch, self._replays = engine, batch, replays
        self._replay: Replay | None = None
        self.steps = STEPS if replays else _STEPS

    def __call__(self) -> None:
        if self._replays and self._replay is None:  # in the turn that warms up
            try:
                self._replay = Replay.on_cuda(self._engine, _Again(self._batch), [STEPS])
            except CaptureError:  # as the run will find, and say
                self._replays = False
        if self._replay is not None:
            self._replay.run(STEPS)
            return
        for _ in range(self.steps):
            self._engine.train_step(self._batch)

    def release(self) -> None:
        """Let the captured steps go."""
        if self._replay is not None:
            self._replay.release()


def _time(
    candidates: list[_Candidate], make: Callable[[SettledPrecision, SettledExecution], _Turn], world: World
) -> dict[_Candidate, float]:
    """The seconds of a step in the fastest turn (what disturbs one only adds to it), averaged over the processes.

    A candidate that raises is left out, unless all do, or others wait for it.
    """
    with preserve_rng_state(world.device):  # a model may draw from torch's generator
        return _race(candidates, make, world)


def _race(
    candidates: list[_Candidate], make: Callable[[SettledPrecision, SettledExecution], _Turn], world: World
) -> dict[_Candidate, float]:
    turns = dict[_Candidate, _Turn]()
    wait: Callable[[], None] = torch.cuda.synchronize if world.device.type == "cuda" else lambda: None
    try:
        for candidate in candidates:
            try:
                turns[candidate] = make(*candidate)
                turns[candidate]()  # warms up, compiles and captures
                wait()
            except Exception:  # a model's own code may raise anything; a device may be full
                if world.size > 1:  # the others are in a sum
                    raise
                if candidate in turns:
                    turns.pop(candidate).release()
        if not turns:
            make(*candidates[0])()  # raises as it did, with its traceback
        return _in_turns(turns, wait, world)
    finally:
        for turn in turns.values():
            turn.release()


def _in_turns(turns: dict[_Candidate, _Turn], wait: Callable[[], None], world: World) -> dict[_Candidate, float]:
    times: dict[_Candidate, list[float]] = {candidate: [] for candidate in turns}
    end = time.perf_counter() + _SECONDS
    for number in range(_TURNS):
        if number and world.any(time.perf_counter() > end):
            break
        for candidate, turn in turns.items():
            wait()
            started = time.perf_counter()
            turn()
            wait()
            times[candidate].append((time.perf_counter() - started) / turn.steps)
    fastest = torch.tensor([min(values) for values in times.values()], device=world.device)
    world.all_reduce(fastest)  # so that all processes choose alike
    return dict(zip(times, (fastest / world.size).tolist(), strict=True))


def _key(config: ResolvedConfig, model: VAE, batch: Batch, loader: OrderedLoader, steps: int, world: World) -> str:
    what = (
        device_name(world.device), torch.get_num_threads(), torch.__version__, __version__, world.size,
        repr(model), batch.images.dtype, tuple(batch.images.shape[1:]), type(loader).__name__, steps.bit_length(),
        [(name, _ordered(getattr(config, name))) for name in marked(config, "affects_speed")],
    )  # fmt: skip
    return hashlib.sha256(repr(what).encode()).hexdigest()[:16]


def _ordered(value: object) -> object:
    return sorted(value.items()) if isinstance(value, dict) else value


def _known(kept: Any, precisions: list[SettledPrecision]) -> Choice | None:
    """The choice of an earlier trial; None if there was none, or if :func:`_keep` did not write it."""
    if not isinstance(kept, dict):
        return None
    times = kept.get("milliseconds")
    if not isinstance(times, dict) or not all(isinstance(time, float | int) for time in times.values()):
        return None
    for precision, execution in itertools.product(precisions, get_args(SettledExecution)):
        if (kept.get("precision"), kept.get("execution")) == (precision, execution):
            return Choice(precision, execution, times, "from an earlier trial")
    return None


def _file() -> Path:
    return own_folder(cache_folder()) / "autotune.json"


def _read() -> dict[str, Any]:
    """All that is kept. What cannot be read, or that somebody else could have written, counts as nothing."""
    with contextlib.suppress(OSError, ValueError):
        content = read_json(_file())
        if isinstance(content, dict):
            return content
    return {}


def _keep(key: str, value: dict[str, object]) -> None:
    # A cache: where it can't be written, the next run tries again.
    with contextlib.suppress(OSError):
        write_text(_file(), json.dumps({**_read(), key: value}, indent=2) + "\n")
