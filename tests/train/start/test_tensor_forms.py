"""Tensors of a user's own model that lie in memory in odd ways: refused in one line before the first step."""

import pytest
import torch
from torch import nn

from fastvae.errors import InputError
from fastvae.train.start.tensor_forms import check_forms


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (torch.Tensor.to_sparse, "mask is sparse_coo, but"),
        (torch.Tensor.to_sparse_csr, "mask is sparse_csr, but"),
        (lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8), "mask is quantized, but"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # torch warns of both kinds
def test_a_buffer_that_no_checkpoint_holds_is_refused(form, words):
    with pytest.raises(InputError, match=words):
        check_forms({}, {"mask": form(torch.eye(3))})


@pytest.mark.parametrize("tensor", [torch.ones(3, 9)[:, :4], torch.ones(1).expand(5), torch.ones(4, 2)[:, 0]])
def test_a_parameter_with_gaps_or_elements_that_are_one_is_refused(tensor):
    with pytest.raises(InputError, match=r"weight of shape .* has strides .*contiguous"):
        check_forms({"weight": nn.Parameter(tensor)}, {})


def test_parameters_that_share_memory_are_refused():
    first, second = nn.Linear(3, 4), nn.Linear(4, 3)
    second.weight.data = first.weight.data.t()
    with pytest.raises(InputError, match="are two parameters that share memory"):
        check_forms({"first": first.weight, "second": second.weight}, {})


def test_other_forms_are_taken():
    flat = torch.zeros(24)
    parameters = {
        "transposed": torch.ones(3, 4).t(), "scalar": torch.ones(()), "empty": torch.ones(0, 3),
        "channels_last": torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last), "one": torch.ones(1, 9)[:, :5],
        "left": flat[:12].view(3, 4), "right": flat[12:].view(3, 4),
    }  # fmt: skip
    buffers = {"conjugate": torch.ones(3, dtype=torch.complex64).conj(), "expanded": torch.ones(1).expand(3)}
    check_forms(parameters, buffers)
