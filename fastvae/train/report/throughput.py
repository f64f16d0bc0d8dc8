"""Images and seconds of the running epoch."""

import time


class Throughput:
    """Counts the images and the seconds of an epoch; pauses and start-up are not counted."""

    def __init__(self, seconds: float = 0.0, images: int = 0) -> None:
        self._before = seconds
        self._since: float | None = None
        self.images = images

    @property
    def seconds(self) -> float:
        """Seconds of training so far."""
        return self._before + (0.0 if self._since is None else time.perf_counter() - self._since)

    def resume(self) -> None:
        """Start the clock."""
        self._since = time.perf_counter()

    def pause(self) -> None:
        """Stop the clock."""
        self._before = self.seconds
        self._since = None

    def leave_out(self, seconds: float) -> None:
        """Subtract seconds that were not spent on the epoch's images."""
        self._before -= seconds

    def rate(self) -> float:
        """Images per second."""
        return self.images / max(self.seconds, 1e-9)
