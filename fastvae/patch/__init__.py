"""Patches that make other people's code use fastvae's operations: one call applies, the returned :class:`Patch` undoes.

    undo = fastvae.patch.pythae()      # from here on
    undo()

    with fastvae.patch.pythae():       # or here only
        trainer.train()

Nothing is patched before such a call, and the call imports only the named package. Losses, reductions and noise stay
those of the patched code: eps is drawn by the same call from the same generator, so that a loss curve follows the
unpatched one up to rounding. Three things differ:

- If a sigmoid saturates on the wrong side of its pixel (in fp32, a logit past 17), binary cross-entropy on
  probabilities is clamped at 100 and has no gradient. Computed from logits, both are right.
- A float target outside [0, 1] under binary cross-entropy is a ValueError on the CPU; torch computes with it.
- A second derivative is an error, as everywhere in :mod:`fastvae.ops`.

A patch replaces attributes of classes and modules for the whole process. Applying and undoing hold a lock, but a thread
that runs the patched code at that moment sees some attributes replaced and others not. Apply patches before starting
threads.
"""

import importlib
from typing import Any

from ._undo import Patch as Patch

__all__ = ["Patch", "diffusers", "examples", "pythae"]


def _target(package: str) -> Any:
    """Import the package, then return the module here that patches it."""
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ImportError(
            f"fastvae.patch.{package} needs {package}, which is not installed: `pip install {package}`"
        ) from None
    return importlib.import_module(f"{__name__}._{package}")


def pythae() -> Patch:
    """Patch pythae's VAE, BetaVAE and IWAE, and subclasses that inherit their ``forward`` and ``loss_function``.

    ========  ==============================================================================================
    "mse"     :func:`fastvae.ops.gaussian_nll` with variance 1, which is pythae's half squared error
    "bce"     :func:`fastvae.ops.bernoulli_nll` on the argument of the decoder's last sigmoid, if ``reconstruction``
              is the result of that sigmoid or a reshaped view of it, as in all of pythae's decoders that end in one
    KL        :func:`fastvae.ops.gaussian_kl` for VAE and BetaVAE
    ========  ==============================================================================================

    If a decoder ends otherwise (in a clamp, a slice, separately compiled code) or runs under ``torch.inference_mode``,
    "bce" stays torch's, on probabilities; in training a warning says so. Integer targets, targets that require a
    gradient or are fp64 under an fp32 model, and latents that are not (B, D) go through pythae's own
    ``loss_function``. Sampling, the latent terms of IWAE and ``get_nll`` are not patched. (Sampling takes a few numbers
    per image, and ``_sample_gauss`` gets the standard deviation, not its logarithm.) The ModelOutput is the same,
    with losses in fp32 for 16-bit models.

    Raises:
        ImportError: pythae is not installed.
    """
    patch: Patch = _target("pythae").patch()
    return patch


def diffusers() -> Patch:
    """Patch the posterior ``encode(x).latent_dist`` of diffusers' AutoencoderKL and of all models that share it.

    Objects made under the patch belong to a subclass of ``DiagonalGaussianDistribution``, and keep it afterwards:

    - ``sample(generator)`` is :func:`fastvae.ops.reparameterize` on the noise that diffusers draws from the given
      generator (or list of generators);
    - ``kl()`` of (B, C, H, W) is :func:`fastvae.ops.gaussian_kl`, in the type of the parameters;
    - logvar is clamped to [-30, 20], with no gradient outside;
    - ``mode``, ``nll``, ``kl(other)`` and ``kl`` of other shapes are diffusers' own; ``logvar``, ``std`` and ``var``
      are computed at their first use.

    A value assigned to ``std`` or ``var`` has no effect on ``sample`` and ``kl()``. Deterministic posteriors and
    subclasses are not patched.

    Raises:
        ImportError: diffusers is not installed.
    """
    patch: Patch = _target("diffusers").patch()
    return patch


def examples(namespace: Any) -> Patch:
    """Patch a script modelled on pytorch/examples' VAE: a summed ``loss_function(recon_x, x, mu, logvar)``.

    The KL becomes :func:`fastvae.ops.gaussian_kl`. The model of such a script ends in ``torch.sigmoid`` and passes
    probabilities to the loss. For :func:`fastvae.ops.bernoulli_nll`, which needs logits, the patch watches the
    ``forward`` of every ``nn.Module`` in the namespace and remembers the argument of its last sigmoid. If the loss gets
    anything but the result of that sigmoid (or a reshaped view of it), the cross-entropy stays torch's, on
    probabilities, with a warning in training. (Undoing the sigmoid by a logarithm would lose what it rounded away.)

    Args:
        namespace: the module that holds the model's class and ``loss_function``, which must be called by that name;
            in a script itself, ``sys.modules[__name__]``.

    Raises:
        ValueError: there is no such function, or it does not take four arguments; or, at the first call of the loss,
            its value is not the sum of both terms (but a mean, with a beta, or with a squared error).

    >>> import torch, torch.nn.functional as F
    >>> from types import ModuleType
    >>> script = ModuleType("script")
    >>> def loss_function(recon_x, x, mu, logvar):
    ...     bce = F.binary_cross_entropy(recon_x, x.view(-1, 784), reduction="sum")
    ...     return bce - 0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
    >>> script.loss_function = loss_function
    >>> undo = examples(script)
    >>> with torch.no_grad():
    ...     grey, black = torch.full((2, 784), 0.5), torch.zeros(2, 784)
    ...     loss = script.loss_function(grey, black, mu=torch.ones(2, 3), logvar=torch.zeros(2, 3))
    >>> round(loss.item(), 2)  # 2 * (784 ln 2 + 3/2)
    1089.85
    >>> undo()
    >>> script.loss_function is loss_function
    True
    """
    patch: Patch = importlib.import_module(f"{__name__}._examples").patch(namespace)
    return patch
