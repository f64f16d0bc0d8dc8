"""The bookkeeping of a training step without a wait for the device: one launch on a GPU."""

from torch import Tensor

from fastvae import reference
from fastvae.ops import _library

_library.define(
    "record_step_(Tensor(a!) found, Tensor(b!) record, Tensor(c!) total, Tensor(d!) state, Tensor sums, Tensor sizes, "
    "int rows, int images, bool lasting) -> ()",
    lambda *_: None,
    module="record_step",
)


def record_step_(
    found: Tensor,
    record: Tensor,
    total: Tensor,
    state: Tensor,
    sums: Tensor,
    sizes: Tensor,
    *,
    rows: int,
    images: int,
    lasting: bool,
    backend: _library.Backend = "auto",
) -> None:
    """Check that a step is finite, add its losses to the epoch's sums, and advance the step count, all in place.

    A step is non-finite if the sum of ``sums`` and ``sizes`` is, or, with ``lasting``, if the previous step was.

    Args:
        found: (1,) fp32; becomes 1 for a non-finite step, else 0.
        record: (5,) fp64, ``[count, step, loss, nll, kl]``: the number of non-finite steps, and for the first of them
            its step in ``state`` and the means of its losses, in nats per sample.
        total: (4,) fp64; its first three elements are increased by ``sums``, or, for a non-finite step, its fourth by
            ``images``.
        state: (2,) int64, ``[seed, step]``; the step is increased by one.
        sums: (3,) fp32 or fp64: loss, nll and KL, summed over the rows.
        sizes: (n,) floating point; its sum must be non-finite if a gradient is: 1-norms, for example.
        rows: number of rows, by which ``record`` divides ``sums``.
        images: number of images of this step on this rank.
        lasting: treat all steps after a non-finite one as non-finite.
        backend: triton needs a GPU (or its interpreter); on a CPU "auto" is the reference.

    >>> import torch
    >>> found, record, total = torch.zeros(1), torch.zeros(5).double(), torch.zeros(4).double()
    >>> state = torch.tensor([0, 7])
    >>> sums, sizes = torch.ones(3), torch.tensor([1.0, float("inf")])
    >>> record_step_(found, record, total, state, sums, sizes, rows=2, images=2, lasting=False)
    >>> found.item(), record.tolist(), total.tolist(), state.tolist()
    (1.0, [1.0, 7.0, 0.5, 0.5, 0.5], [0.0, 0.0, 0.0, 2.0], [0, 8])
    """
    arguments = found, record, total, state, sums, sizes, rows, images, lasting
    # The extension has no such operator: for a CPU, the reference runs on the host.
    operators = None if backend == "auto" and not found.is_cuda else _library.resolve(backend, found)
    (reference if operators is None else operators).record_step_(*arguments)
