"""The one table of floating-point types by the names that ``--precision`` gives them."""

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}


def autocast_dtype(precision: str) -> torch.dtype | None:
    """Return the type that autocast computes matrix products in, or None for a precision that needs no autocast.

    >>> autocast_dtype("bf16"), autocast_dtype("fp64")
    (torch.bfloat16, None)
    """
    dtype = DTYPES[precision]
    return dtype if dtype.itemsize == 2 else None
