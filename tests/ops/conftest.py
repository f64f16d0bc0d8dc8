"""The choice of the operators' tests that run in Triton's interpreter, and of the quick ones."""

import pytest
import torch

# One pixel loss and one latent operator: they run every shared part of the kernels in each quick suite.
QUICK = ("test_bernoulli_nll.py", "test_reparameterize_kl.py")
# With the reference, which is plain torch, these would test torch itself, for minutes.
OF_PLAIN_TORCH = (
    "test_export",
    "test_the_second_batch_size_compiles_one_graph_for_all_others",
    "test_one_graph_serves_every_batch_size",
)
# The tests of the contract that depend on an operator's own kernel. The rest test the Python code that all share.
OF_THE_KERNEL = (
    "test_accuracy",
    "test_a_large_ragged_input_is_accurate",
    "test_grad_output_and_weight_scale_the_gradients",
    "test_strides_do_not_matter",
    "test_a_weight_on_the_device_gives_the_same_gradients",
    "test_an_empty_batch_sums_to_zero_and_has_no_mean",
    "test_the_same_call_gives_the_same_bits",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests of the reference against itself as slow, and without a GPU those of the interpreter (seconds each).

    Two operators are exempt. They alone run the tests that depend on no kernel, which are slow as well.
    """
    interpreted = not torch.cuda.is_available()
    kept = []
    left_out = []
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        backend = parameters.get("backend")
        if backend != "reference" and not (backend == "triton" and interpreted):
            kept.append(item)
            continue
        name = item.function.__name__
        quick = item.path.name in QUICK
        in_contract = item.function.__module__.endswith((".contract", ".loss_contract"))
        shared = in_contract and name not in OF_THE_KERNEL
        if shared or not quick:
            item.add_marker(pytest.mark.slow)
        needless = (shared and not quick) or (backend == "reference" and name in OF_PLAIN_TORCH)
        (left_out if needless else kept).append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = kept
