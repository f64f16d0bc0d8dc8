"""One table of bad calls. An error has the exact type, names both offending values, and says what to do."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from fastvae import ops
from fastvae.ops import _library

F = torch.zeros
U8 = torch.uint8


def grad(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, requires_grad=True)


# operator, arguments, keywords, exception, what the message holds
Row = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], type[Exception], str]

PIXELS: list[Row] = [
    (ops.bernoulli_nll, (F(2, 3), F(2, 4)), {}, ValueError,
     "logits has shape (2, 3), but target has (2, 4): both need the same shape"),
    (ops.bernoulli_nll, (F(()), F(())), {}, ValueError,
     "logits and target need a batch dimension (B, ...), but have shape ()"),
    (ops.bernoulli_nll, (F(2, 3, dtype=U8), F(2, 3)), {}, TypeError,
     "logits must be fp32, bf16, fp16 or fp64, not torch.uint8"),
    (ops.bernoulli_nll, (F(2, 3, dtype=torch.complex64), F(2, 3)), {}, TypeError,
     "logits must be fp32, bf16, fp16 or fp64, not torch.complex64"),
    (ops.bernoulli_nll, (F(2, 3), torch.full((2, 3), 255)), {}, TypeError,
     "target must be uint8 (0..255, read as x/255), bool or a floating type, not torch.int64: convert it with "
     ".to(torch.uint8) if its pixels are 0..255, or with .float() if they are in [0, 1]"),
    (ops.bernoulli_nll, (F(2, 3), torch.full((2, 3), 1.0001)), {}, ValueError, "target spans [1.00010002, 1.00010002]"),
    (ops.bernoulli_nll, (F(2, 3), torch.full((2, 3), 255.0)), {}, ValueError,
     "target spans [255, 255], but a Bernoulli likelihood needs pixels in [0, 1]: divide 8-bit pixels by 255"),
    (ops.bernoulli_nll, (F(2, 3), F(2, 3, dtype=torch.complex64)), {}, TypeError,
     "or a floating type, not torch.complex64: convert"),
    (ops.bernoulli_nll, (F(2, 3), torch.full((2, 3), 1.5)), {}, ValueError,
     "target spans [1.5, 1.5], but a Bernoulli likelihood needs pixels in [0, 1]: leave out"),
    (ops.bernoulli_nll, (F(2, 3), torch.full((2, 3), -0.5)), {}, ValueError,
     "target spans [-0.5, -0.5], but a Bernoulli likelihood needs pixels in [0, 1]"),
    (ops.bernoulli_nll, (F(2, 3), grad(2, 3)), {}, ValueError,
     "target requires a gradient, but the likelihood has none for it: pass target.detach()"),
    (ops.bernoulli_nll, (F(2, 3), F(2, 3, device="meta")), {}, ValueError,
     "logits is on cpu, but target is on meta: move one"),
    (ops.gaussian_nll, (F(2, 3), F(3, 2)), {}, ValueError,
     "mean has shape (2, 3), but target has (3, 2): both need the same shape"),
    (ops.gaussian_nll, (F(2, 3, dtype=torch.int64), F(2, 3)), {}, TypeError,
     "mean must be fp32, bf16, fp16 or fp64, not torch.int64"),
    *((ops.gaussian_nll, (F(2, 3), F(2, 3)), {"variance": variance}, ValueError,
       f"variance must be a positive finite number, not {variance}")
      for variance in (0.0, -1.0, float("inf"), float("nan"))),
    (ops.gaussian_nll, (F(2, 3), grad(2, 3)), {}, ValueError,
     "target requires a gradient, but the likelihood has none for it: pass target.detach()"),
]  # fmt: skip

PIXELS += [
    (ops.bernoulli_nll, (F(2, 3), F(2, 3)), {"binarize": ops.Noise(1)}, TypeError,
     "target must be uint8 (0..255) to be binarized, not torch.float32"),
    (ops.continuous_bernoulli_nll, (F(2, 3), torch.full((2, 3), 1.5)), {}, ValueError,
     "target spans [1.5, 1.5], but a Bernoulli likelihood needs pixels in [0, 1]"),
    *((ops.laplace_nll, (F(2, 3), F(2, 3)), {"scale": scale}, ValueError,
       f"scale must be a positive finite number, not {scale}")
      for scale in (0.0, -1.0, float("inf"), float("nan"))),
    (ops.gaussian_logvar_nll, (F(2, 3), F(2, 4), F(2, 3)), {}, ValueError,
     "logvar has shape (2, 4), but target has (2, 3): both need the same shape"),
    (ops.gaussian_logvar_nll, (F(2, 3), F(2, 3, dtype=torch.float64), F(2, 3)), {}, TypeError,
     "mean is torch.float32, but logvar is torch.float64: both need the same type"),
    (ops.gaussian_logvar_nll, (F(2, 3), F((), device="meta"), F(2, 3)), {}, ValueError,
     "logvar is on meta, but mean is on cpu: move one"),
    (ops.optimal_gaussian_nll, (F(2, 3), F(2, 3)), {"reduction": "none"}, ValueError,
     "reduction must be 'batchmean' or 'sum' for a variance of the whole batch, not 'none'"),
    (ops.discretized_logistic_nll, (F(2, 3), F(2, 3), F(2, 3)), {}, TypeError,
     "target must be uint8 (0..255), the pixels of a discrete likelihood, not torch.float32: pass"),
    (ops.discretized_logistic_nll, (F(2, 3), F(2, 4), F(2, 3, dtype=U8)), {}, ValueError,
     "log_scale has shape (2, 4), but target has (2, 3): both need the same shape"),
]  # fmt: skip

LAST_LAYERS: list[Row] = [
    row
    for op in (ops.linear_bernoulli_nll, ops.linear_gaussian_nll)
    for row in (
        (op, (F(2, 3, dtype=U8), F(4, 3), None, F(2, 4)), {}, TypeError,
         "hidden must be fp32, bf16, fp16 or fp64, not torch.uint8"),
        (op, (F(2, 3), F(3, 4), None, F(2, 4)), {}, ValueError,
         "hidden has shape (2, 3), but weight has (3, 4): they need (B, H) and (O, H), as in torch.nn.Linear"),
        (op, (F(2, 2, 3), F(4, 3), None, F(2, 2, 4)), {}, ValueError,
         "hidden has shape (2, 2, 3), but weight has (4, 3): they need (B, H) and (O, H)"),
        (op, (F(2, 3), F(4, 3), F(3), F(2, 4)), {}, ValueError,
         "bias has shape (3,), but weight has (4, 3): they need (O,) and (O, H)"),
        (op, (F(2, 3), F(4, 3), None, F(2, 5)), {}, ValueError,
         "target has shape (2, 5), but the layer gives (2, 4): target needs (B, ...) with O elements a row"),
        (op, (F(2, 3), F(4, 3), None, F(4, 2)), {}, ValueError,
         "target has shape (4, 2), but the layer gives (2, 4)"),
        (op, (F(2, 3), F(4, 3), None, F(())), {}, ValueError, "target has shape (), but the layer gives (2, 4)"),
        (op, (F(2, 3), F(4, 3, dtype=torch.bfloat16), None, F(2, 4)), {}, TypeError,
         "hidden is torch.float32, but weight is torch.bfloat16: both need the same type"),
        (op, (F(2, 3), F(4, 3), F(4, dtype=torch.float64), F(2, 4)), {}, TypeError,
         "hidden is torch.float32, but bias is torch.float64: both need the same type"),
        (op, (F(2, 3), F(4, 3, device="meta"), None, F(2, 4)), {}, ValueError,
         "hidden is on cpu, but weight is on meta: move one"),
        (op, (F(2, 3), F(4, 3), None, F(2, 4, device="meta")), {}, ValueError,
         "hidden is on cpu, but target is on meta: move one"),
        (op, (F(2, 3), F(4, 3), None, torch.full((2, 4), 255)), {}, TypeError,
         "target must be uint8 (0..255, read as x/255), bool or a floating type, not torch.int64: convert"),
        (op, (F(2, 3), F(4, 3), None, grad(2, 4)), {}, ValueError,
         "target requires a gradient, but the likelihood has none for it: pass target.detach()"),
        (op, (F(2, 3), F(4, 3), None, F(2, 4)), {"loss_weight": F(1)}, ValueError,
         "loss_weight has shape (1,), but must be a number or a 0-d tensor"),
        (op, (F(2, 3), F(4, 3), None, F(2, 4)), {"loss_weight": float("nan")}, ValueError,
         "loss_weight is NaN: it must be a number"),
        (op, (F(2, 3), F(4, 3), None, F(2, 4)), {"reduction": "mean"}, ValueError,
         "reduction must be 'batchmean', 'sum' or 'none', not 'mean'"),
    )
] + [
    (ops.linear_bernoulli_nll, (F(2, 3), F(4, 3), None, torch.full((2, 4), 1.5)), {}, ValueError,
     "target spans [1.5, 1.5], but a Bernoulli likelihood needs pixels in [0, 1]: leave out"),
    (ops.linear_gaussian_nll, (F(2, 3), F(4, 3), None, F(2, 4), 0.0), {}, ValueError,
     "variance must be a positive finite number, not 0.0"),
]  # fmt: skip

LATENTS: list[Row] = [
    row
    for op in (ops.gaussian_kl, ops.reparameterize, ops.reparameterize_kl)
    for row in (
        (op, (F(2, 3), F(2, 4)), {}, ValueError,
         "mu has shape (2, 3), but logvar has (2, 4): both need the same shape"),
        (op, (F(()), F(())), {}, ValueError,
         "mu and logvar need a batch dimension (B, ...), but have shape ()"),
        (op, (F(2, 3), F(2, 3, dtype=torch.bfloat16)), {}, TypeError,
         "mu is torch.float32, but logvar is torch.bfloat16: both need the same type"),
        (op, (F(2, 3, dtype=torch.int32), F(2, 3)), {}, TypeError,
         "mu must be fp32, bf16, fp16 or fp64, not torch.int32"),
        (op, (F(2, 3), F(2, 3, device="meta")), {}, ValueError,
         "mu is on cpu, but logvar is on meta: move one"),
    )
]  # fmt: skip

NOISES: list[Row] = [
    row
    for op in (ops.reparameterize, ops.reparameterize_kl)
    for row in (
        (op, (F(2, 3), F(2, 3), F(2, 4)), {}, ValueError,
         "eps has shape (2, 4), but mu has (2, 3): both need the same shape"),
        (op, (F(2, 3), F(2, 3), F(2, 3, device="meta")), {}, ValueError,
         "eps is on meta, but mu is on cpu: move one"),
        (op, (F(2, 3), F(2, 3), grad(2, 3)), {}, ValueError,
         "eps requires a gradient, but noise has none: pass eps.detach()"),
        (op, (F(2, 3), F(2, 3), 1234), {}, TypeError,
         "noise must be a fastvae.Noise, a tensor eps or None, not int"),
    (ops.reparameterize, (F(2, 3), F(2, 3), F(2, 3, dtype=torch.complex64)), {}, TypeError,
     "eps must be real, not torch.complex64: pass eps.real"),
    )
]  # fmt: skip

K2 = {"samples": 2}
IMPORTANCE: list[Row] = [
    (ops.reparameterize_log_ratio, (F(2, 3), F(2, 4)), K2, ValueError,
     "mu has shape (2, 3), but logvar has (2, 4): both need the same shape"),
    (ops.reparameterize_log_ratio, (F(2, 3), F(2, 3), F(2, 3)), K2, ValueError,
     "eps has shape (2, 3), but 2 samples of mu (2, 3) need (2, 2, 3)"),
    (ops.reparameterize_log_ratio, (F(2, 3), F(2, 3), grad(2, 2, 3)), K2, ValueError,
     "eps requires a gradient, but noise has none: pass eps.detach()"),
    (ops.reparameterize_log_ratio, (F(2, 3), F(2, 3)), {"samples": 0}, ValueError,
     "samples must be at least 1, not 0"),
    (ops.reparameterize_log_ratio, (F(2, 3), F(2, 3)), {"samples": 2.5}, TypeError,
     "samples must be a whole number, not 2.5"),
    (ops.reparameterize_log_ratio, (F(2, 3), F(2, 3)), {**K2, "estimator": "vimco"}, ValueError,
     "estimator must be 'iwae', 'stl' or 'dreg', not 'vimco'"),
    (ops.importance_weighted_nll, (F(2, 3), F(2, 4)), {}, ValueError,
     "nll has shape (2, 3), but log_ratio has (2, 4): both need the same shape"),
    (ops.importance_weighted_nll, (F(2, 3), F(2, 3, dtype=torch.float64)), {}, TypeError,
     "nll is torch.float32, but log_ratio is torch.float64: both need the same type"),
    *((ops.importance_weighted_nll, (F(shape), F(shape)), {}, ValueError,
       f"nll and log_ratio have shape {shape}, but need (B, K) with a sample or more")
      for shape in ((6,), (2, 3, 4), (2, 0))),
]  # fmt: skip

FREE_BITS: list[Row] = [
    (ops.free_bits_kl, (F(2, 3), F(2, 4), 0.5), {}, ValueError,
     "mu has shape (2, 3), but logvar has (2, 4): both need the same shape"),
    (ops.free_bits_kl, (F(2, 3), F(2, 3), 0.5), {"reduction": "none"}, ValueError,
     "reduction must be 'batchmean' or 'sum' for a mean over the whole batch, not 'none'"),
    *((ops.free_bits_kl, (F(2, 3), F(2, 3), value), {}, ValueError,
       f"free_bits must be a finite number of nats, at least 0, not {value}")
      for value in (-1.0, float("inf"), float("nan"))),
    *((ops.free_bits_kl, (F(2, 3, 4), F(2, 3, 4), 0.5), {"groups": groups}, ValueError,
       f"groups must divide the elements of the event, but {groups} does not divide 12, those of mu (2, 3, 4)")
      for groups in (5, 24, 0, -3)),
    (ops.free_bits_kl, (F(2, 3), F(2, 3), 0.5), {"weight": float("nan")}, ValueError,
     "weight is NaN: it must be a number"),
]  # fmt: skip

I64 = torch.int64
PLANES: list[Row] = [
    (ops.categorical_nll, (F(2, 4, 3), F(2, 4, 3, dtype=I64)), {}, ValueError,
     "logits has shape (2, 4, 3), but target has (2, 4, 3): with K classes, they need (B, K, ...) and (B, ...)"),
    (ops.categorical_nll, (F(2), F(2, dtype=I64)), {}, ValueError,
     "logits has shape (2,), but target has (2,): with K classes"),
    (ops.categorical_nll, (F(2, 3, dtype=I64), F(2, dtype=I64)), {}, TypeError,
     "logits must be fp32, bf16, fp16 or fp64, not torch.int64"),
    (ops.categorical_nll, (F(2, 3), F(2)), {}, TypeError,
     "target must be class indices in uint8 or int64, not torch.float32: convert it with .long()"),
    (ops.categorical_nll, (F(2, 3), F(2, dtype=I64, device="meta")), {}, ValueError,
     "logits is on cpu, but target is on meta: move one"),
    (ops.categorical_nll, (F(2, 3), torch.tensor([0, 3])), {}, ValueError,
     "target spans [0, 3], but logits of shape (2, 3) have the classes 0 to 2: more logits, or other indices"),
    (ops.categorical_nll, (F(2, 3), torch.tensor([-1, 1])), {}, ValueError,
     "target spans [-1, 1], but logits of shape (2, 3) have the classes 0 to 2"),
    (ops.categorical_nll, (F(2, 255), torch.tensor([0, 255], dtype=U8)), {}, ValueError,
     "target spans [0, 255], but logits of shape (2, 255) have the classes 0 to 254"),
    *((ops.discretized_logistic_mixture_nll, arguments, {}, exception, message) for arguments, exception, message in (
        ((F(2, 20, 4), F(2, 3, 4), 2), TypeError,
         "target must be uint8 (0..255), the pixels of a discrete likelihood, not torch.float32: pass"),
        ((F(2, 20, 4, dtype=U8), F(2, 3, 4, dtype=U8), 2), TypeError,
         "parameters must be fp32, bf16, fp16 or fp64, not torch.uint8"),
        ((F(2, 20, 4), F(2, 2, 4, dtype=U8), 2), ValueError,
         "target has shape (2, 2, 4), but must be (B, C, ...) with 1 or 3 channels C"),
        ((F(2, 20, 4), F(2, 3, 4, dtype=U8), 3), ValueError,
         "parameters has shape (2, 20, 4), but 3 mixtures for a target of shape (2, 3, 4) need (2, 30, 4)"),
        ((F(2, 20, 4), F(2, 3, 4, dtype=U8), 0), ValueError, "mixtures must be at least 1, not 0"),
        ((F(2, 20, 4), F(2, 3, 4, dtype=U8, device="meta"), 2), ValueError,
         "parameters is on cpu, but target is on meta: move one"),
    )),
]  # fmt: skip

TABLE = PIXELS + LAST_LAYERS + LATENTS + NOISES + IMPORTANCE + FREE_BITS + PLANES

REDUCED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"reduction": "mean"}, ValueError, "reduction must be 'batchmean', 'sum' or 'none', not 'mean'"),
    ({"reduction": None}, ValueError, "reduction must be 'batchmean', 'sum' or 'none', not None"),
    ({"weight": float("nan")}, ValueError, "weight is NaN: it must be a number"),
    ({"weight": F(1)}, ValueError, "weight has shape (1,), but must be a number or a 0-d tensor"),
    ({"weight": grad()}, ValueError, "weight requires a gradient, but is a constant factor here: pass weight.detach()"),
    ({"weight": F((), device="meta")}, ValueError, "weight is on meta, but the inputs are on cpu: move it there once"),
]


@pytest.mark.parametrize(
    ("op", "arguments", "keywords", "exception", "message"),
    TABLE,
    ids=[f"{row[0].__name__}-{row[4][:44]}" for row in TABLE],
)
def test_bad_inputs(
    backend: str, op: Any, arguments: Any, keywords: Any, exception: type[Exception], message: str
) -> None:
    with pytest.raises(exception, match=re.escape(message)) as caught:
        op(*arguments, **keywords, backend=backend)
    assert caught.type is exception


REDUCING = [ops.bernoulli_nll, ops.gaussian_nll, ops.gaussian_kl, ops.reparameterize_kl, ops.importance_weighted_nll]


@pytest.mark.parametrize("op", REDUCING)
@pytest.mark.parametrize(("keywords", "exception", "message"), REDUCED, ids=[row[2][:44] for row in REDUCED])
def test_bad_reductions_and_weights(
    place: Any, op: Any, keywords: Any, exception: type[Exception], message: str
) -> None:
    x = torch.zeros(2, 3, device=place.device)
    with pytest.raises(exception, match=re.escape(message).replace("cpu", place.device)) as caught:
        op(x, x, **keywords, backend=place.backend)
    assert caught.type is exception


@pytest.mark.parametrize("op", [*REDUCING, ops.reparameterize])
def test_backends_that_cannot_serve(op: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="backend must be 'auto', 'triton', 'native' or 'reference', not 'cuda'"):
        op(x, x, backend="cuda")
    meta = torch.zeros(2, 3, device="meta")
    noise = {"noise": meta} if "reparameterize" in op.__name__ else {}
    with pytest.raises(ValueError, match=r"backend='native' needs CPU tensors, but they are on meta: use 'auto'"):
        op(meta, meta, **noise, backend="native")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    if _library.has_triton():
        with pytest.raises(ValueError, match=r"backend='triton' needs a CUDA device, but the tensors are on cpu: use"):
            op(x, x, backend="triton")
    monkeypatch.setattr(_library, "has_triton", lambda: False)
    with pytest.raises(ValueError, match=r"needs Triton, which is not installed: `pip install triton`"):
        op(x, x, backend="triton")
    monkeypatch.setattr(_library, "has_native", lambda: False)
    with pytest.raises(ValueError, match=r"needs the C\+\+ extension, which is not built: run `make setup`"):
        op(x, x, backend="native")
    # Without any of them, auto is the reference.
    assert _library.resolve("auto", x) is None
