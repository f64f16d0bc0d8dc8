"""The key of a draw of noise, and its form in the operators' schemas. :mod:`fastvae.reference.noise` specifies it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from fastvae import reference

from . import _library

# Noise in a schema: an explicit eps, or a key, which is the state [seed, step] and the place of the draw.
KEY_SCHEMA = "Tensor? state, SymInt row_offset, int stream"
NOISE_SCHEMA = f"Tensor? eps, {KEY_SCHEMA}"
NoiseArguments: TypeAlias = "tuple[Tensor | None, Tensor | None, int, int]"

# Flipped in the stream of pixels that are drawn black or white: one key gives latents and pixels other numbers.
PIXEL_BIT = 2**30

_library.define(
    "binarize(Tensor target, Tensor state, SymInt row_offset, int stream) -> Tensor",
    lambda target, *_: target.new_empty(target.shape),
    module="binarize",
)


class Noise:
    """The key of a draw: ``eps`` is a pure function of (seed, step, stream, (row_offset + row) * D + column).

    D is the length of a row, its number of elements. Two calls with the same key draw the same noise, on any device,
    for any split of the batch over processes. A row of another length has other noise: the first 10 columns of 20 are
    not the noise of 10.

    Latents and the pixels of :meth:`binarize` may share a key: pixels are drawn in the stream ``stream ^ 2**30``, and
    so are independent of the latents. Two tensors of latents need two streams.

    Args:
        seed: 0 <= seed < 2**63.
        step: 0 <= step < 2**32; a new step draws fresh noise.
        row_offset: the place of this tensor's first row in the global batch.
        stream: 0 <= stream < 2**31; separates draws that share a seed and a step (two levels of latents, say).
        device: the device of ``state``. On the device of the latents, no call copies anything. Making a key copies
            from the host: in a loop on a GPU, make one key and :meth:`advance` it.

    ``state`` is the int64 tensor ``[seed, step]``. Kernels read it on the device when they run, so a CUDA graph or a
    compiled step that advances it in place (:meth:`advance`) replays with fresh noise.

    >>> import torch, fastvae
    >>> mu = logvar = torch.zeros(4, 3)
    >>> z = fastvae.ops.reparameterize(mu, logvar, fastvae.Noise(seed=1, step=2, device=mu.device))
    >>> noise = fastvae.Noise(seed=1, step=2, row_offset=2, device=mu.device)
    >>> tail = fastvae.ops.reparameterize(mu[2:], logvar[2:], noise)
    >>> torch.equal(z[2:], tail)
    True
    """

    __slots__ = ("row_offset", "state", "stream")

    def __init__(
        self,
        seed: int,
        step: int = 0,
        row_offset: int = 0,
        *,
        stream: int = 0,
        device: torch.device | str | None = None,
    ) -> None:
        if not isinstance(seed, int) or not isinstance(step, int):
            raise TypeError(f"seed and step must be whole numbers, not {seed!r} and {step!r}")
        if not 0 <= seed < 2**63:
            raise ValueError(f"seed must be in [0, 2**63), not {seed}")
        if not 0 <= step < 2**32:
            raise ValueError(f"step must be in [0, 2**32), not {step}")
        _check_place(row_offset, stream)
        self.state = torch.tensor([seed, step], dtype=torch.int64, device=device)
        self.row_offset = row_offset
        self.stream = stream

    @classmethod
    def from_state(cls, state: Tensor, row_offset: int = 0, *, stream: int = 0) -> Noise:
        """Make a key that shares an existing ``[seed, step]`` tensor, for another place in the batch or stream."""
        if state.dtype != torch.int64 or state.shape != (2,):
            raise ValueError(f"state must be int64 of shape (2,), not {state.dtype} of {tuple(state.shape)}")
        _check_place(row_offset, stream)
        noise = cls.__new__(cls)
        noise.state = state
        noise.row_offset = row_offset
        noise.stream = stream
        return noise

    def advance(self, steps: int = 1) -> None:
        """Move to a later step, in place and on the device. Call it after backward, which draws the noise again."""
        self.state[1] += steps

    def draw(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the noise that fused operators draw and never store: (B, ...), from the eager reference."""
        return reference.standard_normal(self.state, shape, self.row_offset, self.stream, dtype)

    def binarize(self, target: Tensor, *, backend: _library.Backend = "auto") -> Tensor:
        """Draw black-and-white pixels from grey ones, (B, ...) uint8: 255 with probability ``x / 255``, else 0.

        The pixels that ``bernoulli_nll(..., binarize=noise)`` draws in registers, as a tensor: for an encoder that
        has to see the same picture, say.

        >>> import torch
        >>> Noise(seed=1).binarize(torch.tensor([[0, 64, 128, 192, 255]], dtype=torch.uint8))
        tensor([[  0,   0,   0, 255, 255]], dtype=torch.uint8)
        """
        if target.dtype != torch.uint8:
            raise TypeError(f"target must be uint8 (0..255) to be binarized, not {target.dtype}")
        _refuse_under_vmap("binarize the pixels before it")
        key = pixel_key_arguments(self, target)
        operators = _library.resolve(backend, target)
        if operators is None:
            return reference.binarize(target, *key)
        drawn: Tensor = operators.binarize(target.contiguous(), *key)
        return drawn


def _check_place(row_offset: int, stream: int) -> None:
    if row_offset < 0:
        raise ValueError(f"row_offset must not be negative, but is {row_offset}")
    if not 0 <= stream < 2**31:
        raise ValueError(f"stream must be in [0, 2**31), not {stream}")


def _refuse_under_vmap(remedy: str) -> None:
    """Refuse a key, or None, under torch.func.vmap: it hides the batch, so all examples would share one draw."""
    if _library.vmapped():
        raise ValueError(f"a Noise key or None draws the same for every example of torch.func.vmap: {remedy}")


def noise_arguments(noise: Noise | Tensor | None, mu: Tensor, shape: Sequence[int] | None = None) -> NoiseArguments:
    """Check what a caller passed as ``noise``, and unpack it into the arguments of :data:`NOISE_SCHEMA`.

    ``shape`` is that of the noise if it is not mu's. None draws a fresh key from the device's default generator:
    ``torch.manual_seed`` seeds it, and gradient checkpointing, which restores that generator, recomputes with the same
    noise. Under torch.func.vmap the noise must be an eps.
    """
    if not isinstance(noise, Tensor):
        _refuse_under_vmap("pass a tensor eps that is mapped too")
    if noise is None:
        state = torch.randint(0, 2**32, (2,), dtype=torch.int64, device=mu.device)
        return None, state, 0, 0
    if isinstance(noise, Noise):
        return None, *key_arguments(noise, mu)
    if not isinstance(noise, Tensor):
        raise TypeError(f"noise must be a fastvae.Noise, a tensor eps or None, not {type(noise).__name__}")
    if shape is not None and noise.shape != shape:
        raise ValueError(
            f"eps has shape {tuple(noise.shape)}, but {shape[1]} samples of mu {tuple(mu.shape)} need {tuple(shape)}"
        )
    if shape is None and noise.shape != mu.shape:
        raise ValueError(f"eps has shape {tuple(noise.shape)}, but mu has {tuple(mu.shape)}: both need the same shape")
    if noise.device != mu.device:
        raise ValueError(f"eps is on {noise.device}, but mu is on {mu.device}: move one")
    if noise.is_complex():
        raise TypeError(f"eps must be real, not {noise.dtype}: pass eps.real")
    if noise.requires_grad:
        raise ValueError("eps requires a gradient, but noise has none: pass eps.detach()")
    return noise.to(mu.dtype).contiguous(), None, 0, 0


def key_arguments(key: Noise, like: Tensor) -> tuple[Tensor, int, int]:
    """Unpack a key into the arguments of :data:`KEY_SCHEMA`, on the device of ``like``."""
    return key.state.to(like.device), key.row_offset, key.stream


def pixel_key_arguments(key: Noise, like: Tensor) -> tuple[Tensor, int, int]:
    """Unpack a key that draws pixels into the arguments of :data:`KEY_SCHEMA`, on the device of ``like``."""
    state, row_offset, stream = key_arguments(key, like)
    return state, row_offset, stream ^ PIXEL_BIT


def explicit(arguments: NoiseArguments, mu: Tensor, shape: Sequence[int] | None = None) -> Tensor:
    """Return the noise as a tensor, for the eager reference; ``shape`` is that of the noise if it is not mu's."""
    eps, state, row_offset, stream = arguments
    if eps is not None:
        return eps
    assert state is not None
    dtype = torch.float64 if mu.dtype == torch.float64 else torch.float32
    return reference.standard_normal(state, shape or mu.shape, row_offset, stream, dtype)
