"""Groups of tests run on one worker: they must not run at once, or share a fixture that takes long to make."""

import pytest


@pytest.mark.xdist_group("spellings")
def test_xdist_knows_groups(request):
    if not request.config.getoption("loadgroup", default=False):
        pytest.skip("not one of several workers of `make test`")
    assert request.node.nodeid.endswith("@spellings")
