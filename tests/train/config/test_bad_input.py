"""Bad input of every kind: one line that names both values and the remedy, status 2, no traceback, nothing written."""

import fcntl
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from fastvae.train.cli import main
from fastvae.train.config import TrainConfig, resolve
from fastvae.utils.errors import InputError

BAD = {
    "preset": (["--preset", "huge"], r"huge"),
    "unknown flag": (["--momentum", "3"], r"momentum"),
    "epochs": (["--epochs", "0"], r"--epochs is 0: it must be at least 1"),
    "epochs text": (["--epochs", "many"], r"many"),
    "batch": (["--batch-size", "-1"], r"--batch-size is -1: it must be at least 1"),
    "latent": (["--latent-dim", "0"], r"--latent-dim is 0: it must be at least 1"),
    "checkpoints": (["--checkpoint-every", "0"], r"--checkpoint-every is 0: it must be at least 1"),
    "lr": (["--lr", "0"], r"--lr is 0.0: it must be a finite number, above 0"),
    "lr nan": (["--lr", "nan"], r"--lr is nan"),
    "lr inf": (["--lr", "inf"], r"--lr is inf"),
    "beta": (["--beta", "-1"], r"--beta is -1.0: it must be a finite number, 0 or more"),
    "seed": (["--seed", "-1"], r"--seed is -1: it must be in \[0, 2\*\*63\)"),
    "objective": (["--objective", "gan"], r"gan"),
    "binarize": (["--binarize", "maybe"], r"expected True, False or nothing, which is True, but got maybe"),
    "binarized gaussian": (
        ["--preset", "gaussian", "--binarize"],
        r"--binarize goes with a Bernoulli likelihood, but the model's is Gaussian: use --binarize False",
    ),
    "no samples": (["--samples", "3"], r"--samples is 3, but --objective elbo has none: leave it out"),
    "samples": (["--objective", "iwae", "--samples", "0"], r"--samples is 0: it must be at least 1"),
    "no capacity": (["--objective", "capacity"], r"--objective capacity needs --capacity NATS: add it"),
    "capacity": (["--objective", "capacity", "--capacity", "-1"], r"--capacity is -1\.0: it must be a finite number"),
    "free bits": (
        ["--objective", "free-bits", "--free-bits", "nan"],
        r"--free-bits is nan: it must be a finite number",
    ),
    "bounds have no beta": (
        ["--objective", "iwae", "--beta", "2"],
        r"iwae has no beta, but --beta is 2\.0: leave it out",
    ),
    "precision": (["--precision", "fp8"], r"fp8"),
    "device": (["--device", "tpu"], r"tpu"),
    "no gpu": (["--device", "cuda"], r"cuda.*--device cpu"),
    "backend": (["--backend", "magic"], r"magic"),
    "native on a gpu": (["--backend", "native", "--device", "cuda"], r"native runs on the CPU, but --device is cuda"),
    "nproc": (["--nproc", "0"], r"--nproc 0 is less than 1"),
    "parallel": (["--parallel", "zero"], r"zero"),
    "parts traced": (
        ["--parallel", "fsdp", "--execution", "traced"],
        r"--parallel fsdp does not go with --execution traced: use --execution eager",
    ),
    "parts in fp16": (["--parallel", "fsdp", "--precision", "fp16"], r"--precision fp16: use --precision bf16"),
    "parts averaged": (["--parallel", "fsdp", "--ema", "0.9"], r"fsdp does not go with --ema 0\.9: use --parallel ddp"),
    "parts profiled": (
        ["--parallel", "fsdp", "--profile"],
        r"fsdp does not go with --profile True: use --parallel ddp",
    ),
    "parts of rows": (["--parallel", "fsdp", "--optimizer", "adafactor"], r"--optimizer adafactor: use --parallel ddp"),
    "resume alone": (["--resume"], r"--resume needs .* --out DIR"),
    "optimizer": (["--optimizer", "adamm"], r"--optimizer adamm is not in torch.optim: use one of adadelta, .*, sgd"),
    "lbfgs": (["--optimizer", "LBFGS"], r"--optimizer lbfgs evaluates the loss several times a step: use one of"),
    "sparse": (["--optimizer", "sparseadam"], r"--optimizer sparseadam takes sparse gradients only: use one of"),
    "muon": (["--optimizer", "muon"], r"--optimizer muon takes matrices only"),
    "no option": (
        ["--optimizer-options", "momentum", "1"],
        r"--optimizer-options momentum is no option of adam: it has eps, weight_decay, amsgrad",
    ),
    "own option": (["--optimizer-options", "fused", "1"], r"--optimizer-options fused is no option of adam"),
    "option": (["--optimizer-options", "weight_decay", "-1"], r"--optimizer-options: adam says: Invalid weight_decay"),
    "switch": (["--optimizer-options", "amsgrad", "3"], r"options amsgrad is 3, but it is a switch: use 0 or 1"),
    "option inf": (
        ["--optimizer-options", "eps", "inf"],
        r"--optimizer-options eps is inf: it must be a finite number",
    ),
    "option alone": (["--optimizer-options", "eps"], r"optimizer-options"),
    "schedule": (["--schedule", "linear"], r"linear"),
    "warmup": (["--warmup-steps", "-1"], r"--warmup-steps is -1: it must be at least 0"),
    "decay": (
        ["--schedule", "step", "--decay-epochs", "2", "--decay", "0"],
        r"--decay is 0.0: it must be a finite number, above 0",
    ),
    "decay without step": (["--decay", "0.5"], r"--decay is 0.5, but --schedule constant has none: leave it out"),
    "step without length": (["--schedule", "step"], r"--schedule step needs a length: add --decay-epochs N"),
    "decay epochs": (["--schedule", "step", "--decay-epochs", "0"], r"--decay-epochs is 0: it must be at least 1"),
    "length without step": (
        ["--decay-epochs", "3"],
        r"--decay-epochs is 3, but --schedule constant has no such length",
    ),
    "beta without length": (["--beta-schedule", "warmup"], r"--beta-schedule warmup needs .*: add --beta-steps N"),
    "beta steps": (["--beta-schedule", "warmup", "--beta-steps", "0"], r"--beta-steps is 0: it must be at least 1"),
    "length without beta": (["--beta-steps", "9"], r"--beta-steps is 9, but --beta-schedule constant has no such"),
    "accumulate": (["--accumulate", "0"], r"--accumulate is 0: it must be at least 1"),
    "more parts than images": (
        ["--accumulate", "9", "--batch-size", "8"],
        r"--accumulate is 9, but a batch has 8 images: use at most --accumulate 8",
    ),
    "clip": (["--clip-norm", "0"], r"--clip-norm is 0.0: it must be a finite number, above 0"),
    "clip nan": (["--clip-norm", "nan"], r"--clip-norm is nan"),
    "ema": (["--ema", "1"], r"--ema is 1.0: it must be in \[0, 1\), 0.999 say"),
    "ema nan": (["--ema", "nan"], r"--ema is nan"),
    "max steps": (["--max-steps", "0"], r"--max-steps is 0: it must be at least 1"),
    "time": (["--time-budget", "0"], r"--time-budget is 0.0: it must be a finite number, above 0"),
    "time inf": (["--time-budget", "inf"], r"--time-budget is inf"),
    "patience": (["--patience", "0"], r"--patience is 0: it must be at least 1"),
    "tf32": (["--tf32", "--device", "cpu"], r"--tf32 needs a GPU, but the run is on cpu: leave it out"),
    "data": (["--data", "imagenet"], r"imagenet"),
    "data file": (["--data", "nowhere.npy"], r"nowhere.npy"),
    "data dir": (["--data", "mnist", "--data-dir", "nowhere"], r"nowhere"),
    "image size": (["--image-size", "0"], r"--image-size is 0: it must be at least 1"),
    "a side that is odd": (
        ["--preset", "conv28", "--image-size", "30"],
        r"preset conv28 cannot have images of 1 x 30 x 30: .* 15 is odd on the way",
    ),
    "channels": (["--channels", "2"], r"--channels is 2: pictures are read as 3 \(RGB\) or 1 \(grey\)"),
    "crop of no size": (["--crop", "random"], r"--crop random .*: add --image-size PIXELS"),
    "width of an MLP": (["--width", "8"], r"--width is 8, but preset classic has no such width: leave it out"),
    "loader": (["--loader", "tape"], r"tape"),
    "workers": (["--workers", "-1"], r"--workers is -1: it must be at least 0"),
    "workers of a resident loader": (
        ["--loader", "resident", "--workers", "2"],
        r"--workers is 2, but --loader resident has none: leave it out",
    ),
    "dali for arrays": (["--loader", "dali"], r"--loader dali (decodes JPEG, .*, but these images are an array|needs)"),
    "dali for a cache": (["--loader", "dali", "--cache", "c"], r"--loader dali decodes .*, but --cache c has them"),
    "levels of a ladder": (
        ["--preset", "ladder", "--objective", "iwae"],
        r"preset ladder has two levels of latents, which --objective iwae does not know: use --objective elbo",
    ),
}


def text(name, content):
    """A file with some content."""

    def prepare(folder, monkeypatch):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return prepare


def array(values, **options):
    """A file data.npy."""
    return lambda folder, monkeypatch: np.save(folder / "data.npy", values, **options)


def environment(**values):
    """Variables of the environment."""

    def prepare(folder, monkeypatch):
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return prepare


def of_run(change=lambda run: None):
    """A finished run in the folder `run`, with something changed."""

    def prepare(folder, monkeypatch):
        shutil.copytree(folder.parent / "finished", folder / "run")
        change(folder / "run")

    return prepare


def each_checkpoint(change):
    def prepare(run):
        for path in (run / "checkpoints").glob("step-*"):
            change(path)

    return of_run(prepare)


def hold(run):
    held.append((run / "lock").open("a"))
    held[-1].truncate(0)
    held[-1].write("process 7 on elsewhere")
    held[-1].flush()
    fcntl.flock(held[-1], fcntl.LOCK_EX)


held = []
HEADER = "{'descr': '|u1', 'fortran_order': False, 'shape': (9, 1, 8, 8), }"
SHORT = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + HEADER.ljust(117).encode() + b"\n" + bytes(64)
GO_ON = ["--out", "run", "--resume"]
IMAGES = np.zeros((9, 8, 8), np.uint8)
RANKS = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}

PREPARED = {
    "out is a file": (text("run", ""), ["--out", "run"], r"cannot write to run \(.*\): choose another --out"),
    "out is below a file": (text("run", ""), ["--out", "run/a"], r"cannot write to run/a \(.*\): choose another --out"),
    "out holds a run": (
        of_run(),
        ["--out", "run"],
        r"run already holds a run: add --resume .* or choose",
    ),
    "out is in use": (of_run(hold), GO_ON, r"run is in use by process 7 on elsewhere: wait for its end, or choose"),
    "no run": (text("run/notes", ""), GO_ON, r"run holds no run \(no config.json in it\): name the folder of one"),
    "no folder": (environment(), GO_ON, r"run holds no run"),
    "config is cut off": (text("run/config.json", "{"), GO_ON, r"cannot be read as a run's settings \(.*\): name"),
    "config is a list": (
        text("run/config.json", "[1]"),
        GO_ON,
        r"config.json is not what fastvae writes \(list is not a dict\)",
    ),
    "config is binary": (text("run/config.json", b"\xff\xfe"), GO_ON, r"cannot be read as a run's settings"),
    "another preset": (of_run(), [*GO_ON, "--preset", "deep"], r"with --preset classic, not deep: use the same value"),
    "another rate": (
        of_run(),
        [*GO_ON, "--lr", "3"],
        r"trained with --lr 0.001, not 3.0: use the same value",
    ),
    "empty checkpoints": (
        each_checkpoint(lambda path: path.write_bytes(b"")),
        GO_ON,
        r"no checkpoint to go on from in run/checkpoints \(none of 1 is whole; .*: start the run anew with another",
    ),
    "a checkpoint cut off": (
        each_checkpoint(lambda path: path.write_bytes(path.read_bytes()[:-1])),
        GO_ON,
        r"no checkpoint to go on from .* is not a readable checkpoint",
    ),
    "a flipped bit": (
        each_checkpoint(lambda path: path.write_bytes(path.read_bytes()[:-1] + b"!")),
        GO_ON,
        r"no checkpoint to go on from .* does not match its checksum, so it was damaged",
    ),
    "a pickle": (
        each_checkpoint(lambda path: path.write_bytes(b"cos\nsystem\n(S'true'\ntR.")),
        GO_ON,
        r"not a readable",
    ),
    "data cut off": (text("data.npy", SHORT), ["--data", "data.npy"], r"data\.npy"),
    "data is text": (text("data.npy", "zeros"), ["--data", "data.npy"], r"data\.npy"),
    "data of objects": (
        array(np.array([{}, {}]), allow_pickle=True),
        ["--data", "data.npy"],
        r"data\.npy",
    ),
    "data of text": (array(np.array(["a", "b"])), ["--data", "data.npy"], r"data\.npy.*<U1"),
    "data of one dimension": (array(np.zeros(9, np.uint8)), ["--data", "data.npy"], r"data\.npy.*\(9,\)"),
    "no data": (array(IMAGES[:0]), ["--data", "data.npy"], r"data\.npy"),
    "pixels that are NaN": (array(np.full((9, 8, 8), np.nan, np.float32)), ["--data", "data.npy"], r"data\.npy|pixel"),
    "pixels beyond 1": (array(np.full((9, 8, 8), 2, np.float32)), ["--data", "data.npy"], r"2"),
    "data is a folder": (text("data.npy/a", ""), ["--data", "data.npy"], r"data\.npy"),
    "no pictures": (text("folder/notes", ""), ["--data", "folder"], r"folder"),
    "pictures of any size": (
        text("folder/a.png", "x"),
        ["--data", "folder"],
        r"folder",
    ),
    "broken pictures": (
        lambda folder, monkeypatch: [text(f"folder/{n}.png", "x")(folder, monkeypatch) for n in "abc"],
        ["--data", "folder", "--image-size", "28"],
        r"folder/.\.png: cannot be decoded \(it is no JPEG, PNG or WebP\): mend or remove it, or use --on-bad-image",
    ),
    "nothing but broken pictures": (
        lambda folder, monkeypatch: [text(f"folder/{n}.png", "x")(folder, monkeypatch) for n in "abc"],
        ["--data", "folder", "--image-size", "28", "--on-bad-image", "skip"],
        r"none of \d pictures can be decoded",
    ),
    "an IDX file cut off": (
        text("mnist/train-images-idx3-ubyte", b"\0\0\x08\x03"),
        ["--data", "mnist", "--data-dir", "mnist"],
        r"mnist",
    ),
    "a rank alone": (environment(RANK="0"), [], r"has RANK but no LOCAL_RANK: unset RANK, or start with torchrun"),
    "a rank as text": (environment(**{**RANKS, "RANK": "first"}), [], r"RANK='first' .* is not a whole number, 0 to 1"),
    "a rank too high": (environment(**{**RANKS, "RANK": "2"}), [], r"RANK='2' .* is not a whole number, 0 to 1"),
    "no world": (environment(**{**RANKS, "WORLD_SIZE": "0"}), [], r"WORLD_SIZE='0' .* not a whole number, 1 to"),
    "more processes than torchrun's": (environment(**RANKS), ["--nproc", "3"], r"--nproc 3, but torchrun started 2"),
    "a port as text": (environment(**{**RANKS, "MASTER_PORT": "abc"}), [], r"MASTER_PORT='abc' .* 0 to 65535"),
    "restarts of torchrun's": (
        environment(**RANKS),
        ["--max-restarts", "2", "--out", "run"],
        r"--max-restarts 2, but torchrun started this: give it to torchrun instead",
    ),
    "no such data folder": (environment(FASTVAE_DATA="nowhere"), ["--data", "mnist"], r"nowhere"),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder beside which tests may stand, with a finished run in it."""
    place = tmp_path_factory.mktemp("bad")
    assert main(["--epochs", "1", "--no-autotune", "--precision", "fp32", "--out", str(place / "finished")]) == 0
    return place


@pytest.mark.parametrize("case", [*BAD, *PREPARED])
def test_bad_input(case, finished, monkeypatch, capsys, request):
    if case in BAD:
        (flags, message), prepare = BAD[case], environment()
    else:
        prepare, flags, message = PREPARED[case]
    folder = finished / re.sub(r"\W", "-", case)
    folder.mkdir()
    prepare(folder, monkeypatch)
    monkeypatch.chdir(folder)
    if case == "no gpu":
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    before = contents(folder)
    capsys.readouterr()
    try:
        status = main(flags)
    except SystemExit as stop:  # the parser's own
        status = stop.code
    finally:
        while held:
            held.pop().close()
    captured = capsys.readouterr()
    assert status == 2
    assert re.search(message, " ".join((captured.err + captured.out).split()))
    assert "Traceback" not in captured.err
    if case in PREPARED:
        assert captured.err.count("\n") == 1, captured.err
    assert contents(folder) == before


def contents(folder):
    """All that a refusal may not change."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("precision", "fp8"), ("execution", "fast"), ("schedule", "cosin"), ("beta_schedule", "warm"),
        ("loader", "dally"), ("on_nonfinite", "ignore"), ("parallel", "fsdp2"), ("objective", "elboo"),
        ("preset", "leeky"), ("batch_size", "12"), ("seed", 1.5), ("optimizer", 5), ("epochs", [1]), ("lr", "1e-3"),
    ],
)  # fmt: skip
def test_settings_from_python_are_looked_at(name, value):
    with pytest.raises(InputError, match=rf"--{name.replace('_', '-')} is {re.escape(repr(value))}"):
        resolve(TrainConfig(**{name: value}))


def test_paths_from_python_may_be_text():
    assert resolve(TrainConfig(out="runs/x", data_dir="data")).out == Path("runs/x")
