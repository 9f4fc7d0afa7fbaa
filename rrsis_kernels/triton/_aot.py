"""What a Triton kernel is compiled with: one description for the tests, the table in docs/kernels.md and the reader."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

ELEMENT_TYPES = {
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.float64: "fp64",
    torch.uint8: "u8",
    torch.bool: "i1",
}
"""Triton's names of the dtypes."""


class AotSpec(NamedTuple):
    """One kernel in one configuration, compiled without a GPU by `rrsis_kernels.triton._compile`.

    Attributes:
        name: kernel, dtype and shape, for people.
        kernel: the `triton.jit` function.
        signature: type of each argument by name: "*bf16", "i32", "fp32", …, "constexpr" for those in `constexprs`.
            Pointers are taken to be divisible by 16 bytes, as torch allocates them; a number is so where ":16" follows.
        constexprs: their values by name.
        num_warps: warps of a program.
        num_stages: depth of the software pipeline.
        has_product: it multiplies matrices.
        expects_wgmma: on sm_90 the product has to use wgmma.
        enable_fp_fusion: whether a·b + c may be rounded once.
    """

    name: str
    kernel: Any
    signature: dict[str, str]
    constexprs: dict[str, Any]
    num_warps: int
    num_stages: int
    has_product: bool
    expects_wgmma: bool
    enable_fp_fusion: bool = True


def elementwise_spec(
    name: str, kernel: Any, types: dict[str, str], constexprs: dict[str, Any], num_warps: int, enable_fp_fusion: bool
) -> AotSpec:
    """The spec of a kernel without a product.

    Args:
        name: for people.
        kernel: the `triton.jit` function.
        types: types by argument; "i32" is meant where there is none.
        constexprs: their values by name.
        num_warps: warps of a program.
        enable_fp_fusion: whether a·b + c may be rounded once.
    """
    signature = {
        argument: "constexpr" if argument in constexprs else types.get(argument, "i32") for argument in kernel.arg_names
    }
    return AotSpec(name, kernel, signature, constexprs, num_warps, 1, False, False, enable_fp_fusion)
