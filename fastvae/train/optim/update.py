"""The update of a step: gradients go to the optimiser, unscaled and clipped if the run asks for it."""

import torch
from torch import Tensor

from .adam import Adam
from .build import start_momentum
from .flat_gradients import FlatGradients, GradientMatcher
from .weights import Weights


class Update:
    """Takes the gradients of a step, and has the optimiser change the weights.

    Args:
        weights: the weights. optimizer: trains them.
        scaler: the loss scale of fp16; disabled in other precisions.
        found: (1,), above 0 after a step that is not finite.
        on_host: whether the host knows before the update that a step is not finite, and then makes none.
        clip_norm: the largest norm of all gradients together; None for any.

    Attributes:
        skips: whether the optimiser skips non-finite steps by itself, on the device.
        writes_copies: whether it writes the low-precision copies of the weights as well.
    """

    def __init__(
        self,
        weights: Weights,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        found: Tensor,
        clip_norm: float | None,
        *,
        on_host: bool,
    ) -> None:
        self._weights = weights
        self._optimizer = optimizer
        self._scaler = scaler
        self._found = found
        self._on_host = on_host
        self._clip_norm = clip_norm
        self._match = GradientMatcher(weights.parameters)
        self.skips = self._let_optimizer_skip()
        self.writes_copies = isinstance(optimizer, Adam)

    def _let_optimizer_skip(self) -> bool:
        """Have the optimiser skip non-finite steps by itself, on the device, if it can. Returns whether it does.

        Optimisers behind a loss scale do. Fused ones do too, but SGD's would make its momentum in a skipped step.
        """
        is_sgd = isinstance(self._optimizer, torch.optim.SGD)
        if self._scaler.is_enabled():
            if isinstance(self._optimizer, torch.optim.SGD):
                start_momentum(self._optimizer)
            return True
        skips = bool(self._optimizer.param_groups[0].get("fused")) and not is_sgd
        if skips and not self._on_host:
            self._optimizer.found_inf = self._found[0]  # type: ignore[attr-defined]  # as GradScaler does
        return skips

    def take(self, gradients: list[Tensor | None]) -> None:
        """Update the weights with gradients in the order of the parameters; None for a parameter that was not used."""
        if isinstance(self._optimizer, Adam):
            self._optimizer.step_with(gradients)
            return
        for parameter, gradient in zip(self._weights.parameters, self._match(gradients), strict=True):
            parameter.grad = gradient
        self._optimizer.step()

    def take_flat(self, flat: FlatGradients) -> None:
        """Update the weights with the gradients in a buffer, which are unscaled and clipped in place."""
        if self._scaler.is_enabled() and not self._on_host:
            flat.spoil(self._found)
        if self._clip_norm is not None:
            self._scaler.unscale_(self._optimizer)
            flat.clip(self._clip_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
