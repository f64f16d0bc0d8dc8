"""Files of tensors, read again by the safetensors library."""

import pytest
import torch
from safetensors import safe_open

from fastvae.train.checkpoint.safetensors_writer import write_tensors

TYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool, torch.uint16, torch.uint32, torch.uint64,
)  # fmt: skip


def tensors(rows):
    torch.manual_seed(0)
    return {f"{i}.{dtype}": (torch.randn(rows, i + 1) * 9).abs().to(dtype) for i, dtype in enumerate(TYPES)}


@pytest.mark.parametrize("before", [None, 5, 1, 3])  # a file that is not there, longer, shorter, as long
def test_the_library_reads_what_was_written(tmp_path, before):
    path = tmp_path / "file.safetensors"
    if before is not None:
        write_tensors(path, tensors(before), {"long": "x" * 1000}, over=False)
        inode = path.stat().st_ino
    written = {**tensors(3), "none": torch.empty(0, 4), "scalar": torch.tensor(2.5, dtype=torch.float64)}
    write_tensors(path, written, {"a": "ü", "b": ""}, over=before is not None)
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"a": "ü", "b": ""}
        assert set(file.keys()) == set(written)
        for name, tensor in written.items():
            assert torch.equal(file.get_tensor(name), tensor)
            assert file.get_tensor(name).dtype == tensor.dtype
    if before is not None:
        assert path.stat().st_ino == inode


def test_no_other_type_is_written(tmp_path):
    with pytest.raises(KeyError):
        write_tensors(tmp_path / "file", {"z": torch.zeros(2, dtype=torch.complex64)}, {}, over=False)
