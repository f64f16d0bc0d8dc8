"""What befalls a run. Each fault breaks it, and raises AssertionError if it does not end as is documented.

Or MissedError, where it came too late, or too early: a run that nothing befell shows nothing.
"""

import contextlib
import os
import resource
import shutil
import signal
from collections.abc import Callable
from typing import NoReturn

from trial import MissedError, Run, Trial

THREE = ("--nproc", "3", "--batch-size", "99")


def kill(trial: Trial) -> None:
    run = trial.start()
    run.watch(trial.moment())
    run.send(signal.SIGKILL)
    expect(run, 137)


def kill_in_a_save(trial: Trial) -> None:
    run = trial.start()
    run.watch(trial.moment() * 0.7)
    run.watch(trial.seconds, until=lambda: _half_written(trial))
    run.send(signal.SIGKILL)
    expect(run, 137)
    if not _half_written(trial):
        raise MissedError("the checkpoint was whole already")


def _half_written(trial: Trial) -> bool:
    return any(trial.folder.glob("checkpoints/*.partial"))


def terminate(trial: Trial) -> None:
    _signal(trial, signal.SIGTERM)


def interrupt(trial: Trial) -> None:
    _signal(trial, signal.SIGINT)


def _signal(trial: Trial, number: int) -> None:
    run = trial.start()
    run.watch(trial.seconds, until=trial.checkpoints)  # before, the signal may come before anybody minds it
    run.watch(trial.moment() / 2)
    run.send(number)
    expect(run, 128 + number)
    told = run.log.read_text()
    if "stopped by" in told and "before the first step" not in told:
        assert "nothing is lost" in told


def flip_a_bit(trial: Trial) -> None:
    def flip(content: bytearray) -> bytearray:
        content[trial.dice.randrange(len(content))] ^= 1 << trial.dice.randrange(8)
        return content

    _damage(trial, flip)


def truncate(trial: Trial) -> None:
    _damage(trial, lambda content: content[: trial.dice.randrange(len(content))])


def _damage(trial: Trial, change: Callable[[bytearray], bytearray]) -> None:
    kill(trial)
    whole = trial.checkpoints()
    if len(whole) < 2:
        raise MissedError("there were no two checkpoints yet")
    newest = whole[0]
    trial.damaged += newest.stat().st_size
    newest.write_bytes(change(bytearray(newest.read_bytes())))


def fill_the_disk(trial: Trial) -> None:
    size = trial.dice.randrange(
        100, 150_000
    )  # of any file: TensorBoard's have some 200 bytes a step, checkpoints 400 KB
    run = trial.start(before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY)))
    assert run.end() == 2, run.log.read_text()
    lines = [line for line in run.log.read_text().splitlines() if "error:" in line]
    assert len(lines) == 1, lines
    assert "File too large" in lines[0], lines


def delete_the_folder(trial: Trial) -> None:
    run = trial.start()
    run.watch(trial.seconds, until=trial.checkpoints)
    run.watch(trial.moment() / 3)
    if run.is_over():  # before anything could be done to it
        late(run)
    trained, gone = "epoch 25 " in run.log.read_text(), trial.folder.with_suffix(".gone")
    trial.folder.rename(gone)  # at one stroke: file by file, a checkpoint made meanwhile would keep the folder
    shutil.rmtree(gone, ignore_errors=True)
    status = run.end()
    if status == 0 and trained:
        raise MissedError("all was written by then")
    assert status == 2, run.log.read_text()
    assert "do not remove a run's folder while it trains" in run.log.read_text()


def start_a_second_run(trial: Trial) -> None:
    run = trial.start()
    run.watch(trial.seconds, until=(trial.folder / "config.json").exists)
    second = Run(trial.folder, trial.flags, log=trial.folder.with_suffix(".second.log"))
    status, said = second.end(), second.log.read_text()
    if status == 0 and run.is_over():
        late(run)
    assert status == 2, said
    assert "is in use by process" in said, said
    assert run.end() == 0, run.log.read_text()


def kill_one_of_three(trial: Trial) -> None:
    run = trial.start()
    _kill_one(trial, run)
    expect(run, 137)


def kill_one_of_three_with_restarts(trial: Trial) -> None:
    run = trial.start("--max-restarts", "1")
    _kill_one(trial, run)
    assert run.end() == 0, run.log.read_text()
    if "going on from" not in run.log.read_text():
        raise MissedError("nothing had to be started again")


def _kill_one(trial: Trial, run: Run) -> None:
    run.watch(trial.seconds, until=trial.checkpoints)
    run.watch(trial.moment() / 4)
    if children := run.children():
        with contextlib.suppress(ProcessLookupError):
            os.kill(trial.dice.choice(children), signal.SIGKILL)


def expect(run: Run, status: int) -> None:
    """The run ended so. Raises MissedError if it had ended well before."""
    ended = run.end()
    if ended == 0:
        late(run)
    assert ended == status, f"status {ended}, not {status}: {run.log.read_text()}"


def late(run: Run) -> NoReturn:
    """The run ended well, before the fault."""
    assert run.end() == 0, run.log.read_text()
    raise MissedError("the run had ended by then")


# By what the table calls them.
ALONE: dict[str, Callable[[Trial], None]] = {
    "kill -9 at any moment": kill,
    "kill -9 while a checkpoint is written": kill_in_a_save,
    "SIGTERM": terminate,
    "SIGINT": interrupt,
    "kill -9, and a bit of the newest checkpoint flips": flip_a_bit,
    "kill -9, and the newest checkpoint is cut off": truncate,
    "the disk is full": fill_the_disk,
    "the run's folder is deleted": delete_the_folder,
    "a second run on the same folder": start_a_second_run,
}
OF_THREE: dict[str, Callable[[Trial], None]] = {
    "kill -9 of one of three processes": kill_one_of_three,
    "the same with --max-restarts 1": kill_one_of_three_with_restarts,
}
