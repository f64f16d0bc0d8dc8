"""A CUDA graph for the CPU: a list of the operators' calls that a capture sees, with their tensors and numbers."""

import contextlib

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastvae.train.replay import Replay

# What a CUDA graph cannot hold: the host reads a value, or a shape that depends on one.
_WAITING = {"aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::equal", "aten::masked_select"}


def _tensors(values):
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def _written(function, args, kwargs):
    """The tensors that a call changes, by the operator's schema."""
    parameters = function._schema.arguments
    named = {parameter.name: value for parameter, value in zip(parameters, args, strict=False)} | kwargs
    changed = [p.name for p in parameters if p.alias_info is not None and p.alias_info.is_write and p.name in named]
    return _tensors([named[name] for name in changed])


class Recording(TorchDispatchMode):
    """As with a CUDA graph, a capture changes no tensor that was there before, a replay reads and writes the tensors of
    the capture where they are, runs no Python of the step's, and has its numbers and branches as they were.
    """

    def __init__(self):
        super().__init__()
        self.calls, self._before = [], {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        assert function._schema.name not in _WAITING, f"{function} waits for the device"
        for tensor in _written(function, args, kwargs):
            storage = tensor.untyped_storage()
            if storage._cdata not in self._before:
                self._before[storage._cdata] = storage, storage.clone()
        result = function(*args, **kwargs)
        given = {tensor.untyped_storage()._cdata for tensor in _tensors((args, kwargs))}
        # What is no view of what was given is made anew by each call, and goes where the capture had it.
        made = [(i, t) for i, t in enumerate(_tensors(result)) if t.untyped_storage()._cdata not in given]
        self.calls.append((function, args, kwargs, made))
        return result

    @contextlib.contextmanager
    def capture(self, loader):
        place = loader.place.clone()
        loader.place.zero_()  # unlike CUDA, this computes what it captures
        with self:
            yield
        for storage, value in self._before.values():
            storage.copy_(value)
        loader.place.copy_(place)
        self._before.clear()

    @torch.no_grad()
    def replay(self):
        for function, args, kwargs, made in self.calls:
            results = _tensors(function(*args, **kwargs))
            for i, tensor in made:
                tensor.detach().copy_(results[i])


def record(engine, loader):
    """In the place of ``Replay.on_cuda``."""
    graph = Recording()
    return Replay(engine, loader, graph, graph.capture(loader))
