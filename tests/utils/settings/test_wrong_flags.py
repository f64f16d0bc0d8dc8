"""A command line that cannot be parsed is one line, which names the flag, what it needs, and the nearest known name."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from fastvae import cli
from fastvae.train import TrainConfig
from fastvae.utils.errors import InputError
from fastvae.utils.settings import REQUIRED, describe, setting
from fastvae.utils.settings.command_line import parse, parse_command
from fastvae.utils.settings.synonyms import SYNONYMS


@dataclass(frozen=True, kw_only=True)
class Wall:
    """Paint a wall."""

    wall: Path = setting(REQUIRED, positional=True, metavar="WALL", help="The wall to paint.")
    coats: int | None = setting(None, help="Number of coats.")
    speed: float = setting(1.0, help="Speed.")
    colour: Literal["red", "green"] = setting("red", help="Colour.")
    dry: bool | None = setting(None, help="Let it dry.")
    noisy: bool = setting(False, help="Sing.")
    options: dict[str, float] = setting({}, help="More.")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("w --coat 2", "there is no flag --coat: did you mean --coats?"),
        ("w --xyzzy=2", "there is no flag --xyzzy: paint --help lists all of them"),
        ("w --coats many", "--coats is 'many': give it a whole number"),
        ("w --coats=1.5", "--coats is '1.5': give it a whole number"),
        ("w --speed fast", "--speed is 'fast': give it a number"),
        ("w --coats", "--coats has no value: give it a whole number"),
        ("w --coats 2 3", "--coats has 2 values, '2 3': give it a whole number"),
        ("w --colour blue", "--colour is 'blue': give it one of red, green"),
        ("w --dry maybe", "--dry is a switch, but 'maybe' follows it: give it True or False"),
        ("w --noisy yes", "--noisy is a switch, but 'yes' follows it: leave it out"),
        ("w v", "'v' does not belong to a flag: leave it out, or see paint --help"),
        ("--coats 2", "WALL is missing: the wall to paint; see paint --help"),
        ("", "WALL is missing: the wall to paint; see paint --help"),
        ("w --coats \x1b[31m", r"--coats is '\x1b[31m': give it a whole number"),
        ("w --options a", "; see paint --help"),  # tyro's words
    ],
)
def test_one_line(flags, message):
    with pytest.raises(InputError) as refusal:
        parse(Wall, flags.split(), program="paint")
    said = str(refusal.value)
    assert message in said
    assert said.isprintable()
    assert not set(said) & set("│╭╰─")


def test_every_synonym_names_flags_of_train_and_is_none_itself():
    settings = describe(TrainConfig).keys()
    assert {target for targets in SYNONYMS.values() for target in targets} <= settings
    assert SYNONYMS.keys().isdisjoint(settings)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--learning-rate=0.1", "--lr"),
        ("--learning_rate", "--lr"),
        ("--batchsize", "--batch-size"),
        ("--bs", "--batch-size"),
        ("--num-epochs", "--epochs"),
        ("--n-epochs", "--epochs"),
        ("--latent-size", "--latent-dim"),
        ("--z-dim", "--latent-dim"),
        ("--optimiser", "--optimizer"),
        ("--gpu", "--device"),
        ("--output", "--out"),
        ("--output-dir", "--out"),
        ("--num-workers", "--workers"),
        ("--checkpoint", "--resume or --init-from"),
        ("--weight-decay", "--optimizer-options"),
    ],
)
def test_what_other_programs_call_a_flag(typed, meant):
    name = typed.partition("=")[0]
    with pytest.raises(InputError, match=f"^there is no flag {name}: did you mean {meant}\\?$"):
        parse(TrainConfig, [typed, "1"], program="fastvae train")


def test_a_synonym_is_no_guess_where_a_command_lacks_its_flag():
    with pytest.raises(InputError, match=r"there is no flag --learning-rate: fastvae sample --help lists all of them"):
        parse_command(cli.COMMANDS, ["sample", "run", "--learning-rate", "1"], program="fastvae", description=None)


@pytest.mark.parametrize(
    "flags", ["w --coats None", "--coats 2 w", "w --dry", "w --dry False", "w --no-noisy", "--coats=2 w"]
)
def test_right_ones_are_none_of_its_business(flags):
    assert parse(Wall, flags.split(), program="paint").wall == Path("w")


def test_a_tilde_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert parse(Wall, ["~/wall"], program="paint").wall == Path("/home/me/wall")
    assert parse(Wall, ["a~/wall"], program="paint").wall == Path("a~/wall")


@pytest.mark.parametrize("columns", ["0", "1", "7"])
def test_help_in_a_terminal_without_columns(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit) as end:
        parse(Wall, ["--help"], program="paint")
    assert end.value.code == 0
    assert "Number of coats." in capsys.readouterr().out
