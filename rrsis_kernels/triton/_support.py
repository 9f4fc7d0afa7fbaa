"""What the memory-bound kernels run on."""

from __future__ import annotations

import torch

from rrsis_kernels.backends import Support


def can_run(dtype: torch.dtype, shapes: dict[str, int] | None = None) -> Support:
    """Whether kernels that compute in fp32, at any size, run on tensors of a dtype."""
    if dtype == torch.float64:
        return Support(False, "the triton kernels compute in fp32; float64 is for the reference and the cpu backend")
    return Support(True, "Triton kernels")
