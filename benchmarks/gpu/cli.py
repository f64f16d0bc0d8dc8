"""``make gpu``: test fastvae on this machine's GPU and measure its speed, in at most 8 minutes.

python benchmarks/gpu                          # every section
python benchmarks/gpu --only steps ops         # some sections
python benchmarks/gpu --dry                    # all on the CPU with small sizes, to test the script itself
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
    """Run the sections. Returns 0 if all passed, else 1."""
    parser = argparse.ArgumentParser(
        prog="make gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=driver.NAMES, metavar="SECTION", help=", ".join(driver.NAMES))
    parser.add_argument(
        "--dry", action="store_true", help="run on the CPU with small sizes and a stand-in for CUDA graphs"
    )
    parser.add_argument(
        "--minutes", type=float, help="time limit for all sections together (default: 8, or 30 with --dry)"
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        help="folder with MNIST (default: $FASTVAE_DATA, then .gpu/mnist; without MNIST, the digits)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="JSON file to write (default: benchmarks/results/gpu-NAME.json; in --work if only some sections run)",
    )
    parser.add_argument(
        "--work", type=Path, default=ROOT / "build" / "gpu", help="folder for logs and runs (default: build/gpu)"
    )
    arguments = parser.parse_args()
    minutes = arguments.minutes or (30 if arguments.dry else 8)
    wanted = {
        driver.NAMES[0],
        *(arguments.only or driver.NAMES),
    }  # environment is always run: it records the device and the versions
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
    """Return the folder with MNIST, or None. Nothing is downloaded."""
    folders = [given, os.environ.get("FASTVAE_DATA"), ROOT / ".gpu" / "mnist"]
    for folder in map(Path, filter(None, folders)):
        if next(folder.glob("**/train-images-idx3-ubyte*"), None) is not None:
            return folder
    return None


if __name__ == "__main__":
    sys.exit(main())
