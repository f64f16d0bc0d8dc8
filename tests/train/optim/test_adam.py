"""The optimiser around the fused step: torch's Adam to all who use it, with working copies."""

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastvae import backends
from fastvae.ops import _library
from fastvae.train.optim.adam import Adam

SHAPES = [(5, 7), (7,), (3, 5), (0,)]


@pytest.fixture(params=["native", "torch"], autouse=True)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the extension, and as if there were none."""
    if request.param == "torch":
        monkeypatch.setattr(_library, "_NATIVE", False)
    elif not backends.has_native():
        pytest.skip("the C++ extension is not built: run `make setup`")
    name: str = request.param
    return name


def parameters(dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)) for shape in SHAPES]


def give(parameters: Sequence[Tensor], seed: int, scale: float = 1.0) -> list[Tensor]:
    """Set the gradients of parameters, and return them."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        gradient = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * scale
        parameter.grad = gradient.to(parameter.dtype)
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def assert_equal(ours: Sequence[Tensor], theirs: Sequence[Tensor], tolerance: float = 1e-12) -> None:
    for first, second in zip(ours, theirs, strict=True):
        torch.testing.assert_close(first.detach(), second.detach(), rtol=tolerance, atol=tolerance)


def groups(parameters: Sequence[nn.Parameter]) -> list[dict[str, Any]]:
    return [
        {"params": parameters[:2], "lr": 0.1, "weight_decay": 0.2},
        {"params": parameters[2:], "lr": torch.tensor(0.01, dtype=torch.float64), "betas": (0.5, 0.6), "eps": 1e-3},
    ]


@pytest.mark.parametrize("decoupled", [False, True])
def test_groups_step_as_torchs(decoupled: bool) -> None:
    ours, theirs = parameters(), parameters()
    first = Adam(groups(ours), decoupled_weight_decay=decoupled)
    second = (torch.optim.AdamW if decoupled else torch.optim.Adam)(groups(theirs), weight_decay=0.0, foreach=False)
    for seed in range(4):
        give(ours, seed), give(theirs, seed)
        first.step()
        second.step()
        assert_equal(ours, theirs)


def test_a_parameter_without_a_gradient_is_left_alone() -> None:
    ours, theirs = parameters(), parameters()
    first, second = Adam(ours), torch.optim.Adam(theirs, fused=True)
    for seed in range(3):
        give(ours, seed), give(theirs, seed)
        if seed == 1:
            ours[0].grad = theirs[0].grad = None
        first.step()
        second.step()
    assert_equal(ours, theirs)
    assert first.state[ours[0]]["step"].item() == 2
    assert first.state[ours[1]]["step"].item() == 3


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_low_precision_gradients_and_working_copies(kind: torch.dtype) -> None:
    ours, theirs = parameters(torch.float32), parameters(torch.float32)
    some = {weight: weight.detach().to(torch.bfloat16) for weight in (ours[0], ours[2])}
    first, second = Adam(ours, working=some), torch.optim.Adam(theirs, fused=True)
    for seed in range(4):
        gradients = [gradient.to(kind) for gradient in give(theirs, seed)]
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = gradient.float()
        first.step_with(gradients)
        second.step()
        for weight, working in some.items():
            assert torch.equal(working, weight.detach().to(torch.bfloat16))
    # Both round each of a few steps of 1e-3 in their own order.
    assert_equal(ours, theirs, 4 * 2**-23)


def test_transposed_gradients_are_no_other() -> None:
    ours, theirs = parameters(), parameters()
    first, second = Adam(ours), torch.optim.Adam(theirs, foreach=False)
    gradients = give(theirs, 0)
    first.step_with([g.t().contiguous().t() if g.ndim == 2 else g for g in gradients])
    second.step()
    assert_equal(ours, theirs)


@pytest.mark.parametrize("saved_by_torch", [False, True])
def test_state_dicts_are_torchs(saved_by_torch: bool) -> None:
    def torchs(parameters: list[nn.Parameter]) -> torch.optim.Adam:
        return torch.optim.Adam(parameters, lr=0.1, fused=True)

    def fastvaes(parameters: list[nn.Parameter]) -> torch.optim.Adam:
        return Adam(parameters, lr=0.1)

    before, after = parameters(), parameters()
    writer, reader = (torchs, fastvaes) if saved_by_torch else (fastvaes, torchs)
    first, second = writer(before), reader(after)
    give(before, 0)
    first.step()
    state = copy.deepcopy(first.state_dict())
    with torch.no_grad():
        torch._foreach_copy_(after, before)
    second.load_state_dict(state)
    again = second.state_dict()
    assert again["param_groups"] == state["param_groups"]
    for at, values in state["state"].items():
        assert {name: (t.dtype, t.shape) for name, t in values.items()} == {
            name: (t.dtype, t.shape) for name, t in again["state"][at].items()
        }
        assert all(torch.equal(tensor, again["state"][at][name]) for name, tensor in values.items())
    for optimizer, weights in ((first, before), (second, after)):
        give(weights, 1)
        optimizer.step()
    assert_equal(before, after)


def test_the_fresh_state_is_torchs() -> None:
    ours, theirs = parameters(torch.float32), parameters(torch.float32)
    states = []
    for optimizer, weights in ((Adam(ours), ours), (torch.optim.Adam(theirs, fused=True), theirs)):
        give(weights, 0)
        optimizer.step()
        states.append(
            [
                {name: (t.dtype, t.shape, t.stride()) for name, t in optimizer.state[weight].items()}
                for weight in weights
            ]
        )
    assert states[0] == states[1]


def test_grad_scaler_unscales_skips_and_goes_on() -> None:
    weights, plain = parameters(torch.float32), parameters(torch.float32)
    working = {weight: weight.detach().half() for weight in weights}
    first, second = Adam(weights, working=working), Adam(plain)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(torch.zeros(()))  # makes the scale
    for seed in range(3):
        give(weights, seed, scaler.get_scale())
        before = [weight.detach().clone() for weight in weights]
        if seed == 1:
            weights[0].grad[0, 0] = torch.inf  # type: ignore[index]
        scaler.step(first)
        scaler.update()
        if seed == 1:
            assert_equal(weights, before, 0.0)
        else:
            give(plain, seed)
            second.step()
    assert_equal(weights, plain, 0.0)
    assert first.state[weights[0]]["step"].item() == 2
    assert all(torch.equal(copy, weight.detach().half()) for weight, copy in working.items())


def test_schedulers_closures_and_hooks() -> None:
    ours = parameters()
    optimizer, calls = Adam(ours, lr=1.0), []
    optimizer.register_step_post_hook(lambda *_: calls.append("hook"))
    torch.optim.Adam(parameters())  # torch hooks its own step when one of its own is made
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = sum((weight**2).sum() for weight in ours)
        assert isinstance(loss, Tensor)
        loss.backward()
        return loss

    loss = optimizer.step(closure)
    assert loss.requires_grad
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert calls == ["hook"]


def test_a_schedule_may_follow_step_with() -> None:
    ours = parameters()
    optimizer = Adam(ours, lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    optimizer.step_with(give(ours, 0))
    scheduler.step()  # warns, an error here, where no step was seen
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_copies_keep_their_working_tensors() -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer = Adam([weight], lr=0.5, working={weight: weight.detach().half()})
    twin = copy.deepcopy(optimizer)
    [parameter] = twin.param_groups[0]["params"]
    twin.step_with([torch.ones(3)])
    assert torch.equal(twin.working[parameter], torch.full((3,), 0.5, dtype=torch.float16))
    assert torch.equal(optimizer.working[weight], torch.ones(3, dtype=torch.float16))


def test_errors() -> None:
    ours = parameters()
    optimizer = Adam(ours)
    with pytest.raises(ValueError, match="there are 4 parameters, but 1 gradients: pass one each, or None"):
        optimizer.step_with([ours[0].detach()])
    with pytest.raises(ValueError, match=r"has shape \(5,\), but .* has \(3, 5\): both need the same shape"):
        optimizer.step_with([None, None, torch.ones(5, dtype=torch.float64), None])
    amsgrad = torch.optim.Adam(parameters(), amsgrad=True, fused=True)
    optimizer.load_state_dict(amsgrad.state_dict())
    give(ours, 0)
    with pytest.raises(ValueError, match="amsgrad=True and maximize=False, but both must be False: use torch"):
        optimizer.step()
