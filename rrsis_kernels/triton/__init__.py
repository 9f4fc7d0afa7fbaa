"""Triton kernels, one module per public function, imported when a call or a question first needs them.

Each module has `forward` and `backward` with the arguments and results of its torch operators (schemas.txt), the
predicate `can_run(dtype, shapes)`, and `aot_specs(arch)`, what is compiled ahead of time in the tests.
`rrsis_kernels.dispatch` calls them with the tensors' device current. This package itself never imports triton, which
may be missing.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

INSTALLED = importlib.util.find_spec("triton") is not None
"""Whether there is a triton to import."""

INTERPRETED = INSTALLED and os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "y", "yes")
"""Whether kernels run in Triton's interpreter, on CPU tensors; Triton decides it when a kernel is defined."""

KERNELS = frozenset(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))
"""The public functions that have kernels."""


def module(op: str) -> ModuleType:
    """The kernels of a public function that is in `KERNELS`.

    The imports are written out because torch.compile follows such statements, not calls of importlib.
    """
    if op == "bidirectional_spatial_correlation":
        from rrsis_kernels.triton import bidirectional_spatial_correlation as kernels
    elif op == "twin_stream_attention":
        from rrsis_kernels.triton import twin_stream_attention as kernels
    elif op == "twin_mask_statistics":
        from rrsis_kernels.triton import twin_mask_statistics as kernels
    else:
        from rrsis_kernels.triton import masked_cosine_loss as kernels
    return kernels
