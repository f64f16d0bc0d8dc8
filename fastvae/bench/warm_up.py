"""A fair start for the baselines: the constants of torch's vector functions are in memory."""

import torch

_FUNCTIONS = (torch.exp, torch.expm1, torch.log, torch.log1p, torch.sigmoid, torch.tanh, torch.sin, torch.cos)


def page_in_constants() -> None:
    """Call torch's elementary functions once on their special cases, so that no later call pays for a page never read.

    With AVX-512 these functions (SLEEF's) load the constants of rare cases under a mask that is all but always empty.
    If such a constant lies on a page of torch's library that this process has not touched, the processor suppresses a
    page fault each time, slowly: log1p takes ten times as long, eager or compiled, and so does a binary cross-entropy
    on logits. Whether it does depends on what the page cache holds. Reading the constants once settles it.
    """
    special = torch.tensor([0.0, -0.0, 0.5, -0.5, -1.0, -2.0, 1e2, -1e2, 1e38, 1e-40, torch.inf, -torch.inf, torch.nan])
    for dtype in (torch.float32, torch.float64):
        values = special.to(dtype).repeat(64)
        for function in _FUNCTIONS:
            function(values)
