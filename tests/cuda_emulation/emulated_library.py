"""``python tests/cuda_emulation/emulated_library.py``: builds the emulated library and prints its path.

It is made of the very sources of `_C_cuda`, compiled for the host with emulation.h in front of the kernels. Loaded
through RRSIS_KERNELS_CUDA_EMULATION (rrsis_kernels/library.py), it makes the backend "cuda" run on CPU tensors.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
if str(ROOT / "build_backend") not in sys.path:  # a script has not got pytest's own setting
    sys.path.insert(0, str(ROOT / "build_backend"))

from rrsis_build import native, ninja_file, plan, schemas, toolchain, torch_finder  # noqa: E402 (needs the path above)
from rrsis_build.ninja_file import Step  # noqa: E402
from rrsis_build.toolchain import CannotBuildError  # noqa: E402

WORK = ROOT / "build" / "cuda_emulation"
KERNEL_FLAGS = (
    *("-std=c++20", "-O2", "-g1", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wno-unknown-pragmas"),
    "-ffp-contract=off",  # __fmul_rn and __fadd_rn are never fused
)


def cuda_include() -> Path:
    """Folder of CUDA's headers: of a toolkit, or of a wheel that brings them (nvidia-cuda-runtime with crt, or Triton).

    Raises:
        CannotBuildError: there are none.
    """
    packages = Path(sysconfig.get_path("purelib"))
    folders = [folder for home in toolchain.cuda_homes() for folder in toolchain.header_folders(home)]
    folders += [*sorted(packages.glob("nvidia/*/include")), packages / "triton/backends/nvidia/include"]
    for folder in folders:
        if all((folder / name).exists() for name in ("cuda_bf16.h", "cuda_fp16.h", "crt/host_defines.h")):
            return folder
    raise CannotBuildError(f"CUDA's headers not found (looked in {', '.join(map(str, folders))})")


def kernel_step(source: Path, output: Path, cxx: toolchain.CxxCompiler, options: tuple[str, ...] = ()) -> Step:
    """How a kernel file, or another that uses the emulation, is compiled for the host."""
    include = [f"-I{HERE}", f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'csrc' / 'cuda'}", f"-isystem{cuda_include()}"]
    language = ["-x", "c++", "-include", str(HERE / "emulation.h")]
    return Step("compile", output, [source], [*cxx.command, *KERNEL_FLAGS, *options, *include, *language])


def _operator_steps(places: plan.Places, torch: torch_finder.TorchInstall, cxx: toolchain.CxxCompiler) -> list[Step]:
    """The torch sides, all but what belongs to the device."""
    sources = [*places.common_sources, *sorted(places.csrc.glob("cuda/*.cpp")), HERE / "library.cpp"]
    sources.remove(places.csrc / "cuda" / "device.cpp")
    flags = [*plan.operator_flags(places, torch), "-DRRSIS_CUDA_EMULATION", f"-isystem{cuda_include()}"]
    return [Step("compile", places.work / f"{source.stem}.o", [source], [*cxx.command, *flags]) for source in sources]


def build(work: Path = WORK) -> Path:
    """The emulated library; compiles what changed since it was last built in `work`.

    Raises:
        CannotBuildError: there is no compiler, no ninja, no torch or no CUDA header.
        RuntimeError: something does not compile.
    """
    torch = torch_finder.find_torch()
    if torch is None:
        raise CannotBuildError("no torch to compile against")
    cxx, ninja, places = toolchain.find_cxx(), toolchain.find_ninja(), plan.Places(ROOT, work)
    kernels = [*sorted(places.csrc.glob("cuda/*.cu")), HERE / "emulation.cpp"]
    steps = [kernel_step(source, work / f"{source.name}.o", cxx) for source in kernels]
    steps += _operator_steps(places, torch, cxx)
    library, libraries = work / "librrsis_cuda_emulation.so", [f"-L{torch.library_dir}", "-ltorch_cpu"]
    steps.append(Step("link", library, [step.output for step in steps], [*cxx.command, *plan.LINK_FLAGS], libraries))
    work.mkdir(parents=True, exist_ok=True)
    with native.exclusive(work / "lock"):
        native.write_if_changed(
            places.generated / "schemas.inc",
            schemas.render_header(schemas.read_schemas(ROOT / "rrsis_kernels" / "schemas.txt")),
        )
        failure = ninja_file.run(ninja, work, steps, name="emulation")
    if failure:
        raise RuntimeError(failure)
    return library


if __name__ == "__main__":
    print(build())
