"""Timing of a GPU by graphs over rotating inputs, with lists of operators' calls in place of graphs."""

import importlib.util
import itertools
import types
from pathlib import Path

import graph_timing
import operations  # benchmarks/operations.py
import plot  # benchmarks/plot.py
import pytest
import timing
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from pytest_benchmark.utils import NameWrapper

from fastvae.bench.contenders import graphs

from ..bench import pretended

CPU = torch.device("cpu")


@pytest.fixture
def on_a_gpu(monkeypatch):
    pretended.install(monkeypatch)


@pytest.mark.parametrize("size", [1, 4_000, 3_900_000, 15_728_640, 999_999_999, 10**9, 4 * 10**9])
def test_inputs_in_rotation_are_a_gigabyte_or_as_many_sets_as_allowed(size):
    sets = graph_timing.rotation(size)
    assert sets == graph_timing.MOST_SETS or sets * size >= 10**9
    assert sets == 1 or (sets - 1) * size < 10**9


def test_copies_are_the_inputs_elsewhere(monkeypatch):
    monkeypatch.setattr(graph_timing, "ROTATED", 3 * (24 + 6))
    leaf, target = torch.randn(2, 3, requires_grad=True), torch.zeros(6, dtype=torch.uint8)
    seen = []
    calls = graph_timing.Calls(lambda *inputs: seen.append(inputs), [leaf], target, 7)
    assert calls.bytes == 30
    assert calls.rotate() == calls.rotate() == 3
    for at in range(3):
        calls(at)
    assert seen[0][0][0] is leaf
    assert len({(leaves[0].data_ptr(), pixels.data_ptr()) for leaves, pixels, _ in seen}) == 3
    for (copy,), pixels, number in seen:
        assert torch.equal(copy, leaf)
        assert torch.equal(pixels, target)
        assert (number, copy.is_leaf, copy.requires_grad) == (7, True, True)


def test_a_replay_calls_each_set_once_and_keeps_its_results_apart(on_a_gpu):
    inputs = [torch.full((2,), float(at)) for at in range(5)]
    replayed = graph_timing.Replayed(lambda at: inputs[at] * 2, 5)
    torch._foreach_add_(inputs, 10)
    replayed.replay()
    assert [result.tolist() for result in replayed._results] == [[20 + 2 * at] * 2 for at in range(5)]


def test_seconds_are_a_calls_and_the_median(on_a_gpu, monkeypatch):
    measured = itertools.chain([100.0] * graph_timing.WARM_UP, itertools.cycle([8.0, 4.0, 6.0, 6.0]))
    monkeypatch.setattr(graphs, "seconds", lambda graph: next(measured))
    assert graph_timing.device_seconds(lambda at: torch.zeros(1), 4) == pytest.approx(1.5)


def test_without_a_gpu_seconds_are_the_walls():
    visited = []
    assert graph_timing.device_seconds(visited.append, 3) > 0
    assert visited[:5] == [0, 1, 2, 0, 1]


@pytest.mark.parametrize("operation", operations.OPERATIONS, ids=lambda operation: operation.name)
def test_every_operation_is_captured_without_a_copy_from_the_host(operation, on_a_gpu, monkeypatch):
    monkeypatch.setattr(graph_timing, "MOST_SETS", 3)
    for dtype, name in itertools.product(operation.dtypes, operation.contenders()):
        if name.startswith("torch.compile"):  # minutes; what it compiles is what eager has here
            continue
        calls = operation.calls(name, (4, 12), dtype, CPU)
        replayed = graph_timing.Replayed(calls, calls.rotate())
        recorded = {function._schema.name for function, *_ in replayed._graph.calls}
        assert "aten::lift_fresh" not in recorded  # which torch.tensor calls
        replayed.replay()
        gradients = [gradient for result in replayed._results for gradient in result]
        assert len(gradients) == 3 * operation.leaves
        assert all(gradient.isfinite().all() for gradient in gradients)
        if name == "fastvae":
            for at in range(3):
                assert all(map(torch.equal, replayed._results[at], calls(at)))


def test_large_shapes_move_one_to_four_gigabytes():
    pairs = [(operation, dtype) for operation in operations.OPERATIONS for dtype in operation.dtypes]
    for operation, dtype in pairs:
        moved = [operation.bytes(shape, dtype) for shape in operation.shapes]
        assert moved == sorted(moved)
        assert 10**9 <= moved[-1] <= 2**32, operation.name
    for name, (rows, event) in {
        "bernoulli_nll": timing.LARGE_PIXEL_SHAPES["cuda"],
        "reparameterize_kl": timing.LARGE_LATENT_SHAPES["cuda"],
    }.items():
        (operation,) = (each for each in operations.OPERATIONS if each.name == name)
        assert min(operation.bytes((rows, *event), dtype) for dtype in operations.BOTH) >= 10**9


def test_noise_is_made_once():
    assert timing.noise(CPU) is timing.noise(torch.device("cpu"))


def fixture():
    """pytest-benchmark's own, outside of its plugin, which xdist switches off."""
    node, added = types.SimpleNamespace(name="it", nodeid="it"), []
    timer = NameWrapper(lambda: pytest.fail("the wall clock was asked"))
    options = dict.fromkeys(("precision", "confidence", "warmup", "logger", "warner", "disabled", "cprofile"))
    options |= {"cprofile_loops": None, "cprofile_dump": None, "calibration_precision": 1, "warmup_iterations": 1}
    options |= {"min_rounds": 1, "min_time": 0, "max_time": 0, "disable_gc": False, "add_stats": added.append}
    return BenchmarkFixture(node, timer=timer, **options)


def test_on_a_gpu_rounds_are_replays_by_the_devices_clock(on_a_gpu, monkeypatch):
    monkeypatch.setattr(graph_timing, "MOST_SETS", 4)
    monkeypatch.setattr(graphs, "seconds", lambda graph: 8.0)
    benchmark = fixture()
    calls = graph_timing.Calls(torch.clone, torch.zeros(250_000))
    timing.measure(benchmark, calls, device=CPU, rounds=60, warmup_rounds=15, iterations=20)
    assert benchmark.stats.stats.data == [2.0] * graph_timing.REPLAYS
    assert benchmark.extra_info["rotated"] == "4 x 1 MB of inputs"
    assert benchmark.extra_info["wall_s"] > 0
    assert "not_captured" not in benchmark.extra_info


def test_what_cannot_be_captured_says_why_and_has_its_wall_time(on_a_gpu, monkeypatch):
    def capture(*_):
        try:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        finally:
            raise RuntimeError("capture was invalidated")  # as the end of a capture does

    monkeypatch.setattr(graphs, "capture", capture)
    monkeypatch.setattr(graph_timing, "MOST_SETS", 2)
    benchmark = types.SimpleNamespace(extra_info={}, pedantic=lambda call, **_: call())
    timing.measure(benchmark, graph_timing.Calls(torch.clone, torch.zeros(5)), device=CPU)
    assert benchmark.extra_info["not_captured"] == "operation not permitted when stream is capturing"
    assert benchmark.extra_info["wall_s"] > 0


def test_the_closing_table_has_both_times_and_plots_leave_out_the_walls():
    spec = importlib.util.spec_from_file_location("benchmarks_conftest", Path(timing.__file__).with_name("conftest.py"))
    conftest = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conftest)
    common = {"bytes": 10**9, "copy_s": 0.5, "wall_s": 3.0, "rotated": "4 x 1 MB of inputs"}
    shown = [
        bench("fastvae", [1.0, 1.0], common),
        bench("eager", [2.0, 2.0], common | {"baseline": True}),
        bench("torch.compile", [7.0, 7.0], common | {"baseline": True, "not_captured": "it waits"}),
    ]
    reporter = types.SimpleNamespace(lines=[], section=lambda title: None)
    reporter.write_line = reporter.lines.append
    session = types.SimpleNamespace(benchmarks=shown)
    conftest.pytest_terminal_summary(reporter, types.SimpleNamespace(_benchmarksession=session))
    table = "\n".join(reporter.lines)
    assert "device time, 4 x 1 MB of inputs in rotation" in table
    ours, eager, compiled = reporter.lines[-3:]
    assert "1000.000 ms" in ours
    assert "wall 3000.000 ms" in ours
    assert "0.50 of a copy" in ours
    assert "2.00x eager" in ours
    assert "torch.compile" not in ours + eager
    assert "wall 3000.000 ms  cannot be captured: it waits" in compiled
    captured = bench("torch.compile", [4.0], common)
    results = [{"group": b.group, "extra_info": b.extra_info, "stats": vars(b.stats)} for b in [*shown, captured]]
    assert plot.groups({"benchmarks": results}) == {"op": {"fastvae": 1.0, "eager": 2.0, "torch.compile": 4.0}}
    assert plot.groups({"benchmarks": results[:3]}) == {}


def bench(name, seconds, info):
    return types.SimpleNamespace(
        group="op, forward + backward", stats=types.SimpleNamespace(data=seconds), extra_info={"name": name, **info}
    )
