"""Running a kernel on the device of its tensors, or noting down what would be run.

All kernels start in `run`. With `RRSIS_KERNELS_AUTOTUNE=1` Triton times other numbers of warps and stages there, at the
first call of a kernel with its sizes, strides and dtypes, and keeps the fastest in its own cache on disk, for other
processes too; timing cannot be captured in a CUDA graph, so warm up before.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import triton
from torch import Tensor

from rrsis_kernels.triton import _config
from rrsis_kernels.triton._aot import ELEMENT_TYPES, AotSpec

STRIDES = ("_b", "_h", "_l", "_n")
"""How the names of strides end."""


CANDIDATES = [(warps, stages) for warps in (4, 8) for stages in (2, 3, 4)]
"""Warps and stages that autotuning tries."""


@functools.cache
def _autotuned(kernel: Any, key: tuple[str, ...]) -> Any:
    configs = [triton.Config({}, num_warps=warps, num_stages=stages) for warps, stages in CANDIDATES]
    return triton.autotune(configs, key=list(key), cache_results=True)(kernel)


def run(
    kernel: Any, grid: tuple[int, ...], *values: Any, warps: int, stages: int = 1, fp_fusion: bool = True, **named: Any
) -> None:
    """Launches a kernel on the current device and stream.

    Args:
        kernel: the `triton.jit` function.
        grid: numbers of programs.
        values: the kernel's first arguments.
        warps: of a program, unless autotuning chooses.
        stages: depth of its software pipeline, unless autotuning chooses.
        fp_fusion: whether a·b + c may be rounded once. Pinned: Triton's default may change.
        named: its other arguments.
    """
    if _config.autotune():
        given = dict(zip(kernel.arg_names, values, strict=False)) | named
        key = tuple(name for name, value in given.items() if isinstance(value, int | str))  # str: the precision
        _autotuned(kernel, key)[grid](*values, **named, enable_fp_fusion=fp_fusion)
    else:
        kernel[grid](*values, **named, num_warps=warps, num_stages=stages, enable_fp_fusion=fp_fusion)


class Launcher:
    """Runs kernels.

    Args:
        device: of all tensors.
    """

    def __init__(self, device: torch.device) -> None:
        self.arch = _config.architecture(device)
        self.processors = _config.processors(device)
        # Read once for a whole pass: block shapes and products have to agree about it.
        self.tf32 = _config.tf32_asked()

    def kind(self, dtype: torch.dtype) -> str:
        """Which part of the table products of a dtype take."""
        return _config.kind_of(dtype, self.tf32)

    def precision(self, dtype: torch.dtype) -> str:
        """`input_precision` of products of a dtype."""
        return "tf32" if self.kind(dtype) == "tf32" else "ieee"

    def __call__(self, kernel: Any, programs: int, arguments: dict[str, Any], tile: _config.Tile) -> None:
        """Launches `programs` programs of a kernel; masks travel as bytes."""
        arguments = {name: _as_argument(value) for name, value in arguments.items()}
        run(kernel, (programs,), **arguments, warps=tile.warps, stages=tile.stages)


def _as_argument(value: Any) -> Any:
    return value.view(torch.uint8) if isinstance(value, Tensor) and value.dtype == torch.bool else value


class Recorder(Launcher):
    """Notes down what would be compiled; its tensors live on the meta device.

    Args:
        arch: architecture to plan for.
        dtype: of the features.
        shape: sizes, for the names of the notes.
        tf32: whether products of fp32 are in TF32, whatever this process's setting.
    """

    def __init__(self, arch: int, dtype: torch.dtype, shape: tuple[int, ...], tf32: bool = False) -> None:
        self.arch, self.processors, self.tf32 = arch, 132, tf32
        self.on_matrix_cores = self.kind(dtype) != "single"
        self.label = f"{'tf32' if tf32 else ELEMENT_TYPES[dtype]} {'x'.join(map(str, shape))}"
        self.specs: list[AotSpec] = []

    def __call__(self, kernel: Any, programs: int, arguments: dict[str, Any], tile: _config.Tile) -> None:
        """Notes a launch down."""
        values = {parameter.name: arguments[parameter.name] for parameter in kernel.params}
        constants = {p.name: values[p.name] for p in kernel.params if p.is_constexpr or values[p.name] is None}
        signature = {name: "constexpr" if name in constants else _type(name, value) for name, value in values.items()}
        product = "PRECISION" in values
        wgmma = product and self.on_matrix_cores and self.arch == 90
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
