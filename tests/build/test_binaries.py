"""The files that were built into this installation keep to what the design promises of them."""

import re
import shutil
import subprocess

import pytest

from rrsis_kernels import info, library

# What a torch of any version exports in C: its stable ABI.
STABLE_ABI = re.compile(r"(aoti_torch|torch)_\w+")
# Symbols of the C and C++ run-time libraries carry a version; these weak ones are the tool chain's own.
TOOL_CHAIN = re.compile(r"_ITM_\w+|__gmon_start__|__cxa_finalize|_dl_find_object|__tls_get_addr")


def built(name):
    status = library.extension_status()[name]
    if status.path is None:
        pytest.skip(f"{name} is not here: {info.native_files()[name]}")
    return status.path


def output(*command):
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} (binutils) is not installed")
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def undefined_symbols(path):
    return [line.split()[-1] for line in output("nm", "-D", "--undefined-only", path).splitlines()]


def needed_libraries(path):
    return re.findall(r"\(NEEDED\).*\[(.+)\]", output("readelf", "-d", path))


def test_cpu_library_uses_the_stable_abi_alone():
    for symbol in undefined_symbols(built("_C")):
        if "@" in symbol:  # GLIBC_2.34, GLIBCXX_3.4, CXXABI_1.3, GCC_3.0
            assert re.search(r"@(GLIBC|GLIBCXX|CXXABI|GCC)_", symbol), symbol
        else:
            assert STABLE_ABI.fullmatch(symbol) or TOOL_CHAIN.fullmatch(symbol), symbol


def test_cpu_library_links_neither_cuda_nor_python():
    assert "libtorch_cpu.so" in needed_libraries(built("_C"))
    for name in needed_libraries(built("_C")):
        assert re.match(r"(libtorch_cpu|libstdc\+\+|libgcc_s|libm|libc|ld-linux.*)\.so", name), name


def test_cuda_library_uses_the_stable_abi_and_the_cuda_runtime_alone():
    for symbol in undefined_symbols(built("_C_cuda")):
        if "@" in symbol:
            assert re.search(r"@(GLIBC|GLIBCXX|CXXABI|GCC)_|@libcudart\.so", symbol), symbol
        else:
            assert re.match(r"_*cuda", symbol) or STABLE_ABI.fullmatch(symbol) or TOOL_CHAIN.fullmatch(symbol), symbol
    assert not [name for name in needed_libraries(built("_C_cuda")) if "python" in name]


def test_build_info_agrees_with_the_build_status():
    facts = info.build_info()
    if not facts:
        pytest.skip("_build_info is not here: this tree was never built, or without a C++ compiler")
    files = info.build_status()["files"]
    assert facts["cuda_built"] == files["_C_cuda"]["built"]
    assert (facts["cuda_reason"] or "") == files["_C_cuda"]["reason"]
    assert facts["torch_target_version"] == "0x020b000000000000"
    assert facts["cxx_standard"] >= 202002
    assert "baseline" in facts["cpu_capabilities"]
    assert "-march=native" not in facts["cxx_flags"]
