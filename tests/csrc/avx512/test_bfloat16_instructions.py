import platform
import shutil
import subprocess
import sys

import bfloat16_instructions
import pytest


@pytest.mark.skipif(platform.machine() != "x86_64", reason="AVX-512 is of x86-64")
@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler here")
def test_the_instructions_on_bf16_do_what_is_written_out_in_their_place(tmp_path):
    libraries = bfloat16_instructions.build([shutil.which("c++")], tmp_path)
    command = [sys.executable, bfloat16_instructions.__file__, *map(str, libraries)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if printed.startswith("cannot emulate"):
        pytest.skip(printed.strip())
    assert printed.strip() == "compared 1062 vectors"
