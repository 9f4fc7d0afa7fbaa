"""Builds the native files, or records why not.

A machine without a C++ compiler still gets a working package (the reference and Triton backends are Python): whatever
cannot be built is left out, and ``rrsis_kernels/_build_status.json`` says why. Environment variables:

* ``RRSIS_REQUIRE_EXT=1``: a file of the CPU build that cannot be built is an error.
* ``RRSIS_SKIP_EXT=1``: nothing native is built.
* ``RRSIS_BUILD_CUDA``: ``0`` leaves the CUDA file out, ``1`` makes its absence an error; by default it is built where a
  CUDA compiler and a CUDA torch are.
* ``CXX``, ``CUDA_HOME``, ``TORCH_CUDA_ARCH_LIST`` and ``MAX_JOBS`` mean what they mean to torch's own extension builds.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from . import plan
from .ninja_file import Step
from .ninja_file import run as run_ninja
from .schemas import read_schemas, render_header
from .toolchain import (
    CannotBuildError,
    CudaCompiler,
    CxxCompiler,
    find_cxx,
    find_ninja,
    find_nvcc,
    platform_reason,
    require_matching_cuda,
)
from .torch_finder import MINIMUM_VERSION, TorchInstall, find_torch

STATUS_FILE = "_build_status.json"


@dataclass(frozen=True)
class Outcome:
    """What became of one native file.

    Attributes:
        name: ``_C``, ``_C_cuda`` or ``_build_info``.
        file: its file name.
        built: whether it is there.
        reason: why not; empty if it is there.
    """

    name: str
    file: str
    built: bool
    reason: str = ""


def native_file_names() -> dict[str, str]:
    """The native files of the package: name to file name."""
    return {"_C": "_C.so", "_C_cuda": "_C_cuda.so", "_build_info": plan.build_info_file_name()}


def switch(name: str) -> bool | None:
    """The environment variable ``name`` as a switch; None if it is unset or empty.

    Raises:
        ValueError: it is neither 0 nor 1.
    """
    value = os.environ.get(name, "").strip()
    if value not in ("", "0", "1"):
        raise ValueError(f"{name}: expected 0 or 1, got {value!r}")
    return None if value == "" else value == "1"


def build_native(root: Path, work: Path, destination: Path) -> list[Outcome]:
    """Builds every native file that can be built into the package folder ``destination``.

    Args:
        root: the project.
        work: folder for objects; kept between builds, so that only what changed is compiled again.
        destination: where the files and the status file go. Files are replaced in one step, so that a running program
            that has the old one loaded is not disturbed; what was not built is removed.

    Returns:
        What became of each file.

    Raises:
        CannotBuildError: something that was required (see the module's variables) could not be built.
    """
    required, skip, cuda = switch("RRSIS_REQUIRE_EXT"), switch("RRSIS_SKIP_EXT"), switch("RRSIS_BUILD_CUDA")
    if required and skip:
        raise ValueError("RRSIS_REQUIRE_EXT=1 and RRSIS_SKIP_EXT=1 contradict each other")
    work.mkdir(parents=True, exist_ok=True)
    destination.mkdir(parents=True, exist_ok=True)
    with exclusive(work / "lock"):
        outcomes = _Build(plan.Places(root.resolve(), work.resolve())).run(skip=bool(skip), cuda=cuda)
        for outcome in outcomes:
            _place(work / outcome.file, destination / outcome.file, present=outcome.built)
    _write_status(destination / STATUS_FILE, outcomes)
    for outcome in outcomes:
        print(f"rrsis: {outcome.file}: {'built' if outcome.built else outcome.reason}", file=sys.stderr)
        is_required = (outcome.name == "_C_cuda" and cuda) or (outcome.name != "_C_cuda" and required)
        if is_required and not outcome.built:
            variable = "RRSIS_BUILD_CUDA" if outcome.name == "_C_cuda" else "RRSIS_REQUIRE_EXT"
            raise CannotBuildError(f"{outcome.file} could not be built and {variable}=1: {outcome.reason}")
    return outcomes


class _Build:
    """One build: finds the tools once and makes the files one after the other."""

    def __init__(self, places: plan.Places) -> None:
        self.places = places
        self.nvcc: CudaCompiler | None = None

    def run(self, *, skip: bool, cuda: bool | None) -> list[Outcome]:
        names = native_file_names()
        try:
            if skip:
                raise CannotBuildError("left out because RRSIS_SKIP_EXT=1")
            if reason := platform_reason():
                raise CannotBuildError(reason)
            torch, cxx, ninja = _find_torch_or_say(), find_cxx(), find_ninja()
        except CannotBuildError as error:
            return [Outcome(name, file, False, str(error)) for name, file in names.items()]
        self._generate("schemas.inc", render_header(read_schemas(self.places.root / "rrsis_kernels" / "schemas.txt")))
        cpu = self._make("_C", ninja, lambda: plan.cpu_steps(self.places, torch, cxx))
        cuda_outcome = self._make("_C_cuda", ninja, lambda: self._cuda_steps(torch, cxx, wanted=cuda))
        self._generate("build_config.h", plan.build_config_header(torch, cxx, self.nvcc, cuda_outcome.reason))
        info = self._make("_build_info", ninja, lambda: plan.build_info_steps(self.places, cxx))
        return [cpu, cuda_outcome, info]

    def _cuda_steps(self, torch: TorchInstall, cxx: CxxCompiler, *, wanted: bool | None) -> list[Step]:
        if wanted is False:
            raise CannotBuildError("left out because RRSIS_BUILD_CUDA=0")
        if torch.cuda is None and not wanted:  # the commonest case; say what matters instead of looking for nvcc
            raise CannotBuildError(f"torch {torch.version} is a build without CUDA")
        self.nvcc = find_nvcc()
        require_matching_cuda(self.nvcc, torch)
        return plan.cuda_steps(self.places, torch, cxx, self.nvcc)

    def _make(self, name: str, ninja: str, steps: Callable[[], list[Step]]) -> Outcome:
        file = native_file_names()[name]
        try:
            failure = run_ninja(ninja, self.places.work, steps(), name=name)
        except CannotBuildError as error:
            failure = str(error)
        return Outcome(name, file, failure is None, failure or "")

    def _generate(self, name: str, text: str) -> None:
        write_if_changed(self.places.generated / name, text)


def write_if_changed(path: Path, text: str) -> None:
    """Writes a generated file unless it is already so: an unchanged header compiles nothing again."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _find_torch_or_say() -> TorchInstall:
    torch = find_torch()
    if torch is None:
        raise CannotBuildError(f"no torch of at least {'.'.join(map(str, MINIMUM_VERSION))} to compile against")
    return torch


@contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Waits until no other build uses the folder."""
    with open(lock, "w", encoding="utf-8") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _place(built: Path, target: Path, *, present: bool) -> None:
    """Puts a finished file in its place, or removes what an earlier build left there."""
    if not present:
        target.unlink(missing_ok=True)
        return
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as handle:
        temporary = Path(handle.name)
    shutil.copy(built, temporary)
    temporary.replace(target)


def _write_status(path: Path, outcomes: list[Outcome]) -> None:
    status = {
        "python": sys.version.split()[0],
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(_source_date())),
        "files": {outcome.name: asdict(outcome) for outcome in outcomes},
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(status, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def _source_date() -> float:
    """Now, or the time that a reproducible build is told to claim."""
    return float(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
