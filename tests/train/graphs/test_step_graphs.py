"""Steps captured into a graph are the steps themselves: on the CPU by a list of operators' calls, on a GPU by CUDA."""

import warnings

import pytest
import torch

from fastvae.data import ResidentLoader, load
from fastvae.models import build
from fastvae.train.config import TrainConfig, resolve
from fastvae.train.config.schedules import plan
from fastvae.train.distributed.world import World
from fastvae.train.engine import Engine
from fastvae.train.graphs.cuda_graphs import refusing_waits
from fastvae.train.graphs.step_graphs import STEPS, CaptureError, StepGraphs, can_capture

from ..recording import Recording, as_on_a_gpu, record

BATCH = 32
ROWS = (2 * STEPS + 3) * BATCH + 5
WHOLE = [STEPS, STEPS, 1, 1, 1]  # the replays of an epoch; the smaller batch at its end is taken alone
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


@pytest.fixture(params=DEVICES)
def device(request, monkeypatch):
    """The step of a GPU, on which nothing is looked at on the host and a learning rate is a tensor."""
    as_on_a_gpu(monkeypatch)
    return request.param


def test_the_stand_in_of_a_graph_holds_what_one_holds():
    loader = ResidentLoader(torch.zeros(1, 1, 1, 1), batch_size=1, seed=0)
    total, number, graph = torch.zeros(2), 2.0, Recording()
    with graph.capture(loader):
        doubled = total[:1] * 2
        if number == 2.0:
            total[1:] += doubled + number
    assert total.tolist() == [0, 0]  # a capture changes nothing
    number, total[0] = 3.0, 5.0
    for _ in range(2):
        graph.replay()
    assert total.tolist() == [5, 24]  # by the tensors as they are, the number and the branch as they were
    assert doubled.item() == 10
    for forbidden, why in (
        (total[0].item, "waits for the device"),
        (lambda: total[total > 0], "waits for the device"),
        (lambda: torch.nn.functional.one_hot(loader.place), "waits for the device"),
        (lambda: total * torch.tensor(2.0), "copies from the host"),
        (lambda: total.new_tensor(2.0), "copies from the host"),
        (lambda: total[[0, 1]], "copies from the host"),
    ):
        with pytest.raises(RuntimeError, match=why), Recording().capture(loader):
            forbidden()
    assert total.tolist() == [5, 24]


def setup(device="cpu", rows=ROWS, broken=False, **options):
    config = TrainConfig(**{"batch_size": BATCH, "precision": "fp32", "execution": "traced", "epochs": 3} | options)
    config = resolve(config)
    torch.manual_seed(0)
    data = load("digits").train[:rows]
    if broken:
        data = data / 255
        data[BATCH] = torch.nan
    place = torch.device(device)
    loader = ResidentLoader(data, batch_size=config.batch_size, seed=0, device=place)
    model = build(config.recipe, data.shape[1:])
    return Engine(model, config, World(0, 0, 1, place), plan(config, len(loader)), len(data)), loader


def captured(engine, loader):
    return StepGraphs.on_cuda(engine, loader) if loader.images.is_cuda else record(engine, loader)


def epoch(engine, loader, replay=None):
    """One epoch. Returns how many steps each replay took."""
    replays = []
    while replay is not None and (steps := replay.fitting(10**9)):
        replay.run(steps)
        replays.append(steps)
    for batch in loader:
        engine.train_step(batch)
    return replays


def assert_same(replayed, plain):
    assert plain.sums[:3].all()
    assert plain.is_finite()
    for ours, theirs in zip(replayed.tensors(), plain.tensors(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)  # NaN in the record of a bad step


def assert_epochs_are_those_step_by_step(device, **options):
    """Both epochs end with a smaller batch; the graph is captured before the first."""
    plain, replayed = (setup(device, **options) for _ in range(2))
    replay = captured(*replayed)
    for number in range(2):
        for engine, loader in (plain, replayed):
            loader.set_epoch(number)
            took = epoch(engine, loader, replay if engine is replayed[0] else None)
            assert took == (WHOLE if engine is replayed[0] else [])
        assert_same(replayed[0], plain[0])


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("preset", ["classic", "keras", "gaussian"])  # the loss a sum, a mean, and twice a mean
def test_epochs_by_replay_are_those_step_by_step(device, preset, precision):
    if (preset, precision) == ("keras", "fp16"):
        pytest.skip("RMSprop is not fused: the loss scale is the host's, and can_capture says no")
    assert_epochs_are_those_step_by_step(device, preset=preset, precision=precision)


@pytest.mark.parametrize(
    "options",
    [
        {"clip_norm": 0.5},
        {"ema": 0.9},
        {"schedule": "cosine", "warmup_steps": 15, "beta_schedule": "warmup", "beta_steps": 40},
        {"objective": "capacity", "capacity": 3.0, "capacity_steps": 40, "beta": 10.0},
        {"objective": "iwae", "samples": 3},
        {"objective": "tcvae", "beta": 2.0},
        {"accumulate": 2},
        {"broken": True, "on_nonfinite": "skip"},
        {"broken": True, "on_nonfinite": "stop"},
        {"broken": True, "on_nonfinite": "skip", "preset": "keras"},  # whose optimiser heeds nothing
        {"binarize": True},
        {"execution": "eager"},
        {"clip_norm": 0.5, "accumulate": 2, "ema": 0.9, "precision": "fp16", "schedule": "cosine"},
    ],
    ids=lambda options: " ".join(f"{name}={value}" for name, value in options.items()),
)
def test_so_are_those_of_every_kind_of_step(device, options):
    assert_epochs_are_those_step_by_step(device, **{"preset": "gaussian"} | options)


def test_the_warm_up_leaves_no_trace(device):
    engine, loader = setup(device)
    before = [tensor.clone() for tensor in engine.tensors()]
    captured(engine, loader)
    after = list(engine.tensors())
    known = {tensor.data_ptr() for tensor in engine.model.parameters()}
    assert known <= {tensor.data_ptr() for tensor in after}
    moments = len(after) - len(before)
    assert moments > 0
    assert engine.counter.state.tolist() == [0, 0]
    assert sum(bool(tensor.any()) for tensor in after) == sum(bool(tensor.any()) for tensor in before)
    assert loader.place.item() == 0
    assert loader.state_dict() == {"epoch": 0, "step": 0}


@pytest.mark.parametrize("preset", ["classic", "keras"])
def test_a_replay_goes_on_in_mid_epoch(device, preset):
    plain, replayed = (setup(device, preset=preset) for _ in range(2))
    replay = captured(*replayed)
    for engine, loader in (plain, replayed):
        batches = iter(loader)
        for _ in range(3):
            engine.train_step(next(batches))
    assert epoch(*replayed, replay) == [STEPS, STEPS]
    epoch(*plain)
    assert_same(replayed[0], plain[0])


@pytest.mark.parametrize("left", [1, 0])
def test_a_run_may_capture_at_the_end_of_an_epoch(device, left):
    """As one does that goes on from a checkpoint, whose last step was of a smaller batch or the one before it."""
    plain, replayed = (setup(device, preset="keras") for _ in range(2))
    for engine, loader in (plain, replayed):
        for _, batch in zip(range(len(loader) - left), loader, strict=False):
            engine.train_step(batch)
        loader.load_state_dict({"epoch": 0, "step": len(loader) - left})
    replay = captured(*replayed)
    assert epoch(*replayed, replay) == []
    epoch(*plain)
    for _, loader in (plain, replayed):
        loader.set_epoch(1)
    assert epoch(*replayed, replay) == WHOLE
    epoch(*plain)
    assert_same(replayed[0], plain[0])


@pytest.mark.parametrize(
    ("options", "possible"),
    [
        ({}, True),
        ({"preset": "keras"}, True),
        ({"optimizer": "sgd", "optimizer_options": {"momentum": 0.9}}, True),
        ({"rows": BATCH}, True),
        ({"rows": BATCH - 1}, False),  # no full batch
        ({"optimizer": "nadam"}, False),  # its state does not begin at zero
        ({"optimizer": "sgd", "optimizer_options": {"momentum": 0.9, "dampening": 0.5}}, False),  # nor this momentum
    ],
)
def test_what_can_be_replayed(device, options, possible):
    assert can_capture(*setup(device, **options)) == possible


@pytest.mark.parametrize(
    ("forbidden", "why"),
    [
        (lambda x: x * torch.tensor(1.0, device=x.device), "copies from the host|synchronizing"),
        (lambda x: x + 0 * x.sum().item(), "waits for the device|synchronizing"),
    ],
)
def test_a_step_that_cannot_be_captured_says_why_and_leaves_no_trace(device, forbidden, why):
    engine, loader = setup(device, execution="eager")
    engine.model.encoder.register_forward_pre_hook(lambda _, inputs: forbidden(*inputs))
    engine.train_step(loader.follow())
    loader.place.zero_()
    before = [tensor.clone() for tensor in engine.tensors()]
    with pytest.raises(CaptureError, match=rf"RuntimeError: .*({why}).* \((test_replay|recording).py, line \d+\)"):
        captured(engine, loader)
    for one, other in zip(before, engine.tensors(), strict=True):
        assert torch.equal(one, other)
    assert loader.place.item() == 0
    engine.train_step(loader.follow())
    assert engine.is_finite()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_an_epoch_never_waits_for_the_device():
    engine, loader = setup("cuda", execution="compiled")
    replay = captured(engine, loader)
    epoch(engine, loader, replay)  # the smaller last batch compiles
    loader.set_epoch(1)
    with refusing_waits():
        assert epoch(engine, loader, replay) == WHOLE


def test_the_mode_that_refuses_waits_never_stays(monkeypatch):
    """torch warns of it after it is set, which is an exception where warnings are."""
    modes = [0]

    def set_mode(mode):
        modes.append(mode)
        if mode == "error":
            warnings.warn("Synchronization debug mode is a prototype feature", UserWarning, stacklevel=2)

    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[-1])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", set_mode)
    with pytest.raises(ZeroDivisionError), refusing_waits():
        1 / (modes[-1] != "error")
    assert modes == [0, "error", 0]
