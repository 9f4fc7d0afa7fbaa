"""What is compiled and how: the sources, flags and libraries of each of the three native files.

``_C.so`` and ``_C_cuda.so`` hold operators and are plain shared libraries without Python symbols, so that a C++ program
can load them too. ``_build_info`` is a Python extension module that tells how the other two were built.
"""

from __future__ import annotations

import os
import platform
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from .ninja_file import Step
from .toolchain import (
    CannotBuildError,
    CudaCompiler,
    CxxCompiler,
    cuda_architecture_flags,
    default_cuda_architectures,
)
from .torch_finder import TorchInstall

# The oldest torch whose stable ABI the binaries keep to: one build serves every torch from there on.
TORCH_TARGET_VERSION = "0x020b000000000000"

# No -ffast-math: masks rely on infinities. Contraction to fused multiply-add is allowed, as GCC does by default.
CXX_FLAGS = (
    "-std=c++20",
    "-O3",
    "-DNDEBUG",
    "-fPIC",
    "-fvisibility=hidden",
    "-fvisibility-inlines-hidden",
    "-fno-math-errno",
    "-ffp-contract=fast",
    "-Wall",
    "-Wno-maybe-uninitialized",  # GCC 12 takes every destructor of an optional<shared_ptr> for one
    f"-DTORCH_TARGET_VERSION={TORCH_TARGET_VERSION}",
)
LINK_FLAGS = ("-shared", "-Wl,--as-needed", "-Wl,--no-undefined")

# Sources named csrc/cpu/isa_<name>.cpp are compiled with these flags; every other one for the platform's baseline.
# The order matters: an inline function compiled in several files ends up in the library once, from the first file that
# has it, so files for plainer instruction sets are linked first and a baseline machine never meets an AVX-512 copy.
_AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma", "-mf16c")
X86_64_ISA_FLAGS = {
    "baseline": (),
    "avx2": ("-mavx2", "-mfma", "-mf16c"),
    "avx512": _AVX512,
    "avx512bf16": (*_AVX512, "-mavx512bf16"),
}


def isa_flags(machine: str | None = None) -> dict[str, tuple[str, ...]]:
    """Instruction sets compiled for this kind of processor, the plainest first, with their flags."""
    machine = platform.machine() if machine is None else machine
    if machine.lower() in ("x86_64", "amd64"):
        return dict(X86_64_ISA_FLAGS)
    return {"baseline": ()}


@dataclass(frozen=True)
class Places:
    """Folders of one build.

    Attributes:
        root: the project.
        work: where objects, generated headers and finished libraries are kept between builds.
    """

    root: Path
    work: Path

    @property
    def csrc(self) -> Path:
        """Folder of the C++ sources."""
        return self.root / "csrc"

    @property
    def generated(self) -> Path:
        """Folder of the generated headers."""
        return self.work / "generated"

    @property
    def common_sources(self) -> list[Path]:
        """What is compiled into each library of operators."""
        return sorted(self.csrc.glob("common/*.cpp"))


def cpu_sources(places: Places) -> list[tuple[Path, tuple[str, ...]]]:
    """The sources of ``_C.so`` in link order, each with the flags of its instruction set.

    Raises:
        CannotBuildError: there are no sources.
    """
    flags = isa_flags()
    plain, by_isa = [], {}
    for source in sorted(places.csrc.glob("cpu/*.cpp")):
        if source.stem.startswith("isa_"):
            by_isa[source.stem.removeprefix("isa_")] = source
        else:
            plain.append(source)
    if unknown := set(by_isa) - set(X86_64_ISA_FLAGS):
        raise CannotBuildError(f"no compiler flags are known for csrc/cpu/isa_{min(unknown)}.cpp")
    operators = places.csrc / "ops.cpp"
    if not operators.exists():
        raise CannotBuildError("csrc/ops.cpp is missing")
    sources = [(source, ()) for source in [operators, *places.common_sources, *plain]]
    sources += [(by_isa[isa], isa_options) for isa, isa_options in flags.items() if isa in by_isa]
    return sources


def operator_flags(places: Places, torch: TorchInstall) -> list[str]:
    """What the host compiler is given for sources that use torch's stable ABI."""
    return [*CXX_FLAGS, f"-I{places.csrc}", f"-I{places.generated}", f"-isystem{torch.include_dir}"]


def cpu_steps(places: Places, torch: TorchInstall, cxx: CxxCompiler) -> list[Step]:
    """How ``_C.so`` is made."""
    base = [*cxx.command, *operator_flags(places, torch)]
    steps = []
    for source, isa_options in cpu_sources(places):
        output = places.work / "cpu" / f"{source.stem}.o"
        steps.append(Step("compile", output, [source], [*base, *isa_options]))
    objects = [step.output for step in steps]
    libraries = [f"-L{torch.library_dir}", "-ltorch_cpu"]
    steps.append(Step("link", places.work / "_C.so", objects, [*cxx.command, *LINK_FLAGS], libraries))
    return steps


def cuda_architectures(nvcc: CudaCompiler) -> str:
    """The compute capabilities compiled for, in the form of ``TORCH_CUDA_ARCH_LIST``."""
    return os.environ.get("TORCH_CUDA_ARCH_LIST") or default_cuda_architectures(nvcc)


def _host_compiler(cxx: CxxCompiler) -> str:
    """The compiler itself, without a compiler cache in front of it."""
    return next((word for word in cxx.command if Path(word).name not in ("ccache", "sccache")), cxx.command[0])


def _kernel_steps(places: Places, cxx: CxxCompiler, nvcc: CudaCompiler) -> list[Step]:
    """How nvcc compiles the kernels, which hold no torch.

    Raises:
        CannotBuildError: there are no CUDA sources, or ``TORCH_CUDA_ARCH_LIST`` cannot be read.
    """
    sources = sorted(places.csrc.glob("cuda/*.cu"))
    if not sources:
        raise CannotBuildError("csrc/cuda holds no CUDA sources")
    command = [
        str(nvcc.nvcc),
        f"-ccbin={_host_compiler(cxx)}",
        *("-std=c++20", "-O3", "-DNDEBUG", "--expt-relaxed-constexpr"),
        "-Xcompiler=-fPIC,-fvisibility=hidden,-fvisibility-inlines-hidden,-Wall",
        "-Xptxas=-warn-spills",  # tests/build/test_cuda_kernels.py asserts that there are none
        *cuda_architecture_flags(cuda_architectures(nvcc)),
        f"-I{places.csrc}",
    ]
    return [Step("compile", places.work / "cuda" / f"{source.stem}.cu.o", [source], command) for source in sources]


def cuda_steps(places: Places, torch: TorchInstall, cxx: CxxCompiler, nvcc: CudaCompiler) -> list[Step]:
    """How ``_C_cuda.so`` is made: kernels by nvcc, the operators around them by the host's compiler.

    Raises:
        CannotBuildError: there are no CUDA sources, or ``TORCH_CUDA_ARCH_LIST`` cannot be read.
    """
    steps = _kernel_steps(places, cxx, nvcc)
    include = [f"-isystem{folder}" for folder in nvcc.include_dirs]
    # USE_CUDA: torch's header declares the functions of CUDA streams only where it is set.
    command = [*cxx.command, *operator_flags(places, torch), "-DUSE_CUDA", *include]
    for source in [*places.common_sources, *sorted(places.csrc.glob("cuda/*.cpp"))]:
        steps.append(Step("compile", places.work / "cuda" / f"{source.stem}.o", [source], command))
    objects = [step.output for step in steps]
    # The CUDA runtime is torch's own (the same library name), already loaded when torch is imported.
    libraries = [
        f"-L{torch.library_dir}",
        *("-ltorch_cpu", "-ltorch_cuda"),
        *(f"-L{folder}" for folder in nvcc.library_dirs),
        "-lcudart",
    ]
    link = [*cxx.command, "-shared", "-Wl,--as-needed"]
    steps.append(Step("link", places.work / "_C_cuda.so", objects, link, libraries))
    return steps


def build_info_file_name() -> str:
    """File name of the ``_build_info`` module for this Python."""
    return "_build_info" + str(sysconfig.get_config_var("EXT_SUFFIX"))


def build_info_steps(places: Places, cxx: CxxCompiler) -> list[Step]:
    """How the ``_build_info`` module is made.

    Raises:
        CannotBuildError: pybind11 or Python's headers are missing.
    """
    try:
        import pybind11
    except ImportError:
        raise CannotBuildError("pybind11 not found (pip install pybind11)") from None
    python_include = Path(sysconfig.get_path("include"))
    if not (python_include / "Python.h").exists():
        raise CannotBuildError(f"Python's headers are not installed ({python_include / 'Python.h'} is missing)")
    command = [
        *cxx.command,
        *("-std=c++20", "-O2", "-DNDEBUG", "-fPIC", "-fvisibility=hidden"),
        f"-I{places.generated}",
        f"-isystem{pybind11.get_include()}",
        f"-isystem{python_include}",
    ]
    compiled = Step("compile", places.work / "build_info.o", [places.csrc / "build_info.cpp"], command)
    output = places.work / build_info_file_name()
    return [compiled, Step("link", output, [compiled.output], [*cxx.command, "-shared"])]


def build_config_header(torch: TorchInstall, cxx: CxxCompiler, nvcc: CudaCompiler | None, cuda_reason: str) -> str:
    """The text of ``build_config.h``: what only the build knows and ``_build_info`` repeats.

    Args:
        torch: the torch compiled against.
        cxx: the C++ compiler.
        nvcc: the CUDA compiler, if it was used.
        cuda_reason: empty if ``_C_cuda.so`` was built, otherwise why not.
    """
    entries = {
        "RRSIS_CXX": cxx.version,
        "RRSIS_CXX_FLAGS": " ".join(CXX_FLAGS),
        "RRSIS_CPU_ISAS": ";".join(f"{isa}:{' '.join(options)}" for isa, options in isa_flags().items()),
        "RRSIS_TORCH_VERSION": torch.version,
        "RRSIS_TORCH_CUDA": torch.cuda or "",
        "RRSIS_TORCH_TARGET_VERSION": TORCH_TARGET_VERSION,
        "RRSIS_CUDA_REASON": cuda_reason,
        "RRSIS_CUDA_COMPILER": f"nvcc {nvcc.version}" if nvcc and not cuda_reason else "",
        "RRSIS_CUDA_ARCHITECTURES": cuda_architectures(nvcc) if nvcc and not cuda_reason else "",
    }
    lines = ["// Generated by the build.", "#pragma once"]
    for name, value in entries.items():
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        lines.append(f'#define {name} "{escaped}"')
    return "\n".join(lines) + "\n"
