"""Which kernel a torch operator runs where several share one dispatch key.

PyTorch keeps one kernel per operator and dispatch key. Triton kernels and compiled C++ kernels both serve CUDA tensors
(and CPU tensors where Triton is interpreted or CUDA emulated), so on those keys one Python entry per operator stands in
front of all: it takes the backend that the call forces, else the first that can run, verified ones first. A compiled
kernel that was registered before is kept and called through its own handle; without Python it is all there is. Where it
is all that Python has too, no entry stands in front of it.

The statistics that a forward saves for its backward mean the same in every backend (schemas.txt, docs/kernels.md), so
that any backend's backward is right for any other's forward.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rrsis_kernels import backends, library, triton

Kernel = Callable[..., Any]
"""Takes the key set, the tensor whose device counts, and the operator's arguments."""

LAYOUTS = {
    "bidirectional_spatial_correlation": {"pixels": "B N C", "keys": "B H L C", "values": "B H L D"},
    "twin_stream_attention": {"pixels": "B N C", "target_queries": "B H K C"},
    "twin_mask_statistics": {"target_logits": "B h w", "mask": "B Hm Wm"},
    "masked_cosine_loss": {"prediction": "B N C"},
}
"""The arguments that give the sizes which `backends.can_run` is asked with; the first gives device and dtype."""

KERNELS_ON_CUDA = ("cuda", "triton")
"""The backends that could have a kernel at CUDA's key."""


def select(
    op: str,
    candidates: tuple[str, ...],
    device_type: str,
    dtype: torch.dtype,
    shapes: dict[str, int] | None = None,
    function: str = "forward",
) -> str:
    """The backend, among those that share a dispatch key, which runs a call of a torch operator.

    Args:
        op: the public function behind the operator.
        candidates: backends that have a kernel there. Where none has, the error says of each of CUDA's why.
        device_type: `tensor.device.type`.
        dtype: dtype of the features or logits.
        shapes: sizes by letter, where they are known.
        function: `forward` or `backward`, which the operator is.

    Raises:
        RuntimeError: the forced one cannot run, or none can; the message says why.
    """
    named = candidates or KERNELS_ON_CUDA
    supports = {name: backends.can_run(op, name, device_type, dtype, shapes, function) for name in named}
    forced = backends.forced_backend()
    asked = (forced,) if forced in supports else named
    able = [name for name in backends.preference(op) if name in asked and name in candidates and supports[name].ok]
    if not able:
        reasons = "; ".join(f"{name}: {supports[name].reason}" for name in asked)
        raise RuntimeError(f"{op}: no kernel can run on {device_type} ({reasons})")
    verified = backends.verified(device_type)
    return next((name for name in able if name in verified), able[0])


class _Entry:
    """What stands at one dispatch key of one torch operator.

    Args:
        name: the torch operator.
        candidates: by backend, what it runs there.
    """

    def __init__(self, name: str, candidates: dict[str, Kernel]) -> None:
        self.op, self.function = library.OPERATORS[name]
        names = [argument.name for argument in getattr(torch.ops.rrsis_kernels, name).default._schema.arguments]
        self.layouts = {names.index(argument): layout for argument, layout in LAYOUTS[self.op].items()}
        self.candidates = candidates

    def __call__(self, keyset: torch._C.DispatchKeySet, *args: Any) -> Any:
        tensors = {position: args[position] for position in self.layouts}
        first = tensors[next(iter(self.layouts))]
        shapes: dict[str, int] = {}
        for position, tensor in tensors.items():
            if tensor is not None:
                shapes |= zip(self.layouts[position].split(" "), tensor.shape, strict=True)
        backend = select(self.op, tuple(self.candidates), first.device.type, first.dtype, shapes, self.function)
        return self.candidates[backend](keyset, first, *args)


def _compiled_kernel(backend: str, device_type: str, name: str) -> Kernel:
    """The kernel of a compiled library, kept before a Python entry takes its place."""
    namespace, key = library.PLACES[backend, device_type]
    native = torch.library.get_kernel(f"{namespace}::{name}", key)
    return lambda keyset, first, *args: native.call_boxed(keyset, *args)


def _triton_kernel(op: str, function: str) -> Kernel:
    """The Triton function, imported when it is first called."""

    def run(keyset: torch._C.DispatchKeySet, first: Tensor, *args: Any) -> Any:
        with _on_device_of(first):
            return getattr(triton.module(op), function)(*args)

    return run


def _on_device_of(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Makes the tensor's device the current one: Triton launches there, on that device's current stream."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


def _candidates(name: str, device_type: str) -> dict[str, Kernel]:
    """The backends that have a kernel of a torch operator for tensors on a type of device, and the kernels."""
    op, function = library.OPERATORS[name]
    found = {
        backend: _compiled_kernel(backend, device_type, name)
        for backend in ("cuda", "cpu")
        if library.has_compiled(backend, device_type, op, function)
    }
    if triton.INSTALLED and op in triton.KERNELS and (device_type == "cuda" or triton.INTERPRETED):
        found["triton"] = _triton_kernel(op, function)
    return found


def _register() -> None:
    # Standing in front of compiled kernels is what the entries are for; users need not hear of it.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"(?s).*Overriding a previously registered kernel")
        _register_entries()


def _register_entries() -> None:
    for name in library.OPERATORS:
        for device_type, key in (("cuda", "CUDA"), ("cpu", "CPU")):
            candidates = _candidates(name, device_type)
            alone = candidates.keys() == {device_type}  # the compiled kernel, which needs no Python in front of it
            if not alone and (candidates or device_type == "cuda"):
                entry = _Entry(name, candidates)
                library.DEFINITIONS.impl(name, entry, key, with_keyset=True, allow_override=True)


_register()
