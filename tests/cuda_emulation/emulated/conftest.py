"""Tests that only the emulation can run; `tests/cuda_emulation/test_emulated_ops.py` runs them."""

import os
import sys
from pathlib import Path

import pytest

from rrsis_kernels import library

sys.path.insert(0, str(Path(__file__).parents[2] / "kernels"))  # kernel_cases


def pytest_collection_modifyitems(items):
    if library.EMULATION_VARIABLE not in os.environ:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="emulated: tests/cuda_emulation/test_emulated_ops.py runs it"))


@pytest.fixture(scope="session", autouse=True)
def _schedule():
    import kernel_cases

    kernel_cases.use_environment_schedule()
