"""Runs tests again in a process of their own, whose environment makes kernels for GPUs run on the CPU."""

import os
import re
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent


def run_pytest(arguments, **variables):
    """pytest from tests/ in another process, with environment variables added."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *arguments]
    environment = {**os.environ, **variables}
    return subprocess.run(command, cwd=TESTS, env=environment, capture_output=True, text=True, timeout=1800)


def assert_passes(arguments, **variables):
    """Asserts that some of the tests ran there and none failed."""
    done = run_pytest(arguments, **variables)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    assert re.search(r"\d+ passed", done.stdout), f"nothing ran:\n{done.stdout[-4000:]}"
    print(done.stdout.splitlines()[-1])
