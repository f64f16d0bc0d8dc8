"""Processes that read: only their parent ends them, and a full /dev/shm or too few open files stop no run."""

import errno
import multiprocessing
import os
import signal
import time

import pytest
import torch
from pictures import numbered, numbers

from fastvae.data import TensorSource
from fastvae.data.loaders import reader_processes
from fastvae.data.loaders.reader_processes import ReadingDataset, fault_of_readers
from fastvae.data.loaders.torch_loader import TorchLoader
from fastvae.data.sources.decoded import DecodedSource


@pytest.mark.slow
def test_no_signal_but_the_parents_ends_them():
    others = multiprocessing.active_children()  # of loaders that another test left
    loader = TorchLoader(DecodedSource(numbered(40), 8), batch_size=2, seed=0, workers=2)
    batches = iter(loader)
    next(batches)
    readers = [reader for reader in multiprocessing.active_children() if reader not in others]
    assert len(readers) == 2
    for reader in readers:
        for name in ("INT", "HUP", "TERM"):  # by a process that is not their parent, as a terminal or a cluster is not
            os.spawnlp(os.P_WAIT, "sh", "sh", "-c", f"kill -{name} {reader.pid}")
    assert len(list(batches)) == 19
    assert all(reader.is_alive() for reader in readers)
    for reader in readers:
        reader.terminate()
    deadline = time.monotonic() + 10
    while any(reader.is_alive() for reader in readers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(reader.is_alive() for reader in readers)


def full(_):
    raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")


def test_a_batch_goes_through_a_pipe_where_shared_memory_is_full(monkeypatch, caplog):
    dataset = ReadingDataset(TensorSource(torch.arange(5).byte().view(5, 1, 1, 1)))
    shared = dataset.__getitems__([3, 1])[0]
    assert shared.is_shared()
    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    images, _ = dataset.__getitems__([3, 1])
    assert torch.equal(torch.as_tensor(images), shared)
    assert "/dev/shm has no room for batches" in caplog.text


def test_the_loader_takes_batches_from_a_pipe(monkeypatch):
    loader = TorchLoader(DecodedSource(numbered(6), 8), batch_size=4, seed=0)
    images = loader.fetch(0).images
    loader._processes = [(images.numpy(), []), (loader.fetch(1).images.numpy(), [])]
    monkeypatch.setattr("fastvae.data.loaders.torch_loader.start_server", lambda _: None)
    take = loader._from_workers([0, 1])
    assert numbers(take(0).images) == numbers(images)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), r"lack something \(Too many open files\).*ulimit -n"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "lack something .*memory in /dev/shm; or use --workers 0"),
        (RuntimeError("received 0 items of ancdata"), "ulimit -n"),
        (RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), "was killed"),
        (EOFError(), "was killed"),
    ],
)
def test_the_fault_is_named(error, words):
    with pytest.raises(reader_processes.InputError, match=words):
        raise fault_of_readers(error)


def test_signals_are_let_through_again():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with reader_processes.stops_blocked():
        assert set(signal.pthread_sigmask(signal.SIG_BLOCK, ())) >= {signal.SIGHUP, signal.SIGINT, signal.SIGTERM}
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
