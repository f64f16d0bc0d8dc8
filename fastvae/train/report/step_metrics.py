"""Training metrics of an epoch that runs, logged between its steps without waiting for the device."""

from collections.abc import Callable

import torch
from torch import Tensor

from fastvae.train.distributed.world import World

from .async_scalars import AsyncScalars, Window
from .metrics import Metrics
from .run_log import RunLog
from .throughput import Throughput


class StepMetrics:
    """Reads the device's sums every so many steps, and logs their differences. Calls are collective.

    Args:
        world: the ranks.
        log: where the metrics go.
        check_finite: called before metrics are logged of which a step was not finite.

    Attributes:
        meter: the images and the seconds of the epoch.
    """

    def __init__(self, world: World, log: RunLog, check_finite: Callable[[], None]) -> None:
        self._world = world
        self._log = log
        self._check_finite = check_finite
        self._scalars = AsyncScalars()
        self.restart()

    def restart(self, seconds: float = 0.0, images: int = 0, sums: Tensor | None = None) -> None:
        """Begin an epoch, or go on with one whose seconds, images and sums so far are given."""
        self.meter = Throughput(seconds, images)
        self._logged_images = images
        self._logged_sums = None if sums is None else sums.clone()

    def request(self, step: int, sums: Tensor, alarm: Tensor) -> None:
        """Request from the device the sums since the last request, over all ranks.

        Args:
            step: the last step in them.
            sums: (4,) those of the epoch so far.
            alarm: (1,) the number of steps that were not finite.
        """
        images = self.meter.images - self._logged_images
        now = sums.clone()
        since = now if self._logged_sums is None else now - self._logged_sums
        self._logged_sums = now
        self._logged_images = self.meter.images
        self._world.all_reduce(since)
        self._scalars.request(torch.cat((since, alarm)), Window(step, images))

    def log(self, epoch: int, *, wait: bool = False) -> None:
        """Log the requested metrics that have arrived.

        Several ranks must all see the same: they wait for all but the last, which was requested just now.

        Args:
            epoch: the one that runs, counted from 1.
            wait: for all of them.
        """
        lag = 1 if self._world.size > 1 and not wait else 0
        for values, window in self._scalars.ready(wait=wait or lag > 0, but=lag):
            if values[-1] > 0:
                self._check_finite()
            metrics = Metrics.from_sums(values[:-1], window.images)
            self._log.log_steps(metrics, window.step, epoch, self.meter.rate())
