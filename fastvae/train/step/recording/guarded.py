"""A training step of a model that fastvae does not know: recorded, and run as a record only where that is proven equal.

TorchDynamo reads the Python of the model's forward pass and derives guards: the conditions (flags, attributes, hooks,
shapes, types) under which the operators are the ones that it found. They are checked at each step. A forward pass that
cannot be read, or that does anything besides computing its results (counts calls, draws from Python's generators,
branches on the values of a tensor), is not recorded.
"""

import logging
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from fastvae.models.known import has_hooks
from fastvae.train.step.loss import TRAIN_STREAM, StepLoss, StepScalars

from .only_cast import only_cast
from .purity import arrays_left_alone, impurity, unwatched
from .record import record

# Dynamo's defaults leave out guards that it takes to be costly; numpy's functions become torch's, with other numbers.
_STRICT = {
    "assume_dunder_attributes_remain_unchanged": False,
    "automatic_dynamic_shapes": False,
    "recompile_limit": 64,  # torch gives up at 8; here a step that needs another record says so in a line
    "skip_nnmodule_hook_guards": False,
    "skip_tensor_guards_with_matching_dict_tags": False,
    "suppress_errors": False,
    "trace_numpy": False,
}
_MOST_SHAPES = 32
Autocast = AbstractContextManager[Any]


class NotRecordableError(Exception):
    """A forward pass cannot be recorded; the message says what it does, for a sentence with "the model"."""


class _HasChangedError(Exception):
    """No record's guards hold."""


class _CheckedError(Exception):
    """The guards of a record hold; raised instead of running it."""


class GuardedStep:
    """Forward and backward of one batch, by a record whose guards are checked at each step.

    Args:
        loss: the loss; its parameters may not be replaced by others.
        parameters: those to differentiate by, in this order.
        copies: the low-precision copies that some parameters are computed with.
        autocast: the context of the forward pass.
    """

    def __init__(
        self,
        loss: StepLoss,
        parameters: Sequence[Tensor],
        copies: Mapping[Tensor, Tensor],
        autocast: Callable[[], Autocast],
    ) -> None:
        self._loss = loss
        self._autocast = autocast
        self.parameters = parameters
        self.copies = copies
        self.records = 0  # made so far
        self.result: tuple[Tensor, list[Tensor | None]] | None = None
        self.only_checks = False
        self.runs = False  # inside a record, or while one is made
        self.compiled = False
        self._captures = False
        self._refusal: str | None = None
        # By the shape, type and place of the images, as Dynamo looks through all records of one callable in turn.
        self._calls: dict[tuple[Any, ...], Callable[..., Any]] = {}

    def __call__(
        self, images: Tensor, noise_state: Tensor, row_offset: int, scalars: StepScalars, *, compiled: bool
    ) -> tuple[Tensor, list[Tensor | None]]:
        """Return the sums and the gradients; None for a parameter that the loss does not depend on.

        Raises:
            NotRecordableError: the guards of all records fail, and another one cannot be made. Nothing has been run.
        """
        arguments = (images, noise_state, row_offset, scalars)
        self.compiled = compiled
        if not self._guards_hold(arguments):
            self.capture(*arguments, compiled=compiled)
            self._run(arguments)
        result = self.result
        self.result = None
        assert result is not None
        return result

    def _guards_hold(self, arguments: tuple[Any, ...]) -> bool:
        """Run the record whose guards hold. Returns False, and has run nothing, if there is none."""
        if _key(arguments) not in self._calls:
            return False
        try:
            self._run(arguments)
        except NotRecordableError:
            raise
        except Exception:
            if self.runs:  # the operators' own errors
                raise
            return False
        return self.result is not None

    def _run(self, arguments: tuple[Any, ...]) -> None:
        self.runs = False
        self.result = None
        with self._autocast(), torch.enable_grad():
            self._calls[_key(arguments)](self._loss, *arguments)

    def capture(
        self, images: Tensor, noise_state: Tensor, row_offset: int, scalars: StepScalars, *, compiled: bool
    ) -> None:
        """Read the forward pass for these arguments, without running it. A record that holds already is kept.

        Raises NotRecordableError.
        """
        from torch._dynamo import config  # noqa: PLC0415 -- it takes two seconds to import

        if config.disable:
            raise NotRecordableError("cannot be read, as torch.compile is disabled")
        if any(map(has_hooks, self._loss.parameters())):
            raise NotRecordableError("has hooks on the gradients of its parameters")
        self.compiled = compiled
        arguments = (images, noise_state, row_offset, scalars)
        key = _key(arguments)
        if key not in self._calls:
            if len(self._calls) >= _MOST_SHAPES:
                raise NotRecordableError(f"has batches of more than {_MOST_SHAPES} sizes and places")
            self._calls[key] = torch.compile(
                _private(_forward), backend=self._backend, fullgraph=True, dynamic=False,
                options={"guard_filter_fn": self._watched},
            )  # fmt: skip
        self._captures = True
        self.only_checks = True
        self._refusal = None
        try:
            with config.patch(_STRICT), _quiet(), self._watching_caches(), arrays_left_alone():
                self._run(arguments)
        except _CheckedError:
            return
        except Exception as error:  # Dynamo's errors are of many kinds
            raise NotRecordableError(self._refusal or _first_line(error)) from error
        finally:
            self._captures = False
            self.only_checks = False
        raise NotRecordableError("cannot be read by TorchDynamo")

    @contextmanager
    def _watching_caches(self) -> Iterator[None]:
        """Refuse functions that keep their results (functools.lru_cache), which Dynamo reads as if they did not.

        It says so in a warning, the first time alone.
        """
        from torch._dynamo import utils  # noqa: PLC0415 -- see capture

        def warn_once(message: str, *_: Any, **__: Any) -> None:
            if "lru_cache" in message:
                self._refusal = "calls a function that keeps its results (functools.lru_cache)"

        before = utils.warn_once
        utils.warn_once = warn_once  # type: ignore[assignment]
        try:
            yield
        finally:
            utils.warn_once = before

    def _watched(self, guards: Sequence[Any]) -> list[bool]:
        """Return which guards are checked: all but those on fastvae's own functions, a third of their time."""
        self._refusal = unwatched(guards)
        if self._refusal is not None:
            raise NotRecordableError(self._refusal)
        return [not (guard.is_global and "__import_fastvae_dot_" in guard.name) for guard in guards]

    def _backend(self, graph: GraphModule, examples: list[Any], **_: Any) -> Callable[..., Any]:
        """Turn what Dynamo has read into a record. Raises for anything that is not a pure function of tensors."""
        if not self._captures:
            raise _HasChangedError
        self._refusal = self._refusal or impurity(graph, examples, self.parameters)
        if self._refusal is not None:
            raise NotRecordableError(self._refusal)
        self.records += 1
        return _Record(self, graph)


class _Record:
    """The operators of one forward and backward; Dynamo calls it with the tensors that the forward pass reads."""

    def __init__(self, owner: GuardedStep, graph: GraphModule) -> None:
        self._owner = owner
        self._graph = graph
        self._functions: dict[bool, Callable[..., Any]] = {}  # by whether Inductor compiled them
        self._autocast: Callable[[], Autocast] = nullcontext  # that of the forward pass, from the first call on
        self._off: Autocast | None = None
        self._cast: list[bool] | None = None  # which inputs are parameters that their low-precision copies stand for

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        owner = self._owner
        owner.runs = True
        function = self._functions.get(owner.compiled)
        if self._off is None:
            kind = inputs[0].device.type
            self._autocast = partial(
                torch.autocast, kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
            )
            self._off = torch.autocast(kind, enabled=False)
        # Dynamo guards on autocast, so it is on here. The record has the casts; running it must not add others.
        with self._off:
            if self._cast is None:
                try:
                    self._cast = only_cast(self._graph, inputs, owner.copies, self._autocast)
                except Exception as error:
                    raise NotRecordableError(_first_line(error)) from error
            copies = owner.copies
            tensors = [
                (copies[tensor] if cast else tensor).detach() for tensor, cast in zip(inputs, self._cast, strict=True)
            ]
            if function is None:
                function = self._record(inputs, tensors, compiled=owner.compiled)
                self._functions[owner.compiled] = function
            if owner.only_checks:
                raise _CheckedError
            with torch.no_grad():
                sums, *gradients = function(*tensors)
        owner.result = (sums, gradients)
        return sums, sums  # nobody reads what Dynamo hands back; without the loss, nothing computes it

    def _record(self, inputs: tuple[Tensor, ...], tensors: list[Tensor], *, compiled: bool) -> Callable[..., Any]:
        places = {id(tensor): place for place, tensor in enumerate(inputs)}
        parameters = self._owner.parameters  # one may be frozen since, which a guard notices
        wanted = [places.get(id(parameter)) if parameter.requires_grad else None for parameter in parameters]
        used = [place for place in wanted if place is not None]

        def function(*given: Tensor) -> tuple[Tensor | None, ...]:
            for place in used:
                given[place].requires_grad_()
            versions = [given[place]._version for place in used]
            with self._autocast():
                loss, sums = self._graph(*given)
            if versions != [given[place]._version for place in used]:
                raise NotRecordableError("changes its parameters in its forward pass")
            found = iter(torch.autograd.grad(loss, [given[place] for place in used], allow_unused=True))
            return sums, *(None if place is None else next(found) for place in wanted)

        try:
            return record(function, tensors, compiled=compiled)
        except NotRecordableError:
            raise
        except Exception as error:
            raise NotRecordableError(_first_line(error)) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from logging what it finds wrong with a forward pass: the error says that."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.ERROR))
    try:
        yield
    finally:
        logging.disable(before)


def _key(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    images, _, row_offset, _ = arguments
    return images.shape, images.dtype, row_offset


def _forward(
    loss: StepLoss, images: Tensor, noise_state: Tensor, row_offset: int, scalars: StepScalars
) -> tuple[Tensor, Tensor]:
    value, sums = loss(images, noise_state, row_offset, TRAIN_STREAM, scalars)
    return value, sums


def _private(function: types.FunctionType | Callable[..., Any]) -> Callable[..., Any]:
    """Copy a function with code of its own: Dynamo keeps its records with the code, and limits their number."""
    return types.FunctionType(function.__code__.replace(), function.__globals__, function.__name__)


def _first_line(error: BaseException) -> str:
    """Return why Dynamo gave up, without its explanations."""
    while isinstance(getattr(error, "inner_exception", None), BaseException):
        error = error.inner_exception  # type: ignore[attr-defined]
    if isinstance(error, NotRecordableError):
        return str(error)
    line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return f"cannot be recorded ({line.strip()})"
