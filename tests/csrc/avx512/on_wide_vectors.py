"""pytest plugin: AVX-512's kernels are those of the library that RRSIS_WIDE_VECTORS names (see isa_wide.cpp)."""

import ctypes
import os

import kernel_tables


def pytest_configure(config):
    """Before any test is collected: conditions of skipped tests are evaluated then."""
    wide = ctypes.CDLL(os.environ["RRSIS_WIDE_VECTORS"])
    kernels = kernel_tables.KernelLibrary()
    for level in kernel_tables.LEVELS:
        table = wide[f"{level}_table"]
        table.restype = ctypes.c_void_p
        slots = len(kernels.table(level))
        kernels.replace(level, (ctypes.c_size_t * slots).from_address(table())[:])
    kernels.claim_every_instruction_set()
