"""The progress bar of a run, and the table at its end."""

from collections.abc import Mapping
from types import TracebackType

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from fastvae.utils.terminal import Terminal

from .metrics import Metrics

_EPOCH_LINES = 20  # a run prints about this many lines about epochs, at most


class RunProgress:
    """A bar for the whole run, with the loss and its terms, and a line about some of the epochs."""

    def __init__(self, console: Terminal, steps: int, epochs: int) -> None:
        self._console = console
        self._epochs = epochs
        # Without a refresh thread, which would take time from the CPU's kernels: it is drawn when there is news.
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}/" + str(epochs)),
            BarColumn(),
            TextColumn("{task.fields[terms]}"),
            TimeRemainingColumn(),
            console=console,
            auto_refresh=False,
            transient=True,
        )
        self._task = self._progress.add_task("training", total=steps, epoch=1, terms="starting ...")

    def __enter__(self) -> "RunProgress":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, step: int, epoch: int, metrics: Metrics, images_per_s: float) -> None:
        """Draw the bar at a step of a running epoch (counted from 1)."""
        text = f"loss {metrics.loss:.2f}  nll {metrics.nll:.2f}  kl {metrics.kl:.2f}  {images_per_s:,.0f} images/s"
        self._progress.update(self._task, completed=step, epoch=epoch, terms=text, refresh=True)

    def epoch(self, epoch: int, train: Metrics, test: Metrics, images_per_s: float) -> None:
        """Print a line about a finished epoch, unless there are too many of them."""
        if epoch % max(1, self._epochs // _EPOCH_LINES) == 0 or epoch in (1, self._epochs):
            self._console.print(
                f"epoch {epoch:>{len(str(self._epochs))}}  train loss {train.loss:8.3f}  test loss {test.loss:8.3f}  "
                f"nll {test.nll:8.3f}  kl {test.kl:7.3f}  {images_per_s:>9,.0f} images/s"
            )


def trained(epochs: int, steps: int) -> str:
    """Say how long a model was trained: finished epochs, and steps of the next one.

    >>> trained(4, 0), trained(1, 5), trained(0, 1)
    ('4 epochs', '1 epoch and 5 steps', '1 step')
    """
    counted = ((epochs, "epoch"), (steps, "step"))
    parts = [f"{count:,} {word}{'' if count == 1 else 's'}" for count, word in counted if count]
    return " and ".join(parts) or "0 epochs"


def table(title: str, rows: Mapping[str, str]) -> Table:
    """Make a table of names and values."""
    result = Table(title=title, show_header=False, title_justify="left")
    result.add_column(style="bold")
    result.add_column(overflow="fold")
    for name, value in rows.items():
        result.add_row(name, value)
    return result
