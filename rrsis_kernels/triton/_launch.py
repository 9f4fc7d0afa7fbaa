"""Running a kernel on the device of its tensors, or noting down what would be run."""

from __future__ import annotations

import functools
from typing import Any

import torch
import triton
from torch import Tensor

from rrsis_kernels.triton import _config
from rrsis_kernels.triton._aot import ELEMENT_TYPES, AotSpec

OPTIONS = {"enable_fp_fusion": True}
"""Pinned, so that a multiplication and an addition round the same way whatever Triton's default becomes."""
STRIDES = ("_b", "_h", "_l", "_n")
"""How the names of strides end."""


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
        dtype: of the features.
        shape: sizes, for the names of the notes.
    """

    def __init__(self, arch: int, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        self.arch, self.processors, self.dtype = arch, 132, dtype
        self.label = f"{ELEMENT_TYPES[dtype]} {'x'.join(map(str, shape))}"
        self.specs: list[AotSpec] = []

    def __call__(self, kernel: Any, programs: int, arguments: dict[str, Any], tile: _config.Tile) -> None:
        """Notes a launch down."""
        values = {parameter.name: arguments[parameter.name] for parameter in kernel.params}
        constants = {p.name: values[p.name] for p in kernel.params if p.is_constexpr or values[p.name] is None}
        signature = {name: "constexpr" if name in constants else _type(name, value) for name, value in values.items()}
        product = "PRECISION" in values
        wgmma = product and self.dtype != torch.float32 and self.arch == 90
        name = f"{self.label} {kernel.__name__} {len(self.specs)}"
        self.specs.append(AotSpec(name, kernel, signature, constants, tile.warps, tile.stages, product, wgmma))


def _type(name: str, value: Any) -> str:
    """Type of an argument; pitches and strides are multiples of 16 where tensors are as PyTorch allocates them."""
    if isinstance(value, Tensor):
        return "*u8" if value.dtype == torch.bool else "*" + ELEMENT_TYPES[value.dtype]
    return "i32:16" if name == "pitch" or (name[-2:] in STRIDES and value % 16 == 0) else "i32"


def unique_specs(specs: list[AotSpec]) -> list[AotSpec]:
    """The same without repetitions: what differs in run-time arguments alone is compiled once."""
    seen: dict[str, AotSpec] = {}
    for spec in specs:
        key = repr((spec.kernel.__name__, spec.signature, spec.constexprs, spec.num_warps, spec.num_stages))
        seen.setdefault(key, spec)
    return list(seen.values())
