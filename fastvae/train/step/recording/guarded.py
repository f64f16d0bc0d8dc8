"""A training step of a model that fastvae does not know: recorded, and run as a record only where that is proven equal.

TorchDynamo reads the Python of the model's forward pass and derives guards: the conditions (flags, attributes, hooks,
shapes, types) under which the operators are the ones that it found. They are checked at each step. A forward pass that
cannot be read, or that does anything besides computing its results (counts calls, draws from Python's generators,
branches on the values of a tensor), is not recorded.
"""

import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from fastvae.train.step.loss import TRAIN_STREAM, StepLoss, StepScalars

from .record import record

# Dynamo's defaults leave out guards that it takes to be costly; numpy's functions become torch's, with other numbers.
_STRICT = {
    "assume_dunder_attributes_remain_unchanged": False,
    "automatic_dynamic_shapes": False,
    "recompile_limit": 64,  # each place of a micro-batch in the batch is a record of its own
    "skip_nnmodule_hook_guards": False,
    "skip_tensor_guards_with_matching_dict_tags": False,
    "suppress_errors": False,
    "trace_numpy": False,
}
# Operators with effects that a record would lose, or that depend on how a tensor lies in memory.
_REFUSED = {
    "register_hook": "registers a hook on a tensor",
    "_assert_async": "asserts something about a tensor's values",
    "_assert_scalar": "depends on a tensor's values",
    "_get_data_attr": "reads or sets a tensor's .data",
    "as_strided": "uses as_strided",
    "tag_activation_checkpoint": "uses gradient checkpointing, whose memory a record would not save",
}


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
        self._call: Callable[..., Any] | None = None

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
        if self._call is None:
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
            self._call(self._loss, *arguments)  # type: ignore[misc]  # it is made before

    def capture(
        self, images: Tensor, noise_state: Tensor, row_offset: int, scalars: StepScalars, *, compiled: bool
    ) -> None:
        """Read the forward pass for these arguments, without running it. A record that holds already is kept.

        Raises NotRecordableError.
        """
        from torch._dynamo import config  # noqa: PLC0415 -- it takes two seconds to import

        if config.disable:
            raise NotRecordableError("cannot be read, as torch.compile is disabled")
        self.compiled = compiled
        if self._call is None:
            self._call = torch.compile(_private(_forward), backend=self._backend, fullgraph=True, dynamic=False)
        self._captures = True
        self.only_checks = True
        self._refusal = None
        try:
            with config.patch(_STRICT):
                self._run((images, noise_state, row_offset, scalars))
        except _CheckedError:
            return
        except Exception as error:  # Dynamo's errors are of many kinds
            raise NotRecordableError(self._refusal or _first_line(error)) from error
        finally:
            self._captures = False
            self.only_checks = False
        raise NotRecordableError("cannot be read by TorchDynamo")

    def _backend(self, graph: GraphModule, examples: list[Any]) -> Callable[..., Any]:
        """Turn what Dynamo has read into a record. Raises for anything that is not a pure function of tensors."""
        if not self._captures:
            raise _HasChangedError
        self._refusal = _impurity(graph, examples)
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

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        owner = self._owner
        owner.runs = True
        copies = owner.copies
        tensors = [copies.get(tensor, tensor).detach() for tensor in inputs]
        function = self._functions.get(owner.compiled)
        # Dynamo guards on autocast, so it is on here. The record has the casts; running it must not add others.
        kind = tensors[0].device.type
        autocast = partial(torch.autocast, kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
        with torch.autocast(kind, enabled=False):
            if function is None:
                function = self._record(inputs, tensors, autocast, compiled=owner.compiled)
                self._functions[owner.compiled] = function
            if owner.only_checks:
                raise _CheckedError
            with torch.no_grad():
                loss, sums, *gradients = function(*tensors)
        owner.result = (sums, gradients)
        return loss, sums

    def _record(
        self, inputs: tuple[Tensor, ...], tensors: list[Tensor], autocast: Callable[[], Autocast], *, compiled: bool
    ) -> Callable[..., Any]:
        places = {id(tensor): place for place, tensor in enumerate(inputs)}
        parameters = self._owner.parameters  # one may be frozen since, which a guard notices
        wanted = [places.get(id(parameter)) if parameter.requires_grad else None for parameter in parameters]
        used = [place for place in wanted if place is not None]

        def function(*given: Tensor) -> tuple[Tensor | None, ...]:
            for place in used:
                given[place].requires_grad_()
            versions = [given[place]._version for place in used]
            with autocast():
                loss, sums = self._graph(*given)
            if versions != [given[place]._version for place in used]:
                raise NotRecordableError("changes its parameters in its forward pass")
            found = iter(torch.autograd.grad(loss, [given[place] for place in used], allow_unused=True))
            return loss, sums, *(None if place is None else next(found) for place in wanted)

        try:
            return record(function, tensors, compiled=compiled)
        except NotRecordableError:
            raise
        except Exception as error:
            raise NotRecordableError(_first_line(error)) from error


def _forward(
    loss: StepLoss, images: Tensor, noise_state: Tensor, row_offset: int, scalars: StepScalars
) -> tuple[Tensor, Tensor]:
    value, sums = loss(images, noise_state, row_offset, TRAIN_STREAM, scalars)
    return value, sums


def _private(function: types.FunctionType | Callable[..., Any]) -> Callable[..., Any]:
    """Copy a function with code of its own: Dynamo keeps its records with the code, and limits their number."""
    return types.FunctionType(function.__code__.replace(), function.__globals__, function.__name__)


def _impurity(graph: GraphModule, examples: list[Any]) -> str | None:
    """Return what a forward pass does besides computing, as Dynamo has read it, or None."""
    if not all(isinstance(example, Tensor) for example in examples):
        return "computes with Python numbers that change from step to step"
    outputs = next(node for node in graph.graph.nodes if node.op == "output").args[0]
    if [tuple(output.meta["example_value"].shape) for output in outputs] != [(), (3,)]:
        return "returns its loss in a form that cannot be recorded"
    names = (getattr(node.target, "__name__", str(node.target)) for node in graph.graph.nodes)
    refused = next((name for name in names if name.removesuffix(".default") in _REFUSED), None)
    return _effect() if refused is None else _REFUSED[refused.removesuffix(".default")]


def _effect() -> str | None:
    """Return an effect on Python's state that the forward pass has which Dynamo is reading, or None."""
    from torch._dynamo.symbolic_convert import InstructionTranslator  # noqa: PLC0415 -- see capture
    from torch._dynamo.variables.base import AttributeMutationExisting, ValueMutationExisting  # noqa: PLC0415

    output = InstructionTranslator.current_tx().output
    effects = output.side_effects
    if output.random_calls:
        return "draws from Python's random"
    if effects.tensor_hooks:
        return _REFUSED["register_hook"]
    for variable in effects.id_to_variable.values():
        existing = isinstance(variable.mutation_type, AttributeMutationExisting | ValueMutationExisting)
        if existing and effects.is_modified(variable):
            return f"changes Python state in its forward pass{_names(effects, variable)}"
    return None


def _names(effects: Any, variable: Any) -> str:
    """Return the names of the attributes that a forward pass sets, in brackets, or an empty string."""
    changed = effects.store_attr_mutations.get(variable, {})
    return f" ({', '.join(map(str, changed))})" if changed else ""


def _first_line(error: BaseException) -> str:
    """Return why Dynamo gave up, without its explanations."""
    while isinstance(getattr(error, "inner_exception", None), BaseException):
        error = error.inner_exception  # type: ignore[attr-defined]
    if isinstance(error, NotRecordableError):
        return str(error)
    line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return f"cannot be recorded ({line.strip()})"
