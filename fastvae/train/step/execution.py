"""Forward and backward of one batch: images in, sums and gradients out.

There are three ways to run the same operators. ``eager`` is plain autograd. ``traced`` records the operators of forward
and backward once for each batch shape and runs them as a flat graph: no autograd, no modules. ``compiled`` gives that
graph to TorchInductor, which fuses what is between the matmuls.

A model that is known to be pure (:mod:`fastvae.models.known`) is recorded without checks. Any other is recorded under
guards (:mod:`.recording.guarded`), and if its forward pass cannot be recorded, its steps are eager.
"""

import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from fastvae.models.known import has_hooks, is_known, state
from fastvae.train.checkpoint.rng import preserve_rng_state
from fastvae.train.config import SettledExecution
from fastvae.utils.errors import InputError

from .loss import TRAIN_STREAM, StepLoss, StepScalars
from .recording.guarded import GuardedStep, NotRecordableError
from .recording.record import record
from .recording.replaced import replaced

Result = tuple[Tensor, list[Tensor | None]]


class Step:
    """Computes the sums of a loss and its gradients in the parameters that require one, in the model's order.

    Args:
        loss: the loss, whose parameters are trained.
        execution: "eager", "traced" or "compiled".
        autocast: the context of the forward pass.
        copies: the low-precision copies that a step computes with in place of some parameters.
        tell: called with a line if the steps become eager, as they cannot be recorded any more.

    Attributes:
        startup_s: the seconds spent so far on tracing and compiling.
        before_eager: called when steps become eager, before the model's Python runs.
        is_known: whether the model is known to be pure.
    """

    def __init__(
        self,
        loss: StepLoss,
        execution: SettledExecution,
        autocast: Callable[[], AbstractContextManager[Any]],
        copies: Mapping[Tensor, Tensor] = MappingProxyType({}),
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._loss = loss
        self._execution = execution
        self._autocast = autocast
        self._copies = copies
        self._named = dict(loss.named_parameters())
        self._buffers = dict(loss.named_buffers())
        self._frozen = {name: value for name, value in self._named.items() if not value.requires_grad}
        self._parameters = [value for value in self._named.values() if value.requires_grad]
        self._kinds = {value: value.dtype for value in self._named.values()}
        self._trained = self._parameters  # those that a callback has not frozen since
        self._recorded = self._state()
        self._changes = 0
        self.is_known: bool = self._recorded[0]
        self._records: dict[tuple[Any, ...], Callable[..., Any]] = {}
        self._guarded = GuardedStep(loss, self._parameters, copies, autocast)
        self.startup_s = 0.0
        self.before_eager: Callable[[], None] = lambda: None
        self._tell = tell

    @property
    def is_eager(self) -> bool:
        """Return whether the model's own Python runs in each step."""
        return self._execution == "eager"

    @property
    def is_recorded(self) -> bool:
        """Return whether the next step runs none of the model's Python, unless it becomes eager."""
        return self.is_known or (self._guarded.records > 0 and not self.is_eager)

    def buffers(self) -> Iterable[Tensor]:
        """Yield the model's buffers. Recorded steps add and replace none, so nothing is searched."""
        return self._buffers.values() if self.is_recorded else self._loss.buffers()

    @property
    def records(self) -> int:
        """Return a number that grows when the steps change: by a new record, or by what :meth:`recheck` found."""
        return self._guarded.records + self._changes

    def __call__(
        self, images: Tensor, noise_state: Tensor, row_offset: int, scalars: StepScalars, *, is_full: bool = True
    ) -> Result:
        """Return the sums ``[objective, nll, kl]`` (3,) over the rows, and the gradients of the weighted loss.

        The gradient of a parameter that the loss does not depend on is None, as autograd leaves it.

        The last batch of an epoch may not be full. It is then traced even if others are compiled: one step in hundreds
        does not earn back the seconds that compiling for its shape takes.
        """
        arguments = (images, noise_state, row_offset, scalars)
        compiled = self._execution == "compiled" and is_full
        if self._execution == "eager":
            return self._eager(*arguments) if self.is_known else self._backward(*arguments)
        if self.is_known:
            return self._known(*arguments, compiled=compiled)
        before = self._guarded.records
        started = time.perf_counter()
        try:
            result = self._guarded(*arguments, compiled=compiled)
        except NotRecordableError as error:
            self._tell(f"steps are eager from here on, as the model {error}")
            self._execution = "eager"
            self.startup_s += time.perf_counter() - started
            self.before_eager()
            return self._backward(*arguments)
        if self._guarded.records != before:
            self._buffers = dict(self._loss.named_buffers())
            self.startup_s += time.perf_counter() - started
        return result

    def capture(self, images: Tensor, noise_state: Tensor, row_offset: int, scalars: StepScalars) -> str | None:
        """Return why the step cannot be recorded, or None if it can. The model's Python is read, but not run."""
        if self.is_known:
            return None
        try:
            self._guarded.capture(images, noise_state, row_offset, scalars, compiled=False)
        except NotRecordableError as error:
            return f"the model {error}"
        return None

    def recheck(self, before: Container[Tensor] = ()) -> None:
        """Look at the model again, after the caller's code had it: it may have got hooks, or have frozen parameters.

        ``before`` are its parameters before that. A forward pass may have put some there that no optimiser has, which a
        loop in plain torch would not train either.

        Raises:
            InputError: a parameter that was frozen at the start requires a gradient now, one that does was added, or
                one has another type.
        """
        named = dict(self._loss.named_parameters())
        for name, parameter in named.items():
            if parameter.requires_grad and parameter not in self._kinds and parameter not in before:
                raise InputError(
                    f"{name} was added after the run started, so no optimiser has it: start a new run with this model, "
                    "or freeze it"
                )
            kind = self._kinds.get(parameter, parameter.dtype)
            if parameter.dtype != kind:
                raise InputError(
                    f"{name} is {parameter.dtype} now, but was {kind} when the run started: leave its type, or start a "
                    "new run"
                )
        self._check_frozen()
        self._named = named
        self._buffers = dict(self._loss.named_buffers())
        trained = [parameter for parameter in self._parameters if parameter.requires_grad]
        now = self._state()
        if now != self._recorded:
            self._records.clear()
            self._changes += 1 + self._guarded.records
            self._guarded = GuardedStep(self._loss, self._parameters, self._copies, self._autocast)
        self._recorded = now
        self.is_known = now[0]
        self._trained = trained

    def _check_frozen(self) -> None:
        for name, parameter in self._frozen.items():
            if parameter.requires_grad:
                raise InputError(
                    f"{name} requires a gradient now, but it was frozen when the run started, so no optimiser has it: "
                    "start a new run to train it"
                )

    def _state(self) -> tuple[Any, ...]:
        """Return what a record of a known model depends on."""
        trained = [parameter.requires_grad for parameter in self._parameters]
        return is_known(self._loss), state(self._loss), trained, [*map(has_hooks, self._parameters)]

    def _eager(self, images: Tensor, noise_state: Tensor, row_offset: int, scalars: StepScalars) -> Result:
        arguments = (images, noise_state, row_offset, TRAIN_STREAM, scalars)
        leaves = [self._copies.get(parameter, parameter) for parameter in self._trained]
        with self._autocast(), torch.enable_grad():
            if self._copies:
                copied = {name: self._copies[value] for name, value in self._named.items() if value in self._copies}
                with replaced(self._loss, copied):
                    loss, sums = self._loss(*arguments)
            else:
                loss, sums = self._loss(*arguments)
        gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
        return sums, self._of_all(gradients)

    def _of_all(self, gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Return a gradient for each parameter, given those of the ones that are trained still."""
        if len(gradients) == len(self._parameters):
            return list(gradients)
        found = dict(zip(self._trained, gradients, strict=True))
        return [found.get(parameter) for parameter in self._parameters]

    def _backward(self, images: Tensor, noise_state: Tensor, row_offset: int, scalars: StepScalars) -> Result:
        """Run the model's Python as a training loop in plain torch does, with autocast and ``backward()``.

        That runs every kind of hook, and reentrant checkpointing, which torch.autograd.grad refuses.
        """
        kept = [parameter.grad for parameter in self._parameters]
        for parameter in self._parameters:
            parameter.grad = None
        try:
            with torch.enable_grad():
                with self._autocast():
                    loss, sums = self._loss(images, noise_state, row_offset, TRAIN_STREAM, scalars)
                self._check_frozen()
                loss.backward()
            gradients = [parameter.grad for parameter in self._parameters]
        finally:
            for parameter, grad in zip(self._parameters, kept, strict=True):
                parameter.grad = grad
        return sums.detach(), gradients

    def _known(
        self, images: Tensor, noise_state: Tensor, row_offset: int, scalars: StepScalars, *, compiled: bool
    ) -> Result:
        buffers = self._buffers
        inputs = [self._copies.get(value, value).detach() for value in self._named.values()]
        inputs += [*buffers.values(), images, noise_state, *(scalar for scalar in scalars if scalar is not None)]
        key = (images.shape, images.stride(), images.dtype, row_offset, compiled)
        if key not in self._records:
            started = time.perf_counter()
            with preserve_rng_state(images.device):  # a compiler may draw random inputs to benchmark with
                function = self._function([*self._named, *buffers], row_offset)
                self._records[key] = record(function, inputs, compiled=compiled)
            self.startup_s += time.perf_counter() - started
        with torch.no_grad():
            sums, *gradients = self._records[key](*inputs)
        return sums, self._of_all(gradients)

    def _function(self, names: list[str], row_offset: int) -> Callable[..., tuple[Tensor | None, ...]]:
        """Return the step as a function of the tensors of these names, images, noise state and scalars."""
        trained = set(map(id, self._trained))
        wanted = [name for name, value in self._named.items() if id(value) in trained]

        def function(*tensors: Tensor) -> tuple[Tensor | None, ...]:
            state = dict(zip(names, tensors, strict=False))
            leaves = [state[name].requires_grad_() for name in wanted]
            images, noise_state, *scalars = tensors[len(names) :]
            with self._autocast(), torch.enable_grad():
                arguments = (images, noise_state, row_offset, TRAIN_STREAM, StepScalars(*scalars))
                with replaced(self._loss, state):
                    loss, sums = self._loss(*arguments)
            return sums, *torch.autograd.grad(loss, leaves, allow_unused=True)

        return function
