"""Every kernel compiles for sm_80, sm_90 and sm_100, spills nothing and moves 128 bits an access, with no GPU."""

import functools
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
pytest.importorskip("triton", reason="the kernels need Triton")
pytestmark = pytest.mark.xdist_group("aot")  # or each worker would compile nearly all

# Registers a thread; with 256 threads a block, 128 leave 2 blocks on an SM, 64 leave 4.
REGISTERS = {"fp32": 64, "bf16": 96, "fp16": 96, "fp64": 160}
RAGGED = 168  # a row and a column for each element, not for each vector: one block an SM, a slow path
# Kernels whose terms take over 60 operations, in programs of 128 threads: 160 leave 3 of them, 12 warps, on an SM.
HEAVY = {"fp32": 112, "bf16": 160, "fp16": 160, "fp64": 255}
HEAVY_KERNELS = ("discretized_logistic_nll", "discretized_logistic_nll_backward")
# All parameters of four pixels, with their derivatives, at once: one block an SM, 16-bit accesses of half the width,
# and in fp64, which is for checking, a spill of a few values.
MIXTURE = {"discretized_logistic_mixture_nll": 192, "discretized_logistic_mixture_nll_backward": 192}
# Triton 3.6 takes up to 4 registers more, which leaves as many blocks on an SM, and 8 bytes of stack that nothing uses.
OLDEST = importlib.metadata.version("triton").startswith("3.6.")
MORE_REGISTERS, MORE_STACK = (4, 8) if OLDEST else (0, 0)
NOISY = ("reparameterize", "reparameterize_backward")
MAIN = [(90, "bf16", "dense")]
REST = [(arch, dtype, "dense") for arch in (80, 100) for dtype in ("fp32", "bf16")] + [
    (90, "fp32", "dense"),
    (90, "fp32", "packed"),
    (90, "bf16", "packed"),
    (90, "fp32", "ragged"),
    (90, "bf16", "ragged"),
    (90, "fp32", "int64"),
    (90, "fp16", "dense"),
    (90, "fp64", "dense"),
]
combinations = pytest.mark.parametrize(
    ("arch", "dtype", "variant"), [*MAIN, *(pytest.param(*row, marks=pytest.mark.slow) for row in REST)]
)


@functools.cache
def tables(*rows: tuple[int, str, str]) -> dict[str, dict[str, Any]]:
    """Run aot.py once for all rows, in another process: this one may have switched on Triton's interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, str(HERE / "aot.py"), *map(name_of, rows)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-4000:]
    found: dict[str, dict[str, Any]] = json.loads(run.stdout)
    return found


def name_of(row: tuple[int, str, str]) -> str:
    return "sm_{} {} {}".format(*row)


def table(*row: Any) -> dict[str, Any]:
    return tables(*(MAIN if row in MAIN else REST))[name_of(row)]


@combinations
def test_nothing_spills_and_registers_are_bounded(arch: int, dtype: str, variant: str) -> None:
    for kernel, used in table(arch, dtype, variant).items():
        # A spill would show as LOCAL and as .local accesses. The subroutine of an fp64 division keeps 8 bytes of stack.
        assert used["LOCAL"] == 0, (kernel, used)
        tolerated = (32 if kernel in MIXTURE else 8) if dtype == "fp64" else 0
        assert used["STACK"] <= tolerated + MORE_STACK, (kernel, used)
        assert not any(".local" in access for access in used["accesses"]), (kernel, used)
        allowed = HEAVY if kernel in HEAVY_KERNELS else REGISTERS
        limit = max(RAGGED, allowed[dtype]) if variant == "ragged" else allowed[dtype]
        limit = 255 if kernel in MIXTURE and dtype == "fp64" else MIXTURE.get(kernel, limit)
        assert used["REG"] <= limit + MORE_REGISTERS, (kernel, used)


@combinations
def test_accesses_are_128_bits(arch: int, dtype: str, variant: str) -> None:
    if variant == "ragged":
        pytest.skip("rows that are not a multiple of a vector are read element by element")
    for kernel, used in table(arch, dtype, variant).items():
        accesses = used["accesses"]
        wide = "v2.b64" if dtype == "fp64" else "v2.b32" if dtype != "fp32" and kernel in MIXTURE else "v4.b32"
        if kernel.endswith("second stage") or kernel in ("binarize", "record_step_"):
            continue  # the one moves bytes, four or eight to a vector, the other some numbers
        assert f"ld.global.{wide}" in accesses, (kernel, accesses)
        if kernel != "free_bits_kl":  # a partial sum a column is all that it writes
            assert f"st.global.{wide}" in accesses, (kernel, accesses)
        if dtype == "fp64" and (kernel in MIXTURE or "categorical" in kernel):
            continue  # two pixels a thread: two bytes of the target
        # Bytes apart from scalars (weights, the key, one partial): only the uint8 target is narrower than 128 bits.
        assert not any(access.startswith(("ld.global.b8", "ld.global.b16", "st.global.b16")) for access in accesses)


@combinations
def test_the_hosts_numbers_keep_their_bits(arch: int, dtype: str, variant: str) -> None:
    """Python's are fp64 and any size; without an annotation, Triton's binder makes them fp32."""
    for kernel, used in table(arch, dtype, variant).items():
        assert set(used["types"].values()) <= {"fp64", "i64"}, (kernel, used["types"])


@combinations
def test_noise_stays_in_registers(arch: int, dtype: str, variant: str) -> None:
    if dtype == "fp64" or variant == "ragged":
        pytest.skip("a thread's accesses are narrower than a quad there, so the noise changes threads")
    for kernel in NOISY:
        assert table(arch, dtype, variant)[kernel]["shared"] == 0


@combinations
def test_resources_are_the_recorded_ones(arch: int, dtype: str, variant: str) -> None:
    recorded = json.loads((HERE / "resources.json").read_text())
    key = name_of((arch, dtype, variant))
    if key not in recorded or recorded["triton"] != importlib.metadata.version("triton"):
        pytest.skip("recorded for other combinations, or another Triton")
    assert table(arch, dtype, variant) == recorded[key], "if meant: python tests/kernels/aot.py --record"
