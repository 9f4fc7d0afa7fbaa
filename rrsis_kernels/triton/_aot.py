"""What a test needs to compile a kernel ahead of time, without a GPU."""

from __future__ import annotations

from typing import Any, NamedTuple


class AotSpec(NamedTuple):
    """One kernel at one shipped configuration.

    Attributes:
        name: of the configuration, unique within an operator and architecture.
        kernel: the `@triton.jit` function.
        signature: Triton's type of every argument by name, in the kernel's order; "constexpr" for constants.
        constexprs: values of the constants, absent optional tensors (None) among them.
        num_warps: warps of a program.
        num_stages: depth of the software pipeline.
        has_product: whether there is a `tl.dot` in it.
        expects_wgmma: whether Hopper code must use `wgmma`.
    """

    name: str
    kernel: Any
    signature: dict[str, str]
    constexprs: dict[str, Any]
    num_warps: int
    num_stages: int
    has_product: bool
    expects_wgmma: bool
