"""The order of an epoch: a permutation, pure, different by seed and epoch, and uniform."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fastvae.data import permutation

SEEDS = st.integers(0, 2**63 - 1)
EPOCHS = st.integers(0, 2**32 - 1)


@settings(deadline=None)
@given(n=st.integers(0, 300), seed=SEEDS, epoch=EPOCHS)
def test_is_a_permutation_and_pure(n, seed, epoch):
    order = permutation(n, seed, epoch)
    assert order.dtype == torch.int64
    assert order.sort().values.tolist() == list(range(n))
    torch.manual_seed(n)  # torch's own generator has no part in it
    assert torch.equal(order, permutation(n, seed, epoch))


@settings(deadline=None)
@given(seed=SEEDS, epoch=EPOCHS, bit=st.integers(0, 62))
def test_every_bit_of_seed_and_epoch_counts(seed, epoch, bit):
    order = permutation(64, seed, epoch)
    assert not torch.equal(order, permutation(64, seed ^ 1 << bit, epoch))
    assert not torch.equal(order, permutation(64, seed, epoch ^ 1 << bit % 32))


def test_is_the_documented_one():
    """Philox4x32-10 again, in plain Python, so that no release of torch or of fastvae changes anyone's batches."""

    def key(index, seed, epoch):
        c, k = [index, 0, epoch, 2**31 + 1], [seed % 2**32, seed >> 32]
        for _ in range(10):
            a, b = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
            c = [(b >> 32) ^ c[1] ^ k[0], b % 2**32, (a >> 32) ^ c[3] ^ k[1], a % 2**32]
            k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
        return np.int64(np.uint64(c[0] << 32 | c[1]))

    seed, epoch = 2**62 + 12345, 2**31 + 7
    expected = sorted(range(200), key=lambda index: key(index, seed, epoch))
    assert permutation(200, seed, epoch).tolist() == expected


@pytest.mark.parametrize("over", ["epoch", "seed"])
def test_every_place_is_equally_likely(over):
    n, draws = 12, 1_000
    orders = torch.stack([permutation(n, **({"seed": 3, "epoch": 3} | {over: draw})) for draw in range(draws)])
    counts = torch.stack([(orders == element).sum(0) for element in range(n)])  # (element, place)
    # Rows and columns each sum to `draws`, which leaves (n - 1)**2 degrees of freedom.
    statistic = float(((counts - draws / n) ** 2 / (draws / n)).sum())
    assert 1e-4 < stats.chi2.sf(statistic, (n - 1) ** 2) < 1 - 1e-4
    follows = torch.stack([(orders[:, 1:] - orders[:, :-1] == 1).sum(), (orders[:, 1:] < orders[:, :-1]).sum()])
    assert follows[0] / draws == pytest.approx((n - 1) / n, abs=0.1)  # neighbours that stayed neighbours
    assert follows[1] / draws == pytest.approx((n - 1) / 2, abs=0.1)  # descents


def test_lives_where_it_is_asked_for():
    assert permutation(5, 0, 0, "meta").device.type == "meta"
    if torch.cuda.is_available():
        assert torch.equal(permutation(70_000, 5, 6, "cuda").cpu(), permutation(70_000, 5, 6))


@pytest.mark.parametrize(("n", "seed", "epoch"), [(-1, 0, 0), (1, -1, 0), (1, 2**63, 0), (1, 0, -1), (1, 0, 2**32)])
def test_refuses_what_is_out_of_range(refuses, n, seed, epoch):
    with refuses("must be in [0, 2**", "not"):
        permutation(n, seed, epoch)
