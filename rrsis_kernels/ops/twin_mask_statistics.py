"""Twin mask statistics: every sum that the segmentation loss and the IoU need, in one pass at the mask's size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rrsis_kernels import backends, library, reference
from rrsis_kernels._checks import FLOATING, Arguments
from rrsis_kernels.ops import _common
from rrsis_kernels.types import TwinMaskStatistics

NAME = "twin_mask_statistics"
COLUMNS = len(TwinMaskStatistics._fields)


def twin_mask_statistics(
    target_logits: Tensor,
    background_logits: Tensor,
    mask: Tensor,
    valid: Tensor | None = None,
    *,
    joint_scale: float = 1.0,
) -> TwinMaskStatistics:
    """Compares two logit maps with a mask at the mask's size, without making the upsampled maps.

    Both maps are resized bilinearly as `torch.nn.functional.interpolate(…, mode="bilinear", align_corners=False)` does,
    to z_t and z_b; the joint logit is z = joint_scale·(z_t − z_b). Cross-entropy and Dice (either way round) are Python
    over the sums; see `TwinMaskStatistics` for what they are. The equations are this project's own (arXiv 2502.08486
    describes the two streams and their joint prediction in words).

    Gradients flow to the logits, through the sums that are smooth in them (the first five). B, Hm, Wm of 0 are legal.

    Args:
        target_logits: (B, h, w) fp32, bf16, fp16 or fp64.
        background_logits: (B, h, w), of the dtype of `target_logits`.
        mask: (B, Hm, Wm) bool, uint8 (not 0 = object) or floating in [0, 1] (the object's share of the pixel).
        valid: (B, Hm, Wm) bool, True = counted, or None.
        joint_scale: factor of the joint logit.

    Returns:
        Nine sums per sample, (B,) each, in fp32 (fp64 for fp64 logits).

    Raises:
        TypeError: an argument is no tensor or of a wrong dtype.
        ValueError: an argument has a wrong rank, size or device.
        RuntimeError: a backend is forced that cannot run.
    """
    target_logits, background_logits = _common.widen_together(target_logits, background_logits)
    sizes = _check(target_logits, background_logits, mask, valid)
    differentiate = backends.will_be_differentiated(target_logits, background_logits)
    backend = backends.choose(NAME, target_logits.device.type, target_logits.dtype, sizes, differentiate)
    # Masks from image files are 0 and 255 as often as 0 and 1.
    mask = mask != 0 if mask.dtype == torch.uint8 else mask.detach()
    tensors = (target_logits, background_logits, mask, valid)
    if backend == "reference":
        return _common.without_autocast(
            reference.twin_mask_statistics, target_logits.device.type, *tensors, joint_scale=joint_scale
        )
    sums = torch.ops.rrsis_kernels.mask_statistics_forward(*map(_common.rows_contiguous, tensors), joint_scale)
    return TwinMaskStatistics(*sums.unbind(1))


def _check(target_logits: Tensor, background_logits: Tensor, mask: Tensor, valid: Tensor | None) -> dict[str, int]:
    arguments = Arguments(NAME)
    arguments.check("target_logits", target_logits, "B h w")
    arguments.check("background_logits", background_logits, "B h w")
    arguments.check("mask", mask, "B Hm Wm", (torch.bool, torch.uint8, *FLOATING))
    if valid is not None:
        arguments.check("valid", valid, "B Hm Wm", (torch.bool,))
    if 0 in target_logits.shape[1:] and 0 not in mask.shape:
        raise ValueError(
            f"{NAME}: target_logits must have pixels to resize from, got shape {tuple(target_logits.shape)}"
        )
    return arguments.sizes


@torch.library.register_fake(f"{library.NAMESPACE}::mask_statistics_forward", lib=library.DEFINITIONS)
def _fake_forward(
    target_logits: Tensor, background_logits: Tensor, mask: Tensor, valid: Tensor | None, joint_scale: float
) -> Tensor:
    dtype = reference.accumulation_dtype(target_logits.dtype)
    return target_logits.new_empty((target_logits.shape[0], COLUMNS), dtype=dtype)


@torch.library.register_fake(f"{library.NAMESPACE}::mask_statistics_backward", lib=library.DEFINITIONS)
def _fake_backward(
    grad_sums: Tensor,
    target_logits: Tensor,
    background_logits: Tensor,
    mask: Tensor,
    valid: Tensor | None,
    joint_scale: float,
) -> tuple[Tensor, Tensor]:
    return target_logits.new_empty(target_logits.shape), target_logits.new_empty(background_logits.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, joint_scale = inputs
    ctx.save_for_backward(*tensors)
    ctx.joint_scale = joint_scale
    _common.remember_backend(ctx)


def _backward(ctx: Any, grad_sums: Tensor) -> tuple[Tensor | None, ...]:
    with _common.backend_of_forward(ctx):
        grads = torch.ops.rrsis_kernels.mask_statistics_backward(
            _common.rows_contiguous(grad_sums), *ctx.saved_tensors, ctx.joint_scale
        )
    return (*grads, None, None, None)


def _cast(target_logits: Tensor, background_logits: Tensor, *rest: Any) -> tuple[Any, ...]:
    return (*_common.widen_together(target_logits, background_logits), *rest)


torch.library.register_autograd(
    f"{library.NAMESPACE}::mask_statistics_forward", _backward, setup_context=_setup_context, lib=library.DEFINITIONS
)
_common.register_first_order_only("mask_statistics_backward")
_common.register_autocast("mask_statistics_forward", _cast)
