"""Programs and libraries of kernels and the emulation, without torch, for the tests of both."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest
from emulated_library import HERE, ROOT, kernel_step
from rrsis_build import toolchain
from rrsis_build.toolchain import CannotBuildError

KERNELS = ROOT / "csrc" / "cuda"
PLAIN, SANITIZED = ("-O1",), ("-O1", "-fsanitize=thread")
RACE = 66
"""ThreadSanitizer's exit status."""


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="rrsis_cuda_emulation"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _compiler() -> toolchain.CxxCompiler:
    try:
        return toolchain.find_cxx()
    except CannotBuildError as error:
        pytest.skip(str(error))


@cache
def compiled(source: Path, options: tuple[str, ...] = PLAIN) -> Path:
    """The object file of a source, once a session. The emulation itself is never instrumented, only told."""
    if source == HERE / "emulation.cpp" and "-fsanitize=thread" in options:
        options = (*PLAIN, "-DRRSIS_EMULATION_TSAN")
    output = Path(tempfile.mkdtemp(dir=_folder())) / f"{source.name}.o"
    try:
        step = kernel_step(source, output, _compiler(), options)
    except CannotBuildError as error:
        pytest.skip(str(error))
    subprocess.run([*step.command, "-c", str(source), "-o", str(output)], check=True)
    return output


def linked(sources: list[Path], options: tuple[str, ...] = PLAIN) -> Path:
    """A program (or, with `-shared`, a library) of sources and the emulation."""
    output = Path(tempfile.mkdtemp(dir=_folder())) / "program"
    compile_options = tuple(option for option in options if option != "-shared")
    objects = [compiled(source, compile_options) for source in (*sources, HERE / "emulation.cpp")]
    subprocess.run([*_compiler().command, *options, *map(str, objects), "-o", str(output)], check=True)
    return output


def driver(op: str, kernels: list[Path], options: tuple[str, ...] = PLAIN) -> Path:
    """The program of driver.cpp for one operator, with kernels that may be copies with an error in them."""
    return linked([HERE / "driver.cpp", HERE / f"drive_{op}.cpp", *kernels], options)


def drive(program: Path, schedules: int) -> subprocess.CompletedProcess[str]:
    """Runs it. Without address randomisation, which ThreadSanitizer's older versions cannot always bear."""
    command = [str(program), str(schedules)]
    if shutil.which("setarch") and subprocess.run(["setarch", "-R", "true"], check=False).returncode == 0:
        command = ["setarch", "-R", *command]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def with_error(file: str, right: str, wrong: str, occurrence: int = 0) -> Path:
    """A copy of the kernels' folder in which, in one file, one occurrence of `right` is `wrong`.

    All of it is copied, since a header beside a source comes before that of any include path.
    """
    pieces = (KERNELS / file).read_text().split(right)
    assert len(pieces) > occurrence + 1, f"{file} has no {right!r} number {occurrence}"
    copy = Path(tempfile.mkdtemp(dir=_folder()))
    for name in ("common", KERNELS.name):
        shutil.copytree(KERNELS.parent / name, copy / name)
    text = right.join(pieces[: occurrence + 1]) + wrong + right.join(pieces[occurrence + 1 :])
    (copy / KERNELS.name / file).write_text(text)
    return copy / KERNELS.name
