"""``python benchmarks/gpu``, which command.py describes."""

import runpy
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # of the package gpu, which a folder that Python runs is not
runpy.run_module("gpu.command", run_name="__main__")
