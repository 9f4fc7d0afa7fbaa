"""What this installation can do: ``python -m rrsis_kernels.info``.

Prints the versions, how the native files were built or why they were not, the instruction sets, the devices, and the
backend that each operator takes for each kind of device and dtype. It is what a report of a problem should carry, so it
works in every installation, also in one without a single native file.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from rrsis_kernels import __version__, backends, library, triton

STATUS_FILE = "_build_status.json"
CPU_CAPABILITIES = ("baseline", "avx2", "avx512", "avx512bf16")
"""Names of the values of the operator ``cpu_capability``."""

_FOLDER = Path(__file__).parent
_DTYPE_NAMES = {str(dtype).removeprefix("torch."): dtype for dtype in backends.DTYPES}


def build_status() -> dict[str, Any]:
    """What the build recorded about each native file: ``{"files": {name: {"built": bool, "reason": str, …}}, …}``.

    Empty where the package runs from a source tree that was never built.
    """
    try:
        return json.loads((_FOLDER / STATUS_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def build_info() -> dict[str, Any]:
    """Compiler, flags, instruction sets and torch of the native build; empty where ``_build_info`` was not built."""
    try:
        module = importlib.import_module("._build_info", __package__)
    except ImportError:
        return {}
    return module.build_info()


def native_files() -> dict[str, str]:
    """For each native file ``"loaded"``, or why it is not."""
    recorded = build_status().get("files", {})
    states = {}
    for name, status in library.extension_status().items():
        entry = recorded.get(name, {})
        if status.loaded:
            states[name] = "loaded"
        elif entry.get("reason"):
            states[name] = f"not built: {entry['reason']}"
        elif not recorded and status.path is None:
            states[name] = "not built: this source tree was never built (pip install -e .)"
        else:
            states[name] = status.reason
    return states


def compilers() -> dict[str, str]:
    """The compilers on this machine now: name → first line of what it says about itself, or ``not found``."""
    cuda_home = os.environ.get("CUDA_HOME") or "/usr/local/cuda"
    nvcc = shutil.which("nvcc") or shutil.which(os.path.join(cuda_home, "bin", "nvcc"))
    found = {}
    for name, program in {"C++": shutil.which(os.environ.get("CXX") or "c++"), "CUDA": nvcc}.items():
        found[name] = (
            _first_line([program, "--version"], "release" if name == "CUDA" else "") if program else "not found"
        )
    return found


def _first_line(command: list[str], containing: str) -> str:
    """The first line that ``command`` prints and that contains a text."""
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not run ({error})"
    return next((line for line in output.splitlines() if containing in line), "does not tell its version")


def cpu_capability() -> dict[str, Any]:
    """Instruction sets: ``compiled`` into ``_C``, ``active`` in its kernels, and what torch makes of this CPU."""
    compiled = list(build_info().get("cpu_capabilities", {}))
    active = None
    if library.extension_status()["_C"].loaded and hasattr(torch.ops.rrsis_kernels, "cpu_capability"):
        active = CPU_CAPABILITIES[torch.ops.rrsis_kernels.cpu_capability()]
    forced = os.environ.get("RRSIS_KERNELS_CPU_CAPABILITY") or None
    return {"compiled": compiled, "active": active, "forced": forced, "torch": torch.backends.cpu.get_cpu_capability()}


def devices() -> list[str]:
    """The devices of this machine that torch sees."""
    found = [f"cpu: {platform.machine()}, {os.cpu_count()} logical cores, torch uses {torch.get_num_threads()} threads"]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            memory = properties.total_memory / 2**30
            capability = f"{properties.major}.{properties.minor}"
            found.append(f"cuda:{index}: {properties.name}, capability {capability}, {memory:.0f} GiB")
    return found


def backend_table(device_type: str) -> dict[str, dict[str, str]]:
    """The backend each operator takes on ``device_type``: operator → dtype name → backend, or why the call fails."""
    table: dict[str, dict[str, str]] = {}
    for op in backends.OPS:
        table[op] = {}
        for name, dtype in _DTYPE_NAMES.items():
            try:
                table[op][name] = backends.choose(op, device_type, dtype)
            except (RuntimeError, ValueError) as error:
                table[op][name] = f"fails ({error})"
    return table


def report() -> str:
    """The whole report as text."""
    sections = [_versions(), _native(), _cpu(), "devices\n" + _indent(devices()), _backends()]
    return "\n\n".join(sections)


def _indent(lines: list[str]) -> str:
    return "\n".join(f"  {line}" for line in lines)


def _package_version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _versions() -> str:
    return "versions\n" + _indent(
        [
            f"rrsis_kernels  {__version__}",
            f"python         {sys.version.split()[0]} ({platform.system()} {platform.machine()})",
            f"torch          {torch.__version__} (CUDA {torch.version.cuda or 'no'})",
            f"triton         {_triton()}",
            *(f"{name + ' compiler':<14} {version}" for name, version in compilers().items()),
        ]
    )


def _triton() -> str:
    version = _package_version("triton")
    return f"{version}, interpreted on the CPU (TRITON_INTERPRET)" if triton.INTERPRETED else version


def _native() -> str:
    lines = [f"{name:<14} {state}" for name, state in native_files().items()]
    info = build_info()
    if info:
        cuda = f"{info['cuda_compiler']} for {info['cuda_architectures']}" if info["cuda_built"] else "no CUDA"
        lines += [
            f"C++ compiler   {info['compiler']}",
            f"flags          {info['cxx_flags']}",
            f"CUDA compiler  {cuda}",
            f"built against  torch {info['torch_version']}, stable ABI {_abi_version(info['torch_target_version'])}",
            f"built on       {info['time']}",
        ]
    else:
        reason = build_status().get("files", {}).get("_build_info", {}).get("reason")
        lines.append(f"_build_info    not built{f': {reason}' if reason else ''}")
    return "native files\n" + _indent(lines)


def _abi_version(target: str) -> str:
    """``0x020b…`` as ``2.11``."""
    number = int(target, 16)
    return f"{number >> 56}.{number >> 48 & 0xFF}"


def _cpu() -> str:
    state = cpu_capability()
    lines = [
        f"compiled       {', '.join(state['compiled']) or 'none'}",
        f"active         {state['active'] or 'none'}{' (forced)' if state['forced'] else ''}",
        f"torch's choice {state['torch']}",
    ]
    return "instruction sets\n" + _indent(lines)


def _backends() -> str:
    forced = backends.forced_backend()
    blocks = [f"backends{f' (forced: {forced})' if forced else ''}"]
    for device_type in ("cpu", "cuda"):
        present = device_type == "cpu" or torch.cuda.is_available()
        rows = [f"on {device_type}{'' if present else ' (none here)'}"]
        width = max(map(len, backends.OPS))
        for op, choices in backend_table(device_type).items():
            rows.append(f"  {op:<{width}}  {_choices(choices)}")
        for backend in backends.BACKENDS:
            rows += [f"  not {backend}: {reason}" for reason in _refusals(backend, device_type)]
        blocks.append(_indent(rows))
    return "\n".join(blocks)


def _refusals(backend: str, device_type: str) -> list[str]:
    """Why ``backend`` is not chosen on ``device_type``, each reason once."""
    reasons = []
    for op in backends.OPS:
        support = backends.can_choose(op, backend, device_type, torch.float32)
        if not support.ok:
            reasons.append(support.reason.replace(op, "the operator"))
    return list(dict.fromkeys(reasons))


def _choices(choices: dict[str, str]) -> str:
    """``{"float32": "cpu", "bfloat16": "cpu"}`` as ``cpu (float32, bfloat16)``."""
    by_backend: dict[str, list[str]] = {}
    for dtype, backend in choices.items():
        by_backend.setdefault(backend, []).append(dtype)
    return "; ".join(f"{backend} ({', '.join(dtypes)})" for backend, dtypes in by_backend.items())


def main() -> None:
    """Prints the report."""
    print(report())


if __name__ == "__main__":
    main()
