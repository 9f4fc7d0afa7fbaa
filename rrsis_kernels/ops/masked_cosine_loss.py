"""Masked cosine loss: how far rebuilt features point away from the originals, at the rows that were hidden."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rrsis_kernels import backends, library, reference
from rrsis_kernels._checks import Arguments
from rrsis_kernels.ops import _common

NAME = "masked_cosine_loss"


def masked_cosine_loss(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean of 1 − cos(prediction, target) over the masked rows of each sample.

    `cos = <x, y> / (max(|x|, ε) · max(|y|, ε))` with ε = 1e-8. A sample without a masked row gives 0 with zero
    gradients. Differentiable in both inputs; detach the target where it is one. This is the score of this project's
    reading of D-MOLS in BTDNet (arXiv 2502.08486).

    Args:
        prediction: (B, N, C) fp32, bf16, fp16 or fp64.
        target: (B, N, C), of the dtype of `prediction`.
        mask: (B, N) bool, True = the row counts.

    Returns:
        (B,) in fp32 (fp64 for fp64 inputs).

    Raises:
        TypeError: an argument is no tensor or of a wrong dtype.
        ValueError: an argument has a wrong rank, size or device.
        RuntimeError: a backend is forced that cannot run.
    """
    prediction, target = _common.widen_together(prediction, target)
    arguments = Arguments(NAME)
    arguments.check("prediction", prediction, "B N C")
    arguments.check("target", target, "B N C")
    arguments.check("mask", mask, "B N", (torch.bool,))
    differentiate = backends.will_be_differentiated(prediction, target)
    backend = backends.choose(NAME, prediction.device.type, prediction.dtype, arguments.sizes, differentiate)
    tensors = (prediction, target, mask)
    if backend == "reference":
        return _common.without_autocast(reference.masked_cosine_loss, prediction.device.type, *tensors)
    return torch.ops.rrsis_kernels.masked_cosine_forward(*map(_common.rows_contiguous, tensors))


@torch.library.register_fake(f"{library.NAMESPACE}::masked_cosine_forward", lib=library.DEFINITIONS)
def _fake_forward(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    return prediction.new_empty((prediction.shape[0],), dtype=reference.accumulation_dtype(prediction.dtype))


@torch.library.register_fake(f"{library.NAMESPACE}::masked_cosine_backward", lib=library.DEFINITIONS)
def _fake_backward(grad_loss: Tensor, prediction: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    return prediction.new_empty(prediction.shape), prediction.new_empty(target.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)
    _common.remember_backend(ctx)


def _backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
    with _common.backend_of_forward(ctx):
        grads = torch.ops.rrsis_kernels.masked_cosine_backward(_common.rows_contiguous(grad_loss), *ctx.saved_tensors)
    return (*(grad if needed else None for grad, needed in zip(grads, ctx.needs_input_grad, strict=False)), None)


def _cast(prediction: Tensor, target: Tensor, mask: Tensor) -> tuple[Any, ...]:
    return (*_common.widen_together(prediction, target), mask)


torch.library.register_autograd(
    f"{library.NAMESPACE}::masked_cosine_forward", _backward, setup_context=_setup_context, lib=library.DEFINITIONS
)
_common.register_first_order_only("masked_cosine_backward")
_common.register_autocast("masked_cosine_forward", _cast)
