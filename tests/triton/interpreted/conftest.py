"""Tests that only the interpreter can run; `tests/triton/test_interpreter.py` runs them."""

import sys
from pathlib import Path

import pytest

from rrsis_kernels import triton

sys.path.insert(0, str(Path(__file__).parents[2] / "kernels"))  # kernel_cases


def pytest_collection_modifyitems(items):
    if not triton.INTERPRETED:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="interpreted: tests/triton/test_interpreter.py runs it"))
