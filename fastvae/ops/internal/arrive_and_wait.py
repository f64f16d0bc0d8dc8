"""A barrier for processes of one machine, in shared memory. Their all-reduce of gradients is built on it."""

import torch

from fastvae.ops import _library

# ``arrive_and_wait(arrivals, rank, meeting, seconds)``: announces that a rank has arrived at a meeting (1, 2, 3 ...),
# and returns True once all have, or False after ``seconds``; then call it again to wait longer. ``arrivals`` is int64
# (ranks, 8) in shared memory, zeros at first. Memory written by a rank before a meeting can be read by all after it.
_library.define_of_cpu(
    "arrive_and_wait(Tensor(a!) arrivals, int rank, int meeting, float seconds) -> Tensor",
    lambda arrivals, *_: arrivals.new_empty((), dtype=torch.bool),
)
arrive_and_wait = torch.ops.fastvae.arrive_and_wait.default
