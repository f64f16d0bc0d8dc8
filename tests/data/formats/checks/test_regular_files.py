"""What opens files by itself opens regular ones only, where it is told to."""

import os
import threading

import numpy as np
import pytest

from fastvae.data.formats.checks.regular_files import only_regular_files


def test_pipes_and_devices_are_refused_within(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(3))
    os.mkfifo(tmp_path / "pipe")
    with only_regular_files():
        assert np.load(tmp_path / "x.npy").tolist() == [0, 1, 2]
        (tmp_path / "new.txt").write_text("new")
        assert os.listdir(tmp_path)
        for path in (tmp_path / "pipe", str(tmp_path / "pipe"), os.fsencode(tmp_path / "pipe"), "/dev/zero"):
            with pytest.raises(OSError, match="not a regular file"), open(path, "rb"):
                pass
        with pytest.raises(FileNotFoundError):
            (tmp_path / "none").read_bytes()
        free = threading.Thread(target=lambda: open(os.devnull).close())  # another thread may
        free.start()
        free.join()
    open(os.devnull).close()
