"""fastvae's engine as ``fastvae train`` runs it."""

from collections.abc import Iterator

from fastvae.bench.contenders.workload import Contender, Task
from fastvae.data import ResidentLoader
from fastvae.train.config import Execution, Precision, TrainConfig, resolve, settle
from fastvae.train.cuda_graph import Replay
from fastvae.train.distributed.world import World
from fastvae.train.engine import Engine
from fastvae.train.loop import LOG_EVERY
from fastvae.train.measure import autotune


class Fastvae(Contender):
    """The engine and its loader, and the look at the device's sums that ``fastvae train`` takes now and then.

    As there, several steps are one replay of a CUDA graph where they can be.

    "auto" in both precision and execution: what the timed trial chooses for a run of the recipe's epochs.
    """

    def __init__(self, task: Task, seed: int, precision: Precision = "auto", execution: Execution = "auto") -> None:
        config = TrainConfig(
            batch_size=task.batch_size,
            lr=task.recipe.lr,
            optimizer=task.recipe.optimizer,
            optimizer_options=dict(task.recipe.optimizer_options),
            epochs=task.recipe.epochs,
            seed=seed,
            binarize=task.recipe.binarize,
            precision=precision,
            execution=execution,
        )
        resolved = resolve(config)
        world = World(rank=0, local_rank=0, size=1, device=task.device)
        self.loader = ResidentLoader(task.images, batch_size=task.batch_size, seed=seed, device=task.device)
        model = task.model(seed)
        if precision == "auto" or execution == "auto":
            steps = task.recipe.epochs * len(self.loader)
            choice = autotune.choose(resolved, model, task.recipe, self.loader, steps, world)
            settled = choice.apply(resolved)
            self.note = f"{choice.precision}, {choice.execution}"
        else:
            settled = settle(resolved, precision, execution)
        self.precision = settled.precision
        self.engine = Engine(model, settled, task.recipe, world)
        self.model = self.engine.model
        self._slice = task.steps
        self._replay = Replay.where_possible(self.engine, self.loader, self._tell)

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
        """Take the steps of an epoch, and tell how many at once.

        No replay crosses an end of what is timed of a slice.
        """
        left = len(self.loader)
        if self._slice is not None:
            left = self._slice
            self.engine.train_step(next(iter(self.loader)))
            yield 1
        while self._replay is not None and (steps := self._replay.fitting(left)):
            self._replay.run(steps)
            left -= steps
            yield steps
        for batch in self.loader:
            self.engine.train_step(batch)
            yield 1
