"""Fixtures of all tests: seeds, threads, and the backends that this machine can run.

``FASTVAE_REQUIRE_BACKENDS=native,triton`` turns the skip of a missing backend into a failure, so that CI cannot lose
one silently.
"""

import importlib.metadata
import importlib.util
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, settings
from packaging.version import Version
from torch.utils._python_dispatch import TorchDispatchMode

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported, at the first launch
# One cache for TorchInductor: tests that move the user's cache would otherwise compile everything again.
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(__file__).parents[1] / "build" / "inductor"))

from fastvae import backends
from fastvae.ops import _library

torch.set_num_threads(2 if "PYTEST_XDIST_WORKER" not in os.environ else 1)

settings.register_profile(
    "fastvae",
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("interpreter", settings.get_profile("fastvae"), max_examples=2, phases=[Phase.generate])
settings.load_profile("fastvae")


class Place(NamedTuple):
    """A backend, and the device that it serves on this machine."""

    backend: str
    device: str

    @property
    def interpreted(self) -> bool:
        """True for Triton's interpreter, without a GPU: it is a thousand times slower, so tests use smaller inputs."""
        return self == ("triton", "cpu")

    def affordable(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape, cut for the interpreter to two rows, because each program takes as long as any other.

        Other sizes are cut to 320: two such rows still are several programs in every dtype, with full vectors.
        """
        return (min(2, shape[0]), *(min(320, size) for size in shape[1:])) if self.interpreted else shape


def _refused() -> str | None:
    """Return the reason why Triton's interpreter cannot run here, or None."""
    if not backends.has_triton() or Version(importlib.metadata.version("triton")) >= Version("3.7"):
        return None
    # It uses an array of one element as an index.
    return "Triton 3.6's interpreter needs numpy < 2.4" if Version(np.__version__) >= Version("2.4") else None


def _missing(backend: str) -> str | None:
    """Return the reason why a backend cannot run here, or None."""
    if backend == "native" and not backends.has_native():
        return "the C++ extension is not built: run `make setup`"
    if backend == "triton":
        if not backends.has_triton():
            return "Triton is not installed"
        if importlib.util.find_spec("fastvae.kernels") is None:
            return "fastvae.kernels is not installed: run `make setup`"
        if not torch.cuda.is_available() and _refused() is not None:
            return _refused()
        for module in sorted(set(_library._modules.values())):
            if importlib.util.find_spec(f"fastvae.kernels.{module}") is None:
                return f"fastvae.kernels.{module} does not exist"
    return None


@pytest.fixture(scope="session")
def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="session", params=["reference", "native", "triton"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    reason = _missing(name)
    if reason is not None:
        if name in os.environ.get("FASTVAE_REQUIRE_BACKENDS", "").split(","):
            pytest.fail(f"backend {name}: {reason}")
        pytest.skip(f"backend {name}: {reason}")
    return name


@pytest.fixture(scope="session")
def place(backend: str, device: str) -> Place:
    """Each backend on its device: native on the CPU, Triton on the GPU or in its interpreter."""
    place = Place(backend, "cpu" if backend == "native" else device)
    settings.load_profile("interpreter" if place.interpreted else "fastvae")
    return place


class NoHostCopies(TorchDispatchMode):
    """Refuse a tensor made from a Python number: on a GPU that is a copy, which cannot be captured in a graph."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert function._schema.name not in {"aten::lift_fresh", "aten::lift"}, "makes a tensor from a Python number"
        return function(*args, **(kwargs or {}))


@pytest.fixture
def no_host_copies() -> NoHostCopies:
    return NoHostCopies()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests that cannot run here, and put groups for one worker first: last, the other workers would wait."""
    refused = _refused()
    for item in items:
        if item.get_closest_marker("gpu") is not None and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no GPU"))
        if refused is not None and (item.path.parent.name == "interpreted" or item.path.name == "test_interpreter.py"):
            item.add_marker(pytest.mark.skip(reason=refused))
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)
