"""Processes that Python starts import nothing from the current folder."""

import os
import subprocess
import sys
from contextlib import suppress

import pytest

from fastvae.utils.isolation import safe_path

READ = """
import sys
from functools import partial
from pathlib import Path
from fastvae.data.loaders import reader_processes
from fastvae.data.formats import open_images
from fastvae.data.sources.decoded import DecodedSource
from fastvae.data.loaders.torch_loader import TorchLoader
from fastvae.utils.isolation import safe_path

if __name__ == "__main__":
    reader_processes.safe_path = partial(safe_path, by_variable=sys.argv[1] == "variable")
    train, _ = open_images("pictures", None)
    print(sum(len(batch.images) for batch in TorchLoader(DecodedSource(train, 4), batch_size=2, seed=0, workers=2)))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "way",
    [
        pytest.param("variable", marks=pytest.mark.skipif(sys.version_info < (3, 11), reason="has no such variable")),
        "folder",
    ],
)
def test_readers_import_nothing_of_the_current_folder(tmp_path, way):
    from PIL import Image  # noqa: PLC0415

    here = tmp_path / "here"
    (here / "pictures").mkdir(parents=True)
    for number in range(12):
        Image.new("RGB", (5, 4), (number, 0, 0)).save(here / "pictures" / f"{number}.png")
    for name in ("numpy", "multiprocessing", "tyro"):
        (here / f"{name}.py").write_text(f"open({str(here / 'RAN')!r}, 'a').write({name!r})")
    (tmp_path / "read.py").write_text(READ)
    # A script, whose own folder is searched; `python -c` and `-m` search the current one by themselves.
    command = [sys.executable, tmp_path / "read.py", way]
    run = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=120, check=False)
    assert (run.stdout, run.returncode) == ("10\n", 0), run.stderr
    assert not (here / "RAN").exists()


@pytest.mark.parametrize("given", [None, "0"])
def test_the_environment_is_as_before(monkeypatch, given):
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    if given is not None:
        monkeypatch.setenv("PYTHONSAFEPATH", given)
    with suppress(KeyError), safe_path(by_variable=True):
        assert os.environ["PYTHONSAFEPATH"] == "1"
        raise KeyError
    assert os.environ.get("PYTHONSAFEPATH") == given


def test_the_folder_is_as_before(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").touch()
    with suppress(KeyError), safe_path(by_variable=False):
        assert os.listdir() == []
        raise KeyError
    assert os.getcwd() == str(tmp_path)
