"""Steps captured into a graph are the steps themselves: on the CPU by a list of operations, on a GPU by CUDA."""

import contextlib

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastvae.data import ResidentLoader, load
from fastvae.models import build
from fastvae.train import nonfinite
from fastvae.train.config import TrainConfig, resolve
from fastvae.train.engine import Engine
from fastvae.train.replay import STEPS, Replay
from fastvae.train.world import World

BATCH = 32


class Recorded(TorchDispatchMode):
    """A graph for the CPU: it keeps the operations of what it captures, and the tensors that they read and wrote.

    A replay calls the operations on the same memory. As in a graph of CUDA, what Python decided is as it was decided,
    and a number that it knew is the number that it was.
    """

    def __init__(self):
        super().__init__()
        self.kept = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function is not torch.ops.aten._local_scalar_dense.default, "what is captured cannot wait"
        made = function(*args, **(kwargs or {}))
        self.kept.append((function, args, kwargs or {}, made))
        return made

    @contextlib.contextmanager
    def capture(self, engine, loader):
        """Unlike one of CUDA it takes the steps while it captures them, so that they are taken back."""
        before = [(tensor, tensor.detach().clone()) for tensor in (*engine.tensors(), loader.place)]
        with self:
            yield
        with torch.no_grad():
            for tensor, value in before:
                tensor.copy_(value)

    def replay(self):
        with torch.no_grad():
            for function, args, kwargs, made in self.kept:
                again = function(*args, **kwargs)
                for old, new in zip(tree_leaves(made), tree_leaves(again), strict=True):
                    if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)


def setup(device="cpu", **options):
    config = resolve(TrainConfig(batch_size=BATCH, **({"precision": "fp32", "execution": "traced"} | options)))
    torch.manual_seed(0)
    data = load("digits").train[: (2 * STEPS + 3) * BATCH + 5]
    place = torch.device(device)
    engine = Engine(build(config.recipe, data.shape[1:]), config, config.recipe, World(0, 0, 1, place))
    return engine, ResidentLoader(data, batch_size=BATCH, seed=0, device=place)


def captured(engine, loader):
    if loader.images.is_cuda:
        return Replay.on_cuda(engine, loader)
    graph = Recorded()
    return Replay(engine, loader, graph, graph.capture(engine, loader))


def epoch(engine, loader, replay=None):
    """One epoch. Returns how many replays there were."""
    replays = 0
    while replay is not None and replay.fits():
        replay.run()
        replays += 1
    for batch in loader:
        engine.train_step(batch)
    return replays


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


SETTINGS = [
    *({"precision": precision} for precision in ("fp32", "bf16", "fp16")),
    {"preset": "keras"},  # whose loss is a mean over the batch: smaller ones at the end of an epoch have another weight
    {"preset": "gaussian", "precision": "fp16"},  # a doubled loss, scaled
    {"preset": "keras", "clip_norm": 1.0, "ema": 0.9},
    {"preset": "keras", "accumulate": 2, "objective": "iwae", "samples": 2},
    {"schedule": "cosine", "beta_schedule": "warmup", "beta_steps": 30},
]


@pytest.fixture(autouse=True)
def _as_on_a_gpu(monkeypatch):
    """What is captured does not look at losses on the host."""
    monkeypatch.setattr(nonfinite, "_is_at_hand", lambda device: False)


@pytest.mark.parametrize("options", SETTINGS, ids=lambda options: "-".join(map(str, options.values())))
@pytest.mark.parametrize("device", DEVICES)
def test_two_epochs_by_replay_are_those_step_by_step(device, options):
    plain, replayed = (setup(device, **options) for _ in range(2))
    replay = captured(*replayed)
    for number in range(2):
        for engine, loader in (plain, replayed):
            loader.set_epoch(number)
            assert epoch(engine, loader, replay if engine is replayed[0] else None) == 2 * (engine is replayed[0])
        assert torch.equal(plain[0].sums, replayed[0].sums)
    for ours, theirs in zip(replayed[0].tensors(), plain[0].tensors(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("device", DEVICES)
def test_replayed_steps_draw_fresh_pixels(device):
    plain, replayed = (setup(device, binarize=True) for _ in range(2))
    assert epoch(*replayed, captured(*replayed)) == 2
    epoch(*plain)
    assert torch.equal(plain[0].sums, replayed[0].sums)


@pytest.mark.parametrize("device", DEVICES)
def test_the_warm_up_leaves_no_trace(device):
    engine, loader = setup(device)
    before = [tensor.clone() for tensor in engine.tensors()]
    captured(engine, loader)
    after = list(engine.tensors())
    known = {tensor.data_ptr() for tensor in engine.model.parameters()}
    assert known <= {tensor.data_ptr() for tensor in after}
    moments = len(after) - len(before)
    assert moments > 0
    assert engine.noise.state.tolist() == [0, 0]
    assert sum(bool(tensor.any()) for tensor in after) == sum(bool(tensor.any()) for tensor in before)
    assert loader.place.item() == 0
    assert loader.state_dict() == {"epoch": 0, "step": 0}


def test_a_replay_goes_on_in_mid_epoch():
    plain, replayed = setup(), setup()
    replay = captured(*replayed)
    for engine, loader in (plain, replayed):
        batches = iter(loader)
        for _ in range(3):
            engine.train_step(next(batches))
    assert epoch(*replayed, replay) == 2
    epoch(*plain)
    assert torch.equal(plain[0].sums, replayed[0].sums)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_an_epoch_never_waits_for_the_device():
    engine, loader = setup("cuda", execution="compiled")
    replay = captured(engine, loader)
    epoch(engine, loader, replay)  # the smaller last batch compiles
    loader.set_epoch(1)
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert epoch(engine, loader, replay) == 2
    finally:
        torch.cuda.set_sync_debug_mode("default")
