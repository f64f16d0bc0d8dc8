"""What the running epoch has seen, and how long it took."""

import time

import torch


class Throughput:
    """Counts the images of an epoch and its seconds, pauses and what else is left out of them."""

    def __init__(self, seconds: float = 0.0, images: int = 0) -> None:
        self._before = seconds
        self._since: float | None = None
        self.images = self.logged_images = images
        self.logged_sums: torch.Tensor | None = None

    @property
    def seconds(self) -> float:
        return self._before + (0.0 if self._since is None else time.perf_counter() - self._since)

    def resume(self) -> None:
        self._since = time.perf_counter()

    def pause(self) -> None:
        self._before, self._since = self.seconds, None

    def leave_out(self, seconds: float) -> None:
        """Take out of the running epoch what was not spent on its images."""
        self._before -= seconds

    def rate(self) -> float:
        """Images per second."""
        return self.images / max(self.seconds, 1e-9)
