"""Tensors written as safetensors' format has it: 8 bytes of length, a JSON header, the bytes of all tensors.

The library reads these files. Its own writer begins each file anew, whose pages the system then has to find and clear:
7.9 ms of a core for leaky's 14 MB, where writing over the pages of a file that is not needed any more takes 3.9.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_ALIGNMENT = 8  # of the first tensor; wider elements come first, so that all of them are aligned


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], *, over: bool) -> None:
    """Write a file of tensors on the CPU; ``over`` what a file that is there holds, in its pages. Not synced.

    Raises OSError; KeyError for an element type that the format does not have.
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name in names:
        tensor, begin = tensors[name], end
        end += tensor.nbytes
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with path.open("r+b" if over else "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(bytes_of(tensors[name]))
        file.truncate()


def bytes_of(tensor: Tensor) -> memoryview:
    """A tensor's bytes where they lie, if it is contiguous."""
    return tensor.detach().reshape(-1).view(torch.uint8).numpy().data
