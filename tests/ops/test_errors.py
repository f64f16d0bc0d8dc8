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
     "target must be uint8 (0..255, read as x/255) or a floating type, not torch.int64: convert"),
    (ops.bernoulli_nll, (F(2, 3), F(2, 3, dtype=torch.bool)), {}, TypeError,
     "not torch.bool: convert it with .to(torch.uint8) or .float()"),
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
         "target must be uint8 (0..255, read as x/255) or a floating type, not torch.int64: convert"),
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
    )
]  # fmt: skip

TABLE = PIXELS + LAST_LAYERS + LATENTS + NOISES

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


@pytest.mark.parametrize("op", [ops.bernoulli_nll, ops.gaussian_nll, ops.gaussian_kl, ops.reparameterize_kl])
@pytest.mark.parametrize(("keywords", "exception", "message"), REDUCED, ids=[row[2][:44] for row in REDUCED])
def test_bad_reductions_and_weights(
    place: Any, op: Any, keywords: Any, exception: type[Exception], message: str
) -> None:
    x = torch.zeros(2, 3, device=place.device)
    with pytest.raises(exception, match=re.escape(message).replace("cpu", place.device)) as caught:
        op(x, x, **keywords, backend=place.backend)
    assert caught.type is exception


@pytest.mark.parametrize(
    "op", [ops.bernoulli_nll, ops.gaussian_nll, ops.gaussian_kl, ops.reparameterize, ops.reparameterize_kl]
)
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
