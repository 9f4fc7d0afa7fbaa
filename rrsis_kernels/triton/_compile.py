"""Compiles kernels ahead of time, without a GPU, and reads from the machine code what they need.

Not in a process that interprets kernels: there `triton.jit` gives what cannot be compiled.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from rrsis_kernels import backends
from rrsis_kernels import triton as kernels
from rrsis_kernels.triton import _config
from rrsis_kernels.triton._aot import AotSpec

SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
"""Bytes of shared memory that a program may have."""
DIVISIBLE = [["tt.divisibility", 16]]


class Resources(NamedTuple):
    """What a compiled kernel needs.

    Attributes:
        registers: per thread.
        shared: bytes of shared memory per program.
        spills: bytes per thread of stack and local memory, where registers go that do not fit.
        wgmma: whether it has Hopper's matrix instructions.
    """

    registers: int
    shared: int
    spills: int
    wgmma: bool


def specs(arch: int) -> list[AotSpec]:
    """Every kernel at every shipped configuration, of the operators that have kernels."""
    return [spec for op in backends.OPS if op in kernels.KERNELS for spec in kernels.module(op).aot_specs(arch)]


def compile_spec(spec: AotSpec, arch: int) -> triton.compiler.CompiledKernel:
    """The kernel of a spec for one architecture (90 for sm_90)."""
    positions = {name: position for position, name in enumerate(spec.kernel.arg_names)}
    types = {name: str(kind).removesuffix(":16") for name, kind in spec.signature.items()}
    types |= dict.fromkeys(spec.constexprs, "constexpr")
    divisible = [name for name, kind in spec.signature.items() if kind.startswith("*") or kind.endswith(":16")]
    source = ASTSource(
        spec.kernel,
        {name: types[name] for name in spec.kernel.arg_names},
        constexprs={(positions[name],): value for name, value in spec.constexprs.items()},
        attrs={(positions[name],): DIVISIBLE for name in divisible},
    )
    options = {
        "num_warps": spec.num_warps,
        "num_stages": spec.num_stages,
        "enable_fp_fusion": spec.enable_fp_fusion,
    }
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)


def resources(compiled: triton.compiler.CompiledKernel) -> Resources:
    """What the machine code needs, as NVIDIA's own tool reads it."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [str(_cuobjdump()), "--dump-resource-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    needs = {name: int(number) for name, number in re.findall(r"\b(REG|STACK|LOCAL|SHARED):(\d+)", text)}
    spills = needs["STACK"] + needs["LOCAL"]
    return Resources(needs["REG"], compiled.metadata.shared, spills, "wgmma.mma_async" in compiled.asm["ptx"])


def _cuobjdump() -> Path:
    """The tool that Triton brings along."""
    return Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


def faults(spec: AotSpec, arch: int, needs: Resources) -> list[str]:
    """What is wrong with a compiled kernel."""
    found = []
    name = getattr(spec.kernel, "__name__", "")
    if needs.spills > _config.MEASURED_SPILLS.get(arch, {}).get(name, 0):
        found.append(f"{needs.spills} bytes of registers spilled per thread")
    if needs.shared > SHARED_LIMIT[arch]:
        found.append(f"{needs.shared} bytes of shared memory, {SHARED_LIMIT[arch]} at the most")
    if arch == 90 and spec.expects_wgmma and not needs.wgmma:
        found.append("no wgmma")
    return [f"sm_{arch} {spec.name}: {fault}" for fault in found]
