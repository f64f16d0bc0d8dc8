"""The lock on an open file: one holder at a time, in this process as in others."""

import threading

from fastvae.utils.lock import take_lock


def test_a_lock_has_one_holder_and_a_waiter_gets_it_next(tmp_path):
    path = tmp_path / "lock"
    path.touch()
    with path.open("r+") as second:
        with path.open("r+") as first:
            assert take_lock(first)
            assert take_lock(first)  # the holder may ask again
            assert not take_lock(second)
            waiter = threading.Thread(target=take_lock, args=(second,), kwargs={"wait": True})
            waiter.start()
        waiter.join(10)
        assert not waiter.is_alive()
        with path.open("r+") as third:
            assert not take_lock(third)
