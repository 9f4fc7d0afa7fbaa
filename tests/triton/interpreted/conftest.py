"""Tests that only the interpreter can run; `tests/triton/test_interpreter.py` runs them."""

import sys
from pathlib import Path

import pytest

from rrsis_kernels import triton

sys.path.insert(0, str(Path(__file__).parents[2] / "kernels"))  # kernel_cases
collect_ignore_glob = [] if triton.INSTALLED else ["test_*"]


def pytest_collection_modifyitems(items):
    if not triton.INTERPRETED:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="interpreted: tests/triton/test_interpreter.py runs it"))


@pytest.fixture
def launched(monkeypatch):
    """Names of the Triton functions that ran."""
    names = []

    def noting(name, call):
        def noted(*args):
            names.append(name)
            return call(*args)

        return noted

    for op in triton.KERNELS:
        for function in ("forward", "backward"):
            call = getattr(triton.module(op), function)
            monkeypatch.setattr(triton.module(op), function, noting(f"{op}.{function}", call))
    return names
