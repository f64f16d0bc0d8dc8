"""Effects of a forward pass besides its results, and dependences that no guard watches, as TorchDynamo has read it."""

import os
import re
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._guards import TracingContext
from torch._ops import OpOverload, OpOverloadPacket
from torch.fx import GraphModule

import fastvae

# Operators with effects that a record would lose, or that depend on how a tensor lies in memory.
_REFUSED = {
    "register_hook": "registers a hook on a tensor",
    "_assert_async": "asserts something about a tensor's values",
    "_assert_scalar": "depends on a tensor's values",
    "_get_data_attr": "reads or sets a tensor's .data",
    "as_strided": "uses as_strided",
    "tag_activation_checkpoint": "uses gradient checkpointing, whose memory a record would not save",
}

# Dynamo takes the first two for true, and does not guard what the others return.
_UNGUARDED = {"is_compiling", "is_dynamo_compiling", "environ", "getenv"}
_UNGUARDED_VALUES = (os.environ, os.getenv, torch.compiler.is_compiling, torch.compiler.is_dynamo_compiling)


def unwatched(guards: Sequence[Any]) -> str | None:
    """Return what a forward pass depends on that Dynamo's guards do not watch, by any name, or None."""
    for guard in guards:
        if re.search("__import_(torch|fastvae)_dot_", guard.name):  # their own code computes the same either way
            continue
        if isinstance(guard.value, types.GeneratorType):
            return "takes values from a generator, which a record would not advance"
        if any(guard.value is value for value in _UNGUARDED_VALUES):
            return f"asks for {getattr(guard.value, '__name__', 'environ')}, which no guard watches"
    return None


@contextmanager
def arrays_left_alone() -> Iterator[None]:
    """Keep Dynamo from running ``array += 1`` while it reads: it takes arrays of numpy's for constants, and folds them.

    The forward pass cannot be recorded then, and its array is as it was.
    """
    from torch._dynamo import variables  # noqa: PLC0415 -- see capture in guarded.py

    builtin: Any = variables.builtin

    before = builtin.check_unspec_or_constant_args

    def are_constants(args: Any, kwargs: Any) -> bool:
        values = (getattr(each, "value", None) for each in (*args, *kwargs.values()))
        return before(args, kwargs) and not any(hasattr(type(value), "__iadd__") for value in values)

    builtin.check_unspec_or_constant_args = are_constants
    try:
        yield
    finally:
        builtin.check_unspec_or_constant_args = before


def impurity(graph: GraphModule, examples: list[Any], parameters: Sequence[Tensor]) -> str | None:
    """Return what a forward pass does besides computing, as Dynamo has read it, or None."""
    own = set(map(id, parameters))
    if any(isinstance(each, Tensor) and each.requires_grad and id(each) not in own for each in examples):
        return "reads a tensor that requires a gradient but is not one of its parameters, a view of one for example"
    if not all(isinstance(example, Tensor) for example in examples):
        return "computes with Python numbers that change from step to step"
    outputs = next(node for node in graph.graph.nodes if node.op == "output").args[0]
    if [tuple(output.meta["example_value"].shape) for output in outputs] != [(), (3,)]:
        keeps = "changes a tensor that it keeps, a buffer for example"
        return keeps if len(outputs) > 2 else "returns its loss in a form that cannot be recorded"
    names = (getattr(node.target, "__name__", str(node.target)) for node in graph.graph.nodes)
    refused = next((name for name in names if name.removesuffix(".default") in _REFUSED), None)
    if not all(_is_plain(node.target) for node in graph.graph.nodes):
        return "calls an operator that is neither torch's nor fastvae's"
    unguarded = _UNGUARDED & _names_in_code()
    if unguarded:
        return f"asks for {', '.join(sorted(unguarded))}, which no guard watches"
    return _effect() if refused is None else _REFUSED[refused.removesuffix(".default")]


def _is_plain(target: object) -> bool:
    if not isinstance(target, OpOverload | OpOverloadPacket):
        return True
    return str(target).split(".")[0] in ("aten", "fastvae", "higher_order", "prims", "torchvision")


def _names_in_code() -> set[str]:
    """Return the names that the model's own code uses, in all functions that Dynamo has read for this forward pass."""
    context = TracingContext.try_get()
    codes = [] if context is None else context.get_traced_code() or []
    skipped = (str(Path(torch.__file__).parent), str(Path(fastvae.__file__).parent))
    return {name for code in codes if not code.co_filename.startswith(skipped) for name in code.co_names}


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
