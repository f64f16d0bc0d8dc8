"""The order of an epoch: a pure function of (seed, epoch), the same on every device and release of torch."""

import torch
from torch import Tensor

from fastvae.utils.errors import InputError
from fastvae.utils.philox import philox4x32

ORDER_STREAM = 2**31 + 1  # the fourth counter word; the noise uses streams below 2**31, so no word is drawn twice


def permutation(n: int, seed: int, epoch: int, device: torch.device | str = "cpu") -> Tensor:
    """Shuffle 0 .. n - 1, made on the device: int64 of shape (n,).

    Index i gets the 64-bit sorting key ``w0 * 2**32 + w1`` (as a signed number) from the first two words of
    Philox4x32-10 with key = (seed mod 2**32, seed div 2**32) and
    counter = (i mod 2**32, i div 2**32, epoch, ORDER_STREAM); equal keys keep the order of their indices.

    Args:
        n: length of the order, >= 0.
        seed: 0 <= seed < 2**63, as for :class:`fastvae.Noise`.
        epoch: 0 <= epoch < 2**32.
        device: where the result lives. Nothing is copied from the host, and nothing waits for the device.

    Raises:
        InputError: a number out of its range.

    >>> permutation(8, seed=0, epoch=0)
    tensor([1, 4, 3, 0, 2, 6, 5, 7])
    """
    for name, value, end in (("n", n, 63), ("seed", seed, 63), ("epoch", epoch, 32)):
        if not 0 <= value < 2**end:
            raise InputError(f"{name} must be in [0, 2**{end}), not {value}")
    index = torch.arange(n, dtype=torch.int64, device=device)

    def word(value: int) -> Tensor:
        return torch.full((), value % 2**32, dtype=torch.int64, device=device)

    counter = (index % 2**32, index >> 32, word(epoch), word(ORDER_STREAM))
    high, low, _, _ = philox4x32(counter, (word(seed), word(seed >> 32)))
    return torch.argsort(high << 32 | low, stable=True)
