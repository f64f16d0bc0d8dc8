"""Bad flags: each is refused by a message that names the flag, its value and the remedy."""

import re

import pytest

from fastvae.train.config import TrainConfig, resolve
from fastvae.utils.errors import InputError
from fastvae.utils.settings import flag, on_command_line
from fastvae.utils.settings.command_line import parse

from .refusal import assert_refused

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
    "binarize": (["--binarize", "maybe"], r"--binarize is a switch, but 'maybe' follows it: give it True or False"),
    "binarized gaussian": (
        ["--preset", "gaussian", "--binarize"],
        r"--binarize goes with a Bernoulli likelihood, but the model's is Gaussian: use --binarize False",
    ),
    "no samples": (
        ["--samples", "3"],
        r"--samples is 3, but --objective elbo has none: use --objective iwae \(or dreg, stl\), or leave --samples out",
    ),
    "no free bits": (
        ["--free-bits", "1"],
        r"--free-bits is 1\.0, but --objective elbo has none: use --objective free-bits, or leave --free-bits out",
    ),
    "two levels have none": (
        ["--preset", "ladder", "--free-bits", "1"],
        r"--free-bits is 1\.0, but --objective elbo has none: leave it out",
    ),
    "no capacity to rise to": (
        ["--capacity-steps", "9"],
        r"--capacity-steps is 9, but --objective elbo has none: use --objective capacity and add --capacity NATS, or",
    ),
    "samples": (["--objective", "iwae", "--samples", "0"], r"--samples is 0: it must be at least 1"),
    "no capacity": (["--objective", "capacity"], r"--objective capacity needs --capacity NATS: add it"),
    "capacity": (["--objective", "capacity", "--capacity", "-1"], r"--capacity is -1\.0: it must be a finite number"),
    "free bits": (
        ["--objective", "free-bits", "--free-bits", "nan"],
        r"--free-bits is nan: it must be a finite number",
    ),
    "bounds have no beta": (
        ["--objective", "iwae", "--beta", "2"],
        r"iwae has no beta, but --beta is 2\.0: leave --beta out, or use --objective elbo",
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
        r"momentum is not an option of adam: use eps, .*, or use another --optimizer \(rmsprop, sgd\)",
    ),
    "own option": (["--optimizer-options", "fused", "1"], r"--optimizer-options fused is not an option of adam"),
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
    "decay without step": (
        ["--decay", "0.5"],
        r"--decay is 0.5, but --schedule constant has none: use --schedule step and add --decay-epochs N, or leave",
    ),
    "step without length": (["--schedule", "step"], r"--schedule step needs a length: add --decay-epochs N"),
    "decay epochs": (["--schedule", "step", "--decay-epochs", "0"], r"--decay-epochs is 0: it must be at least 1"),
    "length without step": (
        ["--decay-epochs", "3"],
        r"--decay-epochs is 3, but --schedule constant has no such length: use --schedule step, or leave",
    ),
    "beta without length": (["--beta-schedule", "warmup"], r"--beta-schedule warmup needs .*: add --beta-steps N"),
    "beta steps": (["--beta-schedule", "warmup", "--beta-steps", "0"], r"--beta-steps is 0: it must be at least 1"),
    "length without beta": (
        ["--beta-steps", "9"],
        r"--beta-steps is 9, but --beta-schedule constant has no such length: use --beta-schedule warmup, or leave",
    ),
    "bounds have no schedule of beta": (
        ["--objective", "iwae", "--beta-schedule", "warmup"],
        r"iwae has no beta, but --beta-schedule is warmup: leave --beta-schedule out, or use --objective elbo",
    ),
    "accumulate": (["--accumulate", "0"], r"--accumulate is 0: it must be at least 1"),
    "more parts than images": (
        ["--accumulate", "9", "--batch-size", "8"],
        r"--accumulate is 9, but a batch has 8 images: use at most --accumulate 8",
    ),
    "clip": (["--clip-norm", "0"], r"--clip-norm is 0.0: it must be a finite number, above 0"),
    "clip nan": (["--clip-norm", "nan"], r"--clip-norm is nan"),
    "ema": (["--ema", "1"], r"--ema is 1.0: it must be in \[0, 1\), 0.999 for example"),
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
    "channels": (["--channels", "2"], r"--channels is 2: use --channels 3 \(RGB\) or --channels 1 \(grey\)"),
    "crop of no size": (["--crop", "random"], r"--crop random .*: add --image-size PIXELS"),
    "width of an MLP": (
        ["--width", "8"],
        r"--width is 8, but --preset classic has no such width: leave it out, or use a preset for pictures \(conv28,",
    ),
    "loader": (["--loader", "tape"], r"tape"),
    "workers": (["--workers", "-1"], r"--workers is -1: it must be at least 0"),
    "workers of a resident loader": (
        ["--loader", "resident", "--workers", "2"],
        r"--workers is 2, but --loader resident has none: use --loader torch, or leave --workers out",
    ),
    "dali for arrays": (["--loader", "dali"], r"--loader dali (decodes JPEG, .*, but these images are an array|needs)"),
    "dali for a cache": (["--loader", "dali", "--cache", "c"], r"--loader dali decodes .*, but --cache c has them"),
    "samples beyond memory": (
        ["--objective", "iwae", "--samples", "1000000000000"],
        r"--samples 1000000000000: the decoder's output for 128 images takes .* GB of memory, this machine has",
    ),
    "latents": (["--latent-dim", "10000000000000"], r"takes .* GB of memory, this machine has .*--latent-dim"),
    "unknown": (["--lrr", "3"], r"error: there is no flag --lrr: did you mean --lr\?"),
    "no number": (["--epochs", "abc"], r"error: --epochs is 'abc': give it a whole number"),
    "compiled without a compiler": (
        ["--execution", "compiled", "--device", "cpu"],
        r"--execution compiled needs a compiler, but there is no .*install g\+\+.*, or use --execution traced",
    ),
    "levels of a ladder": (
        ["--preset", "ladder", "--objective", "iwae"],
        r"preset ladder has two levels of latents, but --objective iwae takes one: use --objective elbo",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_flags(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if case == "no gpu":
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    if case == "compiled without a compiler":
        monkeypatch.setenv("CXX", "/nonexistent/c++")
    flags, message = BAD[case]
    assert_refused(tmp_path, flags, message, capsys)


ALONE = {  # settings that act with another one alone
    "free_bits": "1", "capacity": "9", "capacity_steps": "9", "samples": "3", "decay": "0.5", "decay_epochs": "2",
    "beta_steps": "9",
}  # fmt: skip
VALUES = {"N": "9", "NATS": "9"}


def refusal_of(flags):
    try:
        resolve(parse(TrainConfig, flags, program="fastvae train"))
    except InputError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", ALONE)
def test_the_remedy_of_a_setting_alone_is_taken_as_typed(name):
    flags = [flag(name), ALONE[name]]
    with on_command_line():
        for _ in range(3):
            refusal = refusal_of(flags)
            if refusal is None:
                return
            remedy = refusal.rpartition(": ")[2].partition(", or leave")[0]
            for given, value in re.findall(r"(?:use|add) (--[a-z-]+) ([\w-]+)", remedy):
                flags += [given, VALUES.get(value, value)]
    pytest.fail(f"{' '.join(flags)}: {refusal}")
