"""What ptxas made of the CUDA kernels, as the built `_C_cuda.so` itself reports it."""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from rrsis_build import toolchain

from rrsis_kernels import info, library


def cuobjdump():
    """The program that reads CUDA binaries, of a toolkit or of Triton."""
    places = [home / "bin" / "cuobjdump" for home in toolchain.cuda_homes()]
    if triton := importlib.util.find_spec("triton"):
        places.append(Path(triton.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump")
    found = [str(place) for place in places if place.is_file()] or [shutil.which("cuobjdump")]
    return found[0] or pytest.skip("cuobjdump not found: neither a CUDA toolkit nor Triton has one here")


def resources(path):
    """Registers, stack and local memory of each kernel, by (architecture, kernel)."""
    command = [cuobjdump(), "--dump-resource-usage", path]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = {}
    for section in re.split(r"^Fatbin ", report, flags=re.MULTILINE):
        architecture = re.search(r"^arch = sm_(\w+)$", section, re.MULTILINE)
        for kernel, figures in re.findall(r"Function (\S+):\n\s*(\S.*)", section):
            used[architecture[1], kernel] = {name: int(n) for name, n in re.findall(r"(\w+):(\d+)", figures)}
    return used


@pytest.fixture(scope="module")
def built():
    status = library.extension_status()["_C_cuda"]
    if status.path is None:
        pytest.skip(f"_C_cuda is not here: {info.native_files()['_C_cuda']}")
    return status.path


def test_no_kernel_spills_on_any_architecture(built):
    """ptxas puts what it spills on the stack, and nothing else may be there either: these kernels need no stack."""
    used = resources(built)
    assert used, "no kernels found"
    on_the_stack = {name: figures for name, figures in used.items() if figures["STACK"] or figures["LOCAL"]}
    assert not on_the_stack


def test_every_kernel_is_there_for_every_architecture(built):
    asked = info.build_info()["cuda_architectures"]
    architectures = {entry.removesuffix("+PTX").replace(".", "") for entry in re.split(r"[;,\s]+", asked)}
    used = resources(built)
    assert {architecture for architecture, _ in used} == architectures
    for architecture in architectures:
        assert {kernel for a, kernel in used if a == architecture} == {kernel for _, kernel in used}


def test_portable_code_is_there_where_it_was_asked_for(built):
    if "+PTX" not in info.build_info()["cuda_architectures"]:
        pytest.skip("built without PTX")
    listed = subprocess.run([cuobjdump(), "--list-ptx", built], capture_output=True, text=True, check=True).stdout
    assert len(listed.splitlines()) == len(list((Path(__file__).parents[2] / "csrc" / "cuda").glob("*.cu")))
