"""Importing patches nothing; a missing package is one line."""

import subprocess
import sys

import pytest

from fastvae import patch


def test_importing_imports_no_target():
    code = "import sys, fastvae.patch; print({'pythae', 'diffusers'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.mark.parametrize("name", ["pythae", "diffusers"])
def test_a_missing_package_is_one_line_with_the_remedy(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)  # as if not installed
    with pytest.raises(ImportError) as caught:
        getattr(patch, name)()
    assert str(caught.value) == f"fastvae.patch.{name} needs {name}, which is not installed: `pip install {name}`"
