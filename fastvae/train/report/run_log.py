"""The log of a run: progress bar, metrics.jsonl and TensorBoard."""

from types import TracebackType

from torch import Tensor

from fastvae.train.distributed.world import World
from fastvae.utils.terminal import Terminal

from .metrics import Metrics
from .progress import RunProgress
from .run_folder import RunFolder

_FIGURE = "Test image - above: real data, below: reconstruction"


class RunLog:
    """Shows and saves the metrics of steps and epochs; entered for as long as the run trains.

    Every rank has one, and calls its methods alike: an error of rank 0's disk is raised on all ranks.

    Args:
        world: the ranks.
        folder: the run's folder on rank 0, None elsewhere.
        console: prints on rank 0.
        steps, epochs: of the whole run.
    """

    def __init__(self, world: World, folder: RunFolder | None, console: Terminal, steps: int, epochs: int) -> None:
        self._world = world
        self._folder = folder
        self._progress = RunProgress(console, steps, epochs)

    def __enter__(self) -> "RunLog":
        self._progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.__exit__(kind, error, trace)

    def log_steps(self, metrics: Metrics, step: int, epoch: int, images_per_s: float) -> None:
        """Log the training metrics of the steps up to ``step``, in a running epoch (counted from 1)."""
        self._progress.show(step, epoch, metrics, images_per_s)
        with self._world.raise_together():
            if self._folder is not None:
                self._folder.scalars("train", metrics, step)

    def log_epoch(
        self, step: int, epoch: int, train: tuple[Metrics, float], test: tuple[Metrics, float], figure: Tensor
    ) -> None:
        """Log an epoch (counted from 1) after ``step`` steps.

        Args:
            train: metrics of the training set, and images per second.
            test: the same of the test set.
            figure: reconstructions (3, H, W).
        """
        self._progress.show(step, epoch, *train)
        self._progress.epoch(epoch, train[0], test[0], train[1])
        with self._world.raise_together():
            if self._folder is not None:
                self._folder.log(epoch, step, "train", *train)
                self._folder.log(epoch, step, "test", *test)
                self._folder.scalars("test", test[0], step)
                self._folder.figure(_FIGURE, figure, epoch)
