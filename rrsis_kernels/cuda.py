"""What the CUDA C++ kernels (csrc/cuda) take: the part of `backends.can_run` that is theirs."""

from __future__ import annotations

from collections.abc import Callable

import torch

from rrsis_kernels import library

MOST_SIDE = 1 << 22
"""Of maps and masks: `kMaskStatisticsMostSide` in csrc/cuda/twin_mask_statistics.h."""


def _too_large_a_map(dtype: torch.dtype, sizes: dict[str, int]) -> str | None:
    side = max((size for name, size in sizes.items() if name != "B"), default=0)
    return f"a map or mask of side {side} (at most {MOST_SIDE})" if side > MOST_SIDE else None


LIMITS: dict[str, Callable[[torch.dtype, dict[str, int]], str | None]] = {"twin_mask_statistics": _too_large_a_map}
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
    too_much = LIMITS[op](dtype, shapes) if op in LIMITS and shapes is not None else None
    if too_much:
        return False, f"the cuda kernel of {op} does not take {too_much}"
    return True, "CUDA C++ kernels" if device_type == "cuda" else "CUDA C++ kernels, emulated on the CPU"
