"""Contenders that are captured on a GPU, the floor and torch's loop, with lists of calls in place of CUDA graphs."""

import pytest
import torch

from fastvae.bench.contenders import graphs
from fastvae.bench.contenders.entries import contenders, select
from fastvae.bench.contenders.floor import Floor
from fastvae.bench.contenders.torch_loop import TorchLoop
from fastvae.bench.contenders.torch_one_graph import TorchOneGraph
from fastvae.bench.contenders.workload import Workload
from fastvae.data import Dataset, load
from fastvae.models import PRESETS
from fastvae.train.graphs.step_graphs import STEPS

from .. import pretended


@pytest.fixture(autouse=True)
def _on_a_gpu(monkeypatch):
    pretended.install(monkeypatch)


def workload(preset="classic", batch_size=8, images=8 * 32 + 3, **options):
    digits = load("digits")
    dataset = Dataset("digits", digits.train[:images], digits.test[:50])
    return Workload(preset, PRESETS[preset], dataset, batch_size, torch.device("cpu"), **options)


@pytest.mark.parametrize(
    ("count", "timed", "expected"),
    [
        (23, None, [10, 10, 1, 1, 1]),
        (9, None, [1] * 9),
        (0, None, []),
        (0, 2, []),
        (23, 15, [1, 10, 1, 1, 1, 1, 1]),
        (23, 22, [1, 10, 10, 1, 1]),
        (23, 23, [1, 10, 10, 1, 1]),
        (1, 5, [1]),
    ],
)
def test_no_replay_crosses_an_end_of_what_is_timed(count, timed, expected, monkeypatch):
    class Counted:
        def __init__(self, size):
            self.replay = lambda: taken.append(size)

    monkeypatch.setattr(graphs, "capture", lambda *_: [Counted(STEPS), Counted(1)])
    taken = []
    assert len(list(graphs.StepGraphs(lambda: None).take(count, timed))) == sum(expected)
    assert taken == expected


@pytest.mark.parametrize("preset", ["classic", "keras", "gaussian", "conv28"])
def test_torchs_step_in_a_graph_is_its_eager_step(preset, monkeypatch):
    # The same batches and noise for both.
    monkeypatch.setattr(torch, "randn_like", torch.ones_like)
    monkeypatch.setattr(torch, "bernoulli", lambda grey: grey)
    monkeypatch.setattr(torch, "randperm", lambda count, device: torch.arange(count, device=device))
    here, losses = workload(preset), []
    eager = TorchLoop(here, 3, "fp32", None)
    step = eager._step
    monkeypatch.setattr(eager, "_step", lambda x: losses.append(step(x)) or losses[-1])
    captured = TorchOneGraph(here, 3, "fp32", None)
    for _ in range(2):
        losses.clear()
        assert len(list(eager.epoch(0))) == len(list(captured.epoch(0))) == here.epoch_steps == 33
        torch.testing.assert_close(captured._total, torch.stack(losses).sum(), rtol=1e-6, atol=0)
    assert all(map(torch.equal, eager.model.parameters(), captured.model.parameters()))


def test_torchs_graph_draws_every_batch_and_its_noise_anew():
    here = workload(batch_size=10, images=200)
    captured = TorchOneGraph(here, 0, "fp32", None)
    orders, totals = [], []
    for _ in range(2):
        list(captured.epoch(0))
        orders.append(captured._order.clone())
        captured.model.load_state_dict(here.model(0).state_dict())  # so that noise alone makes the next total differ
        totals.append(captured._total.item())
        assert captured._place.item() == len(captured._order) == 20
    assert all(torch.equal(order.flatten().sort().values, torch.arange(200)) for order in orders)
    assert not torch.equal(*orders)
    assert totals[0] != totals[1]


def test_torchs_graph_takes_low_precision_and_slices():
    captured = TorchOneGraph(workload(steps=15), 0, "bf16", None)
    captured.lap(0, 15, lambda: None)
    assert captured._place.item() == 16
    assert captured._total.isfinite()
    assert all(parameter.dtype == torch.float32 for parameter in captured.model.parameters())


@pytest.mark.parametrize("preset", ["classic", "keras", "conv28"])
@pytest.mark.parametrize("steps", [None, 15])
def test_a_captured_floor_takes_the_steps_that_are_timed(preset, steps):
    here = workload(preset, steps=steps)
    floor = Floor(here, 0, "fp32")
    states = floor._optimizer.state.values()
    before = {int(state["step"]) for state in states}
    floor.lap(0, steps, lambda: None)
    taken = {int(state["step"]) for state in states}
    assert taken == {graphs.WARM_UP + (33 if steps is None else 16)}
    assert before == {graphs.WARM_UP}


def test_on_a_gpu_torch_races_in_graphs_too():
    names = [entry.name for entry in contenders(workload())]
    for name in ("torch fp32, one graph", "torch fp32, compile, one graph"):
        assert name in names
    assert "torch fp32, compile, one graph" not in [entry.name for entry in contenders(workload(), compiled=False)]
    ((graph, floor),) = select(["torch fp32, one*", "floor, fp32"], contenders(workload()))
    assert isinstance(graph.make(workload(), 0), TorchOneGraph)
    assert (graph.kind, floor.kind) == ("torch", "floor")
