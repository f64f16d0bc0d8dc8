"""Other people's code on fastvae's operations: one call applies, the :class:`Patch` that it returns undoes.

    undo = fastvae.patch.pythae()      # from here on
    undo()

    with fastvae.patch.pythae():       # or here only
        trainer.train()

Nothing is patched before such a call, and nothing but the named package is imported by it. Losses, their reductions
and the noise are those of the code that is patched: eps is drawn by the same call from the same generator, so that a
loss curve follows the unpatched one by rounding. Three things differ:

- Where a sigmoid saturates on the wrong side of its pixel (in fp32, a logit past 17), binary cross-entropy on
  probabilities is cut off at 100 and has no gradient. From logits, both are right.
- A float target outside [0, 1] under binary cross-entropy is a ValueError on the CPU; torch computes with it.
- A second derivative is an error, as everywhere in :mod:`fastvae.ops`.

A patch replaces attributes of classes and modules for the whole process. Applying and undoing hold a lock; threads that
are running the patched code meanwhile see some of it replaced and some not, so apply it before they start.
"""

import importlib
from typing import Any

from ._undo import Patch as Patch

__all__ = ["Patch", "diffusers", "examples", "pythae"]


def _target(package: str) -> Any:
    """The module of ours that patches a package, once that is known to be there."""
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
    """Patch pythae's VAE, BetaVAE and IWAE, and subclasses where these inherit ``forward`` and ``loss_function``.

    ========  ==============================================================================================
    "mse"     :func:`fastvae.ops.gaussian_nll` with variance 1, which is pythae's half squared error
    "bce"     :func:`fastvae.ops.bernoulli_nll` on the argument of the decoder's last sigmoid, if ``reconstruction``
              is the result of that sigmoid or a reshaped view of it, as in all of pythae's decoders that end in one
    KL        :func:`fastvae.ops.gaussian_kl` for VAE and BetaVAE
    ========  ==============================================================================================

    A decoder that ends otherwise (in a clamp, a slice, code compiled on its own), and any decoder under
    ``torch.inference_mode``, leaves "bce" on probabilities to torch, which is said by a warning in training. Integer
    targets, targets that require a gradient or are fp64 under an fp32 model, and latents that are not (B, D) go
    through pythae's own ``loss_function``. So does nothing else: sampling (a few numbers a picture, of which
    ``_sample_gauss`` is handed the deviation, not its logarithm), the latent terms of IWAE and ``get_nll`` are
    pythae's. The ModelOutput is the same, with losses in fp32 for 16-bit models.

    Raises:
        ImportError: pythae is not installed.
    """
    patch: Patch = _target("pythae").patch()
    return patch


def diffusers() -> Patch:
    """Patch the posterior of diffusers' AutoencoderKL and of all models that share it, ``encode(x).latent_dist``.

    Objects made under the patch are of a subclass of ``DiagonalGaussianDistribution``, and remain so afterwards:

    - ``sample(generator)`` is :func:`fastvae.ops.reparameterize` on the noise that diffusers draws, from the generator
      (or the list of generators) given;
    - ``kl()`` of (B, C, H, W) is :func:`fastvae.ops.gaussian_kl`, in the type of the parameters;
    - logvar is clamped to [-30, 20], with no gradient outside;
    - ``mode``, ``nll``, ``kl(other)`` and ``kl`` of other shapes are diffusers' own, on ``logvar``, ``std`` and ``var``
      that are computed when first asked for.

    A value assigned to ``std`` or ``var`` has no effect on ``sample`` and ``kl()``. Deterministic posteriors and
    subclasses with code of their own are left as they are.

    Raises:
        ImportError: diffusers is not installed.
    """
    patch: Patch = _target("diffusers").patch()
    return patch


def examples(namespace: Any) -> Patch:
    """Patch a script made after the VAE of pytorch/examples: ``loss_function(recon_x, x, mu, logvar)``, summed.

    The KL is always :func:`fastvae.ops.gaussian_kl`. Such a script's model ends in ``torch.sigmoid`` and hands
    probabilities to the loss; so that the cross-entropy can be :func:`fastvae.ops.bernoulli_nll`, the ``forward`` of
    every ``nn.Module`` in the namespace is watched, and the argument of its last sigmoid remembered. A loss that gets
    anything but the result of that sigmoid (or a reshaped view of it) leaves it on probabilities to torch, with a
    warning in training; undoing the sigmoid by a logarithm instead would lose what it rounded away.

    Args:
        namespace: the module that has ``loss_function``, by which name it must be called, and the model's class;
            ``sys.modules[__name__]`` in a script itself.

    Raises:
        ValueError: no function of that name, or one that does not take four arguments; and, at the first call of the
            loss, one that does not give the sum of both terms (a mean, a beta, a squared error).

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
