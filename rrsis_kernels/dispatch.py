"""Which kernel a torch operator runs where several share one dispatch key.

PyTorch keeps one kernel per operator and dispatch key. Triton kernels and compiled C++ kernels both serve CUDA tensors
(and CPU tensors where Triton is interpreted), so on those keys one Python entry per operator stands in front of both:
it takes the backend that the call forces, else the first that can run, verified ones first. A compiled kernel that was
registered before is kept and called through its own handle; without Python it is all there is.

The statistics that a forward saves for its backward mean the same in every backend (schemas.txt, docs/kernels.md), so
that any backend's backward is right for any other's forward.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rrsis_kernels import backends, library, triton

OPERATORS = {
    "bsc_forward": ("bidirectional_spatial_correlation", "forward"),
    "bsc_backward": ("bidirectional_spatial_correlation", "backward"),
    "twin_stream_forward": ("twin_stream_attention", "forward"),
    "twin_stream_backward": ("twin_stream_attention", "backward"),
    "mask_statistics_forward": ("twin_mask_statistics", "forward"),
    "mask_statistics_backward": ("twin_mask_statistics", "backward"),
    "masked_cosine_forward": ("masked_cosine_loss", "forward"),
    "masked_cosine_backward": ("masked_cosine_loss", "backward"),
}
"""The public function behind each torch operator, and the function of its Triton module."""

LAYOUTS = {
    "bidirectional_spatial_correlation": {"pixels": "B N C", "keys": "B H L C", "values": "B H L D"},
    "twin_stream_attention": {"pixels": "B N C", "target_queries": "B H K C"},
    "twin_mask_statistics": {"target_logits": "B h w", "mask": "B Hm Wm"},
    "masked_cosine_loss": {"prediction": "B N C"},
}
"""The arguments that give the sizes which `backends.can_run` is asked with; the first gives device and dtype."""

NATIVE = {"CUDA": "cuda", "CPU": "cpu"}
"""The backend whose compiled kernels are registered at a dispatch key."""


def select(
    op: str, candidates: tuple[str, ...], device_type: str, dtype: torch.dtype, shapes: dict[str, int] | None = None
) -> str:
    """The backend, among those that share a dispatch key, which runs a call of a torch operator.

    Args:
        op: the public function behind the operator.
        candidates: backends that have a kernel there.
        device_type: `tensor.device.type`.
        dtype: dtype of the features or logits.
        shapes: sizes by letter, where they are known.

    Raises:
        RuntimeError: the forced one cannot run, or none can; the message says why.
    """
    supports = {name: backends.can_run(op, name, device_type, dtype, shapes) for name in candidates}
    forced = backends.forced_backend()
    asked = (forced,) if forced in supports else candidates
    able = [name for name in backends.BACKENDS if name in asked and supports[name].ok]
    if not able:
        reasons = "; ".join(f"{name}: {supports[name].reason}" for name in asked)
        raise RuntimeError(f"{op}: no kernel can run on {device_type} ({reasons})")
    verified = backends.VERIFIED.get(device_type, ())
    return next((name for name in able if name in verified), able[0])


class _Entry:
    """What stands at one dispatch key of one torch operator."""

    def __init__(self, name: str, key: str) -> None:
        self.op, self.function = OPERATORS[name]
        self.native_name = NATIVE[key]
        qualified = f"{library.NAMESPACE}::{name}"
        has_native = torch._C._dispatch_has_kernel_for_dispatch_key(qualified, key)
        self.native = torch.library.get_kernel(qualified, key) if has_native else None
        names = [argument.name for argument in getattr(torch.ops.rrsis_kernels, name).default._schema.arguments]
        self.layouts = {names.index(argument): layout for argument, layout in LAYOUTS[self.op].items()}
        self.candidates = ("triton",) if self.native is None else (self.native_name, "triton")

    def __call__(self, keyset: torch._C.DispatchKeySet, *args: Any) -> Any:
        tensors = {position: args[position] for position in self.layouts}
        first = tensors[next(iter(self.layouts))]
        shapes: dict[str, int] = {}
        for position, tensor in tensors.items():
            if tensor is not None:
                shapes |= zip(self.layouts[position].split(" "), tensor.shape, strict=True)
        backend = select(self.op, self.candidates, first.device.type, first.dtype, shapes)
        if backend == self.native_name:
            return self.native.call_boxed(keyset, *args)
        with _on_device_of(first):
            return _triton_function(self.op, self.function)(*args)


def _triton_function(op: str, function: str) -> Callable[..., Any]:
    return getattr(triton.module(op), function)


def _on_device_of(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Makes the tensor's device the current one: Triton launches there, on that device's current stream."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


def _register() -> None:
    if not triton.INSTALLED:
        return
    for name, (op, _) in OPERATORS.items():
        if op in triton.KERNELS:
            for key in ("CUDA", "CPU") if triton.INTERPRETED else ("CUDA",):
                entry = _Entry(name, key)
                library.DEFINITIONS.impl(name, entry, key, with_keyset=True, allow_override=True)


_register()
