"""The README's commands parse, its files exist, and its targets are the Makefile's. Its Python runs as a doctest."""

import json
import re
import shlex
import statistics
from pathlib import Path

import plot  # benchmarks/plot.py
import pytest
from torch.distributed.run import get_args_parser

from fastvae import cli
from fastvae.models import PRESETS
from fastvae.ops import bits_per_dimension
from fastvae.train import TrainConfig, resolve
from fastvae.utils.settings.command_line import parse, parse_command

torchrun = get_args_parser()
ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = [
    shlex.split(line, comments=True)
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]


def test_there_are_commands():
    assert len(COMMANDS) > 10


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_commands_parse(words):
    match words:
        case ["make", target]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        case ["fastvae", "train", *flags] | ["python", "-m", "fastvae.train", *flags]:
            resolve(parse(TrainConfig, flags, program="fastvae train"))
        case ["torchrun", *options]:
            flags = options[options.index("fastvae.train") + 1 :]
            resolve(parse(TrainConfig, flags, program="fastvae train"))
        case ["fastvae", *arguments]:
            parse_command(cli.COMMANDS, arguments, program="fastvae", description=None)
        case _:
            pytest.fail(f"what is {words}?")


def test_the_clusters_commands_parse():
    text = (ROOT / "docs" / "clusters.md").read_text().replace("\\\n", " ")
    lines = re.findall(r"\b(torchrun .*) \$resume$", text, re.MULTILINE)
    assert len(lines) == 2
    for line in lines:
        options = torchrun.parse_args(shlex.split(line)[1:])
        assert options.module
        assert options.training_script == "fastvae.train"
        config = resolve(parse(TrainConfig, [*options.training_script_args, "--resume"], program="fastvae train"))
        assert (config.preset, config.data, config.resume) == ("leaky", "mnist", True)


def test_links_and_pictures_are_there():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_every_preset_is_in_the_table():
    for name, preset in PRESETS.items():
        row = next(line for line in README.splitlines() if line.startswith(f"| `{name}`"))
        assert f"| {preset.epochs} |" in row


def results(name):
    return json.loads((ROOT / "benchmarks" / "results" / name).read_text())


def comparisons(name):
    found = {comparison["network"]: comparison for comparison in results(name)["comparisons"]}
    assert all(comparison["void"] == [] for comparison in found.values())
    return found


def test_the_preset_table_is_what_was_measured():
    for run in results("presets-mnist-cpu.json")["runs"]:
        figures = f"{run['test']['loss']:.2f}", f"{run['epoch_s']:.1f}"
        if run["precision"] == "fp32":
            row = next(line for line in README.splitlines() if line.startswith(f"| `{run['preset']}`"))
            assert row.endswith(f"| {figures[0]} | {figures[1]} |")
        else:
            assert f"`{run['preset']}` in {run['precision']} ends at {figures[0]}, {figures[1]} s an epoch" in README
        if run["preset"] == "classic":
            assert run["test"]["loss"] == pytest.approx(105.6, abs=0.5)  # pytorch/examples, in two public logs
    (half,) = results("presets-mnist-fp16-cpu.json")["runs"]
    assert half["test"]["loss"] == pytest.approx(105.6, abs=0.5)
    assert f"in fp16, which CPUs emulate, at {half['test']['loss']:.2f};" in " ".join(README.split())


def test_what_binarised_pixels_end_at_is_what_was_measured():
    ends = {run["preset"]: run["test"]["loss"] for run in results("presets-mnist-binarized-cpu.json")["runs"]}
    row = next(line for line in README.splitlines() if line.startswith("| `conv28`"))
    assert row.endswith(f"| {ends['conv28']:.2f} | |")
    names = ("basic", "keras", "deep", "leaky", "classic")
    *others, last = (f"{ends[name]:.2f}" for name in names)
    assert f"(with `--binarize`) end at {', '.join(others)} and {last}; what `iwae`" in " ".join(README.split())
    assert all(ends["conv28"] < ends[name] for name in names)


def test_what_shapes_cost_is_what_was_measured():
    run = results("shapes-cpu.json")
    bits = bits_per_dimension(run["test"]["loss"], 3 * 64 * 64)
    assert f"over {run['images']:,} JPEGs of shapes through DALI" in README
    assert f"codes test pictures in {bits:.2f} bits per dimension (`benchmarks/shapes.py`)" in README


SIDES = ("64", "256", "512")  # of JPEGs
LOADERS = {
    "`DataLoader` and torchvision's transforms": ("tutorial's DataLoader", "DataLoader + torchvision, 0 workers"),
    "the same, 2 workers": ("tutorial's DataLoader, 2 workers", "DataLoader + torchvision, 2 workers"),
    "`--loader torch`, 2 workers": (None, "torch, 2 workers"),
    "`--loader dali`, on the CPU": (None, "dali"),
    "`--cache`": (None, "torch, --cache"),
    "`--loader resident`": ("resident", None),
}


def test_the_table_of_loaders_is_what_was_measured():
    rates, waiting = {}, {}
    for benchmark in results("loaders-cpu.json")["benchmarks"]:
        info, group = benchmark["extra_info"], benchmark["group"].removeprefix("JPEGs of ")
        rates[group.split()[0], info["name"]] = info["images_per_s"]
        if group.startswith("training"):
            waiting[info["name"]] = info.get("waiting")
    for row, (grey, pictures) in LOADERS.items():
        cells = [rates[side, name] if name else None for side, name in (("an", grey), *((s, pictures) for s in SIDES))]
        expected = "".join(f" {rate:,} |" if rate else " |" for rate in cells)
        assert f"| {row} |{expected}\n" in README
    names = ("DataLoader + torchvision, 2 workers", "torch, 2 workers", "dali", "torch, --cache")
    usual, by_torch, dali, cached = (rates["training", name] for name in names)
    trained = f"on {by_torch} by `--loader torch`, on {dali} by DALI and on {cached} of the cache."
    text = " ".join(README.split())
    assert f"it trains on {usual} images a second of JPEGs of 256 pixels by `DataLoader` and torchvision's" in text
    assert trained in text
    shares = (f"{100 * waiting[name]:.1f} %" for name in ("torch, --cache", "dali"))
    assert "waits {} of its time for data that are cached, and {} for DALI".format(*shares) in README


def test_the_race_of_conv28_is_what_was_measured():
    names = ("torch fp32, eager", "torch fp32, compile", "fastvae train", "floor, fp32")
    racers = {racer["name"]: racer for racer in comparisons("bench-conv28-cpu.json")["conv28"]["contenders"]}
    eager, compiled, ours, floor = (1e3 * racers[name]["median_s"] for name in names)
    theirs = f"takes {eager:.1f} ms a step eagerly and {compiled:.1f} compiled"
    said = f"{theirs}, `fastvae train` {ours:.1f}, the floor {floor:.1f}"
    ratios = f"{compiled / ours:.2f}x the compiled loop and {eager / ours:.2f}x the eager one"
    losses = [loss for racer in racers.values() for loss in racer["test_losses"]]
    ends = f"Their test losses, {min(losses):.1f} to {max(losses):.1f}, agree."
    assert f"{said}: {ratios}. {ends}" in " ".join(README.split())


def test_what_two_processes_cost_is_what_was_measured():
    runs = {(row["run"], row["batch_size"]): row for row in results("processes-cpu.json")["runs"]}
    names = ("fastvae", "eager loop, DistributedDataParallel")
    ours, plain = ([runs[name, size] for size in (1024, 100)] for name in names)
    text = " ".join(README.split())
    assert f"take {ours[0]['ratio']:.2f} times as long over `leaky`'s batch of 1,024" in text
    assert f"{ours[0]['summing_share']:.0%}".replace("%", " %") + " of that in sums of gradients" in text
    assert f"over a batch of 100, {ours[1]['ratio']:.2f} times" in text
    assert f"{plain[0]['ratio']:.2f} and {plain[1]['ratio']:.2f} times (`benchmarks/data_parallel.py`)" in text


def test_how_little_the_number_of_processes_changes_is_what_was_measured():
    found = results("invariance-cpu.json")
    settings, rows = found["settings"], found["rows"]
    assert (settings["precision"], settings["steps"], found["bound"]) == ("fp64", 200, 1e-9)
    assert {row["processes"] for row in rows if row["batches"] == "whole"} == {2, 3, 4}
    assert all(row["agrees"] for row in rows)
    losses, weights = (max(row[name] for row in rows) for name in ("loss_largest", "weights_largest"))
    said = f"in fp64 {losses:.1e} and {weights:.1e} at most on a CPU, and 1e-9 is allowed."
    assert said in " ".join(README.split())


def test_what_saving_costs_is_what_was_measured():
    ratios = {run["batch_size"]: run["ratio"] for run in results("saving-cpu.json")["runs"]}
    times = f"take {ratios[1024]:.2f} times as long at batch 1,024, and {ratios[100]:.2f} times at batch 100"
    assert times in " ".join(README.split())


def test_the_table_of_faults_is_what_was_tried():
    faults = results("chaos.json")["faults"]
    assert faults[0]["tried"] >= 50
    for fault in faults:
        assert fault["survived"] == fault["tried"], fault["failures"]
        assert f"| {fault['fault']} | {fault['tried']} | {fault['survived']} | {fault['bytes_lost']} |" in README


def test_the_speed_table_is_what_was_measured():
    comparison = comparisons("bench-leaky-cpu.json")["leaky"]
    for loop in comparison["contenders"]:
        name = f"{loop['name']} ({loop['note']})" if loop["note"] else loop["name"]
        row = next(line for line in README.splitlines() if line.startswith(f"| {name} |"))
        ratios = [loop["to_baseline"], loop["to_torch"]]
        cells = [f"{1e3 * loop['median_s']:.2f}", *("" if ratio is None else f"{ratio:.2f}x" for ratio in ratios)]
        cells.append("" if loop["of_floor"] is None else f"{loop['of_floor']:.2f}")
        cells.append(f"{statistics.fmean(loop['test_losses']):.1f}" if loop["test_losses"] else "")
        assert [cell.strip() for cell in row.split("|")[2:-1]] == cells


def test_the_other_races_are_what_was_measured():
    text = " ".join(README.split())
    loops = {loop["name"]: loop for loop in comparisons("bench-leaky-1024-cpu.json")["leaky"]["contenders"]}
    ours, floor = loops["fastvae train"], loops["floor, bf16"]["median_s"]
    best = min(loop["median_s"] for loop in loops.values() if loop["kind"] == "torch") / floor
    figures = f"{ours['to_torch']:.2f}x torch's fastest loop and {ours['of_floor']:.2f} of the floor"
    assert f"At batch 1024 it is {figures}, which is {best:.2f}x." in text
    loops = {loop["name"]: loop for loop in comparisons("bench-epochs-cpu.json")["pythae's MLP"]["contenders"]}
    times = " and ".join(f"{1e3 * loops[name]['median_s']:.2f}" for name in ("pythae", "fastvae train"))
    figures = f"{times} ms a step, {loops['fastvae train']['to_baseline']:.1f}x"
    assert f"pythae's default network at batch 64: its trainer and `fastvae train` take {figures}" in text
    losses = {loop["name"]: loop["test_losses"] for loop in comparisons("bench-epochs-cpu.json")["leaky"]["contenders"]}
    tutorial, ours = (statistics.fmean(losses[name]) for name in ("tutorial", "fastvae train"))
    every = [loss for seeds in losses.values() for loss in seeds]
    assert f"the tutorial ends at {tutorial:.1f} nats in the mean, `fastvae train` at {ours:.1f}, and all" in text
    assert f"all runs of all loops between {min(every):.1f} and {max(every):.1f}." in text


def test_what_is_left_without_avx512_is_what_was_measured():
    small, large = (
        next(loop for loop in comparisons(name)["leaky"]["contenders"] if loop["name"] == "fastvae train")
        for name in ("bench-leaky-avx2-cpu.json", "bench-leaky-1024-avx2-cpu.json")
    )
    at_100 = f"{small['of_floor']:.2f} at batch 100, which is {small['to_baseline']:.1f}x the tutorial"
    at_1024 = f"{large['of_floor']:.2f} at batch 1024 and {large['to_torch']:.2f}x torch's"
    said = f"a share of the floor of {at_100} and {small['to_torch']:.2f}x torch's fastest loop, and of {at_1024}."
    assert said in " ".join(README.split())


def test_the_table_of_operations_is_what_was_measured():
    rows = [plot.row(group, medians) for group, medians in plot.groups(results("ops-cpu.json")).items()]
    shown = [line for line in README.splitlines() if re.match(r"\| \w+ [\dx]+ (fp32|bf16) \|", line)]
    assert len(shown) >= 10
    for line in shown:
        assert line in rows


def test_the_curves_of_pythaes_trainer_are_what_was_measured():
    runs = results("pythae-trainer-mnist-cpu.json")["runs"]
    apart = [run["largest_relative_difference"] for run in runs]
    assert f"within {max(difference['patched, fp32'] for difference in apart):.1e};" in README
    assert all(d["unpatched from weights one bit off, fp32"] > d["patched, fp32"] for d in apart)
