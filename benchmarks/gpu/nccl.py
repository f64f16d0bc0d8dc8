"""One rank over NCCL: an all-reduce inside captured steps must change no bit, and the process group must close.

With one rank NCCL launches no kernel. Agreement of two ranks needs two GPUs (tests/test_gpu.py).
"""

import torch
import torch.distributed as dist
from torch import Tensor

from fastvae.train.distributed.world import World
from fastvae.train.graphs.step_graphs import StepGraphs

from . import engines
from .section import Section


class Reducing(World):
    """A world of one rank that calls all_reduce as several ranks do."""

    def all_reduce(self, tensor: Tensor) -> None:
        dist.all_reduce(tensor)


def run(section: Section) -> str:
    engines.pretend(section)
    options = {"preset": "classic", "batch_size": 64, "precision": "bf16", "execution": "traced", "clip_norm": 1e6}
    init(section.device)
    found = []
    for kind in (World, Reducing):
        engine, loader = engines.make(section, 13, kind, **options)
        replay = StepGraphs.on_cuda(engine, loader)
        for number in range(2):
            engines.epoch(engine, loader, replay, number)
        found.append([tensor.detach().clone() for tensor in engine.tensors()])
        replay.release()  # NCCL cannot close a communicator whose operations a graph holds
    apart, largest = engines.difference(*found)
    section.keep(tensors_apart=apart, largest=largest, backend=dist.get_backend())
    if apart:
        section.fail(f"with an all-reduce of one rank {apart} tensors differ, by {largest:.1e} at most")
    dist.barrier()
    dist.destroy_process_group()
    return f"{section.figures['backend']}: captured, the same bits: {'no' if apart else 'yes'}; the group is closed"


def init(device: torch.device) -> None:
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", store=store, rank=0, world_size=1, device_id=device)
    else:
        dist.init_process_group("gloo", store=store, rank=0, world_size=1)
