"""Tests that must not run side by side, or that share what took long to make, are on one worker."""

import pytest


@pytest.mark.xdist_group("spellings")
def test_xdist_knows_groups(request):
    if not request.config.getoption("loadgroup", default=False):
        pytest.skip("not one of several workers of `make test`")
    assert request.node.nodeid.endswith("@spellings")
