"""Bad ranks: an environment that torchrun has not made."""

import pytest

from .refusal import assert_refused

RANKS = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
BAD = {
    "a rank alone": ({"RANK": "0"}, [], r"has RANK but no LOCAL_RANK: unset RANK, or start with torchrun"),
    "a rank as text": ({**RANKS, "RANK": "first"}, [], r"RANK='first' .* is not a whole number, 0 to 1"),
    "a rank too high": ({**RANKS, "RANK": "2"}, [], r"RANK='2' .* is not a whole number, 0 to 1"),
    "no world": ({**RANKS, "WORLD_SIZE": "0"}, [], r"WORLD_SIZE='0' .* not a whole number, 1 to"),
    "more processes than torchrun's": (RANKS, ["--nproc", "3"], r"--nproc 3, but torchrun started 2"),
    "a port as text": ({**RANKS, "MASTER_PORT": "abc"}, [], r"MASTER_PORT='abc' .* 0 to 65535"),
    "restarts of torchrun's": (
        RANKS,
        ["--max-restarts", "2", "--out", "run"],
        r"--max-restarts 2, but torchrun started this: give it to torchrun instead",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_ranks(case, tmp_path, monkeypatch, capsys):
    environment, flags, message = BAD[case]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    assert_refused(tmp_path, flags, message, capsys)
