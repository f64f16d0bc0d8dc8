"""The cost of imports, and the one direction in which they point."""

import ast
import graphlib
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fastvae"

# The packages that each package may import, beside itself, utils and _command. data and models are independent.
LAYERS = {
    "utils": set(),
    "kernels": set(),
    "reference": set(),
    "ops": {"kernels", "reference"},
    "backends": {"ops"},
    "nn": {"ops", "reference"},
    "models": {"nn", "ops", "reference"},
    "data": set(),
    "patch": {"nn", "ops", "reference"},
    "train": {"backends", "data", "models", "nn", "ops", "reference"},
    "evaluate": {"data", "models", "nn", "ops", "reference", "train"},
    "parity": {"backends", "data", "models", "nn", "ops", "reference", "train"},
    "bench": {"backends", "data", "models", "nn", "ops", "reference", "train"},
}

# The rooms of the house, from the ground up: a module imports its own room and those above it in this list, never one
# below it. Its room is the longest name here that it begins with.
ROOMS = (
    "_command", "utils", "errors", "kernels", "reference", "ops", "backends", "nn", "models.modes", "models.vae",
    "models",
    "data.sources", "data.formats.checks", "data.formats", "data.datasets", "data.loaders", "data",
    "patch",
    "train.distributed", "train.optim", "train.checkpoint", "train.config", "train.step", "train.report",
    "train.stopping", "train.binarize", "train.engine", "train.graphs", "train.run_state", "train.loop",
    "train.measure", "train.inputs", "train.start",
    "train.run", "train.trainer", "train",
    "evaluate", "parity", "bench.contenders", "bench", "",
)  # fmt: skip
MOST_FILES = 12  # in a folder of unlike things
ALIKE = {"ops", "reference", "kernels"}  # one file for each operator


def python(code: str, **environment: str) -> str:
    """Run code in a fresh interpreter, and return its output."""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_importing_fastvae_imports_neither_torch_nor_numpy() -> None:
    assert python("import sys, fastvae; print(sorted({'torch', 'numpy', 'triton'} & set(sys.modules)))") == "[]"


COMMANDS = ("train", "sample", "reconstruct", "evaluate", "nll", "bench", "doctor")
RUN = """
import atexit, runpy, sys
def report():
    large = {"torch", "numpy", "matplotlib", "tensorboard", "torchvision", "torch._dynamo"}
    print(sorted(large & set(sys.modules)), file=sys.stderr)
atexit.register(report)
if sys.argv[1] == "fastvae":
    from fastvae.cli import main
    del sys.argv[1]
    main()
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


def end_of(*command: str) -> tuple[int, str, str]:
    """Run a command in a fresh interpreter. Returns its status, its output, and the large packages that it imported."""
    done = subprocess.run([sys.executable, "-c", RUN, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "command",
    [
        ["fastvae", "--help"],
        *(["fastvae", name, "--help"] for name in COMMANDS),
        ["fastvae.train", "--help"],
        ["fastvae.parity", "--help"],
    ],
    ids=" ".join,
)
def test_help_imports_no_torch(command: list[str]) -> None:
    status, shown, imported = end_of(*command)
    assert (status, imported) == (0, "[]")
    assert "usage:" in shown.lower()


@pytest.mark.parametrize(
    "command",
    [
        ["fastvae", "trian"],
        ["fastvae", "train", "--epoch", "1"],
        ["fastvae.train", "--epochs", "x"],
        ["fastvae", "train", "--beta", "-1"],
        ["fastvae", "nll", "run", "--samples", "many"],
        ["fastvae.parity", "--steps", "many"],
    ],
    ids=" ".join,
)
def test_wrong_flags_are_told_before_torch_is_imported(command: list[str]) -> None:
    status, _, imported = end_of(*command)
    assert (status, imported) == (2, "[]")


def test_a_run_of_some_seconds_imports_neither_dynamo_nor_torchvision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    flags = ["--max-steps", "1", "--execution", "eager", "--precision", "fp32", "--device", "cpu"]
    status, _, imported = end_of("fastvae", "train", *flags, "--out", str(tmp_path / "run"))
    assert (status, imported) == (0, "['matplotlib', 'numpy', 'tensorboard', 'torch']")


def test_the_error_that_users_catch_is_public_and_as_cheap() -> None:
    code = """
import sys, fastvae
before = "fastvae.utils.errors" in sys.modules
from fastvae.errors import InputError
print(before, fastvae.InputError is InputError, "InputError" in dir(fastvae), "torch" in sys.modules)
"""
    assert python(code) == "False True True False"


def test_the_backends_are_public() -> None:
    code = """
import fastvae
from fastvae.ops import _library
assert fastvae.backends.has_native is _library.has_native
print(all(hasattr(fastvae.backends, name) for name in fastvae.backends.__all__), "backends" in dir(fastvae))
"""
    assert python(code) == "True True"


def test_only_the_operators_look_behind_the_backends() -> None:
    for path in sources():
        own = ".".join(module_of(path)[1:])
        if own.partition(".")[0] not in ("ops", "backends", "kernels"):
            used = imports_of(path.read_text(), module_of(path), path.name == "__init__.py")
            assert not {name for name in used if name.startswith("ops._library")}, own


def test_importing_the_operators_starts_no_gpu_and_no_kernel() -> None:
    code = """
import sys, torch
before = set(sys.modules)
import fastvae, fastvae.ops, fastvae.reference
new = set(sys.modules) - before
assert "fastvae.ops.bernoulli_nll" in sys.modules
print(torch.cuda.is_initialized(), sorted(n for n in new if n.split(".")[0] == "triton" or "fastvae.kernels" in n))
"""
    assert python(code) == "False []"


def test_everything_works_with_the_extension_and_triton_hidden() -> None:
    code = """
import importlib.util, sys
hidden = ("fastvae._native", "fastvae.kernels", "triton")
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.startswith(hidden):
            raise ModuleNotFoundError(name, name=name)
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *package: None if name.startswith(hidden) else find(name, *package)
sys.meta_path.insert(0, Hide())

import torch, fastvae
from fastvae import ops
from fastvae.ops import _library
assert not _library.has_native() and not _library.has_triton()
x = torch.randn(3, 4, requires_grad=True)
z, kl = ops.reparameterize_kl(x, x * 0.5, fastvae.Noise(1))
z = z + ops.reparameterize(x, x) + ops.gaussian_kl(x, x)
(z.sum() + kl + ops.bernoulli_nll(x, torch.rand(3, 4)) + ops.gaussian_nll(x, x.detach())).backward()
print(x.grad.isfinite().all().item())
"""
    assert python(code) == "True"


@pytest.mark.slow
def test_importing_takes_under_300_ms_beyond_torch() -> None:
    code = """
import time, torch
start = time.perf_counter()
import fastvae, fastvae.ops
print(time.perf_counter() - start)
"""
    seconds = [float(python(code)) for _ in range(3)]
    assert statistics.median(seconds) < 0.3, seconds


def sources() -> list[Path]:
    return sorted([*PACKAGE.glob("**/*.py"), *(ROOT / "kernels").glob("**/*.py")])


def module_of(path: Path) -> list[str]:
    """Return the parts of a module's name. ``kernels/`` is installed as ``fastvae.kernels``."""
    relative = path.relative_to(ROOT)
    parts = [*(("fastvae",) if relative.parts[0] == "kernels" else ()), *relative.with_suffix("").parts]
    return parts[:-1] if parts[-1] == "__init__" else parts


def _literal(node: ast.expr) -> str:
    """Return the constant start of a string: all of it, or the part before the first value of an f-string."""
    if isinstance(node, ast.JoinedStr) and node.values:
        node = node.values[0]
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def imports_of(source: str, module: list[str], is_package: bool) -> set[str]:
    """Return the modules and names of fastvae that a source imports, such as ``ops.noise.Noise``, also for typing."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module.split(".") if node.module else []
            if node.level:
                base = module[: len(module) - node.level + is_package] + base
            names = [".".join([*base, alias.name]) for alias in node.names]
        elif isinstance(node, ast.Call) and node.args:
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            names = [_literal(node.args[0])] if function in ("import_module", "__import__") else []
        found |= {name.partition(".")[2] for name in names if name.startswith("fastvae.")}
    return found


def test_the_scan_sees_every_kind_of_import() -> None:
    source = """
import fastvae.train.engine
from fastvae import data
from ..models import VAE
from .. import nn
from . import sibling
if TYPE_CHECKING:
    from fastvae.bench import race
def late():
    importlib.import_module(f"fastvae.kernels.{name}")
"""
    module = ["fastvae", "ops", "noise"]
    expected = {"train.engine", "data", "models.VAE", "nn", "ops.sibling", "bench.race", "kernels."}
    assert imports_of(source, module, is_package=False) == expected
    assert imports_of("from .x import y", ["fastvae", "ops"], is_package=True) == {"ops.x.y"}


def room_of(name: str) -> str:
    """Return the room of a module or of a name in it."""
    return max((room for room in ROOMS if f"{name}.".startswith(f"{room}." if room else "")), key=len)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    module = module_of(path)
    own = ".".join(module[1:])
    used = imports_of(path.read_text(), module, path.name == "__init__.py")
    if own.partition(".")[0] in LAYERS:
        package = own.partition(".")[0]
        wrong = {name.partition(".")[0] for name in used} - LAYERS[package] - {package, "utils", "_command"}
        assert not wrong, f"{own} is of the package {package}, and imports {sorted(wrong)}"
    if path.name == "__init__.py":  # the face of a folder may show what is inside
        used = {name for name in used if not name.startswith(own)}
    floor = ROOMS.index(room_of(own))
    above = sorted(name for name in used if ROOMS.index(room_of(name)) > floor)
    assert not above, f"{own} imports what is built on it: {above}"


def test_no_module_imports_itself_by_way_of_others() -> None:
    modules = {".".join(module_of(path)[1:]): path for path in sources()}
    after = {}
    for own, path in modules.items():
        names = imports_of(path.read_text(), module_of(path), path.name == "__init__.py")
        found = {name if name in modules else name.rpartition(".")[0] for name in names}
        after[own] = found & set(modules) - {own}
    graphlib.TopologicalSorter(after).prepare()  # raises CycleError, which names the circle


def test_every_folder_of_the_package_has_its_layer() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")} | {"kernels"}
    assert folders <= set(LAYERS)


def test_no_folder_is_a_corridor() -> None:
    folders = {path.parent for path in PACKAGE.glob("**/*.py")}
    sizes = {str(folder.relative_to(PACKAGE)): len(list(folder.glob("*.py"))) for folder in folders}
    assert {name: size for name, size in sizes.items() if size > MOST_FILES and name not in ALIKE} == {}


def test_nothing_imports_the_tests_or_the_benchmarks() -> None:
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {"tests", "benchmarks", "pytest"}, path
