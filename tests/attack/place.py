"""A private folder for one case: where it works, what lies outside of that, and the environment of its processes."""

import hashlib
import os
import shutil
from pathlib import Path

# What a console script is: a file in a folder of its own, so that the current folder is not searched for modules.
_CONSOLE = """import sys
from fastvae.cli import main
if __name__ == "__main__":
    sys.exit(main())
"""
# Of whoever starts the suite; more could change what a run does.
_KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CC", "CXX")


class Place:
    """All that a case may touch is below ``root``, and all that it must not change in ``outside``."""

    def __init__(self, root: Path, templates: Path) -> None:
        self.root, self.templates = root, templates
        self.work, self.outside, self.ran = root / "work", root / "outside", root / "RAN"
        for folder in (self.work, self.outside, root / "home", root / "cache", root / "tmp", root / "bin"):
            folder.mkdir(parents=True)
        self.victim = self.outside / "victim"
        self.victim.write_text("precious\n")
        self.console = root / "bin" / "fastvae"
        self.console.write_text(_CONSOLE)
        self.stdout = root / "out"  # where standard output goes
        self.notes: list[str] = []  # what was seen while the command ran
        kept = {name: value for name, value in os.environ.items() if name in _KEPT}
        self.environment = {
            **kept,
            "HOME": str(root / "home"),
            "TMPDIR": str(root / "tmp"),
            "XDG_CACHE_HOME": str(root / "cache"),
            "HF_HOME": str(root / "cache" / "hf"),
            "HF_HUB_OFFLINE": "1",
            "MPLCONFIGDIR": str(templates / "matplotlib"),  # whose list of fonts takes seconds to make
            "OMP_WAIT_POLICY": "passive",
        }

    def copy_run(self, name: str = "run") -> Path:
        """A run of three epochs on the digits, of which only the last checkpoint is left."""
        folder = self.work / name
        shutil.copytree(self.templates / "run", folder)
        for path in sorted(folder.glob("checkpoints/step-*"))[:-1]:
            path.unlink()
        return folder

    def snapshot(self) -> dict[str, str]:
        """What lies outside, by name: kind and content."""
        found = {}
        for path in sorted(self.outside.rglob("*")):
            content = os.readlink(path) if path.is_symlink() else _digest(path) if path.is_file() else "a folder"
            found[str(path.relative_to(self.outside))] = content
        return found


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
