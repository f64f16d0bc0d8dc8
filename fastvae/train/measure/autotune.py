"""Autotuning: choose precision and execution for the machine, where the settings leave them open.

The trial times the engine itself on the run's own batches, in CUDA graphs if the run will use them. The candidates take
turns, so that a machine that slows down slows all of them. All take the same steps from the same weights, and a
precision whose loss over these steps is worse than fp32's is left out, however fast it is. The choice is cached by
machine, versions, network and batch, unless other programs kept the machine busy: the next run makes the same one at
once. A run of seconds on a CPU has no trial.
"""

import contextlib
import hashlib
import itertools
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from fastvae.data import Batch, Loader, ResidentLoader
from fastvae.models import VAE
from fastvae.models.known import is_known
from fastvae.train.checkpoint.rng import preserve_rng_state
from fastvae.train.config import ResolvedConfig, SettledConfig, SettledExecution, SettledPrecision, settle
from fastvae.train.config.schedules import plan
from fastvae.train.distributed.world import World
from fastvae.train.engine import Engine
from fastvae.train.graphs.step_graphs import can_capture
from fastvae.train.step.copy_model import copy_model
from fastvae.train.step.inductor import compiler_of
from fastvae.utils.files import own_folder, read_json, write_text
from fastvae.utils.machine import OtherLoad, cache_folder, device_name
from fastvae.utils.settings import marked
from fastvae.utils.version import __version__

from .loss_bound import Candidate, losses_too_bad, mean_loss, tell_losses
from .turn import Turn

_TURNS = 7  # of each candidate
_SECONDS = 5.0  # after these no further turn starts, for networks with long steps
# Seconds of a run. On a CPU, compiling takes 3 to 8 s for each batch shape, of which an epoch has two, but only the
# first time (Inductor caches its work); it saves 7 to 17 % of a step (leaky, batch 100 and 1024, 2-core EPYC).
# NOT YET MEASURED ON A GPU, where CUDA graphs already save the launches that compiling would.
_WORTH_COMPILING = 60.0
_WORTH_TRYING = 4.0  # seconds of a run on a CPU, where a trial, and the imports of a traced step, take 3
# Cores that other programs kept busy during a trial, from which on its choice is that of one run. Beside one busy
# program conv28's bf16 steps, whose convolutions wait for each other by spinning, took 276 ms, and fp32's 92; alone 25
# and 37 (2-core EPYC).
_BUSY = 0.25
_TIE = 0.97  # traced wins unless another execution takes less than this share of its time


@dataclass(frozen=True)
class Choice:
    """A precision and an execution, and how they were chosen.

    milliseconds: a step's, for each candidate that was timed.
    source: "chosen without a trial", "from the settings", "by trial", "from an earlier trial", "as in an earlier run"
        (which had none), or why there was none.
    left_out: the precision whose loss was too bad, with the losses, or an empty string.
    """

    precision: SettledPrecision
    execution: SettledExecution
    milliseconds: dict[str, float]
    source: str
    left_out: str = ""

    def apply(self, config: ResolvedConfig) -> SettledConfig:
        """Return the settings with this choice."""
        return settle(config, self.precision, self.execution)

    def __str__(self) -> str:
        times = ", ".join(f"{name} {value:.2f} ms" for name, value in self.milliseconds.items())
        told = f"{self.source}{': ' if times else ''}{times}"
        return f"{self.precision}, {self.execution} ({'; '.join(filter(None, (told, self.left_out)))})"


def has_fast_bf16(device: torch.device) -> bool:
    """Return whether the device has instructions for bf16 matmuls."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def fixed(config: ResolvedConfig, device: torch.device) -> Choice:
    """Return the choice without a trial."""
    precision = config.precision
    if precision == "auto":
        precision = "bf16" if has_fast_bf16(device) else "fp32"
    return Choice(precision, _executions(config)[-1], {}, "chosen without a trial")


def _executions(config: ResolvedConfig) -> list[SettledExecution]:
    """Return the executions to try, the fixed choice last."""
    if config.execution != "auto":
        return [config.execution]
    if config.parallel == "fsdp":  # sharded steps are not traced
        return ["eager"]
    return ["eager", "traced"]  # compiled is tried if the run is long enough to earn it back


def choose(
    config: ResolvedConfig,
    model: VAE,
    loader: Loader,
    steps: int,
    world: World,
    tell: Callable[[str], None] = lambda _: None,
) -> Choice:
    """Choose the fastest candidate for a run of so many steps: from the cache, or by a trial without side effects.

    ``tell`` gets one line before a trial, which takes up to half a minute with a slow model.
    """
    has_bf16 = world.broadcast_object(has_fast_bf16(world.device))  # machines, and their caches, may differ
    precisions: list[SettledPrecision] = ["fp32", "bf16"] if has_bf16 else ["fp32"]
    if config.precision != "auto":
        precisions = [config.precision]
    executions = _executions(config)
    candidates = list(itertools.product(precisions, executions))
    if len(candidates) == 1 and len(executions) == 1:
        return Choice(*candidates[0], {}, "from the settings")
    batch = loader.fetch(0)
    key = _key(config, model, batch, loader, steps, world)
    can_compile = not world.any(compiler_of(world.device) is None)
    known = _known(world.broadcast_object(_read().get(key) if world.is_rank_0 else None), precisions)
    # The bound of bf16's loss was tested with one forward pass; the name of a user's own model does not tell which.
    is_proven = known is not None and (is_known(model) or known.precision == "fp32" or len(precisions) == 1)
    if known is not None and is_proven and (can_compile or known.execution != "compiled"):
        return known
    counted = dict[Candidate, tuple[torch.Tensor, torch.Tensor]]()

    def turn(precision: SettledPrecision, execution: SettledExecution) -> Turn:
        settings = settle(config, precision, execution)
        engine = Engine(_copied(model), settings, world, plan(config, len(loader)), loader.count)
        in_graph = config.replay == "auto" and isinstance(loader, ResidentLoader) and can_capture(engine, loader)
        counted[precision, execution] = (engine.sums, engine.counter.step)  # the engine itself is soon freed
        return Turn(engine, batch, in_graph=in_graph)

    if world.device.type == "cpu":
        seconds = steps * _seconds_of_step(candidates[0], turn, world)
        if seconds < _WORTH_TRYING:
            precision, execution = candidates[0]
            if world.is_rank_0:  # the same run near the limit takes the same step tomorrow
                _keep(key, {"precision": precision, "execution": execution, "milliseconds": {}})
            told = f"without a trial: the run takes about {max(1, round(seconds))} s"
            return Choice(precision, execution, {}, told)
    others = OtherLoad()
    names = ", ".join(f"{precision} {execution}" for precision, execution in candidates)
    later = "; the next run of this length will know" if is_known(model) else ""
    tell(f"fastvae: trying which is the fastest here, {names}: some seconds{later}")
    times = _time(candidates, turn, world)
    losses = {
        candidate: mean_loss(*counted[candidate], batch.rows, world) for candidate in times if candidate in counted
    }
    too_bad = losses_too_bad(losses, math.prod(batch.images.shape[1:]))
    left_out = tell_losses(losses, too_bad)
    times = {candidate: seconds for candidate, seconds in times.items() if candidate not in too_bad}
    fastest = _fastest(times)
    if can_compile and len(executions) > 1 and not config.deterministic and times[fastest] * steps > _WORTH_COMPILING:
        compiled: Candidate = (fastest[0], "compiled")
        again = _time([fastest, compiled], turn, world)
        if again.keys() >= {fastest, compiled}:
            times[compiled] = again[compiled] * times[fastest] / again[fastest]
    precision, execution = _fastest(times)
    shown = {f"{p} {e}": round(1e3 * seconds, 3) for (p, e), seconds in times.items()}
    busy = others.cores(0) if world.size == 1 else None  # the other ranks would pass for other programs
    if world.is_rank_0 and (busy is None or busy < _BUSY):
        _keep(key, {"precision": precision, "execution": execution, "milliseconds": shown})
    return Choice(precision, execution, shown, "by trial", left_out)


class UncopyableError(Exception):
    """A model cannot be copied for a trial: it keeps a lock or an open file, say, or is too large."""


def _copied(model: VAE) -> VAE:
    try:
        return copy_model(model)
    except Exception as error:  # a model's own code may raise anything
        raise UncopyableError from error


def _fastest(times: dict[Candidate, float]) -> Candidate:
    return min(times, key=lambda candidate: times[candidate] * (_TIE if candidate[1] == "traced" else 1.0))


_Maker = Callable[[SettledPrecision, SettledExecution], Turn]


def _time(candidates: list[Candidate], make: _Maker, world: World, turns: int = _TURNS) -> dict[Candidate, float]:
    """Return the seconds of a step in each candidate's fastest turn (disturbances only add), averaged over the ranks.

    A candidate that raises is dropped, unless all raise, or other ranks are waiting in its all-reduce.
    """
    with preserve_rng_state(world.device):  # a model may draw from torch's generator
        return _race(candidates, make, world, turns)


def _seconds_of_step(candidate: Candidate, make: _Maker, world: World) -> float:
    return _time([candidate], make, world, turns=1)[candidate]


def _race(candidates: list[Candidate], make: _Maker, world: World, count: int) -> dict[Candidate, float]:
    turns = dict[Candidate, Turn]()
    wait: Callable[[], None] = torch.cuda.synchronize if world.device.type == "cuda" else lambda: None
    try:
        for candidate in candidates:
            try:
                turns[candidate] = make(*candidate)
                turns[candidate]()  # warms up, compiles and captures
                wait()
            except Exception:  # a model's own code may raise anything; a device may be full
                if world.size > 1:  # the other ranks are waiting in an all-reduce
                    raise
                if candidate in turns:
                    turns.pop(candidate).release()
        if not turns:
            make(*candidates[0])()  # raises again, with its traceback
        return _in_turns(turns, wait, world, count)
    finally:
        for turn in turns.values():
            turn.release()


def _in_turns(
    turns: dict[Candidate, Turn], wait: Callable[[], None], world: World, count: int
) -> dict[Candidate, float]:
    times: dict[Candidate, list[float]] = {candidate: [] for candidate in turns}
    end = time.perf_counter() + _SECONDS
    for number in range(count):
        if number and world.any(time.perf_counter() > end):
            break
        for candidate, turn in turns.items():
            wait()
            started = time.perf_counter()
            turn()
            wait()
            times[candidate].append((time.perf_counter() - started) / turn.steps)
    fastest = torch.tensor([min(values) for values in times.values()], device=world.device)
    world.all_reduce(fastest)  # so that all ranks choose alike
    return dict(zip(times, (fastest / world.size).tolist(), strict=True))


def _key(config: ResolvedConfig, model: VAE, batch: Batch, loader: Loader, steps: int, world: World) -> str:
    what = (
        device_name(world.device), torch.get_num_threads(), torch.__version__, __version__, world.size,
        repr(model), batch.images.dtype, tuple(batch.images.shape[1:]), type(loader).__name__, steps.bit_length(),
        hashlib.sha256(loader.first(8).cpu().contiguous().numpy().tobytes()).hexdigest(),  # bf16 may suit other images
        [(name, _ordered(getattr(config, name))) for name in marked(config, "affects_speed")],
        "short runs untried",  # earlier versions' choices are not taken, as they tried all runs
    )  # fmt: skip
    return hashlib.sha256(repr(what).encode()).hexdigest()[:16]


def _ordered(value: object) -> object:
    return sorted(value.items()) if isinstance(value, dict) else value


def _known(kept: Any, precisions: list[SettledPrecision]) -> Choice | None:
    """Return the cached choice of an earlier trial; None if there is none, or if :func:`_keep` did not write it."""
    if not isinstance(kept, dict):
        return None
    times = kept.get("milliseconds")
    if not isinstance(times, dict) or not all(isinstance(time, float | int) for time in times.values()):
        return None
    for precision, execution in itertools.product(precisions, get_args(SettledExecution)):
        if (kept.get("precision"), kept.get("execution")) == (precision, execution):
            return Choice(precision, execution, times, "from an earlier trial" if times else "as in an earlier run")
    return None


def _file() -> Path:
    return own_folder(cache_folder()) / "autotune.json"


def _read() -> dict[str, Any]:
    """Read the cache; one that cannot be read, or that somebody else could have written, counts as empty."""
    with contextlib.suppress(OSError, ValueError):
        content = read_json(_file())
        if isinstance(content, dict):
            return content
    return {}


def _keep(key: str, value: dict[str, object]) -> None:
    # If the cache cannot be written, the next run has its own trial.
    with contextlib.suppress(OSError):
        write_text(_file(), json.dumps({**_read(), key: value}, indent=2) + "\n")
