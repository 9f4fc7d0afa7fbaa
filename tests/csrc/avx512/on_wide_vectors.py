"""pytest plugin: the capability "avx512" runs the library named by RRSIS_WIDE_VECTORS (see isa_wide.cpp)."""

import ctypes
import os

import kernel_tables


def wide_kernels(kernels: kernel_tables.KernelLibrary) -> list[int]:
    """The kernels of the wide library, which stays loaded with the process."""
    wide = ctypes.CDLL(os.environ["RRSIS_WIDE_VECTORS"])
    wide.wide_table.restype, wide.wide_slots.restype = ctypes.c_void_p, ctypes.c_size_t
    return list((ctypes.c_size_t * wide.wide_slots()).from_address(wide.wide_table()))


def pytest_configure(config):
    """Before any test is collected: conditions of skipped tests are evaluated then."""
    kernel_tables.stand_in("avx512", wide_kernels)
