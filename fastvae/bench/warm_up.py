"""A warm-up that is fair to the baselines: it loads the constants of torch's vector functions into memory."""

import torch

_FUNCTIONS = (torch.exp, torch.expm1, torch.log, torch.log1p, torch.sigmoid, torch.tanh, torch.sin, torch.cos)


def page_in_constants() -> None:
    """Call torch's elementary functions once on their special cases, so that all pages with constants are mapped.

    With AVX-512 these functions (from SLEEF) load the constants of rare cases under a mask that is almost always empty.
    If such a constant lies on a page of torch's library that this process has not touched, the processor suppresses a
    page fault at every call, which is slow: log1p takes ten times as long, eager or compiled, and so does a binary
    cross-entropy on logits. It depends on the state of the page cache. Reading the constants once avoids it.
    """
    special = torch.tensor([0.0, -0.0, 0.5, -0.5, -1.0, -2.0, 1e2, -1e2, 1e38, 1e-40, torch.inf, -torch.inf, torch.nan])
    for dtype in (torch.float32, torch.float64):
        values = special.to(dtype).repeat(64)
        for function in _FUNCTIONS:
            function(values)
