"""The report of a race, on made-up results: every number in the table, the file and the plot is known."""

import json

import pytest
import torch

from fastvae.bench import report
from fastvae.bench.contenders.products import Product, Products
from fastvae.bench.contenders.workload import Workload
from fastvae.bench.race import Result
from fastvae.data import Dataset
from fastvae.models import PRESETS
from fastvae.utils.terminal import Terminal

IMAGES = torch.zeros(250, 1, 8, 8, dtype=torch.uint8)


def workload(steps=None, batch_size=100):
    dataset = Dataset("made", IMAGES, IMAGES[:10])
    return Workload("classic", PRESETS["classic"], dataset, batch_size, torch.device("cpu"), steps)


def results(baseline="tutorial"):
    """Return four results with medians of 20, 5, 4 and 2 ms a step."""
    return [
        Result(baseline, baseline, "fp32", "", [0.010, 0.020, 0.040, 0.018, 0.022], 1.25, [100.0, 102.0]),
        Result("torch, eager", "torch", "fp32", "", [0.005, 0.004, 0.009], 2.0, [101.0, 101.5]),
        Result("fastvae train", "fastvae", "fp32", "traced", [0.004, 0.003, 0.008, 0.004], 3.5, [101.0, 99.0]),
        Result("floor, fp32", "floor", "fp32", "", [0.002], 0.0, []),
    ]


def table(capsys, monkeypatch, workload, results):
    """Print the table; return the line above it, the names of its columns, and the cells of each row."""
    monkeypatch.setenv("COLUMNS", "200")
    console = Terminal()
    console.width = 200
    report.show(console, workload, results)
    head, *lines = [line for line in capsys.readouterr().out.splitlines() if line.strip(" ─━╺╸")]
    cells = [[cell for cell in line.split("  ") if cell.strip()] for line in lines]
    return head, *[[cell.strip() for cell in line] for line in cells]


def test_every_number_of_the_table(capsys, monkeypatch):
    head, columns, *rows = table(capsys, monkeypatch, workload(), results())
    assert columns == [
        "ms a step", "quartiles", "s an epoch", "images/s", "x tutorial", "x torch", "of floor", "test loss",
        "start-up s",
    ]  # fmt: skip
    # An epoch of 250 images in batches of 100 has 3 steps.
    assert rows == [
        ["tutorial", "20.000", "18.000 to 22.000", "0.060", "5,000", "1.00", "0.25", "0.10",
         "101.00 (100.00 to 102.00)", "1.2"],
        ["torch, eager", "5.000", "4.500 to 7.000", "0.015", "20,000", "4.00", "1.00", "0.40",
         "101.25 (101.00 to 101.50)", "2.0"],
        ["fastvae train (traced)", "4.000", "3.750 to 5.000", "0.012", "25,000", "5.00", "1.25", "0.50",
         "100.00 (99.00 to 101.00)", "3.5"],
        ["floor, fp32", "2.000", "2.000 to 2.000", "0.006", "50,000", "0.0"],
    ]  # fmt: skip
    assert head.startswith("classic on made, 250 images, batch 100; ")
    assert head.endswith("medians of 5 epochs")


def test_slices_and_pythae_are_named(capsys, monkeypatch):
    head, columns, *rows = table(capsys, monkeypatch, workload(steps=2), results("pythae"))
    assert head.endswith("medians of 5 slices of 2 steps")
    assert columns[4] == "x pythae"
    assert rows[2][5] == "5.00"


def test_one_seed_has_no_spread(capsys, monkeypatch):
    one = [Result("tutorial", "tutorial", "fp32", "", [0.02, 0.03], 1.0, [100.0])]
    _, _, row = table(capsys, monkeypatch, workload(), one)
    assert row[-2:] == ["100.00", "1.0"]


def test_the_file_has_what_the_table_has(tmp_path):
    made = results()
    absent = {"jax fp32": "not installed"}
    report.write_json(
        tmp_path / "b.json", torch.device("cpu"), [report.content(workload(), made, ["a is off"], absent)]
    )
    whole = json.loads((tmp_path / "b.json").read_text())
    assert whole["threads"] == torch.get_num_threads()
    (comparison,) = whole["comparisons"]
    rows = comparison.pop("contenders")
    assert comparison == {
        "network": "classic", "data": "made", "images": 250, "batch_size": 100, "steps_an_epoch": 3,
        "timed": "epochs", "void": ["a is off"], "left_out": {"jax fp32": "not installed"},
    }  # fmt: skip
    assert rows[2] == {
        "name": "fastvae train", "kind": "fastvae", "precision": "fp32", "note": "traced", "median_s": 0.004,
        "quartiles_s": [pytest.approx(0.00375), pytest.approx(0.005)], "seconds": [0.004, 0.003, 0.008, 0.004],
        "start_up_s": 3.5, "test_losses": [101.0, 99.0], "to_baseline": pytest.approx(5),
        "to_torch": pytest.approx(1.25), "to_jax": None, "of_floor": 0.5, "of_peak": None,
    }  # fmt: skip


def test_jax_the_share_of_the_peak_and_who_is_left_out(capsys, monkeypatch):
    made = results()
    made.insert(1, Result("jax fp32", "jax", "fp32", "", [0.008], 2.0, [101.0]))
    product = Product("a", "oneDNN", flops=600_000_000, seconds=0.01)
    made[-1].products = Products((product, product), large=1e12)
    _, columns, *rows = table(capsys, monkeypatch, workload(), made)
    assert columns[5:9] == ["x torch", "x jax", "of floor", "of peak"]
    assert rows[3][5:10] == ["5.00", "1.25", "2.00", "0.50", "0.30"]  # 1.2 GFLOP in 4 ms
    assert rows[4][5] == "0.60"
    assert rows[5] == [
        "floor, fp32: 2 oneDNN; of peak is of the 1,000 GFLOP/s of the fastest product that was measured in fp32"
    ]
    absent = {"jax fp32": "needs x", "jax bf16": "needs x"}
    report.show(Terminal(), workload(), results(), absent)
    assert capsys.readouterr().out.splitlines()[-1] == "left out: jax fp32, jax bf16; needs x"
    kept = report.content(workload(), made, [])["contenders"][-1]
    assert kept["step_flops"] == 1_200_000_000
    assert kept["peak_flops_per_s"] == 1e12
    assert kept["products"][0] == {
        "shape": "a", "library": "oneDNN", "flops": 600_000_000, "seconds": 0.01, "flops_per_s": 6e10,
    }  # fmt: skip


def test_error_bars_reach_from_quartile_to_quartile(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(report, "write_figure", lambda figure, path, **options: drawn.append(figure))
    made = results()
    report.plot(tmp_path / "b.png", workload(), made)
    (axes,) = drawn[0].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [result.name for result in made[::-1]]
    assert axes.get_xlabel() == "ms a step, median and quartiles"
    bars = []
    for container in axes.containers:
        points, _, (lines,) = container.lines
        (center,), (at,) = points.get_data()
        ((low, _), (high, _)) = lines.get_segments()[0]
        bars.append((int(at), low, center, high))
    expected = [(0, 2, 2, 2), (1, 3.75, 4, 5), (2, 4.5, 5, 7), (3, 18, 20, 22)]
    assert bars == [pytest.approx(bar) for bar in expected]
    assert [text.get_text() for text in axes.texts] == ["2", "4", "5", "20"]
