"""These tests need Triton's interpreter, which is chosen before Triton is imported.

Without a GPU, tests/conftest.py has chosen it for every test. With one, test_interpreter.py starts these by themselves.
"""

import os
from pathlib import Path

import pytest

collect_ignore_glob = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["test_*.py"]
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == HERE and item.path.name == "test_ops.py":
            item.add_marker(pytest.mark.slow)
