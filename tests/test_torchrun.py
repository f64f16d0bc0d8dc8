"""`fastvae._torchrun` puts a `--` into torchrun's arguments, and nowhere else."""

import subprocess
import sys
from argparse import Action

import pytest
from torch.distributed import run

from fastvae import _torchrun
from fastvae._torchrun import autoload, protect

FLAGS = [
    *("preset", "data", "data-dir", "epochs", "batch-size", "lr", "checkpoint-every", "precision", "compile"),
    *("device", "nproc", "seed", "out", "resume", "backend", "beta", "latent-dim"),
]


def torchrun_flags() -> list[Action]:
    return [action for action in run.get_args_parser()._actions if action.option_strings]


@pytest.mark.parametrize(
    "own",
    [
        "-m",
        "--module",
        "--nnodes 1 -m",
        "--nnodes=1 -m",
        "--standalone --nproc-per-node 2 -m",
        "--stand --nproc_per_node=2 --module",
        "-m --nproc-per-node 2",
        "-r 3 -t3 -m",
        "--role fastvae.train --no_python -m",
        "--rdzv-id -1 -m",
    ],
)
@pytest.mark.parametrize("rest", ["", "--nproc 4", "--nproc=4 --out a --resume", "--nproc 4 -- x", "-h"])
def test_protected(own: str, rest: str) -> None:
    argv = ["torchrun", *own.split(), "fastvae.train", *rest.split()]

    protected = protect(argv)

    position = 1 + len(own.split())
    assert protected == [*argv[:position], "--", *argv[position:]]
    parsed = run.parse_args(protected[1:])
    assert parsed.module
    assert parsed.training_script == "fastvae.train"
    assert parsed.training_script_args == rest.split()
    assert protect(protected) == protected


@pytest.mark.parametrize(
    "line",
    [
        "torchrun",
        "torchrun -m",
        "torchrun -h",
        "torchrun - -m fastvae.train",
        "torchrun fastvae.train --nproc 4",
        "torchrun -m fastvae.trainer --nproc 4",
        "torchrun -m other --nproc 4",
        "torchrun -m other -m fastvae.train",
        "torchrun train.py -m fastvae.train --nproc 4",
        "torchrun --standalone train.py -m fastvae.train",
        "torchrun --nnodes 1 train.py -m fastvae.train",
        "torchrun --role -m fastvae.train",
        "torchrun --nproc-per-node 2 train.py",
        "torchrun -m -- fastvae.train --nproc 4",
        "torchrun -m fastvae.train -- --nproc 4",
        "torchrun -- -m fastvae.train",
        "torchrun --nnodes",
    ],
)
def test_left_alone(line: str) -> None:
    assert protect(line.split()) == line.split()


@pytest.mark.parametrize(
    ("argv", "orig_argv", "expected"),
    [
        ("/bin/torchrun -m", "python /bin/torchrun -m", True),
        ("-m -m", "python -m torch.distributed.run -m", True),
        ("-m -m", "python -u -mtorch.distributed.run -m", True),
        ("-m -m", "python -m torch.distributed.launch -m", False),
        ("-m -m", "python -m other -m", False),
        ("-c -m", "python -c -m", False),
        ("/home/torchrun/train.py -m", "python /home/torchrun/train.py -m", False),
        ("my-torchrun -m", "python my-torchrun -m", False),
    ],
)
def test_autoload_acts_in_torchrun_alone(
    argv: str, orig_argv: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*argv.split(), "fastvae.train", "--nproc", "4"]
    monkeypatch.setattr(sys, "argv", list(arguments))
    monkeypatch.setattr(sys, "orig_argv", [*orig_argv.split(), "fastvae.train", "--nproc", "4"])

    autoload()

    assert (sys.argv != arguments) == expected
    assert ("--" in sys.argv) == expected


def test_autoload_survives_odd_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    for argv in ([], [""], ["-m"], [None], ["torchrun"]):
        monkeypatch.setattr(sys, "argv", list(argv))
        monkeypatch.setattr(sys, "orig_argv", [])
        autoload()
        assert sys.argv == argv
    monkeypatch.delattr(sys, "argv")
    autoload()


def test_knows_which_flags_take_no_value() -> None:
    switches = {name.replace("_", "-") for flag in torchrun_flags() if flag.nargs == 0 for name in flag.option_strings}

    assert switches <= set(_torchrun._SWITCHES)


@pytest.mark.parametrize("flag", FLAGS)
def test_no_flag_of_ours_abbreviates_one_of_torchruns(flag: str) -> None:
    longer = [name for action in torchrun_flags() for name in action.option_strings if name.startswith(f"--{flag}")]

    assert longer == (["--nproc-per-node", "--nproc_per_node"] if flag == "nproc" else [])


def test_imports_nothing_heavy() -> None:
    code = "import sys, fastvae._torchrun; print('torch' in sys.modules, 'numpy' in sys.modules)"

    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False False\n"
