"""Estimates of -log p(x) by importance sampling."""

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from fastvae.models import VAE
from fastvae.nn import Bernoulli
from fastvae.ops import Noise, importance_weighted_nll, reparameterize_log_ratio
from fastvae.ops.internal.linear_bernoulli_nll_of_samples import linear_bernoulli_nll_of_samples, pack_linear, supports
from fastvae.train.optim.output_layer import forward_context, sharp_output
from fastvae.train.step.loss import NLL_STREAM
from fastvae.utils.precision import DTYPES, autocast_dtype

_ROWS = 10_000  # samples per pass of the decoder: 31 MB of fp32 logits for 784 pixels
# Where the logits are not stored: 4 MB of fp32 for 512 hidden units, which stay in the caches of two cores.
_ROWS_OF_FUSED = 2_000
_PASSES = 16  # of the decoder, for the images that are encoded at once
# On a GPU, bytes of fp32 pixels per pass: 85,000 samples of 784 pixels, so that some 40 launches take little of the
# time. Reasoned, NOT YET MEASURED ON A GPU.
_BYTES_ON_GPU = 2**28


class NllEstimator:
    r"""The bound of K samples on ``-log p(x)`` in nats, for each image.

    .. math:: -\log \frac1K \sum_k \frac{p(x \mid z_k) \, p(z_k)}{q(z_k \mid x)}, \qquad z_k \sim q(z \mid x)

    (Burda et al. 2016, equation 8, and section 5 for K = 5000.) For K = 1 it is the negative ELBO with a sampled KL.
    As K grows, its expectation falls to ``-log p(x)``, less the constant that a Gaussian likelihood leaves out.

    On a CPU, in fp32 and bf16, the last linear layer of a Bernoulli decoder and its likelihood are one operation, which
    stores no logits (:mod:`fastvae.ops.internal.linear_bernoulli_nll_of_samples`).

    Args:
        model: a VAE whose likelihood has a value per row. The decoder's linear layers are copied: training them later
            changes nothing here.
        samples: K, at least 1.
        seed: of the samples; those of an image depend on the seed, on K and on the image's place.
        precision: "fp32"; "bf16": the decoder's products are of bf16, summed in fp32, and all else is fp32; "fp64", for
            a model whose weights are fp64.
        rows: samples per pass of the decoder, which changes the memory and the rounding; by default the device decides.

    The noise is that of ``objectives.importance_weighted(model, images, Noise(seed, stream=NLL_STREAM), samples=K)``.
    """

    def __init__(
        self, model: VAE, samples: int, seed: int, *, precision: str = "fp32", rows: int | None = None
    ) -> None:
        self.samples = samples
        self._model = model
        self._device = next(model.parameters()).device
        self._state = Noise(seed, device=self._device).state
        self._rows = rows
        dtype = autocast_dtype(precision)
        self._context = forward_context(dtype, self._device, model, None if dtype is None else sharp_output(model))
        weights = next(model.parameters()).dtype
        self._dtype = DTYPES[precision] if weights == torch.float32 else weights
        layer = _last_linear(model)
        self._layer = None
        self._trunk: list[nn.Module] = []  # the layers before that one
        self._linears: dict[nn.Module, tuple[Tensor, Tensor, Tensor]] = {}  # their weights, biases and results
        if layer is not None and supports(self._device, self._dtype):
            self._layer = pack_linear(layer.weight, layer.bias, self._dtype)
            self._trunk = list(itertools.takewhile(lambda module: module is not layer, model.decoder.children()))

    def rows(self, images: Tensor) -> int:
        """Return the number of samples per pass of the decoder."""
        if self._rows is not None:
            return self._rows
        if self._device.type == "cuda":
            return max(1, _BYTES_ON_GPU // (4 * max(1, math.prod(images.shape[1:]))))
        return _ROWS if self._layer is None else _ROWS_OF_FUSED

    def at_once(self, images: Tensor) -> int:
        """Return the number of images to give to one call: what one pass of the decoder fits, or some such passes."""
        passes = 1 if self._layer is None else _PASSES
        return max(1, passes * self.rows(images) // self.samples)

    @torch.no_grad()
    def __call__(self, images: Tensor, place: int = 0) -> Tensor:
        """Return the bound (n,), fp64, of images (n, ...), uint8 or floating, the first of which has that place."""
        mu, logvar = self._model.encode(images)
        at_once = max(1, self.rows(images) // self.samples)
        parts = []
        for start in range(0, len(images), at_once):
            rows = slice(start, start + at_once)
            parts.append(self._bound(images[rows], mu[rows], logvar[rows], place + start))
        return torch.cat(parts) if parts else mu.new_empty(0, dtype=torch.float64)

    def _bound(self, images: Tensor, mu: Tensor, logvar: Tensor, place: int) -> Tensor:
        """Return the bound of one image, in as many passes as it takes, or of several in one pass."""
        rows = min(self.rows(images), self.samples)
        log_sum = torch.full((len(images),), -torch.inf, dtype=torch.float64, device=self._device)
        for first in range(0, self.samples, rows):
            count = min(rows, self.samples - first)
            if count == self.samples:
                noise = Noise.from_state(self._state, place, stream=NLL_STREAM)
                z, log_ratio = reparameterize_log_ratio(mu, logvar, noise, samples=count)
            else:  # one row for each sample: the order of the noise of all samples
                noise = Noise.from_state(self._state, place * self.samples + first, stream=NLL_STREAM)
                means, logvars = (tensor.expand(count, *tensor.shape[1:]) for tensor in (mu, logvar))
                z, log_ratio = reparameterize_log_ratio(means, logvars, noise, samples=1)
            shape = len(images), count
            nll = self._nll(z.flatten(0, 1), images, count)
            of_these = importance_weighted_nll(nll.view(shape), log_ratio.to(nll).view(shape), reduction="none")
            log_sum = torch.logaddexp(log_sum, math.log(count) - of_these.double())
        return math.log(self.samples) - log_sum

    def _nll(self, z: Tensor, images: Tensor, count: int) -> Tensor:
        """Return the nll (B * count,) of latents (B * count, ...), so many for each image."""
        if self._layer is None:
            with self._context():
                output = self._model.decoder(z)
            targets = images.repeat_interleave(count, dim=0)
            return self._model.likelihood.nll(output, targets, reduction="none")
        hidden = z.to(self._dtype)
        with self._context():
            for before, module in zip([None, *self._trunk], self._trunk, strict=False):
                if type(module) is nn.Linear and not _has_hooks(module):
                    hidden = self._linear(module, hidden)
                elif type(module) is nn.ReLU and type(before) is nn.Linear:
                    hidden = torch.relu_(hidden)
                else:
                    hidden = module(hidden)
        target = images.flatten(1).float()
        target = target / 255 if images.dtype == torch.uint8 else target
        return linear_bernoulli_nll_of_samples(hidden.to(self._dtype), self._layer, target)

    def _linear(self, layer: nn.Linear, inputs: Tensor) -> Tensor:
        """Apply a layer of the trunk, into a buffer that is kept: new memory takes as long as the product."""
        if layer not in self._linears:
            weight = layer.weight.detach().to(self._dtype).t().contiguous()
            bias = weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias.detach().to(self._dtype)
            self._linears[layer] = weight, bias, weight.new_empty(0)
        weight, bias, buffer = self._linears[layer]
        if buffer.shape != (len(inputs), layer.out_features):
            buffer = weight.new_empty((len(inputs), layer.out_features))
            self._linears[layer] = weight, bias, buffer
        return torch.addmm(bias, inputs.to(self._dtype), weight, out=buffer)


def estimate_nll(
    model: VAE, images: Tensor, samples: int, seed: int, *, precision: str = "fp32", rows: int | None = None
) -> Iterator[Tensor]:
    """Yield what :class:`NllEstimator` computes, for the next n of the images (N, ...) at a time: (n,), fp64.

    Args:
        images: uint8 or floating, as the model takes them, on its device.
    """
    estimator = NllEstimator(model, samples, seed, precision=precision, rows=rows)
    at_once = estimator.at_once(images)
    for start in range(0, len(images), at_once):
        yield estimator(images[start : start + at_once], start)


def _last_linear(model: VAE) -> nn.Linear | None:
    """Return the linear layer whose outputs are the logits of the model's Bernoulli likelihood, if there is one.

    Hooks on the decoder or on that layer want to see its outputs, so that there is none then.
    """
    decoder = model.decoder
    if type(model.likelihood) is not Bernoulli or type(decoder) is not nn.Sequential or _has_hooks(decoder):
        return None
    for module in reversed(decoder):
        if type(module) is nn.Linear:
            return None if _has_hooks(module) else module
        if type(module) is not nn.Unflatten or module.dim != 1:
            break
    return None


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)
