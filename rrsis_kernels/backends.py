"""Which implementation runs an operator: one predicate for the automatic choice, the forced one and `info`."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Iterator
from typing import NamedTuple

import torch

from rrsis_kernels import cuda, library, triton

ENVIRONMENT_VARIABLE = "RRSIS_KERNELS_BACKEND"
"""Forces a backend for the whole process; `use_backend` goes before it."""

OPS = ("bidirectional_spatial_correlation", "twin_stream_attention", "twin_mask_statistics", "masked_cosine_loss")
"""The public functions."""

BACKENDS = ("cuda", "triton", "cpu", "reference")
"""All backends."""

VERIFIED = {"cpu": ("cpu",), "cuda": ("cuda", "triton")}
"""Backends whose tests have passed on a kind of device (docs/verified.md); no other kernel is chosen by itself."""

VERIFIED_CAPABILITIES = (9,)
"""Major compute capabilities of the GPUs on which they have: Hopper's."""

PRODUCTS = ("bidirectional_spatial_correlation", "twin_stream_attention")
"""The operators that multiply matrices."""

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


class Support(NamedTuple):
    """Whether a backend can run an operator.

    Attributes:
        ok: it can.
        reason: why, or why not.
    """

    ok: bool
    reason: str


def can_run(
    op: str,
    backend: str,
    device_type: str,
    dtype: torch.dtype,
    shapes: dict[str, int] | None = None,
    function: str = "forward",
) -> Support:
    """The one predicate: whether `backend` can run `op` on such tensors, verified there or not.

    Args:
        op: one of `OPS`.
        backend: one of `BACKENDS`.
        device_type: `tensor.device.type`.
        dtype: dtype of the features or logits.
        shapes: sizes by the letters of the documentation (B, N, C, D, H, L, …), where they are known.
        function: `forward` or `backward`. A backend without the backward of an operator leaves it to the others.
    """
    if dtype not in DTYPES:
        return Support(False, f"no backend takes {dtype}")
    if backend == "reference":
        return Support(True, "plain PyTorch runs on any device")
    if backend == "cpu":
        if device_type != "cpu":
            return Support(False, f"the cpu backend takes tensors on the CPU, not on {device_type}")
        status = library.extension_status()["_C"]
        return Support(status.loaded, "C++ kernels" if status.loaded else status.reason)
    if backend == "triton":
        return _triton_can_run(op, device_type, dtype, shapes)
    if backend == "cuda":
        return Support(*cuda.can_run(op, device_type, dtype, shapes, function))
    raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")


def _triton_can_run(op: str, device_type: str, dtype: torch.dtype, shapes: dict[str, int] | None) -> Support:
    """`can_run` of the triton backend; a kernel's own limits are in its module, imported only where it could run."""
    if not triton.INSTALLED:
        return Support(False, "triton is not installed")
    if op not in triton.KERNELS:
        return Support(False, f"the triton backend has no kernel of {op} yet")
    if device_type == "cpu" and not triton.INTERPRETED:
        return Support(
            False, "the triton backend takes tensors on CUDA; it is interpreted on the CPU by TRITON_INTERPRET=1"
        )
    if device_type != ("cpu" if triton.INTERPRETED else "cuda"):
        place = "the CPU (TRITON_INTERPRET is set)" if triton.INTERPRETED else "CUDA"
        return Support(False, f"the triton backend takes tensors on {place}, not on {device_type}")
    return Support(*triton.module(op).can_run(dtype, shapes))


def preference(op: str) -> tuple[str, ...]:
    """All backends, the fastest on its devices first (docs/performance.md has the times on a GPU)."""
    if op == "twin_mask_statistics":
        return ("cuda", "triton", "cpu", "reference")
    return ("triton", "cuda", "cpu", "reference")


def verified(device_type: str) -> tuple[str, ...]:
    """The backends whose tests have passed on this machine's devices of a type."""
    if device_type == "cuda" and not _gpus_are_verified():
        return ()
    return VERIFIED.get(device_type, ())


# As torch.compiler.assume_constant_result does, whose call would import Dynamo and Triton with the package: what is
# verified does not change while a compiled function runs.
verified._dynamo_marked_constant = True


@functools.cache
def _gpus_are_verified() -> bool:
    if not torch.cuda.is_available():
        return False
    capabilities = [torch.cuda.get_device_capability(index)[0] for index in range(torch.cuda.device_count())]
    return all(major in VERIFIED_CAPABILITIES for major in capabilities)


def can_choose(
    op: str,
    backend: str,
    device_type: str,
    dtype: torch.dtype,
    shapes: dict[str, int] | None = None,
    differentiate: bool = False,
) -> Support:
    """Whether `backend` may be the automatic choice: it can run, its tests have passed on such a device, and it pays.

    A forward that will be differentiated and its backward take the same backend: each rounds scores in its own way, and
    where scores are sharp a gradient is only as good as their agreement. (Forced, a backend without the backward leaves
    that to the others.)
    """
    support = can_run(op, backend, device_type, dtype, shapes)
    if support.ok and differentiate:
        support = can_run(op, backend, device_type, dtype, shapes, "backward")
    if not support.ok or backend == "reference":
        return support
    if backend not in verified(device_type):
        place = "this GPU" if device_type == "cuda" and VERIFIED.get("cuda") else device_type
        return Support(False, f"its tests have not passed on {place} yet (docs/verified.md); force it to use it")
    if device_type == "cuda" and op in PRODUCTS and dtype == torch.float32:
        return Support(False, "PyTorch's own products of fp32 are faster (docs/performance.md); force it to use it")
    return support


class _Forced(threading.local):
    """The backend that `use_backend` forces in this thread."""

    def __init__(self) -> None:
        # Set here and not on the class: torch.compile guards on the instance's attribute only.
        self.name: str | None = None


_forced = _Forced()


def forced_backend() -> str | None:
    """The backend forced by `use_backend` or the environment, if any."""
    return _forced.name or os.environ.get(ENVIRONMENT_VARIABLE) or None


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Forces a backend for the calls made in the block by this thread; a backend that cannot run them fails.

    Backward passes run on the backend of their forward, wherever they are called.

    Args:
        name: one of `BACKENDS`.

    Raises:
        ValueError: no such backend.
    """
    if name not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {name!r}")
    before = _forced.name
    _forced.name = name
    try:
        yield
    finally:
        _forced.name = before


def will_be_differentiated(*tensors: torch.Tensor | None) -> bool:
    """Whether autograd follows a call with these arguments."""
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def choose(
    op: str,
    device_type: str,
    dtype: torch.dtype,
    shapes: dict[str, int] | None = None,
    differentiate: bool = False,
) -> str:
    """The backend that a call takes.

    Args:
        op: one of `OPS`.
        device_type: `tensor.device.type`.
        dtype: dtype of the features or logits.
        shapes: sizes by letter, where they are known.
        differentiate: whether a backward will be wanted; see `will_be_differentiated` and `can_choose`.

    Raises:
        ValueError: the environment names no backend.
        RuntimeError: the forced backend cannot run; the message says why.
    """
    forced = forced_backend()
    if forced is None:
        for backend in preference(op):
            if can_choose(op, backend, device_type, dtype, shapes, differentiate).ok:
                return backend
        return "reference"
    if forced not in BACKENDS:
        raise ValueError(f"{ENVIRONMENT_VARIABLE} must be one of {', '.join(BACKENDS)}, got {forced!r}")
    support = can_run(op, forced, device_type, dtype, shapes)
    if not support.ok:
        raise RuntimeError(f"{op}: the forced backend {forced!r} cannot run: {support.reason}")
    return forced


def explain(op: str, device: str | torch.device, dtype: torch.dtype) -> dict[str, Support]:
    """For each backend, whether it may be the automatic choice for `op` on `device`, and why."""
    device_type = torch.device(device).type
    return {backend: can_choose(op, backend, device_type, dtype) for backend in preference(op)}
