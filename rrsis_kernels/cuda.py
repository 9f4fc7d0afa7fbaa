"""What the CUDA C++ kernels (csrc/cuda) take: the part of `backends.can_run` that is theirs."""

from __future__ import annotations

from collections.abc import Callable

import torch

from rrsis_kernels import library

MOST_SIDE = 1 << 22
"""Of maps and masks: `kMaskStatisticsMostSide` in csrc/cuda/twin_mask_statistics.h."""


def _too_large_a_map(dtype: torch.dtype, sizes: dict[str, int]) -> str | None:
    side = max([0, *(size for name, size in sizes.items() if name != "B")])  # Dynamo knows no `default` of max
    return f"a map or mask of side {side} (at most {MOST_SIDE})" if side > MOST_SIDE else None


MOST_BLOCKS = (1 << 31) - 1
MOST_COLUMN_BLOCKS = (1 << 16) - 1
"""Of a grid: `too_large` in csrc/cuda/token_pixel.cpp."""


def _too_large_a_product(dtype: torch.dtype, sizes: dict[str, int]) -> str | None:
    batch, heads, tokens = sizes.get("B", 0), sizes.get("H", 0), sizes.get("L", 2 * sizes.get("K", 0))
    tiles, packed = -(-sizes.get("N", 0) // 64), heads * (tokens + 7)
    if max(batch * tiles, batch * packed) > MOST_BLOCKS:
        return f"{batch} samples of {tiles} tiles of pixels and {heads} × {tokens} tokens in one grid"
    if max(sizes.get("C", 0), sizes.get("D", 0)) > 64 * MOST_COLUMN_BLOCKS:
        return f"rows of more than {64 * MOST_COLUMN_BLOCKS} channels"
    return None


LIMITS: dict[str, Callable[[torch.dtype, dict[str, int]], str | None]] = {
    "bidirectional_spatial_correlation": _too_large_a_product,
    "twin_stream_attention": _too_large_a_product,
    "twin_mask_statistics": _too_large_a_map,
}
"""By public function, where it has limits: what a call's dtype and sizes have too much of, None if nothing."""


def can_run(
    op: str, device_type: str, dtype: torch.dtype, shapes: dict[str, int] | None, function: str
) -> tuple[bool, str]:
    """Whether the kernels run a call, and why, or why not.

    Args:
        op: the public function.
        device_type: `tensor.device.type`; CPU tensors are taken where the kernels are emulated.
        dtype: dtype of the features or logits.
        shapes: sizes by letter, where they are known.
        function: `forward` or `backward`.
    """
    name = "emulation" if device_type == "cpu" else "_C_cuda"
    status = library.extension_status().get(name)
    if device_type not in ("cuda", "cpu") or status is None:
        return False, f"the cuda backend takes tensors on CUDA, not on {device_type}"
    if not status.loaded:
        return False, status.reason
    if not library.has_compiled("cuda", device_type, op, function):
        return False, f"the cuda backend has no {function} kernel of {op}"
    if dtype == torch.float64:
        return False, "the cuda kernels compute in fp32; float64 is for the reference and the cpu backend"
    # Sizes that a graph leaves open are looked at when it runs: a bound here would become a bound of the graph.
    known = shapes is not None and all(isinstance(size, int) for size in shapes.values())
    too_much = LIMITS[op](dtype, shapes) if op in LIMITS and known else None
    if too_much:
        return False, f"the cuda kernel of {op} does not take {too_much}"
    return True, "CUDA C++ kernels" if device_type == "cuda" else "CUDA C++ kernels, emulated on the CPU"
