"""What the operators share: autocast, layouts, and the error of a second differentiation."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor

from rrsis_kernels import backends, library

AUTOCAST_DEVICES = ("cpu", "cuda")


def autocast_dtype(tensor: Tensor) -> torch.dtype | None:
    """The dtype that autocast asks for on the tensor's device; None where it is off."""
    device_type = tensor.device.type
    if device_type in AUTOCAST_DEVICES and torch.is_autocast_enabled(device_type):
        return torch.get_autocast_dtype(device_type)
    return None


def lower(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Casts a feature tensor to autocast's dtype; like autocast itself it leaves fp64, masks and non-tensors alone."""
    if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.dtype != torch.float64:
        return tensor.to(dtype)
    return tensor


def lower_together(tensors: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """What autocast does to the features of an op that is eligible for low precision."""
    dtype = autocast_dtype(tensors[0]) if isinstance(tensors[0], Tensor) else None
    return tensors if dtype is None else tuple(lower(tensor, dtype) for tensor in tensors)


def widen_together(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """What autocast does to a pair whose sums are taken in fp32 anyway: the wider dtype of the two, no further."""
    if not (isinstance(first, Tensor) and isinstance(second, Tensor)) or autocast_dtype(first) is None:
        return first, second
    dtype = torch.promote_types(first.dtype, second.dtype)
    return first.to(dtype), second.to(dtype)


def without_autocast(function: Callable[..., Any], device_type: str, *args: Any, **kwargs: Any) -> Any:
    """Calls a function whose inputs have been cast already."""
    if device_type not in AUTOCAST_DEVICES or not torch.is_autocast_enabled(device_type):
        return function(*args, **kwargs)
    with torch.autocast(device_type, enabled=False):
        return function(*args, **kwargs)


def register_autocast(name: str, cast: Callable[..., tuple[Any, ...]]) -> None:
    """Makes a torch op cast its arguments under autocast, for those who call it directly.

    `torch.library.register_autocast` fixes the dtype at registration; this follows the one the user chose.

    Args:
        name: operator without its namespace.
        cast: takes the operator's arguments and returns them cast.
    """
    op = getattr(torch.ops.rrsis_kernels, name).default
    for device_type in AUTOCAST_DEVICES:

        def kernel(*args: Any, _device_type: str = device_type) -> Any:
            with torch.autocast(_device_type, enabled=False):
                return op(*args)

        def entry(*args: Any, _kernel: Callable[..., Any] = kernel) -> Any:
            return _kernel(*cast(*args))

        library.DEFINITIONS.impl(name, entry, f"Autocast{device_type.upper()}")


def remember_backend(ctx: Any) -> None:
    """Notes in a forward which backend was forced, for its backward."""
    ctx.forced_backend = backends.forced_backend()


def backend_of_forward(ctx: Any) -> contextlib.AbstractContextManager[None]:
    """Forces in a backward what was forced in its forward: autograd may run it later and in a thread of its own."""
    return backends.use_backend(ctx.forced_backend) if ctx.forced_backend else contextlib.nullcontext()


def register_first_order_only(name: str) -> None:
    """Gives a backward op a clear error when it is itself differentiated.

    Args:
        name: operator without its namespace.
    """

    def refuse(ctx: Any, *grads: Tensor) -> NoReturn:
        raise RuntimeError(
            f"rrsis_kernels.{name} cannot be differentiated: the fused kernels have no double backward; "
            "use the reference backend (rrsis_kernels.use_backend('reference')) for second derivatives"
        )

    torch.library.register_autograd(f"{library.NAMESPACE}::{name}", refuse, lib=library.DEFINITIONS)


def rows_contiguous(tensor: Tensor | None) -> Tensor | None:
    """The tensor with a contiguous last dimension, copied only where it has none."""
    if tensor is None or tensor.stride(-1) == 1 or tensor.shape[-1] <= 1:
        return tensor
    return tensor.contiguous()
