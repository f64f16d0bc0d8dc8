"""Arguments of every registered operator, in the order of its schema."""

import math
from typing import Any

import torch

from fastvae.ops import _library
from fastvae.ops.internal import group_norm_silu, linear_bernoulli_nll_of_samples


def samples(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> dict[str, list[tuple[Any, ...]]]:
    """Arguments of every operator, in the order of its schema: without noise and with, each reduction."""

    def new(*size: int) -> torch.Tensor:
        return torch.randn(size, device=device).to(dtype)

    loss_type = torch.float64 if dtype == torch.float64 else torch.float32
    weight = torch.tensor(0.5, device=device)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    state = torch.tensor([3, 4], device=device)
    clamps = [(-math.inf, math.inf), (-1.0, 0.5)]
    reductions = [(0, 1.0, None), (1, 0.5, None), (2, 1.0, weight)]
    noises = [(new(*shape), None, 0, 0), (None, state, 5, 1)]

    def incoming(code: int) -> torch.Tensor:
        return torch.rand(shape[:1] if code == 0 else (), device=device, dtype=loss_type)

    mu, logvar = new(*shape), new(*shape)
    keys = [(None, 0, 0), (state, 5, 1)]
    losses = {
        "gaussian_nll": (mu, pixels, 0.5, True),
        "gaussian_kl": (mu, logvar, -1.0, 0.5),
        "gaussian_prior_kl": tuple(new(*shape) for _ in range(4)),
        "laplace_nll": (mu, pixels, 0.5, True),
        "continuous_bernoulli_nll": (mu, pixels),
        "gaussian_logvar_nll": (mu, logvar, pixels, True),
        "discretized_logistic_nll": (mu, logvar, pixels),
        "importance_weighted_nll": (new(shape[0], 6), new(shape[0], 6)),
        "categorical_nll": (new(shape[0], 3, *shape[1:]), torch.randint(0, 3, shape, device=device)),
        "discretized_logistic_mixture_nll": (new(shape[0], 20, *shape[1:]), torch.stack([pixels] * 3, 1), 2),
    }
    of_samples = new(shape[0], 3, *shape[1:])
    of_ratio = torch.rand(shape[0], 3, device=device, dtype=loss_type)
    noises_of_samples = [(new(*of_samples.shape), None, 0, 0), (None, state, 5, 1)]
    hidden = new(shape[0], 6)
    flat = pixels.flatten(1)
    outputs = flat.shape[1]
    layers = [
        (hidden, new(outputs, 6), new(outputs), flat, [True] * 3),
        (hidden, new(outputs, 6), None, flat, [False, True, False]),
    ]
    return {
        **{
            f"linear_{name}": [
                (*layer, *own, *r, grad) for layer in layers for r in reductions for grad in (False, True)
            ]
            for name, own in (("bernoulli_nll", ()), ("gaussian_nll", (0.5, True)))
        },
        **{
            f"linear_{name}_backward": [(incoming(r[0]), *layer, *own, *r) for layer in layers for r in reductions]
            for name, own in (("bernoulli_nll", ()), ("gaussian_nll", (0.5, True)))
        },
        "binarize": [(pixels, state, 5, 1)],
        "bernoulli_nll": [(mu, pixels, *key, *r, grad) for key in keys for r in reductions for grad in (False, True)],
        "bernoulli_nll_backward": [(incoming(r[0]), mu, pixels, *key, *r) for key in keys for r in reductions],
        **{
            name: [(*arguments, *r, grad) for r in reductions for grad in (False, True)]
            for name, arguments in losses.items()
        },
        **{
            f"{name}_backward": [(incoming(r[0]), *arguments, *r) for r in reductions]
            for name, arguments in losses.items()
        },
        "reparameterize": [(mu, logvar, *noise, *clamp) for clamp in clamps for noise in noises],
        "reparameterize_backward": [(new(*shape), logvar, *noise, *clamp) for clamp in clamps for noise in noises],
        "reparameterize_kl": [
            (mu, logvar, *noise, *clamp, *r) for clamp in clamps for noise in noises for r in reductions
        ],
        "reparameterize_kl_backward": [
            (grad_z, grad_kl, mu, logvar, *noise, *clamps[1], *r)
            for noise in noises
            for r in reductions
            for grad_z, grad_kl in ((new(*shape), incoming(r[0])), (None, incoming(r[0])), (new(*shape), None))
        ],
        "reparameterize_log_ratio": [(mu, logvar, *noise, 3) for noise in noises_of_samples],
        "reparameterize_log_ratio_backward": [
            (grad_z, grad_ratio, mu, logvar, *noise, 3, estimator)
            for noise in noises_of_samples
            for estimator in (0, 1, 2)
            for grad_z, grad_ratio in ((of_samples, of_ratio), (None, of_ratio), (of_samples, None))
        ],
        "free_bits_kl": [(mu, logvar, groups, 0.5, *r) for groups in (mu[0].numel(), 1) for r in reductions[1:]],
        "free_bits_kl_backward": [
            (incoming(1), torch.rand(groups, device=device, dtype=loss_type), mu, logvar, groups, 0.5, 1, 0.25, None)
            for groups in (mu[0].numel(), 1)
        ],
        "adam_step_": adam_steps(dtype) if _library.has_native() else [],
        "all_finite": [([mu, logvar.t() if logvar.dim() == 2 else logvar],)] if _library.has_native() else [],
        "arrive_and_wait": [(torch.zeros(1, 8, dtype=torch.int64), 0, 1, 1.0)] if _library.has_native() else [],
        "bias_gradient_": bias_gradients() if _library.has_native() else [],
        **dict(zip(("group_norm_silu", "group_norm_silu_backward"), normed_images(), strict=True)),
        "pixel_shuffle": shuffled(8) if _library.has_native() else [],
        "pixel_unshuffle": shuffled(2) if _library.has_native() else [],
        "scale_pixels": scaled_pixels() if _library.has_native() else [],
        "linear_bernoulli_nll_of_samples": last_layers() if _library.has_native() else [],
        "onednn_linear": linear_layers() if device == "cpu" and torch.backends.mkldnn.is_available() else [],
        "mm": products() if _library.has_native() else [],
        "record_step_": recorded_steps(device) if device == "cuda" else [],
        "scale_gradient_": [(mu.clone(), torch.tensor(factor, device=device)) for factor in (1.0, 3.0)],
    }


def shuffled(channels: int) -> list[tuple[Any, ...]]:
    """On the CPU alone: images in channels_last."""
    images = torch.randn(2, channels, 4, 6).to(memory_format=torch.channels_last)
    return [(images.to(dtype), 2) for dtype in (torch.float32, torch.bfloat16)]


def linear_layers() -> list[tuple[Any, ...]]:
    """On the CPU alone: fp32, with a bias and without."""
    x, weight = torch.randn(4, 3), torch.randn(5, 3)
    return [(x, weight, torch.randn(5)), (x, weight, None)]


def last_layers() -> list[tuple[Any, ...]]:
    """On the CPU alone: 3 samples of each of 2 pictures."""
    layer = linear_bernoulli_nll_of_samples.pack_linear(torch.randn(5, 4), torch.randn(5), torch.float32)
    return [(torch.randn(6, 4), layer.weight, layer.bias, torch.rand(2, 5), True)]


def recorded_steps(device: str) -> list[tuple[Any, ...]]:
    """On a GPU alone."""
    found = torch.zeros(1, device=device)
    wide = {"dtype": torch.float64, "device": device}
    record, total = torch.zeros(5, **wide), torch.zeros(4, **wide)
    state = torch.tensor([3, 4], device=device)
    return [(found, record, total, state, torch.ones(3, device=device), torch.ones(20, device=device), 4, 4, False)]


def adam_steps(dtype: torch.dtype) -> list[tuple[Any, ...]]:
    """On the CPU alone: fp32 weights, with gradients of the type, and copies of it unless it is theirs."""
    shapes = [(3, 5), (7,)]
    low = dtype in (torch.bfloat16, torch.float16)
    weights, exp_avgs, exp_avg_sqs = ([torch.rand(shape) for shape in shapes] for _ in range(3))
    working = [weight.to(dtype) for weight in weights] if low else []
    gradients = [torch.randn(shape).to(dtype) for shape in shapes]
    steps = [torch.zeros(()) for _ in shapes]
    tensors = (weights, exp_avgs, exp_avg_sqs, working, gradients, steps)
    return [
        (*tensors, None, 1e-3, 0.9, 0.999, 1e-8, 0.0, False, None, None),
        (*tensors, torch.tensor(1e-3), 0.0, 0.9, 0.999, 1e-8, 0.1, True, torch.tensor(2.0), torch.tensor(0.0)),
    ]


def products() -> list[tuple[Any, ...]]:
    """On the CPU alone: matrices of any strides, with a bias and without."""
    calls: list[tuple[Any, ...]] = []
    for dtype in (torch.float32, torch.float64, *([torch.bfloat16] if _library.multiplies_bf16() else [])):
        left, right, bias = (torch.randn(shape).to(dtype) for shape in ((3, 5), (7, 5), (7,)))
        calls += [([left], [right.t()], [bias]), ([left, left.t()], [right.t().contiguous(), left], [])]
    return calls


def bias_gradients() -> list[tuple[Any, ...]]:
    """On the CPU alone: of an activation's output, and of none."""
    gradient, output = torch.randn(3, 5), torch.randn(3, 5)
    return [(gradient.clone(), output, 0.2), (gradient.clone(), output, 0.0), (gradient, None, 0.0)]


def normed_images() -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """On the CPU alone: in both types, in channels_last."""
    if not _library.has_native():
        return [], []
    forward = []
    backward = []
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(3, 4, 5, 2).to(dtype, memory_format=torch.channels_last)
        weight = torch.rand(4)
        bias = torch.randn(4)
        forward.append((x, weight, bias, 2, 1e-5))
        _, mean, rstd = group_norm_silu.group_norm_silu(*forward[-1])
        backward.append((torch.randn_like(x), x, mean, rstd, weight, bias, 2))
    return forward, backward


def scaled_pixels() -> list[tuple[Any, ...]]:
    """On the CPU alone: in both types."""
    pixels = torch.randint(0, 256, (3, 1, 4, 4), dtype=torch.uint8)
    return [(pixels, True), (pixels, False)]
