"""The gradient of a layer's bias, and before it that of the (leaky) ReLU behind the layer, in one pass on the CPU.

The traced step calls it (:mod:`fastvae.train.step.passes.fuse_activations`). It checks only what the safety of memory
needs, has no derivative, and overwrites the gradient that it is given.
"""

import torch

from fastvae.ops import _library

# ``bias_gradient_(gradient, output, slope)``: gradient (B, N) of the activation's output (B, N) becomes that of its
# input; the sums of its columns are returned, summed in fp32 and rounded once. slope 0 is ReLU; without an output there
# is no activation, and nothing is written.
_library.define_of_cpu(
    "bias_gradient_(Tensor(a!) gradient, Tensor? output, float slope) -> Tensor",
    lambda gradient, *_: gradient.new_empty(gradient.shape[1]),
)
bias_gradient_ = torch.ops.fastvae.bias_gradient_.default
