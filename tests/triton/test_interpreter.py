"""The ordinary tests of the operators, run on the Triton kernels in Triton's interpreter: a process of its own each.

Triton decides when a kernel is defined whether it will be interpreted, so TRITON_INTERPRET=1 cannot be set in here.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rrsis_kernels import triton

TESTS = Path(__file__).parent.parent
SUITES = {
    "accuracy": ["kernels/test_accuracy.py", "-k", "triton"],
    "semantics": ["kernels/test_semantics.py", "-k", "triton"],
    "checks": ["kernels/test_checks.py", "-k", "triton"],
    "library": ["kernels/test_library.py", "-k", "triton"],
    "compile": ["kernels/test_compile.py", "-k", "triton"],
    "only interpreted": ["triton/interpreted"],
}


def run_pytest(arguments, **variables):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *arguments]
    environment = {**os.environ, "TRITON_INTERPRET": "1", **variables}
    return subprocess.run(command, cwd=TESTS, env=environment, capture_output=True, text=True, timeout=900)


@pytest.mark.slow
@pytest.mark.skipif(not triton.INSTALLED, reason="triton is not installed")
@pytest.mark.parametrize("suite", SUITES)
def test_interpreted(suite):
    done = run_pytest(SUITES[suite])
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed, f"nothing ran:\n{done.stdout[-4000:]}"
    print(done.stdout.splitlines()[-1])
