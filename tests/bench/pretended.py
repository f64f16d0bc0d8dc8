"""Stand-ins on a CPU for captures on a GPU: lists of operators' calls in place of CUDA graphs."""

import time
import types

import torch

from fastvae.bench.contenders import graphs

from ..train.recording import Recording


def capture(warm_up, *works):
    """Stand in for ``graphs.capture``."""
    warm_up()
    captured = [Recording() for _ in works]
    for graph, work in zip(captured, works, strict=True):
        with graph.capture(types.SimpleNamespace(place=torch.zeros(1))):
            work()
    return captured


def seconds(graph):
    """Stand in for ``graphs.seconds``."""
    begun = time.perf_counter()
    graph.replay()
    return time.perf_counter() - begun


def install(monkeypatch):
    """Install the stand-ins for one test."""
    monkeypatch.setattr(graphs, "captures", lambda device: True)
    monkeypatch.setattr(graphs, "capture", capture)
    monkeypatch.setattr(graphs, "seconds", seconds)
