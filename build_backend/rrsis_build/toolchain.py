"""The compilers of this machine: which there are, what they are, and why one cannot be used."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .torch_finder import TorchInstall, parse_version

MINIMUM_NVCC = (12, 0)
"""The first that compiles C++20 and knows sm_90a."""


class CannotBuildError(Exception):
    """Something native cannot be built here; the message is the reason shown to the user."""


@dataclass(frozen=True)
class CxxCompiler:
    """A C++ compiler that was seen working.

    Attributes:
        command: the words that start it (``CXX`` may carry arguments, such as ``ccache g++``).
        version: the first line it prints about itself.
    """

    command: tuple[str, ...]
    version: str


@dataclass(frozen=True)
class CudaCompiler:
    """An ``nvcc`` and the toolkit around it.

    Attributes:
        nvcc: the compiler.
        home: the toolkit's folder.
        version: such as ``13.0``.
    """

    nvcc: Path
    home: Path
    version: str

    @property
    def include_dirs(self) -> list[Path]:
        """Folders of the toolkit's headers."""
        return [folder for folder in header_folders(self.home) if (folder / "cuda_runtime.h").exists()]

    @property
    def library_dirs(self) -> list[Path]:
        """Folders of the toolkit that may hold its run-time library."""
        candidates = [self.home / "lib64", self.home / "lib", *sorted(self.home.glob("targets/*/lib"))]
        return [folder for folder in candidates if folder.is_dir()]


def find_cxx() -> CxxCompiler:
    """The C++ compiler: ``CXX`` if it is set, otherwise the first of c++, g++ and clang++ that compiles.

    Raises:
        CannotBuildError: none works; says what was tried and what it answered.
    """
    wanted = os.environ.get("CXX", "").strip()
    candidates = [tuple(shlex.split(wanted))] if wanted else [("c++",), ("g++",), ("clang++",)]
    failures = []
    for command in candidates:
        failure = _probe_cxx(command)
        if failure is None:
            version = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False).stdout
            return CxxCompiler(command, (version.splitlines() or ["unknown version"])[0])
        failures.append(failure)
    raise CannotBuildError(f"no working C++20 compiler{' (CXX is set)' if wanted else ''}: {'; '.join(failures)}")


def _probe_cxx(command: tuple[str, ...]) -> str | None:
    """None if ``command`` compiles and links a C++20 shared library, otherwise what went wrong."""
    if shutil.which(command[0]) is None:
        return f"{command[0]} not found"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.cpp")
        source.write_text("#include <version>\n#include <concepts>\nint probe() { return 0; }\n", encoding="utf-8")
        arguments = ["-std=c++20", "-fPIC", "-shared", str(source), "-o", str(Path(folder, "probe.so"))]
        try:
            result = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{command[0]} does not run ({error})"
    if result.returncode != 0:
        first_line = next(iter(result.stderr.strip().splitlines()), f"exit code {result.returncode}")
        return f"{command[0]} fails on a small program ({first_line})"
    return None


def find_ninja() -> str:
    """The ninja program: the one on PATH, or the one of the ``ninja`` Python package.

    Raises:
        CannotBuildError: there is none.
    """
    if found := shutil.which("ninja"):
        return found
    try:
        import ninja
    except ImportError:
        raise CannotBuildError("ninja not found (pip install ninja)") from None
    return str(Path(ninja.BIN_DIR, "ninja"))


def find_nvcc() -> CudaCompiler:
    """The CUDA compiler: of ``CUDA_HOME`` or ``CUDA_PATH``, on PATH, or in /usr/local/cuda.

    Raises:
        CannotBuildError: there is none, it does not run, or it is too old.
    """
    homes = cuda_homes()
    home = next((home for home in homes if _is_toolkit(home)), None)
    if home is None:
        raise CannotBuildError(f"nvcc and its headers not found (looked in {', '.join(str(home) for home in homes)})")
    nvcc = home / "bin" / "nvcc"
    try:
        result = subprocess.run([str(nvcc), "--version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotBuildError(f"nvcc does not run ({error})") from None
    match = re.search(r"release (\d+\.\d+)", result.stdout)
    if match is None:
        raise CannotBuildError(f"nvcc does not tell its version (exit code {result.returncode})")
    if parse_version(match[1]) < MINIMUM_NVCC:
        due = ".".join(map(str, MINIMUM_NVCC))
        raise CannotBuildError(f"nvcc {match[1]} ({nvcc}) is too old: the kernels need {due} or later")
    return CudaCompiler(nvcc, home, match[1])


def cuda_homes() -> list[Path]:
    """Folders that may hold a CUDA toolkit, in the order in which they are asked."""
    homes = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    if not homes:
        if on_path := shutil.which("nvcc"):
            homes.append(Path(on_path).resolve().parent.parent)
        homes.append(Path("/usr/local/cuda"))
    return homes


def header_folders(home: Path) -> list[Path]:
    """Where a CUDA toolkit keeps its headers."""
    return [home / "include", *sorted(home.glob("targets/*/include"))]


def _is_toolkit(home: Path) -> bool:
    """Whether a folder holds a CUDA toolkit: a program named nvcc alone may be a script that starts one elsewhere."""
    headers = any((folder / "cuda_runtime.h").exists() for folder in header_folders(home))
    return headers and (home / "bin" / "nvcc").is_file()


def require_matching_cuda(nvcc: CudaCompiler, torch: TorchInstall) -> None:
    """Checks that code of ``nvcc`` can live in one process with ``torch``.

    Minor versions of CUDA are compatible with each other, major versions are not.

    Raises:
        CannotBuildError: torch is a build without CUDA, or the major versions differ.
    """
    if torch.cuda is None:
        raise CannotBuildError(f"torch {torch.version} is a build without CUDA")
    if parse_version(nvcc.version)[0] != parse_version(torch.cuda)[0]:
        raise CannotBuildError(
            f"nvcc {nvcc.version} and torch {torch.version} (CUDA {torch.cuda}) differ in their major version"
        )
    if not (torch.library_dir / "libtorch_cuda.so").exists():
        raise CannotBuildError(f"torch {torch.version} has no libtorch_cuda.so")


def default_cuda_architectures(nvcc: CudaCompiler) -> str:
    """What is compiled for where nothing else is asked: Ampere, Hopper, Blackwell, and PTX for whatever comes later."""
    blackwell = parse_version(nvcc.version) >= (12, 8)
    return "8.0;9.0a;10.0+PTX" if blackwell else "8.0;9.0a;9.0+PTX"


def cuda_architecture_flags(architectures: str) -> list[str]:
    """The ``-gencode`` flags for a list such as ``8.0;9.0a;10.0+PTX`` (the form of ``TORCH_CUDA_ARCH_LIST``).

    Args:
        architectures: compute capabilities separated by semicolons, commas or spaces; ``+PTX`` adds the portable form,
            which later devices compile for themselves.

    Raises:
        CannotBuildError: an entry is not a compute capability, or the list is empty.
    """
    flags = []
    for entry in re.split(r"[;,\s]+", architectures.strip()):
        match = re.fullmatch(r"(\d+)\.(\d)([af]?)(\+PTX)?", entry)
        if match is None:
            raise CannotBuildError(
                f"TORCH_CUDA_ARCH_LIST: expected capabilities such as '8.0;9.0a;10.0+PTX', got {entry!r}"
            )
        number = f"{match[1]}{match[2]}{match[3]}"
        flags.append(f"-gencode=arch=compute_{number},code=sm_{number}")
        if match[4]:
            flags.append(f"-gencode=arch=compute_{number},code=compute_{number}")
    return flags


def platform_reason() -> str | None:
    """Why native code is not built on this operating system; None where it is."""
    if sys.platform != "linux":
        return f"the native kernels are built on Linux only, this is {sys.platform}"
    return None
