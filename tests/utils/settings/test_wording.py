"""Messages in the words of the caller."""

import pytest

from fastvae.train.config import TrainConfig
from fastvae.utils.errors import InputError
from fastvae.utils.settings import as_typed, in_words_of_caller, on_command_line


@pytest.mark.parametrize(
    ("flags", "fields"),
    [
        ("--batch-size is -1: it must be at least 1", "batch_size is -1: it must be at least 1"),
        ("--schedule step needs a length: add --decay-epochs N", "schedule='step' needs a length: add decay_epochs=N"),
        ("--tf32 needs a GPU: leave it out", "tf32 needs a GPU: leave it out"),
        ("add --resume to go on with it, or another --out", "add resume=True to go on with it, or another out"),
        ("use --binarize False", "use binarize=False"),
        ("use at most --accumulate 8", "use at most accumulate=8"),
        ("with --resume --on-nonfinite skip", "with resume=True on_nonfinite='skip'"),
        ("--execution eager, say (--preset gaussian)", "execution='eager', say (preset='gaussian')"),
        ("--nproc-per-node and -- and x--out", "--nproc-per-node and -- and x--out"),
        ("--optimizer-options eps is inf", "optimizer_options eps is inf"),
        ("--max-steps None lifts it", "max_steps=None lifts it"),
    ],
)  # fmt: skip
def test_in_python_settings_are_fields(flags, fields):
    assert as_typed(flags, TrainConfig) == fields
    with on_command_line():
        assert as_typed(flags, TrainConfig) == flags


def test_an_error_is_said_once():
    with (
        pytest.raises(InputError, match=r"^use lr=3$"),
        in_words_of_caller(TrainConfig),
        in_words_of_caller(TrainConfig),
    ):
        raise InputError("use --lr 3")
