import threading

import pytest
from torch.distributed import HashStore

from fastvae.train.distributed.restarts import meet


def gather(store, size):
    """Have so many threads meet; what each of them reads at a key that the first sets in the place."""
    read = [None] * size

    def come(rank):
        place = meet(store, rank, size, patience=20)
        if rank == 0:
            place.set("key", "value of these")
        read[rank] = place.get("key").decode()

    threads = [threading.Thread(target=come, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return read


@pytest.mark.parametrize("size", [1, 2, 5])
def test_all_get_the_same_place(size):
    assert gather(HashStore(), size) == ["value of these"] * size


def test_who_starts_again_meets_none_of_those_before():
    store = HashStore()
    gather(store, 3)
    fresh = []
    threads = [threading.Thread(target=lambda r=rank: fresh.append(meet(store, r, 3, 20))) for rank in (2, 1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [place.check(["key"]) for place in fresh] == [False] * 3


def test_an_offer_to_one_that_died_is_made_again():
    """The first has seen the names of processes that are gone: of the last start, or of one that died meanwhile."""
    store = HashStore()
    with pytest.raises(TimeoutError):  # leaves its name, and goes
        meet(store, 1, 2, patience=0.05)
    first = threading.Thread(target=lambda: meet(store, 0, 2, patience=20))
    first.start()
    first.join(0.1)
    assert first.is_alive()
    meet(store, 1, 2, patience=20)
    first.join()


def test_who_waits_in_vain_is_told():
    with pytest.raises(TimeoutError, match=r"process 0 of 2 waited 0\.05 s for the others"):
        meet(HashStore(), 0, 2, patience=0.05)
