"""The ordinary tests of the operators, run on the CUDA kernels in the emulation, and those in `emulated/`.

What passes here has been compiled for the host and emulated; it has not run on a GPU.
"""

import pytest
from emulated_library import build
from other_process import assert_passes
from rrsis_build.toolchain import CannotBuildError

from rrsis_kernels import library

# One process for all: starting it takes longer than most of these.
OPERATORS = [f"kernels/test_{name}.py" for name in ("accuracy", "semantics", "checks", "library", "compile")]
TESTS = [*OPERATORS, "cuda_emulation/emulated", "-k", "cuda"]
SCHEDULES = (0, 1)
"""In turn, and shuffled: see emulation.h."""


@pytest.fixture(scope="module")
def emulated():
    if not library.extension_status()["_C"].loaded:
        pytest.skip(library.extension_status()["_C"].reason)
    try:
        return str(build())
    except CannotBuildError as error:
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_emulated(emulated, schedule):
    variables = {library.EMULATION_VARIABLE: emulated, "RRSIS_CUDA_EMULATION_SCHEDULE": str(schedule)}
    assert_passes(TESTS, **variables)
