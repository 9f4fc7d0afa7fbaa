"""What the compiler made of the AVX-512 kernels in `_C.so`."""

import platform

import machine_code
import pytest

from rrsis_kernels import library

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="AVX-512 is of x86-64")


@pytest.fixture(scope="module")
def loops():
    """The inner loops, of the register-blocked products (gemm.h), that work on the registers of AVX-512."""
    status = library.extension_status()["_C"]
    if not status.loaded:
        pytest.skip(f"no C++ kernels: {status.reason}")
    functions = machine_code.functions(status.path)
    if functions is None:
        pytest.skip("objdump (binutils) is not installed")
    products = [function for function in functions if "5panelI" in function.name]
    if not products:
        pytest.skip("_C.so has no symbols of its functions: it was stripped")
    return [loop for function in products for loop in function.inner_loops() if any(steps(loop).values())]


def steps(loop):
    """The instructions that multiply and add, by their kind."""
    names = [instruction.name for instruction in loop if "%zmm" in instruction.operands]
    return {"fused": sum(name.startswith("vfmadd") for name in names), "pairs": names.count("vdpbf16ps")}


def test_blocks_of_six_rows_and_four_vectors_are_one_loop_of_24_steps(loops):
    """In each of float, double and pairs of bf16, with rows along k and along m."""
    assert [steps(loop) for loop in loops].count({"fused": 24, "pairs": 0}) == 4
    assert [steps(loop) for loop in loops].count({"fused": 0, "pairs": 24}) >= 2


def test_accumulators_stay_in_registers(loops):
    assert len(loops) >= 90
    for loop in loops:
        spilled = [instruction for instruction in loop if instruction.stores_vector or instruction.reads_stack]
        assert not spilled, f"a loop of {steps(loop)} at {loop[0].place:#x}: {spilled}"
