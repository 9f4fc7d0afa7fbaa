"""Loads the compiled operators, or defines their schemas from Python where there is no extension.

`_C` and `_C_cuda` are plain shared libraries that register operators in the torch namespace `rrsis_kernels` when they
are loaded; they hold no Python symbols. Without them the schemas still have to exist, for Triton and fake kernels.

RRSIS_KERNELS_CUDA_EMULATION=FILE also loads the library that tests/cuda_emulation builds: the CUDA kernels compiled
for the host, for tests. The backend "cuda" then takes CPU tensors when it is forced; it is never chosen by itself.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import NamedTuple

import torch

from rrsis_kernels._build_names import LIBRARIES, NAMESPACE

EMULATED_NAMESPACE = "rrsis_kernels_emulated"
EMULATION_VARIABLE = "RRSIS_KERNELS_CUDA_EMULATION"

OPERATORS = {
    "bsc_forward": ("bidirectional_spatial_correlation", "forward"),
    "bsc_backward": ("bidirectional_spatial_correlation", "backward"),
    "twin_stream_forward": ("twin_stream_attention", "forward"),
    "twin_stream_backward": ("twin_stream_attention", "backward"),
    "mask_statistics_forward": ("twin_mask_statistics", "forward"),
    "mask_statistics_backward": ("twin_mask_statistics", "backward"),
    "masked_cosine_forward": ("masked_cosine_loss", "forward"),
    "masked_cosine_backward": ("masked_cosine_loss", "backward"),
}
"""The public function behind each torch operator, and which half of it."""

PLACES = {
    ("cpu", "cpu"): (NAMESPACE, "CPU"),
    ("cuda", "cuda"): (NAMESPACE, "CUDA"),
    ("cuda", "cpu"): (EMULATED_NAMESPACE, "CPU"),
}
"""Namespace and dispatch key at which a backend's compiled kernels for a type of device are registered."""

_FOLDER = Path(__file__).parent
_SUFFIXES = (".so", ".pyd", ".dylib")


class ExtensionStatus(NamedTuple):
    """What became of one compiled library.

    Attributes:
        loaded: its operators can be called.
        path: the file, if one was found.
        reason: why it is not loaded, empty if it is.
    """

    loaded: bool
    path: str | None
    reason: str


def schemas() -> list[str]:
    """The operators' schemas, one string each, from `schemas.txt`."""
    lines = (_FOLDER / "schemas.txt").read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def op_name(schema: str) -> str:
    """Name of the operator that a schema declares."""
    return schema.split("(", 1)[0].strip()


def _find(name: str) -> Path | None:
    if name not in LIBRARIES:
        return None
    candidates = sorted(path for path in _FOLDER.glob(f"{LIBRARIES[name]}.*") if path.suffix in _SUFFIXES)
    return candidates[0] if candidates else None


def _load(name: str) -> ExtensionStatus:
    path = _find(name)
    if path is None:
        return ExtensionStatus(False, None, f"{name} is not built: no {name}.* library in the package")
    return _load_file(path)


def _load_file(path: Path) -> ExtensionStatus:
    try:
        torch.ops.load_library(path)
    except (OSError, RuntimeError) as error:
        return ExtensionStatus(False, str(path), f"{path.name} did not load: {error}")
    return ExtensionStatus(True, str(path), "")


def _registered(schema: str) -> bool | None:
    """True when the operator stands with this very schema, None when there is no such operator."""
    packet = getattr(torch.ops.rrsis_kernels, op_name(schema), None)
    if packet is None:
        return None
    due = torch._C.parse_schema(f"{NAMESPACE}::{schema}")
    return str(packet.default._schema) == str(due)


def _define_missing(definitions: torch.library.Library) -> list[str]:
    """Defines the operators that no library has registered; returns those that stand with another schema."""
    outdated = []
    for schema in schemas():
        registered = _registered(schema)
        if registered is None:
            definitions.define(schema)
        elif not registered:
            outdated.append(op_name(schema))
    return outdated


def _setup() -> tuple[torch.library.Library, dict[str, ExtensionStatus]]:
    definitions = torch.library.Library(NAMESPACE, "FRAGMENT")
    cpu = _load("_C")
    # The CUDA library has kernels of the operators that _C declares; in a build without _C it declares them itself.
    able = cpu.loaded or "_C" not in LIBRARIES
    cuda = _load("_C_cuda") if able else ExtensionStatus(False, None, "_C_cuda needs _C, which is not loaded")
    libraries = {"_C": cpu, "_C_cuda": cuda}
    if path := os.environ.get(EMULATION_VARIABLE):
        # Operators without a CUDA kernel, and automatic choices, are for those of _C.
        needs = ExtensionStatus(False, path, f"{EMULATION_VARIABLE} needs _C, which is not loaded")
        libraries["emulation"] = _load_file(Path(path)) if cpu.loaded else needs
    declared = {op_name(schema) for schema in schemas() if _registered(schema) is not None}
    outdated = _define_missing(definitions)
    missing = [name for name in map(op_name, schemas()) if name not in declared]
    if cpu.loaded and (outdated or missing):
        names = ", ".join(outdated + missing)
        reason = f"{cpu.path} is out of date ({names} differ from schemas.txt): rebuild"
        libraries["_C"] = ExtensionStatus(False, cpu.path, reason)
    return definitions, libraries


def _find_compiled() -> set[tuple[str, str, str, str]]:
    found = set()
    for (backend, device_type), (namespace, key) in PLACES.items():
        for name, half in OPERATORS.items():
            qualified = f"{namespace}::{name}"
            # An operator that no library has defined cannot be asked for its kernels.
            defined = bool(torch._C._jit_get_schemas_for_operator(qualified))
            if defined and torch._C._dispatch_has_kernel_for_dispatch_key(qualified, key):
                found.add((backend, device_type, *half))
    return found


# The Library object keeps its registrations alive.
DEFINITIONS, _STATUS = _setup()
# Taken before any kernel is registered from Python.
_COMPILED = _find_compiled()


def extension_status() -> dict[str, ExtensionStatus]:
    """What became of the compiled libraries, by name: `_C`, `_C_cuda` and, where it is asked for, `emulation`."""
    return _STATUS


def has_compiled(backend: str, device_type: str, op: str, function: str) -> bool:
    """Whether a backend has a compiled kernel for tensors on a type of device.

    Args:
        backend: `cpu` or `cuda`.
        device_type: `tensor.device.type`.
        op: the public function.
        function: `forward` or `backward`.
    """
    return (backend, device_type, op, function) in _COMPILED


@functools.cache
def has_op(name: str) -> bool:
    """Whether `schemas.txt` declares an operator of this name."""
    return name in map(op_name, schemas())
