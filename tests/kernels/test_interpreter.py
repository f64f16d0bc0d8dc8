"""With a GPU, run the kernels in Triton's interpreter too: in a process of its own, which the switch rules whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FILES = sorted((Path(__file__).parent / "interpreted").glob("test_*.py"))


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="this process is interpreted already")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_interpreted(path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", str(path)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
