"""The AVX-512 kernels on a machine without AVX-512: their code in other instructions, and their own ones emulated."""

import platform
import re
import shutil

import kernel_tables
import pytest
from stand_ins import CANNOT_RUN, run_tests

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="AVX-512 is of x86-64"),
    pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler here"),
]
FILES = ("tests/kernels/test_accuracy.py", "tests/kernels/test_semantics.py", "tests/csrc/test_cpu_ops.py")
# Emulated arithmetic takes some hundred times as long: large inputs and repeated calls are left out.
MANY = "threads or gradcheck or any_shape or twin_stream_where"
LARGE = "240 or 1601 or 1000 or 2500 or 900 or 905 or 530"
# What has nothing to do with bf16 runs the same kernels on both.
EVERY = "avx512 and (bfloat16 or not avx512bf16)"
AFFORDABLE = f"{EVERY} and not ({MANY} or {LARGE} or (70 or 225) and (paint or pool))"


def run(name, selection, folder):
    """Runs the tests on a stand-in; how many passed, and what was printed."""
    try:
        kernel_tables.KernelLibrary()
    except kernel_tables.CannotReplaceError as error:
        pytest.skip(str(error))
    done = run_tests(name, [*FILES, "-k", selection], folder, capture_output=True, text=True)
    if done.returncode == CANNOT_RUN:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    summary = done.stdout.splitlines()[-1]
    assert "skipped" not in summary, done.stdout[-3000:]
    return int(re.search(r"(\d+) passed", summary).group(1)), done.stdout


def test_the_code_for_16_lanes_passes_the_tests_of_the_operators(tmp_path):
    passed, _ = run("wide", EVERY, tmp_path)
    assert passed > 300


def test_the_instructions_of_avx512_pass_the_tests_of_the_operators_on_an_emulated_processor(tmp_path):
    passed, output = run("bochs", AFFORDABLE, tmp_path)
    assert passed > 180
    assert int(re.search(r"kernels run on the emulated processor: (\d+)", output).group(1)) > 1000
