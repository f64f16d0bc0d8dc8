"""Every instruction set that the extension was compiled for and this CPU has; the best one has all other tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastvae.ops import _library

ROOT = Path(__file__).parents[2]


def isolated(capability: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return {**inherited, "FASTVAE_CPU_CAPABILITY": capability}


@pytest.mark.slow
@pytest.mark.parametrize("capability", ["default", "avx2", "avx512"])
def test_accuracy_and_determinism(capability: str) -> None:
    if not _library.has_native():
        pytest.skip("the C++ extension is not built: run `make setup`")
    if capability == _library.capability():
        pytest.skip(f"{capability} is what every other test runs here")
    chosen = subprocess.run(
        [sys.executable, "-c", "from fastvae.ops import _library; print(_library.capability())"],
        env=isolated(capability), cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    if "lacks it" in chosen:
        pytest.skip(chosen)
    assert chosen == capability
    # A sample: the sanitizers run the rest on every one, in their own build. 784 columns are blocks and their ends.
    only = "native and (large or ends or extreme or digits or same_bits or past or 784 and (accura or specification))"
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/ops", "-q", "-x", "-m", "not slow", "-k", only,
         "-p", "no:cacheprovider", "-p", "no:xdist", "--ignore", __file__],
        env=isolated(capability), cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    assert int(result.stdout.rsplit(" passed", 1)[0].rsplit(maxsplit=1)[-1]) > 150


def test_a_wrong_choice_is_an_error_at_the_first_operator() -> None:
    if not _library.has_native():
        pytest.skip("the C++ extension is not built: run `make setup`")
    code = (
        "import torch, fastvae.ops as ops\n"
        "x = torch.zeros(2, 3)\n"
        "try: ops.gaussian_kl(x, x, backend='native')\n"
        "except RuntimeError as error: print(str(error).splitlines()[0])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env=isolated("sse9"), capture_output=True, text=True, check=True
    )
    assert "FASTVAE_CPU_CAPABILITY must be avx512, avx2 or default, not 'sse9'" in result.stdout
