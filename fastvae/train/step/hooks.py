"""Hooks around the steps of a run, for ``--profile``."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

from fastvae.data import Batch, Loader


class Hooks:
    """Hooks of the training loop and its engine; these do nothing. Override the ones you need."""

    def batches(self, loader: Loader) -> Iterable[Batch]:
        """Return the batches that the loop trains on: the loader's."""
        return loader

    def around_step(self, steps: int, images: int) -> AbstractContextManager[None]:  # noqa: ARG002
        """Return a context for ``steps`` steps, which are one or a CUDA graph, of ``images`` images on all ranks."""
        return nullcontext()

    def communicating(self) -> AbstractContextManager[None]:
        """Return a context for the all-reduce of a step's gradients."""
        return nullcontext()
