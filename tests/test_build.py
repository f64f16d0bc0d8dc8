"""A build without a compiler says so in a clear line and does not fail."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.version import Version

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(shutil.which("cmake", path=Path(sys.executable).parent) is None, reason="cmake is not installed")
def test_no_compiler_is_said_and_not_fatal(tmp_path):
    cmake = shutil.which("cmake", path=Path(sys.executable).parent)
    done = subprocess.run(
        [cmake, "-S", str(ROOT), "-B", str(tmp_path), f"-DPython_EXECUTABLE={sys.executable}"],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "CXX": "/nonexistent/c++"},
    )
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stderr.split())
    assert "no working C++ compiler" in said
    assert "install g++" in said
    assert "make setup" in said


def test_the_oldest_versions_of_make_compat_are_the_lower_bounds():
    project = (ROOT / "pyproject.toml").read_text()
    optional = r"(?ms)^\[project.optional-dependencies\].*?(?=^\[)|^adapters = .*?$"  # in an environment of their own
    bounds = re.findall(r'"([\w-]+)>=([\d.]+)', re.sub(optional, "", project))
    pinned = re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / "constraints-oldest.txt").read_text(), re.MULTILINE)
    assert {name: Version(version) for name, version in pinned} == {name: Version(bound) for name, bound in bounds}
