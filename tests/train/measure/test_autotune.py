"""The trial: its choice is kept and repeated, it leaves no trace, and its file may be anything."""

import json

import pytest
import torch

from fastvae.data import ResidentLoader, load
from fastvae.models import build
from fastvae.train.config import TrainConfig, resolve
from fastvae.train.distributed.world import World
from fastvae.train.graphs import step_graphs
from fastvae.train.graphs.step_graphs import StepGraphs
from fastvae.train.measure import autotune
from fastvae.train.measure.turn import Turn
from fastvae.train.step import nonfinite

from ..recording import record

CPU = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(autotune, "_seconds_of_step", lambda *_: 9.0)  # no run is too short for a trial
    monkeypatch.setattr(autotune.OtherLoad, "cores", lambda *_: 0.0)  # other tests run meanwhile
    return tmp_path / "fastvae" / "autotune.json"


def choose(steps=100, tell=lambda _: None, **settings):
    config = resolve(TrainConfig(device="cpu", **settings))
    torch.manual_seed(0)
    model = build(config.recipe, (1, 8, 8))
    loader = ResidentLoader(load("digits").train, batch_size=config.batch_size, seed=0)
    before = [tensor.clone() for tensor in model.state_dict().values()], torch.get_rng_state(), loader.state_dict()
    choice = autotune.choose(config, model, loader, steps, CPU, tell)
    after = list(model.state_dict().values()), torch.get_rng_state(), loader.state_dict()
    assert all(map(torch.equal, before[0], after[0]))
    assert torch.equal(before[1], after[1])
    assert before[2] == after[2]
    return choice


def test_the_second_run_makes_the_first_ones_choice(cache, monkeypatch):
    first = choose()
    assert first.source == "by trial"
    assert min(first.milliseconds.values()) > 0
    assert f"{first.precision} {first.execution}" in first.milliseconds
    monkeypatch.setattr(autotune, "_time", None)  # so that another trial would fail
    second = choose()
    assert second.source == "from an earlier trial"
    assert (second.precision, second.execution) == (first.precision, first.execution)
    assert str(second).startswith(f"{first.precision}, {first.execution} (from an earlier trial: ")
    assert set(json.loads(cache.read_text())) == {
        key for key, value in json.loads(cache.read_text()).items() if value["precision"] == first.precision
    }


def test_a_trial_is_told_before_it_begins(monkeypatch):
    told = []
    monkeypatch.setattr(autotune, "_time", lambda *_: told.append("it begins") or {("fp32", "traced"): 1e-3})
    monkeypatch.setattr(autotune, "has_fast_bf16", lambda _: True)
    choose(tell=told.append)
    choose(tell=told.append)  # from the cache
    choose(tell=told.append, precision="fp32", execution="eager")
    first, then = told
    assert first.startswith(
        "fastvae: trying which is the fastest here, fp32 eager, fp32 traced, bf16 eager, bf16 traced: "
    )
    assert then == "it begins"


def test_other_settings_are_tried_anew(cache):
    choose()
    assert choose(batch_size=32).source == "by trial"
    assert choose(preset="leaky").source == "by trial"
    assert len(json.loads(cache.read_text())) == 3


def test_what_is_asked_for_is_not_tried():
    assert choose(precision="fp32", execution="eager").source == "from the settings"
    assert set(choose(precision="fp32").milliseconds) == {"fp32 eager", "fp32 traced"}
    assert {name.split()[1] for name in choose(execution="eager").milliseconds} <= {"eager"}


@pytest.mark.parametrize("objective", ["iwae", "tcvae", "capacity", "free-bits"])
def test_each_objective_can_be_tried(objective):
    needed = {"capacity": {"capacity": 5.0}, "free-bits": {"free_bits": 0.1}}.get(objective, {})
    assert choose(objective=objective, precision="fp32", **needed).source == "by trial"


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"KEY": 3}', '{"KEY": {"precision": "fp8", "execution": "traced"}}']
)
def test_a_file_that_is_not_ours_is_as_none(content, cache):
    choose(precision="fp32")
    (key,) = json.loads(cache.read_text())
    cache.write_text(content.replace("KEY", key))
    assert choose(precision="fp32").source == "by trial"
    assert key in json.loads(cache.read_text())


def test_a_folder_that_cannot_be_written_costs_the_cache_alone(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert choose().source == "by trial"


def test_compiling_is_tried_only_where_a_run_earns_it_back(monkeypatch):
    tried = []
    monkeypatch.setattr(
        autotune, "_time", lambda candidates, *_: tried.extend(candidates) or dict.fromkeys(candidates, 1e-3)
    )
    choose(steps=1000)
    assert {execution for _, execution in tried} == {"eager", "traced"}
    choose(steps=10**6)
    assert "compiled" in {execution for _, execution in tried}


def test_where_the_run_replays_graphs_the_trial_does(monkeypatch):
    monkeypatch.setattr(nonfinite, "_is_on_host", lambda device: False)
    monkeypatch.setattr(step_graphs, "takes_device_rate", lambda optimizer: True)
    graphs, taken = [], []

    def on_cuda(engine, loader, sizes):
        made = record(engine, loader, sizes)
        run = made.run
        made.run = lambda steps: (run(steps), taken.append(int(engine.counter.state[1])))
        graphs.append(made)
        return made

    monkeypatch.setattr(StepGraphs, "on_cuda", on_cuda)
    assert set(choose(precision="fp32").milliseconds) == {"fp32 eager", "fp32 traced"}
    assert len(graphs) == 2
    assert taken == [step_graphs.STEPS * (turn + 1) for turn in range(len(taken) // 2) for _ in graphs]
    assert all(not made._graphs for made in graphs)  # let go, before the run makes its own
    assert choose(precision="fp32", replay="no").source == "by trial"
    assert len(graphs) == 2


def test_what_raises_drops_out_of_the_trial(monkeypatch):
    whole, failing = Turn.__call__, {"traced"}

    def turn(self):
        if self._engine._step._execution in failing:
            raise RuntimeError("no such kernel")
        whole(self)

    monkeypatch.setattr(Turn, "__call__", turn)
    choice = choose(precision="fp32")
    assert choice.execution == "eager"
    assert set(choice.milliseconds) == {"fp32 eager"}
    failing.add("eager")
    with pytest.raises(RuntimeError, match="no such kernel"):
        choose(precision="fp32", batch_size=32)


def test_the_fixed_choice_on_a_gpu_compiles_nothing(monkeypatch):
    monkeypatch.setattr(autotune, "has_fast_bf16", lambda device: True)
    gpu = torch.device("cuda")
    fixed = [
        autotune.fixed(resolve(TrainConfig(**settings)), gpu)
        for settings in ({}, {"execution": "eager"}, {"parallel": "fsdp"}, {"deterministic": True})
    ]
    assert {choice.precision for choice in fixed} == {"bf16"}
    assert [choice.execution for choice in fixed] == ["traced", "eager", "eager", "traced"]


def test_within_the_noise_it_is_traced(monkeypatch):
    times = {"eager": 0.99e-3, "traced": 1e-3}
    monkeypatch.setattr(autotune, "_time", lambda engines, *_: {engine: times[engine[1]] for engine in engines})
    assert choose().execution == "traced"
    times["eager"] = 0.9e-3
    assert choose(batch_size=32).execution == "eager"


def test_the_fixed_choice_is_the_machines():
    choice = autotune.fixed(resolve(TrainConfig()), torch.device("cpu"))
    assert choice.precision == ("bf16" if autotune.has_fast_bf16(torch.device("cpu")) else "fp32")
    assert str(choice) == f"{choice.precision}, traced (chosen without a trial)"
    asked = autotune.fixed(resolve(TrainConfig(precision="fp64", execution="eager")), torch.device("cpu"))
    assert (asked.precision, asked.execution) == ("fp64", "eager")


def test_of_several_processes_none_drops_a_candidate_by_itself(monkeypatch):
    """The others wait for it in a sum: it has to end, so that they do."""

    def make(*candidate):
        raise RuntimeError("out of memory here alone")

    with pytest.raises(RuntimeError, match="here alone"):
        autotune._time([("fp32", "eager"), ("fp32", "traced")], make, World(0, 0, 2, torch.device("cpu")))
