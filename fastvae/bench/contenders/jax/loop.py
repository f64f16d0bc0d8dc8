"""The contender jax: the fastest loop that a good engineer writes with jax and optax."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from jax import Array, lax

from fastvae.bench.contenders.workload import Contender, Workload
from fastvae.models import VAE, Preset

from .network import Weights, copy_back, encoder_and_decoder, pixels_of, weights_of

_DTYPES = {"fp32": jnp.float32, "bf16": jnp.bfloat16}
# 20,000 normals and 100,352 uniforms took 0.6 ms of a CPU's time with it, and 2.4 with rbg or unsafe_rbg (jaxlib
# 0.10.2, EPYC with AVX-512).
_GENERATOR = "threefry2x32"


def optimizer_of(recipe: Preset) -> optax.GradientTransformation:
    """Return the recipe's optimiser as optax has it, with what torch does by default."""
    options = dict(recipe.optimizer_options)
    if recipe.optimizer == "adam":
        return optax.adam(recipe.lr, eps=options.get("eps", 1e-8))
    decay = options.get("alpha", 0.99)
    return optax.rmsprop(recipe.lr, decay=decay, eps=options.get("eps", 1e-8), eps_in_sqrt=False)


def loss_of(workload: Workload, model: VAE, precision: str) -> Callable[..., Array]:
    """Return the training loss as a function of weights, pixels and noise.

    Weights are fp32, and are cast to the precision in which layers compute. Pixels are floats in [0, 1], in the order
    of :func:`pixels_of`; noise is (B, latent_dim). The likelihood and the KL are summed in fp32.
    """
    recipe = workload.recipe
    dtype = _DTYPES[precision]
    encode, decode = encoder_and_decoder(model)

    def loss(weights: Weights, x: Array, noise: Array) -> Array:
        low = {name: weight.astype(dtype) for name, weight in weights.items()}
        mu, logvar = (part.astype(jnp.float32) for part in encode(low, x.astype(dtype)))
        z = mu + jnp.exp(0.5 * logvar) * noise
        output = decode(low, z.astype(dtype)).astype(jnp.float32)
        if recipe.likelihood == "bernoulli":
            nll = jnp.sum(jnp.maximum(output, 0) - output * x + jnp.log1p(jnp.exp(-jnp.abs(output))))
        else:
            nll = 0.5 * jnp.sum(jnp.square(output - x))
        kl = -0.5 * jnp.sum(1 + logvar - jnp.square(mu) - jnp.exp(logvar))
        weight = recipe.loss_weight / (len(x) if recipe.reduction == "batchmean" else 1)
        return weight * (nll + kl)

    return loss


class JaxLoop(Contender):
    """A jitted ``lax.scan`` over all steps that are timed, with uint8 images on the device and donated buffers.

    Convolutions on a CPU have a jitted step that is called for each batch, without waiting in between: inside a scan
    XLA computes them slowly (a step of conv28 took 640 ms there, 140 alone; jaxlib 0.10.2, busy 2-core EPYC).
    Each epoch draws an order of batches, and a step gathers and scales its own. In bf16 the layers compute in bf16,
    while the weights, their gradients and the optimiser are fp32.
    """

    def __init__(self, workload: Workload, seed: int, precision: str) -> None:
        # The workers of the tutorial's DataLoader are forked, and never call jax.
        warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
        self.precision = precision
        self._own = workload.model(seed)
        self._device = jax.devices("cpu" if workload.device.type == "cpu" else "gpu")[workload.device.index or 0]
        self._images = jax.device_put(pixels_of(workload.images, workload.recipe.network), self._device)
        self._rows = workload.batch_size
        self._slice = workload.steps
        self._order = np.random.default_rng(seed)
        optimizer = optimizer_of(workload.recipe)
        weights = weights_of(self._own, self._device)
        key = jax.device_put(jax.random.key(seed, impl=_GENERATOR), self._device)
        self._state = (weights, optimizer.init(weights), key)
        step = _step(workload, self._own, precision, optimizer)

        def one(state: Any, images: Array, rows: Array) -> Any:
            return step(state, images[rows])

        def scan(state: Any, images: Array, order: Array) -> Any:
            return lax.scan(lambda state, rows: one(state, images, rows), state, order)

        one_by_one = jax.jit(one, donate_argnums=0)

        def loop(state: Any, images: Array, order: Any) -> Any:
            for rows in order:
                state, loss = one_by_one(state, images, rows)
            return state, loss

        scans = workload.recipe.network == "mlp" or workload.device.type != "cpu"
        self._steps = jax.jit(scan, donate_argnums=0) if scans else loop

    @property
    def model(self) -> VAE:  # type: ignore[override]
        """Copy the current weights into the torch network and return it."""
        copy_back(self._state[0], self._own)
        return self._own

    def epoch(self, _: int) -> Iterator[None]:
        order = self._order.permutation(len(self._images)).astype(np.int32)
        full, rest = divmod(len(order), self._rows)
        parts = [full] if self._slice is None else [1, min(self._slice, full - 1)]
        begin = 0
        for count in parts:
            yield from self._take(order[begin : begin + count * self._rows].reshape(count, self._rows))
            begin += count * self._rows
        if rest and (self._slice is None or self._slice >= full):
            yield from self._take(order[None, full * self._rows :])

    def _take(self, order: "np.ndarray[Any, Any]") -> Iterator[None]:
        """Take a step for each row of indices, wait for the last one, and then yield once for each."""
        if not len(order):
            return
        self._state, losses = self._steps(self._state, self._images, order)
        jax.block_until_ready(losses)
        for _ in range(len(order)):
            yield


def _step(
    workload: Workload, model: VAE, precision: str, optimizer: optax.GradientTransformation
) -> Callable[..., Any]:
    """Return a step: from (weights, optimiser's state, key) and uint8 images to the same, and the loss."""
    recipe = workload.recipe
    loss_and_gradient = jax.value_and_grad(loss_of(workload, model, precision))
    scale = 1 / 255 if workload.images.dtype == torch.uint8 else 1.0
    latent_dim = recipe.latent_dim

    def step(state: Any, images: Array) -> Any:
        weights, moments, key = state
        key, for_latents, for_pixels = jax.random.split(key, 3)
        x = images.astype(jnp.float32) * scale
        if recipe.binarize:
            x = jax.random.bernoulli(for_pixels, x).astype(jnp.float32)
        noise = jax.random.normal(for_latents, (len(x), latent_dim))
        # fp32 on a GPU is fp32, as everybody's in the race: jax would take TF32.
        with jax.default_matmul_precision("highest" if precision == "fp32" else "default"):
            loss, gradient = loss_and_gradient(weights, x, noise)
        updates, moments = optimizer.update(gradient, moments, weights)
        return (optax.apply_updates(weights, updates), moments, key), loss

    return step
