"""The command that shows that the number of processes changes nothing, and that it can say otherwise."""

import json

import pytest
import torch

from fastvae.parity import processes
from fastvae.parity.processes import ProcessesConfig
from fastvae.train.distributed.launch import launch

FLAGS = ["--most", "2", "--steps", "9"]
FEW = [(2, "whole"), (1, "in two parts"), (2, "in two parts"), (2, "fsdp")]


def assert_all_agree(flags, runs, file, output):
    """The command says so, and its figures do."""
    assert processes.main([*flags, "--result", str(file)]) == 0
    assert "all agree" in output().out
    rows = json.loads(file.read_text())["rows"]
    assert [(row["processes"], row["batches"]) for row in rows] == runs
    for row in rows:
        assert row["agrees"]
        assert max(row["loss_largest"], row["loss_last"], row["weights_largest"]) <= 1e-9


@pytest.mark.xdist_group("spellings")
def test_two_processes_train_the_curve_of_one(tmp_path):
    """A sample for CI, of the runs below; this process is the one, and starts the two."""
    curves = []
    for count in (1, 2):
        file = tmp_path / f"{count}.json"
        told = {**vars(ProcessesConfig(steps=4)), "result": None, "count": count, "how": "whole", "file": str(file)}
        arguments = [processes._WORKER, json.dumps(told)]
        assert launch(count, arguments, lambda told=told: processes._work(told), module=processes.__name__) == 0
        curves.append(
            {name: torch.tensor(values, dtype=torch.float64) for name, values in json.loads(file.read_text()).items()}
        )
    one, two = curves
    assert len(one["losses"]) == 4
    assert len(one["losses"].unique()) == 4
    for name, values in one.items():
        torch.testing.assert_close(two[name], values, rtol=1e-9, atol=1e-12 if name == "weights" else 0)


@pytest.mark.slow
@pytest.mark.xdist_group("spellings")
def test_up_to_four_processes_agree_over_200_steps(tmp_path, capsys):
    file = tmp_path / "figures.json"
    assert_all_agree([], [*FEW[:1], (3, "whole"), (4, "whole"), *FEW[1:]], file, capsys.readouterr)
    settings = json.loads(file.read_text())["settings"]
    assert (settings["most"], settings["steps"], settings["precision"]) == (4, 200, "fp64")


@pytest.mark.slow
@pytest.mark.xdist_group("spellings")
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_gpus_agree(tmp_path, capsys):
    assert_all_agree([*FLAGS, "--device", "cuda"], FEW, tmp_path / "figures.json", capsys.readouterr)


@pytest.fixture
def pretended(monkeypatch):
    """Curves of nothing, where those of two processes are as far from the others as the test says."""

    def begin(changed="losses", by=0.0):
        def run(config, count, how):
            found = {"losses": torch.ones(9, dtype=torch.float64), "weights": torch.ones(4, dtype=torch.float64)}
            if count == 2 and how == "whole":
                found[changed][3] += by
            return found

        monkeypatch.setattr(processes, "_run", run)

    return begin


DIFFERENCES = [("losses", 1e-10, 0), ("losses", 1e-8, 1), ("weights", 1e-8, 1), ("losses", torch.nan, 1)]


@pytest.mark.parametrize(("changed", "by", "status"), DIFFERENCES)
def test_a_difference_is_found(pretended, tmp_path, capsys, changed, by, status):
    pretended(changed, by)
    file = tmp_path / "figures.json"
    assert processes.main([*FLAGS, "--result", str(file)]) == status
    assert ("not all agree to 1e-09" in capsys.readouterr().out) == bool(status)
    content = json.loads(file.read_text())
    assert content["versions"]["torch"] == torch.__version__
    assert [row["agrees"] for row in content["rows"]] == [not status, True, True, True]


@pytest.mark.parametrize(("flag", "value"), [("--most", "0"), ("--steps", "0"), ("--batch-size", "-1")])
def test_bad_flags(flag, value, capsys):
    assert processes.main([flag, value]) == 2
    assert capsys.readouterr().err == f"fastvae: error: {flag} is {value}: it must be at least 1\n"


@pytest.mark.parametrize(
    ("gpus", "most", "instead"),
    [(0, 1, "use --device cpu"), (1, 2, "use --most 1, or --device cpu"), (2, 4, "use --most 2, or --device cpu")],
)
def test_each_process_needs_a_gpu(monkeypatch, capsys, gpus, most, instead):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert processes.main(["--device", "cuda", "--most", str(most)]) == 2
    said = f"fastvae: error: --device cuda --most {most} needs {most} GPUs, torch sees {gpus}: {instead}\n"
    assert capsys.readouterr().err == said


def test_torchrun_is_not_needed(monkeypatch, capsys):
    ranks = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "3"}
    for name, value in {**ranks, "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    assert processes.main(FLAGS) == 2
    said = "torchrun started 3 processes, and this starts its own: run `python -m fastvae.parity.processes`\n"
    assert capsys.readouterr().err == "fastvae: error: " + said


def test_there_must_be_a_place_for_the_figures(tmp_path, capsys):
    assert processes.main([*FLAGS, "--result", str(tmp_path / "nowhere" / "figures.json")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_figures_that_cannot_be_written_are_told_of(pretended, tmp_path, capsys):
    pretended()
    assert processes.main([*FLAGS, "--result", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
