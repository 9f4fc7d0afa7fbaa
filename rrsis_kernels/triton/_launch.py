"""Running a kernel on the device of its tensors, or noting down what would be run."""

from __future__ import annotations

import functools
from typing import Any

import torch
import triton
from torch import Tensor

from rrsis_kernels.triton import _config
from rrsis_kernels.triton._aot import AotSpec

TYPES = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.bool: "*u8",
    torch.uint8: "*u8",
}
OPTIONS = {"enable_fp_fusion": True}
"""Pinned, so that a multiplication and an addition round the same way whatever Triton's default becomes."""


@functools.cache
def _autotuned(kernel: Any, keys: tuple[str, ...]) -> Any:
    configs = [triton.Config({}, num_warps=warps, num_stages=stages) for warps in (4, 8) for stages in (2, 3, 4)]
    return triton.autotune(configs, key=list(keys), cache_results=True)(kernel)


class Launcher:
    """Runs kernels.

    Args:
        device: of all tensors.
    """

    def __init__(self, device: torch.device) -> None:
        self.arch = _config.architecture(device)
        self.processors = _config.processors(device)

    def __call__(self, kernel: Any, programs: int, arguments: dict[str, Any], tile: _config.Tile) -> None:
        """Launches `programs` programs of a kernel; masks travel as bytes."""
        arguments = {name: _as_argument(value) for name, value in arguments.items()}
        if _config.autotune():
            keys = tuple(name for name, value in arguments.items() if isinstance(value, int))
            _autotuned(kernel, keys)[(programs,)](**arguments, **OPTIONS)
            return
        kernel[(programs,)](**arguments, num_warps=tile.warps, num_stages=tile.stages, **OPTIONS)


def _as_argument(value: Any) -> Any:
    return value.view(torch.uint8) if isinstance(value, Tensor) and value.dtype == torch.bool else value


class Recorder(Launcher):
    """Notes down what would be compiled; its tensors live on the meta device.

    Args:
        arch: architecture to plan for.
        label: what the names of the notes begin with.
    """

    def __init__(self, arch: int, label: str) -> None:
        self.arch, self.processors, self.label = arch, 132, label
        self.specs: list[AotSpec] = []

    def __call__(self, kernel: Any, programs: int, arguments: dict[str, Any], tile: _config.Tile) -> None:
        """Notes a launch down."""
        signature, constants = {}, {}
        for parameter in kernel.params:
            value = arguments[parameter.name]
            if parameter.is_constexpr or value is None:
                signature[parameter.name], constants[parameter.name] = "constexpr", value
            elif isinstance(value, Tensor):
                signature[parameter.name] = TYPES[value.dtype]
            else:
                signature[parameter.name] = "i32"
        product = "PRECISION" in arguments
        half = product and all(
            value.dtype != torch.float32
            for name, value in arguments.items()
            if name in ("pixels", "rows", "scores") and isinstance(value, Tensor)
        )
        name = f"{self.label}:{kernel.__name__}"
        spec = AotSpec(
            name, kernel, signature, constants, tile.warps, tile.stages, product, half and self.arch == 90
        )  # fmt: skip
        self.specs.append(spec)


def unique_specs(specs: list[AotSpec]) -> list[AotSpec]:
    """The same without repetitions: what differs in run-time arguments alone is compiled once."""
    seen: dict[str, AotSpec] = {}
    for spec in specs:
        key = repr((spec.kernel.__name__, spec.signature, spec.constexprs, spec.num_warps, spec.num_stages))
        seen.setdefault(key, spec)
    return list(seen.values())
