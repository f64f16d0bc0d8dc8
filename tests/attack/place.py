"""The private folders of a case, inside and outside its reach, and the environment of its processes."""

import hashlib
import os
import shutil
from pathlib import Path

# A console script, in its own folder, so that Python does not search the current folder for modules.
_CONSOLE = """import sys
from fastvae.cli import main
if __name__ == "__main__":
    sys.exit(main())
"""
# Variables that are inherited; others could change a run's behaviour.
_KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CC", "CXX")


class Place:
    """The folders of a case. It may change anything below ``root``, but nothing in ``outside``."""

    def __init__(self, root: Path, templates: Path) -> None:
        self.root = root
        self.templates = templates
        self.work = root / "work"
        self.outside = root / "outside"
        self.ran = root / "RAN"  # made by code that must not run
        for folder in (self.work, self.outside, root / "home", root / "cache", root / "tmp", root / "bin"):
            folder.mkdir(parents=True)
        self.victim = self.outside / "victim"
        self.victim.write_text("precious\n")
        self.console = root / "bin" / "fastvae"
        self.console.write_text(_CONSOLE)
        self.stdout = root / "out"  # where standard output goes
        self.notes: list[str] = []  # observations made while the command runs
        kept = {name: value for name, value in os.environ.items() if name in _KEPT}
        self.environment = {
            **kept,
            "HOME": str(root / "home"),
            "TMPDIR": str(root / "tmp"),
            "XDG_CACHE_HOME": str(root / "cache"),
            "HF_HOME": str(root / "cache" / "hf"),
            "HF_HUB_OFFLINE": "1",
            "MPLCONFIGDIR": str(templates / "matplotlib"),  # holds a list of fonts that takes seconds to make
            "OMP_WAIT_POLICY": "passive",
        }

    def copy_run(self, name: str = "run") -> Path:
        """Copy a run of three epochs on the digits, with only its last checkpoint. Returns its folder."""
        folder = self.work / name
        shutil.copytree(self.templates / "run", folder)
        for path in sorted(folder.glob("checkpoints/step-*"))[:-1]:
            path.unlink()
        return folder

    def snapshot(self) -> dict[str, str]:
        """Return the content of ``outside``: target, digest or kind of each file by its name."""
        found = {}
        for path in sorted(self.outside.rglob("*")):
            content = os.readlink(path) if path.is_symlink() else _digest(path) if path.is_file() else "a folder"
            found[str(path.relative_to(self.outside))] = content
        return found


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
