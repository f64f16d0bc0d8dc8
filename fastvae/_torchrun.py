"""Make `torchrun -m fastvae.train --nproc 4` work as typed: put a `--` between torchrun's arguments and fastvae's.

Python's argparse, before 3.12.7 and 3.13.1, looks for abbreviations of torchrun's flags even among the arguments of
the script, and stops at `--nproc` ("ambiguous option: --nproc could match --nproc-per-node, --nproc_per_node")
before the script has started. A `--` in front of the module's name ends that search on every Python; argparse drops
it again, so that the script's arguments arrive as typed.

torch calls `autoload` at the end of `import torch`, in every process, because pyproject.toml names it as an entry
point in the group `torch.backends`. No other code of ours runs before torchrun parses its arguments. In full:

- in a process that is not torchrun itself (`torchrun` or `python -m torch.distributed.run`): nothing;
- when torchrun launches anything but the module `fastvae.train`, or a `--` follows its name already: nothing;
- otherwise: `sys.argv` becomes `torchrun ... -m -- fastvae.train ...`.

It imports `os` and `sys` only, registers no backend, and raises nothing. To switch it off, set
TORCH_DEVICE_BACKEND_AUTOLOAD=0 and type `torchrun --nproc-per-node 4 -m fastvae.train`, which needs no help.
"""

import os
import sys

_MODULE = "fastvae.train"
# torchrun's flags that take no value; each of the others takes one. tests/test_torchrun.py asks torch's own parser.
_SWITCHES = ("--help", "--module", "--no-python", "--run-path", "--standalone", "--virtual-local-rank", "-h", "-m")


def autoload() -> None:
    """Protect the arguments of fastvae.train from torchrun's parser. torch calls this at the end of its import."""
    argv = getattr(sys, "argv", [])
    if argv and _is_torchrun(str(argv[0]), sys.orig_argv[-len(argv) :][:1]):
        argv[:] = protect(argv)


def protect(argv: list[str]) -> list[str]:
    """Return torchrun's `argv` with a `--` before the module's name if that is fastvae.train, or else unchanged."""
    is_module = False
    position = 1
    while position < len(argv) and argv[position].startswith("-") and argv[position] not in {"-", "--"}:
        flag = argv[position].replace("_", "-")
        is_module = is_module or flag in {"-m", "--module"}
        # `--flag=value` and `-r3` hold their value; a switch may be shortened, as in `--stand`.
        holds_value = "=" in flag or (not flag.startswith("--") and len(flag) > 2)
        is_switch = any(switch.startswith(flag) for switch in _SWITCHES)
        position += 1 if holds_value or is_switch else 2
    if is_module and argv[position : position + 1] == [_MODULE] and argv[position + 1 : position + 2] != ["--"]:
        return [*argv[:position], "--", *argv[position:]]
    return argv


def _is_torchrun(program: str, original: list[str]) -> bool:
    # Under `python -m`, sys.argv[0] is still "-m" while the packages above the module, torch here, are imported;
    # sys.orig_argv has the module's name in that place, perhaps as `-mNAME`.
    if program == "-m":
        return original in (["torch.distributed.run"], ["-mtorch.distributed.run"])
    return os.path.basename(program) == "torchrun"
