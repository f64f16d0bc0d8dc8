"""A barrier in shared memory: nobody goes on before all have come, nor without having read what the others wrote."""

import threading
import time

import pytest
import torch

from fastvae.ops import _library
from fastvae.ops.internal.arrive_and_wait import arrive_and_wait

# With the backend's name in theirs, the tests are among those that the sanitizers run.
pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.parametrize("backend", ["native"], indirect=True),
    pytest.mark.skipif(not _library.has_native(), reason="the C++ extension is not built: run `make setup`"),
]


def arrivals(processes: int) -> torch.Tensor:
    return torch.zeros(processes, 8, dtype=torch.int64)


@pytest.mark.parametrize("processes", [1, 2, 5])
def test_all_go_on_together(processes: int) -> None:
    """Threads stand for processes; more of them than this machine has cores."""
    lines = arrivals(processes)
    written = torch.zeros(processes, dtype=torch.int64)
    wrong = []

    def come(rank: int) -> None:
        for meeting in range(1, 200, 2):
            written[rank] = meeting
            assert arrive_and_wait(lines, rank, meeting, 60.0)
            if written.tolist() != [meeting] * processes:
                wrong.append((rank, meeting))
            assert arrive_and_wait(lines, rank, meeting + 1, 60.0)

    threads = [threading.Thread(target=come, args=(rank,)) for rank in range(processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert lines[:, 0].tolist() == [200] * processes


def test_who_waits_in_vain_is_told_and_may_wait_on() -> None:
    lines = arrivals(2)
    begun = time.monotonic()
    assert not arrive_and_wait(lines, 1, 1, 0.02)
    assert 0.02 <= time.monotonic() - begun < 10
    assert lines[:, 0].tolist() == [0, 1]
    assert arrive_and_wait(lines, 0, 1, 10.0)
    assert arrive_and_wait(lines, 1, 1, 10.0)
    assert arrive_and_wait(lines, 0, 1, 0.0)  # the others may be further


def test_wrong_arguments_are_errors() -> None:
    for lines, rank in ((arrivals(2)[:, :4], 0), (arrivals(2).int(), 0), (arrivals(8).t(), 0), (arrivals(2)[0], 0)):
        with pytest.raises(RuntimeError, match=r"expected dense int64 arrivals \(processes, 8\) on the CPU"):
            arrive_and_wait(lines, rank, 1, 0.0)
    for rank in (-1, 2):
        with pytest.raises(RuntimeError, match="expected a rank of those processes"):
            arrive_and_wait(arrivals(2), rank, 1, 0.0)
