"""Which tests of the operators are quick."""

import pytest
import torch

# One loss of pixels, one of latents: with them each part of a kernel that others share is run in every quick suite.
QUICK_INTERPRETED = ("test_bernoulli_nll.py", "test_reparameterize_kl.py")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a GPU, Triton's interpreter takes seconds a test: slow ones, but for two operators."""
    if torch.cuda.is_available():
        return
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        if parameters.get("backend") == "triton" and item.path.name not in QUICK_INTERPRETED:
            item.add_marker(pytest.mark.slow)
