"""Entry point of ``python benchmarks/gpu``; see cli.py."""

import runpy
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # so that gpu is a package, which a folder that Python runs is not
runpy.run_module("gpu.cli", run_name="__main__")
