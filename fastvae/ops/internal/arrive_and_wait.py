"""A barrier of the processes of one machine, in memory that they share; what their sums of gradients are made of."""

import torch

from fastvae.ops import _library

# ``arrive_and_wait(arrivals, rank, meeting, seconds)``: arrivals int64 (processes, 8), shared, zeros at first. Says
# that the process of that rank has come to a meeting (1, 2, 3 ...), and returns whether all have, after so many
# seconds at most: whoever still wants to wait asks again. What a process wrote before, all can read after.
_library.define_of_cpu(
    "arrive_and_wait(Tensor(a!) arrivals, int rank, int meeting, float seconds) -> Tensor",
    lambda arrivals, *_: arrivals.new_empty((), dtype=torch.bool),
)
arrive_and_wait = torch.ops.fastvae.arrive_and_wait.default
