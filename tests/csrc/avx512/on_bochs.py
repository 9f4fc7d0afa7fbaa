"""pytest plugin: the AVX-512 kernels of `_C.so` run on an emulated processor.

RRSIS_BOCHS names the library that `bochs.build_compatibility` made.
"""

import ctypes
import os
import sys
from pathlib import Path

import bochs
import kernel_tables
import pytest
from stand_ins import CANNOT_RUN

# Every kernel takes at most six integers and pointers, and returns nothing, an integer, or a structure by a pointer
# that comes as the first argument and goes back as the result.
KERNEL = ctypes.CFUNCTYPE(ctypes.c_size_t, *[ctypes.c_size_t] * 6)
_state = {}


def emulated(processor: bochs.Processor, function: int):
    """A function that runs another one on the emulated processor. What goes wrong there ends the process."""

    def run(*arguments: int) -> int:
        try:
            return processor.call(function, *arguments)
        except BaseException as error:
            print(f"emulated kernel: {error}", file=sys.stderr, flush=True)
            os._exit(70)  # an exception would be swallowed here and leave the operator without a result

    return KERNEL(run)


def pytest_configure(config):
    """Before any test is collected: conditions of skipped tests are evaluated then."""
    try:
        processor = bochs.Processor(bochs.load(Path(os.environ["RRSIS_BOCHS"])))
    except bochs.CannotEmulateError as error:
        pytest.exit(str(error), CANNOT_RUN)
    kernels = kernel_tables.KernelLibrary()
    functions = {}
    for level in kernel_tables.LEVELS:
        functions[level] = [emulated(processor, kernel) for kernel in kernels.table(level)]
        kernels.replace(level, [ctypes.cast(function, ctypes.c_void_p).value for function in functions[level]])
    kernels.claim_every_instruction_set()
    _state.update(processor=processor, functions=functions)


def pytest_sessionfinish(exitstatus):
    """Keeps the status for `pytest_unconfigure`."""
    _state["status"] = int(exitstatus)


def pytest_unconfigure():
    """Ends the process here: bochscpu crashes when the interpreter tears it down."""
    if "status" in _state:
        sys.stdout.flush()
        os._exit(_state["status"])


def pytest_terminal_summary(terminalreporter):
    """Says that it was so."""
    terminalreporter.write_line(f"kernels run on the emulated processor: {_state['processor'].calls}")
