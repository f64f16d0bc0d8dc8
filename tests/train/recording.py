"""A CUDA graph for the CPU: a list of the operators' calls that a capture sees, with their tensors and numbers."""

import contextlib
import os
import sys

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastvae.train.graphs import step_graphs
from fastvae.train.graphs.step_graphs import STEPS, StepGraphs
from fastvae.train.optim import schedule
from fastvae.train.step import nonfinite

# What a CUDA graph cannot hold: the host reads a value, or a shape that depends on one; or it copies its own number to
# the device, as `torch.tensor(0.5, device=...)` and an index by a list do. On a CPU that copy is no operator, but the
# number's tensor is lifted.
_WAITING = {"aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::equal", "aten::masked_select"}
_COPYING = {"aten::lift_fresh", "aten::lift"}


def _refuse(function, args):
    name = function._schema.name
    by_mask = name == "aten::index" and any(index is not None and index.dtype == torch.bool for index in args[1])
    if name in _WAITING or by_mask:
        raise RuntimeError(f"{function} waits for the device")
    if name in _COPYING and not _is_in_optimizer():
        raise RuntimeError(f"{function} copies from the host")


def _is_in_optimizer():
    """Whether torch's optimisers call: where their counters are on a CPU, and there alone, they make a one of it."""
    frame = sys._getframe()
    while frame is not None and f"{os.sep}optim{os.sep}" not in frame.f_code.co_filename:
        frame = frame.f_back
    return frame is not None


class Refusing(TorchDispatchMode):
    """Refuse waits and copies from the host in a step, as torch.cuda.set_sync_debug_mode does."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        _refuse(function, args)
        return function(*args, **(kwargs or {}))


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
        self.calls, self._before, self.was_reset = [], {}, False

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        _refuse(function, args)
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
        try:
            with self:
                yield
        finally:
            for storage, value in self._before.values():
                storage.copy_(value)
            loader.place.copy_(place)
            self._before.clear()

    @torch.no_grad()
    def replay(self):
        assert not self.was_reset
        for function, args, kwargs, made in self.calls:
            results = _tensors(function(*args, **kwargs))
            for i, tensor in made:
                tensor.detach().copy_(results[i])

    def reset(self):
        self.was_reset = True
        self.calls.clear()


class Recordings:
    """In the place of ``CudaGraphs``."""

    def __init__(self, loader):
        self._loader, self.made = loader, []

    def refusing_waits(self):
        return Refusing()

    @contextlib.contextmanager
    def capture(self):
        graph = Recording()
        with graph.capture(self._loader):
            yield graph
        self.made.append(graph)


def record(engine, loader, sizes=(STEPS, 1)):
    """In the place of ``StepGraphs.on_cuda``."""
    return StepGraphs(engine, loader, Recordings(loader), sizes)


def as_on_a_gpu(monkeypatch):
    """Have steps decide on the device, take their rates there and be captured: by the stand-in where there is none."""
    monkeypatch.setattr(nonfinite, "_is_on_host", lambda device: False)
    for module in (step_graphs, schedule):
        monkeypatch.setattr(module, "takes_device_rate", lambda optimizer: True)
    if not torch.cuda.is_available():
        monkeypatch.setattr(StepGraphs, "on_cuda", record)
