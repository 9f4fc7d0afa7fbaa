"""The ordinary tests of the operators, run on the Triton kernels in Triton's interpreter: in processes of their own.

Triton decides when a kernel is defined whether it will be interpreted, so TRITON_INTERPRET=1 cannot be set in here.
"""

import pytest
from other_process import assert_passes

from rrsis_kernels import triton

SUITES = {
    "accuracy": ["kernels/test_accuracy.py", "-k", "triton"],
    "semantics and checks": ["kernels/test_semantics.py", "kernels/test_checks.py", "-k", "triton"],
    "library and compile": ["kernels/test_library.py", "kernels/test_compile.py", "-k", "triton"],
    "only interpreted": ["triton/interpreted"],
}


@pytest.mark.slow
@pytest.mark.skipif(not triton.INSTALLED, reason="triton is not installed")
@pytest.mark.parametrize("suite", SUITES)
def test_interpreted(suite):
    assert_passes(SUITES[suite], TRITON_INTERPRET="1")
