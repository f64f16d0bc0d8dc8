"""The contender fastvae: its engine, as ``fastvae train`` runs it."""

from collections.abc import Iterator

from fastvae.data import ResidentLoader
from fastvae.models import PRESETS
from fastvae.train.config import Execution, Precision, TrainConfig, resolve, settle
from fastvae.train.distributed.world import World
from fastvae.train.engine import Engine
from fastvae.train.graphs.step_graphs import StepGraphs
from fastvae.train.loop import LOG_EVERY
from fastvae.train.measure import autotune

from .workload import Contender, Workload


class FastvaeLoop(Contender):
    """The engine and its loader, with the reading of losses from the device that ``fastvae train`` does periodically.

    As in training, several steps are one replay of a CUDA graph if possible. "auto" as precision and execution takes
    the choice of the autotuner for a run of the recipe's epochs.
    """

    def __init__(
        self, workload: Workload, seed: int, precision: Precision = "auto", execution: Execution = "auto"
    ) -> None:
        config = TrainConfig(
            preset=_preset(workload),
            batch_size=workload.batch_size,
            lr=workload.recipe.lr,
            optimizer=workload.recipe.optimizer,
            optimizer_options=dict(workload.recipe.optimizer_options),
            schedule="constant",  # as in the other contenders
            beta_schedule="constant",
            epochs=workload.recipe.epochs,
            seed=seed,
            binarize=workload.recipe.binarize,
            precision=precision,
            execution=execution,
        )
        resolved = resolve(config)
        world = World(rank=0, local_rank=0, size=1, device=workload.device)
        self.loader = ResidentLoader(workload.images, batch_size=workload.batch_size, seed=seed, device=workload.device)
        model = workload.model(seed)
        if precision == "auto" or execution == "auto":
            steps = workload.recipe.epochs * len(self.loader)
            choice = autotune.choose(resolved, model, self.loader, steps, world)
            settled = choice.apply(resolved)
            self.note = f"{choice.precision}, {choice.execution}"
        else:
            settled = settle(resolved, precision, execution)
        self.precision = settled.precision
        self.engine = Engine(model, settled, world)
        self.model = self.engine.model
        self._slice = workload.steps
        self._graphs = StepGraphs.where_possible(self.engine, self.loader, self._tell)

    def epoch(self, number: int) -> Iterator[None]:
        self.loader.set_epoch(number)
        self.engine.sums.zero_()
        step = 0
        for count in self._steps():
            if step // LOG_EVERY != (step + count) // LOG_EVERY:
                self.engine.sums.tolist()
            step += count
            for _ in range(count):
                yield

    def _tell(self, why: str) -> None:
        self.note = f"{self.note}; {why}" if self.note else why

    def _steps(self) -> Iterator[int]:
        """Take the steps of an epoch, and yield how many were taken at once.

        No CUDA graph crosses the start or the end of the timed slice.
        """
        left = len(self.loader)
        if self._slice is not None:
            left = self._slice
            self.engine.train_step(next(iter(self.loader)))
            yield 1
        while self._graphs is not None and (steps := self._graphs.fitting(left)):
            self._graphs.run(steps)
            left -= steps
            yield steps
        for batch in self.loader:
            self.engine.train_step(batch)
            yield 1


def _preset(workload: Workload) -> str:
    """Return the workload's preset; for a recipe that is not a preset, one that weighs its loss in the same way.

    Everything else that a preset decides, the contender sets itself.
    """
    if workload.name in PRESETS:
        return workload.name
    recipe = workload.recipe
    wanted = (recipe.reduction, recipe.loss_weight)
    return next(name for name, preset in PRESETS.items() if (preset.reduction, preset.loss_weight) == wanted)
