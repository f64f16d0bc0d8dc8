"""``--profile``: a trace of the steps it names, a line whose shares are shares, and the same run otherwise."""

import gzip
import json
import re
from collections import Counter

import pytest
import torch
import torch.distributed as dist

from fastvae import backends
from fastvae.train.checkpoint import checkpoint
from fastvae.train.distributed.world import World
from fastvae.train.measure.profile import FILE, TRACED, Profiling, Times

LINE = re.compile(
    r"^profile: (?P<rate>[\d,]+) images/s at (?P<ceiling>[\d.]+) % of the FLOP ceiling "
    r"\((?P<gflop>[\d.e-]+) GFLOP a step.*; a step of (?P<ms>[\d.]+) ms is "
    r"data (?P<data>[\d.]+) %, step (?P<step>[\d.]+) %, communication (?P<communication>[\d.]+) %; "
    r"trace of (?P<traced>\d+) steps in (?P<file>\S+)$",
    re.MULTILINE,
)
STEPS = "32"  # two epochs of 12 steps and some


def line_of(output):
    found = LINE.search(output)
    assert found is not None, output
    return {key: value if key == "file" else float(value.replace(",", "")) for key, value in found.groupdict().items()}


def names_in(folder):
    with gzip.open(folder / FILE, "rt") as file:
        return Counter(event.get("name") for event in json.load(file)["traceEvents"])


@pytest.mark.parametrize("execution", ["eager", "traced"])
def test_the_trace_has_the_steps_their_parts_and_their_products(train, capsys, execution):
    status, folder = train("--profile", "--max-steps", STEPS, "--execution", execution)
    assert status == 0
    names = names_in(folder)
    steps = {name: count for name, count in names.items() if str(name).startswith("ProfilerStep")}
    assert steps == {f"ProfilerStep#{step}": 1 for step in TRACED}
    assert names["step"] == len(TRACED)
    assert names["data"] == len(TRACED) + 1  # an epoch ends there: the fetch that finds no more
    assert names["communication"] == 0
    # An evaluation stands in there too, with the 5 products of each of its batches' forwards and of its pictures'.
    if execution == "traced" and backends.has_native():
        # 14 products, those that do not wait for one another in one call.
        assert names["fastvae::mm"] == 8 * len(TRACED)
        assert names["aten::mm"] == 0
    else:
        assert names["aten::addmm"] >= 5 * len(TRACED)
        assert names["aten::mm"] == 9 * len(TRACED)
    captured = capsys.readouterr()
    assert line_of(captured.out)["file"] == FILE
    assert captured.err == ""


def test_the_line_adds_up(train, capsys):
    train("--profile", "--max-steps", STEPS)
    line = line_of(capsys.readouterr().out)
    assert round(line["data"] + line["step"] + line["communication"], 6) == 100
    assert line["communication"] == 0
    assert line["traced"] == len(TRACED)
    forward = 2 * 128 * (64 * 400 + 2 * 400 * 20 + 20 * 400 + 400 * 64)
    assert line["gflop"] == float(f"{(3 * forward - 2 * 128 * 64 * 400) / 1e9:.3g}")
    # Rounded to 1 and to 0.001 ms.
    assert line["rate"] == pytest.approx(128 / line["ms"] * 1e3, abs=1 + line["rate"] * 0.0005 / line["ms"])


@pytest.mark.parametrize(("data", "communication"), [(0.0, 0.0), (1 / 3, 1 / 3), (0.2495, 0.2495), (0.00049, 0.99)])
def test_shares_add_up_however_they_are_rounded(data, communication):
    text = str(Times(100, data, 1 - data - communication, communication))
    assert sum(round(10 * float(share)) for share in re.findall(r"([\d.]+) %", text)) == 1000


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_weights_are_the_same_to_the_bit_with_and_without(train, precision):
    flags = ("--max-steps", STEPS, "--precision", precision, "--clip-norm", "9000", "--ema", "0.9")
    plain, profiled = (
        checkpoint.newest(train(*flags, *more, out=out)[1] / "checkpoints")[1].tensors
        for out, more in (("plain", ()), ("profiled", ("--profile",)))
    )
    assert plain.keys() == profiled.keys()
    for name, tensor in plain.items():
        assert torch.equal(tensor, profiled[name]), name


@pytest.mark.parametrize("steps", [1, 9, 19, 20])
def test_a_run_too_short_says_so_in_a_line_and_ends_well(train, capsys, steps):
    status, folder = train("--profile", "--max-steps", str(steps))
    assert status == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "profile:" in line]
    assert lines == [
        f"profile: no trace, as this process took {steps} steps and the first 20 warm up: train for longer"
    ]
    assert not (folder / FILE).exists()
    assert (folder / "samples.png").exists()


def test_a_run_that_ends_in_the_window_has_the_steps_up_to_there(train, capsys):
    status, folder = train("--profile", "--max-steps", "23")
    assert status == 0
    assert line_of(capsys.readouterr().out)["traced"] == 3
    assert names_in(folder)["step"] == 3


def test_a_resumed_run_counts_its_own_steps(train, capsys):
    train("--max-steps", "15")
    assert train("--profile", "--max-steps", "50", "--resume")[0] == 0
    assert line_of(capsys.readouterr().out)["traced"] == len(TRACED)


def test_a_run_that_fails_leaves_no_profiler_behind(train, monkeypatch):
    def fail(self):
        raise InterruptedError

    monkeypatch.setattr("fastvae.train.loop.Loop.save", fail)
    with pytest.raises(InterruptedError):
        train("--profile", "--checkpoint-every", "25")
    assert not torch.autograd._profiler_enabled()


def test_communication_is_a_part_of_its_own_and_only_in_a_step(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("fastvae.train.measure.roofline.time.perf_counter", lambda: clock[0])
    monkeypatch.setattr(dist, "all_reduce", lambda tensor: clock.__setitem__(0, clock[0] + 2))

    class Loader:
        def __iter__(self):
            for _ in range(TRACED.stop):
                clock[0] += 1
                yield Batch

    class Batch:
        rows = 24

    profiling = Profiling(torch.device("cpu"), tmp_path / FILE)
    profiling.start()
    world = World(0, 0, 2, torch.device("cpu"))

    def all_reduce():
        with profiling.communicating():
            world.all_reduce(torch.zeros(1))

    for batch in profiling.batches(Loader()):
        with profiling.around_step(1, batch.rows):
            clock[0] += 3
            all_reduce()
        all_reduce()  # an evaluation's
    profiling.stop()
    assert profiling.times() == Times(images=24, data=1, step=3, communication=2)
    assert profiling.times().rate == 4


def test_replays_are_divided_by_their_steps_and_say_so(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("fastvae.train.measure.roofline.time.perf_counter", lambda: clock[0])
    profiling = Profiling(torch.device("cpu"), tmp_path / FILE)
    profiling.start()
    for _ in range(4):
        with profiling.around_step(10, 240):
            clock[0] += 40
    profiling.stop()
    assert profiling.steps == 40
    assert profiling.traced == len(TRACED)
    assert names_in(tmp_path)["step"] == 1
    assert profiling.times() == Times(images=24, data=0, step=4, communication=0, replayed=True)
    assert str(profiling.times()) == "a step of 4000.000 ms is replayed, with data and communication in it"


@pytest.mark.slow
def test_two_processes_communicate(train, capfd):
    status, folder = train("--profile", "--max-steps", STEPS, "--nproc", "2")
    assert status == 0
    assert names_in(folder)["communication"] == len(TRACED)
    assert line_of(capfd.readouterr().out)["communication"] > 0
