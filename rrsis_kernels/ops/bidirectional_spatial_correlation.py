"""Bidirectional spatial correlation: tokens paint pixels, pixels pool into tokens, over one score matrix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rrsis_kernels import backends, library, reference
from rrsis_kernels._checks import Arguments, check_choice
from rrsis_kernels.ops import _common
from rrsis_kernels.types import BidirectionalSpatialCorrelation

NAME = "bidirectional_spatial_correlation"
DIRECTIONS = ("both", "paint", "pool")


def bidirectional_spatial_correlation(
    pixels: Tensor,
    keys: Tensor,
    values: Tensor | None = None,
    key_bias: Tensor | None = None,
    token_mask: Tensor | None = None,
    pixel_mask: Tensor | None = None,
    *,
    direction: str = "both",
) -> BidirectionalSpatialCorrelation:
    """Lets pixels gather from tokens and tokens from pixels, in one pass over one score matrix.

    With `S[h,l,n] = <keys[h,l], pixels[n]> + key_bias[h,l]`:

        painted[n]     = Σ_h Σ_l softmax_l(S[h,:,n])[l] · values[h,l]
        pooled[h,l]    = Σ_n softmax_n(S[h,l,:])[n] · pixels[n]
        pixel_lse[h,n] = log Σ_l exp S[h,l,n]

    There is no scale in it: scale the keys. A projection of the pixels is absorbed by the keys, one of the painted
    result by the values, one of the pooled pixels follows the op (`rrsis_kernels.nn` does all that). The equations are
    this project's own reading of the bidirectional spatial correlation of BTDNet (arXiv 2502.08486).

    A mask removes keys, never queries: masked tokens are not painted with but still pool, masked pixels are not pooled
    but still painted. A query without a real key gives zeros, a pixel_lse of −inf, and zero gradients. B, N, L, D of 0
    are legal (D of 0: pixel_lse alone). Tensors may have any strides. Values under a mask must still be finite.

    Args:
        pixels: (B, N, C) fp32, bf16, fp16 or fp64.
        keys: (B, H, L, C), of the dtype of `pixels`, as are `values` and `key_bias`.
        values: (B, H, L, D); may be None for direction "pool", which does not look at it.
        key_bias: (B, H, L) or None.
        token_mask: (B, L) bool, True = real, or None.
        pixel_mask: (B, N) bool, True = real, or None.
        direction: "both", "paint" or "pool"; one direction alone skips the other's work.

    Returns:
        painted (B, N, D), pooled (B, H, L, C), pixel_lse (B, H, N) in fp32 (fp64 for fp64); None for what was not asked
        for ("paint" gives painted and pixel_lse).

    Raises:
        TypeError: an argument is no tensor or of a wrong dtype.
        ValueError: an argument has a wrong rank, size or device, or `direction` is unknown.
        RuntimeError: a backend is forced that cannot run.
    """
    check_choice(NAME, "direction", direction, DIRECTIONS)
    if direction == "pool":
        values = None
    pixels, keys, values, key_bias = _common.lower_together((pixels, keys, values, key_bias))
    sizes = _check(pixels, keys, values, key_bias, token_mask, pixel_mask, direction)
    differentiate = backends.will_be_differentiated(pixels, keys, values, key_bias)
    backend = backends.choose(NAME, pixels.device.type, pixels.dtype, sizes, differentiate)
    if backend == "reference":
        return _common.without_autocast(
            reference.bidirectional_spatial_correlation,
            pixels.device.type,
            *(pixels, keys, values, key_bias, token_mask, pixel_mask),
            direction=direction,
        )
    paint, pool = direction != "pool", direction != "paint"
    painted, pooled, pixel_lse, _ = torch.ops.rrsis_kernels.bsc_forward(
        *map(_common.rows_contiguous, (pixels, keys, values, key_bias, token_mask, pixel_mask)), paint, pool
    )
    return BidirectionalSpatialCorrelation(
        painted if paint else None, pooled if pool else None, pixel_lse if paint else None
    )


def _check(
    pixels: Tensor,
    keys: Tensor,
    values: Tensor | None,
    key_bias: Tensor | None,
    token_mask: Tensor | None,
    pixel_mask: Tensor | None,
    direction: str,
) -> dict[str, int]:
    arguments = Arguments(NAME)
    arguments.check("pixels", pixels, "B N C")
    arguments.check("keys", keys, "B H L C")
    if direction != "pool":
        arguments.check("values", values, "B H L D")
    if key_bias is not None:
        arguments.check("key_bias", key_bias, "B H L")
    if token_mask is not None:
        arguments.check("token_mask", token_mask, "B L", (torch.bool,))
    if pixel_mask is not None:
        arguments.check("pixel_mask", pixel_mask, "B N", (torch.bool,))
    return arguments.sizes


@torch.library.register_fake(f"{library.NAMESPACE}::bsc_forward", lib=library.DEFINITIONS)
def _fake_forward(
    pixels: Tensor,
    keys: Tensor,
    values: Tensor | None,
    key_bias: Tensor | None,
    token_mask: Tensor | None,
    pixel_mask: Tensor | None,
    paint: bool,
    pool: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    (batch, count, channels), (_, heads, tokens, _) = pixels.shape, keys.shape
    dtype = reference.accumulation_dtype(pixels.dtype)
    return (
        pixels.new_empty((batch, count, values.shape[-1]) if paint else (0,)),
        pixels.new_empty((batch, heads, tokens, channels) if pool else (0,)),
        pixels.new_empty((batch, heads, count) if paint else (0,), dtype=dtype),
        pixels.new_empty((batch, heads, tokens, 2) if pool else (0,), dtype=dtype),
    )


@torch.library.register_fake(f"{library.NAMESPACE}::bsc_backward", lib=library.DEFINITIONS)
def _fake_backward(
    grad_painted: Tensor | None,
    grad_pooled: Tensor | None,
    grad_pixel_lse: Tensor | None,
    pixels: Tensor,
    keys: Tensor,
    values: Tensor | None,
    key_bias: Tensor | None,
    token_mask: Tensor | None,
    pixel_mask: Tensor | None,
    pooled: Tensor,
    pool_stats: Tensor,
    paint: bool,
    pool: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        pixels.new_empty(pixels.shape),
        pixels.new_empty(keys.shape),
        pixels.new_empty((0,) if values is None else values.shape),
        pixels.new_empty(keys.shape[:3]),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, paint, pool = inputs
    painted, pooled, pixel_lse, pool_stats = output
    ctx.save_for_backward(*tensors, pooled, pool_stats)
    ctx.paint, ctx.pool = paint, pool
    _common.remember_backend(ctx)
    unasked = ([] if paint else [painted, pixel_lse]) + ([] if pool else [pooled])
    ctx.mark_non_differentiable(pool_stats, *unasked)
    ctx.set_materialize_grads(False)


def _backward(
    ctx: Any, grad_painted: Tensor | None, grad_pooled: Tensor | None, grad_pixel_lse: Tensor | None, _: Tensor | None
) -> tuple[Tensor | None, ...]:
    pixels, keys, values, key_bias, token_mask, pixel_mask, pooled, pool_stats = ctx.saved_tensors
    # A direction that the loss does not depend on is skipped.
    paint = ctx.paint and not (grad_painted is None and grad_pixel_lse is None)
    pool = ctx.pool and grad_pooled is not None
    if not (paint or pool):
        return (None,) * 8
    if not paint:
        values = None
    with _common.backend_of_forward(ctx):
        grad_pixels, grad_keys, grad_values, grad_key_bias = torch.ops.rrsis_kernels.bsc_backward(
            *map(_common.rows_contiguous, (grad_painted, grad_pooled, grad_pixel_lse)),
            *(pixels, keys, values, key_bias, token_mask, pixel_mask, pooled, pool_stats, paint, pool),
        )
    return (
        grad_pixels,
        grad_keys,
        None if values is None else grad_values,
        None if key_bias is None else grad_key_bias,
        *(None,) * 4,
    )


def _cast(
    pixels: Tensor, keys: Tensor, values: Tensor | None, key_bias: Tensor | None, *rest: Tensor | bool | None
) -> tuple[Any, ...]:
    return (*_common.lower_together((pixels, keys, values, key_bias)), *rest)


torch.library.register_autograd(
    f"{library.NAMESPACE}::bsc_forward", _backward, setup_context=_setup_context, lib=library.DEFINITIONS
)
_common.register_first_order_only("bsc_backward")
_common.register_autocast("bsc_forward", _cast)
