"""The bookkeeping of a training step that nobody waits for: one launch on a GPU."""

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
    """Find out whether a step is finite, add it to the sums of the epoch, and count it. All in place.

    A step is not finite if the sum of ``sums`` and ``sizes`` is not or, where ``lasting``, if the one before was not.

    Args:
        found: (1,) fp32; becomes 1 for a step that is not finite, else 0.
        record: (5,) fp64, ``[count, step, loss, nll, kl]``: how many such steps there were, and of the first of them
            ``state``'s step and the means of the terms, in nats per sample.
        total: (4,) fp64; its first three get ``sums`` or, of such a step, its fourth gets ``images``.
        state: (2,) int64, ``[seed, step]``; the step goes on by one.
        sums: (3,) fp32 or fp64: loss, nll and KL, summed over the rows.
        sizes: (n,) floating point; not finite in sum where a gradient is not: 1-norms, say.
        rows: what ``record`` divides ``sums`` by.
        images: of this step, in this process.
        lasting: whether all steps after one that is not finite are such too.
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
    # No operator of the extension's: a CPU looks at the step on the host.
    operators = None if backend == "auto" and not found.is_cuda else _library.resolve(backend, found)
    (reference if operators is None else operators).record_step_(*arguments)
