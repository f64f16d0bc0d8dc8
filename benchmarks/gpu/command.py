"""``make gpu``: whether fastvae is right on this machine's GPU, and how fast, in at most 8 minutes.

python benchmarks/gpu                          # every section
python benchmarks/gpu --only steps ops         # some
python benchmarks/gpu --dry                    # all on the CPU, with small sizes: does the script itself run?
"""

import argparse
import os
import signal
import sys
from pathlib import Path

from fastvae.utils.machine import cores

from . import driver
from .section import ROOT


def main() -> int:
    """Returns 0 if all sections passed, else 1."""
    parser = argparse.ArgumentParser(
        prog="make gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=driver.NAMES, metavar="SECTION", help=", ".join(driver.NAMES))
    parser.add_argument("--dry", action="store_true", help="on the CPU, small, with a stand-in for CUDA graphs")
    parser.add_argument("--minutes", type=float, help="for all sections together (default: 8, or 30 if --dry)")
    parser.add_argument("--data-dir", type=Path, help="of MNIST (default: $FASTVAE_DATA, .gpu/mnist; else digits)")
    parser.add_argument(
        "--out",
        type=Path,
        help="default: benchmarks/results/gpu-NAME.json; in --work, if only a part runs",
    )
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "gpu", help="logs and runs (default: build/gpu)")
    arguments = parser.parse_args()
    minutes = arguments.minutes or (30 if arguments.dry else 8)
    wanted = {driver.NAMES[0], *(arguments.only or driver.NAMES)}  # the environment names the device and the versions
    chosen = [planned for planned in driver.SECTIONS if planned.name in wanted]
    is_whole = len(chosen) == len(driver.SECTIONS) and not arguments.dry
    here = driver.Driver(
        arguments.work,
        arguments.out,
        ROOT / "benchmarks" / "results" if is_whole else arguments.work,
        data_dir(arguments.data_dir),
        dry=arguments.dry,
        seconds=60 * minutes,
    )
    signal.signal(signal.SIGTERM, driver.interrupted)
    here.run(chosen, jobs=max(2, cores() // 3))
    print("", *driver.table(here.results), "", f"written to {here.path}", sep="\n")
    return 0 if here.passed else 1


def data_dir(given: Path | None) -> Path | None:
    """Where MNIST is, if it is anywhere: nothing is downloaded."""
    folders = [given, os.environ.get("FASTVAE_DATA"), ROOT / ".gpu" / "mnist"]
    for folder in map(Path, filter(None, folders)):
        if next(folder.glob("**/train-images-idx3-ubyte*"), None) is not None:
            return folder
    return None


if __name__ == "__main__":
    sys.exit(main())
