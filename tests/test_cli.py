"""The commands that look at a trained run."""

import importlib.metadata
import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from fastvae import doctor
from fastvae.cli import run
from fastvae.data import load
from fastvae.train.report.figures import reconstruction_grid, write_image

COMMANDS = ("sample", "reconstruct", "evaluate", "nll")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "trained"
    flags = ["--epochs", "8", "--device", "cpu", "--latent-dim", "5", "--precision", "fp32", "--no-autotune"]
    assert run(["train", *flags, "--out", str(folder)]) == 0
    return folder


def read_image(path):
    """Read a PNG as (3, H, W) uint8."""
    return pil_to_tensor(Image.open(path).convert("RGB"))


def last_test_line(folder):
    return json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])


def test_evaluate_gives_the_runs_own_figure(trained, capsys):
    assert run(["evaluate", str(trained)]) == 0
    output = capsys.readouterr().out
    elbo, nll, kl = map(
        float, re.search(r"test ELBO (-[\d.]+) nats = -\(nll ([\d.]+) \+ kl ([\d.]+)\)", output).groups()
    )
    line = last_test_line(trained)
    assert (elbo, nll, kl) == pytest.approx((-line["loss"], line["nll"], line["kl"]), abs=6e-4)
    rows = re.findall(r"│ (\d+) +│ ([\d.]+) +│ (yes|no)", output)
    assert sorted(int(row[0]) for row in rows) == list(range(5))
    assert sum(float(row[1]) for row in rows) == pytest.approx(line["kl"], abs=6e-3)
    active = int(re.search(r"active units (\d+) of 5", output).group(1))
    assert active == sum(row[2] == "yes" for row in rows) >= 1


def test_nll_is_the_same_each_time_and_below_the_negative_elbo(trained, capsys):
    pattern = (
        r"test -log p\(x\) ([\d.]+) nats, standard error ([\d.]+) over ([\d,]+) images, 64 samples each, "
        r"fp32, [\d.]+ s; no log-likelihood: the cross-entropy of grey pixels is not normalised each "
        r"image's nll is in .*"
    )
    figures = []
    for _ in range(2):
        assert run(["nll", str(trained), "--samples", "64"]) == 0
        figures.append(re.fullmatch(pattern, " ".join(capsys.readouterr().out.split())).groups())
    assert figures[0] == figures[1]
    nll, error, images = figures[0]
    assert images == "300"
    assert float(nll) < last_test_line(trained)["loss"]
    assert 0.1 < float(error) < 1  # 300 images that differ by some nats
    assert run(["nll", str(trained), "--samples", "64", "--images", "20"]) == 0
    assert re.fullmatch(pattern, " ".join(capsys.readouterr().out.split())).group(3) == "20"


def test_pictures_have_the_asked_size(trained, tmp_path, capsys):
    assert run(["sample", str(trained), "--count", "24", "--out", str(tmp_path / "s.png")]) == 0
    assert run(["reconstruct", str(trained), "--count", "16", "--out", str(tmp_path / "r.png")]) == 0
    tile = 56 + 2  # a picture of the digits enlarged, and its margin
    assert read_image(tmp_path / "s.png").shape[1:] == (3 * tile + 2, 8 * tile + 2)
    assert read_image(tmp_path / "r.png").shape[1:] == (4 * tile + 2, 8 * tile + 2)
    assert capsys.readouterr().out.split() == [str(tmp_path / "s.png"), str(tmp_path / "r.png")]


def test_real_pictures_stand_above_their_reconstructions(trained, tmp_path):
    test = load("digits").test[:8]
    grid = reconstruction_grid(test, torch.zeros(8, 1, 8, 8))
    write_image(grid, tmp_path / "g.png")
    image = read_image(tmp_path / "g.png").float()
    middle = image.shape[1] // 2
    assert image[:, 4 : middle - 4].mean() > 60
    assert image[:, middle + 4 : -4].mean() < 5  # black, but for the margins between the tiles


def test_samples_follow_their_seed(trained, tmp_path):
    images = []
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        assert run(["sample", str(trained), "--seed", seed, "--out", str(tmp_path / f"{name}.png")]) == 0
        images.append(read_image(tmp_path / f"{name}.png"))
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["sample", "RUN", "--count", "0"], "--count is 0: it must be at least 1"),
        (["reconstruct", "RUN", "--count", "-3"], "--count is -3: it must be at least 1"),
        (["sample", "RUN", "--seed", "-1"], "--seed is -1"),
        (["nll", "RUN", "--samples", "0"], "--samples is 0: it must be at least 1"),
        (["nll", "RUN", "--images", "0"], "--images is 0: it must be at least 1"),
        (["nll", "RUN", "--images", "301"], "--images is 301, but the test set has 300: use at most --images 300"),
        (["sample", "RUN", "--out", "nowhere/at/all.png"], "cannot write nowhere/at/all.png"),
        (["sample", "RUN", "--out", "a.xyz"], "--out is a.xyz, but pictures are written as PNG: name it a.png"),
        (["evaluate", "RUN", "--device", "tpu"], "'tpu' is not one of auto, cpu, cuda"),
        *[([command, "nowhere"], "nowhere holds no run") for command in COMMANDS],
    ],
)
def test_bad_calls_are_one_line(trained, flags, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert run([str(trained) if flag == "RUN" else flag for flag in flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("fastvae: error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "a command is missing: use one of train, sample"),
        (["frobnicate"], "there is no command 'frobnicate': use one of train"),
        (["evaluat"], "there is no command 'evaluat': did you mean evaluate?"),
        (["sample"], "RUN is missing: folder of the run; see fastvae sample --help"),
        (["nll", "run", "--sample", "3"], "there is no flag --sample: did you mean --samples?"),
    ],
)
def test_bad_commands_exit_with_2_and_one_line(arguments, message, capsys):
    assert run(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"fastvae: error: {message}")
    assert error.count("\n") == 1


def test_a_count_that_no_memory_holds(trained, tmp_path, capsys):
    assert run(["sample", str(trained), "--count", "1000000000000000", "--out", str(tmp_path / "x.png")]) == 2
    error = capsys.readouterr().err
    assert "--count 1000000000000000: their grid takes 37,632,000,000 GB of memory, this machine has" in error
    assert error.count("\n") == 1


def test_settings_of_a_stranger_are_refused(trained, tmp_path, capsys):
    settings = {"preset": "evil", "data": "digits", "latent_dim": 2, "seed": 0}
    (tmp_path / "config.json").write_text(json.dumps({"settings": settings, "data": {"shape": [1, 8, 8]}}))
    assert run(["sample", str(tmp_path)]) == 2
    assert "config.json: preset is not what fastvae writes" in capsys.readouterr().err


def test_doctor_says_what_is_here(capsys):
    run(["doctor"])
    output = capsys.readouterr().out
    for name in ("fastvae", "torch", "triton", "native (C++)", "GPU", "CPU"):
        assert name in output


def test_doctor_says_what_is_missing_and_how_to_get_it(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "has_native", lambda: False)
    assert run(["doctor"]) == 1
    output = capsys.readouterr().out
    assert "not built" in output
    assert "g++" in output


def test_doctor_lists_what_is_optional(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    versions = {"h5py": "3.1.4", "NVIDIA-dali-cuda120": "1.59"}
    installed = [SimpleNamespace(name=name, version=version) for name, version in versions.items()]
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: iter(installed))
    before = set(sys.modules)
    run(["doctor"])
    rows = dict(re.findall(r"│ (\S+) +│ (.+?) +│", capsys.readouterr().out))
    assert rows["h5py"] == "3.1.4"
    assert rows["nvidia-dali"] == "1.59"
    assert rows["datasets"].endswith("pip install fastvae[hf]")
    assert not {"h5py", "datasets", "nvidia.dali"} & (set(sys.modules) - before)
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: iter([]))
    extras = importlib.metadata.metadata("fastvae").get_all("Provides-Extra")
    assert sorted(found.split("[")[1] for _, found, _ in doctor._optional()) == sorted(f"{extra}]" for extra in extras)
    assert not any(remedy for *_, remedy in doctor._optional())


def test_help_lists_the_commands():
    script = Path(sys.executable).parent / "fastvae"
    done = subprocess.run([script, "--help"], check=True, capture_output=True, text=True, timeout=120)
    for command in ("train", "bench", "doctor", *COMMANDS):
        assert command in done.stdout


@pytest.mark.parametrize(
    ("says", "remedy"),
    [
        ("install a C compiler and Python's headers", "apt-get install gcc python3-dev"),
        ("no kernel image is available", "try --backend reference"),
    ],
)
def test_doctor_launches_a_kernel_before_it_says_ready(monkeypatch, says, remedy):
    """Triton may be installed and yet lack the compiler that it needs for a launch."""

    def failing(*_, **__):
        raise RuntimeError(says)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    on_cpu = partial(doctor._fault_of_a_launch, "cpu")
    monkeypatch.setattr(doctor, "_fault_of_a_launch", on_cpu)
    assert ("triton", "ready", "") in doctor._backends()  # by Triton's interpreter
    monkeypatch.setattr(doctor.ops, "gaussian_kl", failing)
    assert ("triton", f"launches no kernel: {says}", remedy) in doctor._backends()
