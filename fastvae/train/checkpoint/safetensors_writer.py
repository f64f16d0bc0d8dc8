"""Write tensors in safetensors' format: 8 bytes of length, a JSON header, the bytes of all tensors.

The library reads these files. Its own writer starts each file afresh, and the system has to find and clear its pages:
7.9 ms of a core for leaky's 14 MB. To overwrite a file that is no longer needed takes 3.9.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from fastvae.utils.files import open_in_place

TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    "U16": torch.uint16, "U32": torch.uint32, "U64": torch.uint64,
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in TYPES.items()}
_ALIGNMENT = 8  # bytes; the widest elements come first, so that all tensors are aligned


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], *, over: bool) -> None:
    """Write a new file of tensors on the CPU, or ``over`` an existing one, in its pages. Does not sync.

    Raises OSError, or KeyError for an element type that the format does not have.
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name in names:
        tensor = tensors[name]
        begin = end
        end += tensor.nbytes
        header[name] = {"dtype": name_of(tensor), "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    flags = os.O_WRONLY | (0 if over else os.O_CREAT | os.O_EXCL)
    with open_in_place(path, flags, "r+b" if over else "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(bytes_of(tensors[name]))
        file.truncate()


def name_of(tensor: Tensor) -> str:
    """Return the format's name of a tensor's type. Raises KeyError for a type that it does not have."""
    return _NAMES[tensor.dtype]


def bytes_of(tensor: Tensor) -> memoryview:
    """Return a tensor's bytes; without a copy, if it is contiguous."""
    return tensor.detach().reshape(-1).view(torch.uint8).numpy().data
