"""The gradients of a layer's bias and of the (leaky) ReLU after the layer, in one pass on the CPU.

The traced step calls it (:mod:`fastvae.train.step.passes.fuse_activations`). It checks only what memory safety
requires, has no derivative, and overwrites the gradient that it is given.
"""

import torch

from fastvae.ops import _library

# ``bias_gradient_(gradient, output, slope)``: turns the gradient (B, N) of the activation's output (B, N) into that of
# its input, and returns the sums of its columns (N), summed in fp32 and rounded once. slope 0 is ReLU. Without an
# output there is no activation, and the gradient is not changed.
_library.define_of_cpu(
    "bias_gradient_(Tensor(a!) gradient, Tensor? output, float slope) -> Tensor",
    lambda gradient, *_: gradient.new_empty(gradient.shape[1]),
)
bias_gradient_ = torch.ops.fastvae.bias_gradient_.default
