"""`fastvae bench`: honest contenders, fair turns, a report that says what was measured."""

import json
from dataclasses import replace
from importlib.util import find_spec
from itertools import islice

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fastvae import reference
from fastvae.bench.contenders import pythae
from fastvae.bench.contenders.entries import against_pythae, contenders
from fastvae.bench.contenders.fastvae import FastvaeLoop
from fastvae.bench.contenders.floor import Floor
from fastvae.bench.contenders.products import Product, Products
from fastvae.bench.contenders.torch_loop import TorchLoop
from fastvae.bench.contenders.tutorial import TutorialLoop
from fastvae.bench.contenders.workload import Contender, Entry, Workload
from fastvae.bench.race import Result, disagreements, race
from fastvae.bench.report import ratios
from fastvae.cli import run
from fastvae.data import Dataset, load
from fastvae.models import PRESETS
from fastvae.train.graphs import step_graphs
from fastvae.train.graphs.step_graphs import STEPS, StepGraphs
from fastvae.train.step import nonfinite

from ..train.recording import record

RACED = [name for name, preset in PRESETS.items() if preset.network == "mlp" or name == "conv28"]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def workload(preset="classic", batch_size=64, images=150, **options):
    digits = load("digits")
    dataset = Dataset("digits", digits.train[:images], digits.test[:50])
    return Workload(preset, PRESETS[preset], dataset, batch_size, CPU, **options)


@pytest.mark.parametrize("preset", RACED)
def test_all_loops_minimise_what_the_reference_does(preset, monkeypatch):
    # One batch of all images, so that their order is nothing, z at its mean, and pixels as they are.
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    monkeypatch.setattr(torch, "bernoulli", lambda grey: grey)
    monkeypatch.setattr(reference.training, "standard_normal", lambda state, shape, dtype: torch.zeros(shape))
    whole = workload(preset, batch_size=150)
    recipe, model = whole.recipe, whole.model(3)
    kind = {"adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop}[recipe.optimizer]
    optimizer = kind(model.parameters(), lr=recipe.lr, **recipe.optimizer_options)
    options = {"likelihood": recipe.likelihood, "reduction": recipe.reduction, "loss_weight": recipe.loss_weight}
    steps = reference.train(model.encode, model.decoder, optimizer, [whole.dataset.train[:]], seed=0, **options)
    assert len(list(steps)) == 1
    for contender in (TutorialLoop(whole, 3, workers=0), TorchLoop(whole, 3, "fp32", None)):
        assert len(list(contender.epoch(0))) == 1
        # Gradients, which the optimisers have used, since a first step of Adam shows their signs alone.
        kept = contender.optimizer.state.values()
        moments = [state.get("exp_avg", state.get("square_avg")) for state in kept]
        exact = [state.get("exp_avg", state.get("square_avg")) for state in optimizer.state.values()]
        assert len(moments) == len(exact) > 0
        for ours, theirs in zip(moments, exact, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * theirs.abs().max().item())


@pytest.mark.parametrize("preset", RACED)
def test_fastvae_has_the_preset_s_optimiser(preset):
    recipe = PRESETS[preset]
    optimizer = FastvaeLoop(workload(preset), 0, "fp32", "eager").engine.optimizer
    assert isinstance(optimizer, torch.optim.RMSprop) == (recipe.optimizer == "rmsprop")
    for option, value in {"lr": recipe.lr, **recipe.optimizer_options}.items():
        assert optimizer.param_groups[0][option] == value


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("preset", RACED)
def test_the_floor_multiplies_what_a_step_multiplies(preset, precision):
    with FlopCounterMode(display=False) as counter:
        assert len(list(islice(TorchLoop(workload(preset), 0, "fp32", None).epoch(0), 1))) == 1
    products = Floor(workload(preset), 0, precision).products
    assert products.flops == counter.get_total_flops() > 0
    assert all(product.seconds > 0 for product in products.each)


def test_every_contender_trains_an_epoch_of_the_same_length():
    here = workload()
    for entry in contenders(here, compiled=False):
        contender = entry.make(here, 0)
        assert len(list(contender.epoch(0))) == here.epoch_steps == 3, entry.name
        assert (contender.model is None) == (entry.kind == "floor")


def replayed(monkeypatch):
    """Pretend to be on a GPU; return the steps after which each replay of a graph begins."""
    begun = []

    def on_cuda(engine, loader, sizes):
        made = record(engine, loader, sizes)
        run = made.run
        made.run = lambda steps: (begun.append(int(engine.counter.state[1])), run(steps))
        return made

    monkeypatch.setattr(nonfinite, "_is_on_host", lambda device: False)
    monkeypatch.setattr(step_graphs, "takes_device_rate", lambda optimizer: True)
    monkeypatch.setattr(StepGraphs, "on_cuda", on_cuda)
    return begun


@pytest.mark.parametrize("steps", [None, STEPS - 1, STEPS, 2 * STEPS + 5])
def test_by_replay_fastvae_takes_the_same_steps_and_times_as_many(steps, monkeypatch):
    here = workload("gaussian", batch_size=8, images=8 * 32 + 3, steps=steps)
    plain = FastvaeLoop(here, 0, "fp32", "traced")
    begun = replayed(monkeypatch)
    contender = FastvaeLoop(here, 0, "fp32", "traced")
    first, timed = (0, here.epoch_steps) if steps is None else (1, steps)
    taken = []
    for lap in range(2):
        for racer in (plain, contender):
            racer.lap(lap, steps, lambda racer=racer: taken.append(int(racer.engine.counter.state[1])))
        before = lap * (first + timed)
        assert taken[-2:] == taken[-4:-2] == [before + first, before + first + timed]
    full = timed - (steps is None)  # the last batch of an epoch is smaller
    whole, rest = divmod(full, STEPS)
    one_lap = [*range(first, first + whole * STEPS, STEPS), *range(first + full - rest, first + full)]
    assert begun == [before + step for before in (0, first + timed) for step in one_lap]
    assert all(map(torch.equal, plain.model.parameters(), contender.model.parameters()))


@pytest.mark.slow
def test_compiled_contenders_agree_with_the_eager_ones():
    here = workload(images=640)  # batches of one size: each is another graph
    entries = [entry for entry in contenders(here) if "compile" in entry.name or entry.name == "torch fp32, eager"]
    assert {entry.kind for entry in entries} == {"torch", "fastvae"}
    results = race(here, entries, laps=1, seeds=1)
    assert disagreements(results) == []
    assert all(result.start_up > 0.1 for result in results if "compile" in result.name)


class Turn(Contender):
    """A contender that records when it is asked to train."""

    def __init__(self, name, seed, log):
        self.name, self.seed, self.log = name, seed, log

    def epoch(self, number):
        for step in range(3):
            self.log.append((self.seed, number, self.name, step))
            yield


@pytest.mark.parametrize("steps", [None, 1])
def test_contenders_take_turns(steps):
    log = []
    entries = [Entry(name, "floor", lambda workload, seed, name=name: Turn(name, seed, log)) for name in "ab"]
    results = race(workload(steps=steps), entries, laps=2, seeds=2)
    taken = range(3) if steps is None else range(2)  # a slice's first step is not timed
    assert log == [(s, n, name, step) for s in range(2) for n in range(3) for name in "ab" for step in taken]
    assert [len(result.seconds) for result in results] == [4, 4]


def result(name, kind, seconds, *losses, precision="fp32"):
    return Result(name, kind, precision, seconds=list(seconds), test_losses=list(losses))


def test_ratios_are_of_medians_and_to_the_fastest_of_each_kind():
    tutorial, slower = result("t", "tutorial", [8, 9, 70], 100.0), result("u", "tutorial", [12], 100.0)
    eager, compiled = result("e", "torch", [6], 100.0), result("c", "torch", [4], 100.0, precision="bf16")
    ours = result("f", "fastvae", [2], 100.0, precision="bf16")
    floors = [result("x", "floor", [3]), result("y", "floor", [1], precision="bf16")]
    everybody = [tutorial, slower, eager, compiled, ours, *floors]
    assert ratios(ours, everybody) == (4.5, 2.0, None, 0.5, None)
    assert ratios(eager, everybody) == (1.5, 4 / 6, None, 0.5, None)
    assert ratios(floors[0], everybody) == (None, None, None, None, None)
    assert ratios(ours, [ours]) == (None, None, None, None, None)
    others = [result("j", "jax", [5], 100.0), result("k", "jax", [3], 100.0, precision="bf16")]
    assert ratios(ours, [ours, *others]) == (None, None, 1.5, None, None)
    assert ratios(others[0], [*everybody, *others]) == (9 / 5, 4 / 5, 3 / 5, 3 / 5, None)


def test_the_share_of_the_peak_is_of_the_rate_in_the_same_precision():
    each = (Product("a", "oneDNN", flops=60, seconds=2.0), Product("b", "torch.mm", flops=40, seconds=4.0))
    floor = Result("x", "floor", "fp32", seconds=[5.0], products=Products(each, large=50.0))
    ours, low = result("f", "fastvae", [8]), result("g", "fastvae", [8], precision="bf16")
    assert ratios(floor, [floor, ours]).of_peak == 100 / 5 / 50
    assert ratios(ours, [floor, ours]).of_peak == 100 / 8 / 50
    assert ratios(low, [floor, low]).of_peak is None
    assert Products((each[0],), large=20.0).peak == 30.0  # a product in the caches may be the fastest
    assert Products((*each, each[1]), large=50.0).libraries == "2 torch.mm, 1 oneDNN"


@pytest.mark.parametrize("other", [102.5, 97.5, float("nan"), float("inf")])
def test_losses_that_differ_make_it_void(other):
    first = result("t", "tutorial", [1], 99.0, 101.0)
    assert disagreements([first, result("f", "fastvae", [1], 101.9), result("x", "floor", [1])]) == []
    (said,) = disagreements([first, result("f", "fastvae", [1], other)])
    assert said.startswith("f ends at")


FLAGS = ["bench", "--data", "digits", "--preset", "classic", "--device", "cpu", "--no-compile", "--batch-size", "256"]


def test_the_command_writes_a_table_a_file_and_a_picture(tmp_path, capsys):
    flags = ["--steps", "2", "--epochs", "2", "--seeds", "2", "--json", str(tmp_path / "b.json")]
    assert run([*FLAGS, *flags, "--plot", str(tmp_path / "b.png")]) == 0
    output = capsys.readouterr().out
    for word in ("tutorial", "torch fp32, eager", "fastvae train", "floor, fp32", "x torch", "of floor", "test loss"):
        assert word in output
    comparison = json.loads((tmp_path / "b.json").read_text())["comparisons"][0]
    assert comparison["steps_an_epoch"] == 6
    assert comparison["void"] == []
    assert "of the fastest product that was measured in fp32" in " ".join(output.split())
    for row in comparison["contenders"]:
        assert len(row["seconds"]) == 4
        if row["kind"] == "floor":
            assert row["step_flops"] == sum(product["flops"] for product in row["products"])
            assert 0 < row["of_peak"] < 1
        assert len(row["test_losses"]) == (0 if row["kind"] == "floor" else 2)
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")


def test_contenders_can_be_chosen_and_ratios_are_to_those_that_race(tmp_path, capsys):
    flags = ["--steps", "1", "--epochs", "1", "--json", str(tmp_path / "b.json")]
    assert run([*FLAGS, *flags, "--contenders", "torch fp32*", "fastvae train"]) == 0
    assert "tutorial" not in [line.split(" ")[0] for line in capsys.readouterr().out.splitlines()]
    rows = json.loads((tmp_path / "b.json").read_text())["comparisons"][0]["contenders"]
    assert [row["name"] for row in rows] == ["torch fp32, eager", "fastvae train"]
    assert all(row["to_torch"] is not None for row in rows)
    assert all(row["to_baseline"] is None and row["of_floor"] is None for row in rows)


def test_the_floor_alone_is_no_void_comparison(capsys):
    assert run([*FLAGS, "--steps", "1", "--epochs", "1", "--contenders", "floor*"]) == 0
    assert "floor, fp32" in capsys.readouterr().out


def test_all_race_under_the_switches_of_fastvae_train(monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(
        Workload, "test_loss", lambda workload, model: seen.append(torch.backends.cudnn.allow_tf32) or 1.0
    )
    seen = []

    class Watch(Contender):
        model = object()

        def __init__(self):
            seen.append(torch.backends.cudnn.allow_tf32)

        def epoch(self, number):
            seen.append(torch.backends.cudnn.allow_tf32)
            yield

    race(replace(workload(), device=torch.device("cuda")), [Entry("a", "torch", lambda workload, seed: Watch())], 1, 1)
    assert seen == [False] * 4
    assert torch.backends.cudnn.allow_tf32


def test_a_contender_that_learns_something_else_makes_the_exit_status_1(monkeypatch, capsys):
    losses = iter(range(1, 100))
    monkeypatch.setattr(Workload, "test_loss", lambda workload, model: float(next(losses)))
    assert run([*FLAGS, "--steps", "1", "--epochs", "1"]) == 1
    assert "void: the losses differ by more than 2 %: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--epochs", "0"], "--epochs is 0: it must be at least 1"),
        (["--seeds", "0"], "--seeds is 0: it must be at least 1"),
        (["--steps", "0"], "--steps is 0: it must be at least 1"),
        (["--steps", "6"], "--steps is 6, but an epoch has 6, and the first of a slice is not timed: use at most 5"),
        (["--json", "nowhere/b.json"], "there is no folder nowhere: make it first"),
        (["--contenders", "torch fp32"], "--contenders 'torch fp32' matches none of 'tutorial', "),
        (["--data", "nothing"], "unknown data set 'nothing'"),
    ],
)
def test_bad_input_is_one_line(flags, message, capsys):
    assert run([*FLAGS, *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.skipif(not pythae.installed(), reason="pythae is not installed: see `make adapters`")
def test_pythaes_trainer_takes_part():
    here = replace(workload(steps=2), recipe=pythae.RECIPE)
    results = race(here, against_pythae(here, compiled=False), laps=1, seeds=1)
    assert [result.kind for result in results][:2] == ["pythae", "fastvae"]
    assert disagreements(results) == []


@pytest.mark.skipif(bool(find_spec("jax")), reason="jax is installed")
def test_without_jax_the_report_says_who_is_left_out_and_asked_for_is_refused(tmp_path, capsys):
    flags = ["--steps", "1", "--epochs", "1", "--json", str(tmp_path / "b.json")]
    assert run([*FLAGS, *flags, "--contenders", "fastvae fp32, eager"]) == 0
    said = "not installed: pip install fastvae[jax]"
    assert said in " ".join(capsys.readouterr().out.split())
    assert said in json.loads((tmp_path / "b.json").read_text())["comparisons"][0]["left_out"]["jax fp32"]
    assert run([*FLAGS, *flags, "--contenders", "fastvae fp32, eager", "jax*"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
