"""ldmatrix, mma.m16n8k16 and cp.async against the PTX ISA manual, in the emulation and on a GPU where there is one.

The tables are written out here, apart from emulation.cpp and from the kernels, so that those cannot share a misreading.
"""

import ctypes
import subprocess

import numpy as np
import pytest
import torch
from programs import HERE, KERNELS, PLAIN, linked
from rrsis_build import toolchain

LANES = range(32)


# "Matrix fragments for mma.m16n8k16 with floating point type", with groupID = lane >> 2, threadID_in_group = lane % 4.
def a_place(lane, i):
    group, member = lane >> 2, lane % 4
    row = group if 0 <= i < 2 or 4 <= i < 6 else group + 8
    column = member * 2 + (i & 1) if i < 4 else member * 2 + (i & 1) + 8
    return row, column


def b_place(lane, i):
    group, member = lane >> 2, lane % 4
    row = member * 2 + (i & 1) if i < 2 else member * 2 + (i & 1) + 8
    return row, group


def c_place(lane, i):
    group, member = lane >> 2, lane % 4
    row = group if i < 2 else group + 8
    return row, member * 2 + (i & 1)


def _emulated(tmp_path_factory):
    return linked([HERE / "fragments.cu"], (*PLAIN, "-shared"))


def _on_gpu(tmp_path_factory):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    major, minor = torch.cuda.get_device_capability()
    return _compiled_by_nvcc(tmp_path_factory.mktemp("fragments"), f"-arch=sm_{major}{minor}")


def _compiled_by_nvcc(folder, *options):
    try:
        nvcc = toolchain.find_nvcc()
    except toolchain.CannotBuildError as error:
        pytest.skip(str(error))
    output = folder / "fragments.so"
    command = [str(nvcc.nvcc), "-std=c++17", "-shared", "-Xcompiler", "-fPIC", *options, f"-I{KERNELS}"]
    subprocess.run([*command, str(HERE / "fragments.cu"), "-o", str(output)], check=True)
    return output


@pytest.fixture(
    scope="module", params=[_emulated, pytest.param(_on_gpu, marks=pytest.mark.gpu)], ids=["emulated", "gpu"]
)
def library(request, tmp_path_factory):
    return ctypes.CDLL(str(request.param(tmp_path_factory)))


def call(function, *arguments):
    """With arrays as pointers."""
    error = function(*(x.ctypes.data_as(ctypes.c_void_p) if isinstance(x, np.ndarray) else x for x in arguments))
    assert error == 0, f"CUDA error {error}"


def bits(values, dtype):
    """The 16-bit patterns of numbers."""
    return (
        torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(dtype).view(torch.int16).numpy().view(np.uint16)
    )


def fragments(matrix, place, count, dtype):
    """What each lane holds of a matrix: two elements a register, the first in the lower half."""
    values = np.array([[matrix[place(lane, i)] for i in range(count)] for lane in LANES])
    return bits(values, dtype).view(np.uint32)


def multiply(library, a, b, c, dtype):
    """a·b + c through the instruction, by the tables; `a` and `b` may be registers already."""
    a = a if a.dtype == np.uint32 else fragments(a, a_place, 8, dtype)
    b = b if b.dtype == np.uint32 else fragments(b, b_place, 4, dtype)
    d = np.array([[c[c_place(lane, i)] for i in range(4)] for lane in LANES], np.float32)
    call(library.fragments_multiply, int(dtype == torch.bfloat16), a, b, d)
    result = np.full((16, 8), np.nan, np.float32)
    for lane in LANES:
        for i in range(4):
            result[c_place(lane, i)] = d[lane, i]
    return result


def one(lane, i, count, dtype):
    """Registers of which one element is 1."""
    values = np.zeros((32, count), np.float32)
    values[lane, i] = 1
    return bits(values, dtype).view(np.uint32)


both = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)


@both
def test_a_product_of_fragments_is_the_product(library, dtype):
    random = np.random.default_rng(0)
    a, b, c = (random.integers(-8, 9, size).astype(np.float32) for size in ((16, 16), (16, 8), (16, 8)))
    assert np.array_equal(multiply(library, a, b, c, dtype), a @ b + c)


@both
def test_each_element_of_a_has_its_place(library, dtype):
    """Row and column at once: row k of `b` holds k + 1 alone."""
    b = np.tile(np.arange(1, 17, dtype=np.float32)[:, None], (1, 8))
    for lane in LANES:
        for i in range(8):
            row, column = a_place(lane, i)
            due = np.zeros((16, 8))
            due[row] = column + 1
            assert np.array_equal(multiply(library, one(lane, i, 8, dtype), b, np.zeros((16, 8)), dtype), due), (
                lane,
                i,
            )


@both
def test_each_element_of_b_has_its_place(library, dtype):
    a = np.tile(np.arange(1, 17, dtype=np.float32)[None, :], (16, 1))
    for lane in LANES:
        for i in range(4):
            row, column = b_place(lane, i)
            due = np.zeros((16, 8))
            due[:, column] = row + 1
            assert np.array_equal(multiply(library, a, one(lane, i, 4, dtype), np.zeros((16, 8)), dtype), due), (
                lane,
                i,
            )


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("transposed", [False, True], ids=["plain", "trans"])
def test_ldmatrix(library, count, transposed):
    """Lane i brings row i % 8 of matrix i / 8; lane T gets two elements, from 2·(T % 4) on, of row T / 4 of each."""
    rows = np.arange(256, dtype=np.uint16).reshape(32, 8)
    order = np.random.default_rng(1).permutation(32).astype(np.int32)
    registers = np.zeros((32, count), np.uint32)
    call(library.fragments_load, count, int(transposed), rows, order, registers)
    found = registers.view(np.uint16).reshape(32, count, 2)
    for matrix in range(count):
        elements = rows[order[8 * matrix : 8 * matrix + 8]]
        elements = elements.T if transposed else elements
        due = [[elements[lane // 4, lane % 4 * 2 + i] for i in range(2)] for lane in LANES]
        assert np.array_equal(found[:, matrix], due), f"matrix {matrix}"


@pytest.mark.parametrize("source_bytes", [(16, 16, 16), (16, 4, 0), (8, 12, 16), (0, 16, 4)], ids=str)
def test_cp_async_arrives_in_the_order_of_its_groups(library, request, source_bytes):
    source = np.random.default_rng(2).normal(size=(32, 3, 4)).astype(np.float32)
    seen = np.zeros((4, 32, 3, 4), np.float32)
    call(library.fragments_copy, source, np.array(source_bytes, np.int32), seen)
    due = source.copy()
    for group, count in enumerate(source_bytes):
        due[:, group, count // 4 :] = 0
    for landed in range(4):  # after the last commit, and behind a wait for all but 2, 1 and 0 groups
        assert np.array_equal(seen[landed, :, :landed], due[:, :landed])
        if "emulated" in request.node.name:  # on a device, what has not been waited for may have come all the same
            assert np.isnan(seen[landed, :, landed:]).all()


def test_nvcc_compiles_the_same_file(tmp_path):
    assert _compiled_by_nvcc(tmp_path, "-arch=sm_80").stat().st_size > 0
