"""Bidirectional spatial correlation in Triton: the implementations of `bsc_forward` and `bsc_backward`."""

from __future__ import annotations

import torch
from torch import Tensor

from rrsis_kernels.triton import _token_pixel
from rrsis_kernels.triton._aot import AotSpec
from rrsis_kernels.triton._launch import Launcher, Recorder, unique_specs
from rrsis_kernels.triton._token_pixel import Gradients, TokenPixel, can_run

__all__ = ["aot_specs", "backward", "can_run", "forward"]


def forward(
    pixels: Tensor,
    keys: Tensor,
    values: Tensor | None,
    key_bias: Tensor | None,
    token_mask: Tensor | None,
    pixel_mask: Tensor | None,
    paint: bool,
    pool: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Implements `rrsis_kernels::bsc_forward`; equations in `rrsis_kernels.bidirectional_spatial_correlation`.

    Any strides, the last dimension contiguous.

    Args:
        pixels: (B, N, C) fp32, bf16 or fp16.
        keys: (B, H, L, C).
        values: (B, H, L, D), or None without `paint`.
        key_bias: (B, H, L) or None.
        token_mask: (B, L) bool or None.
        pixel_mask: (B, N) bool or None.
        paint: whether to paint.
        pool: whether to pool.

    Returns:
        painted (B, N, D), pooled (B, H, L, C), pixel_lse (B, H, N) fp32 and pool_stats (B, H, L, 2) fp32, each of
        shape (0,) where it is not asked for.
    """
    with torch.cuda.device_of(pixels):
        return _forward(Launcher(pixels.device), pixels, keys, values, key_bias, token_mask, pixel_mask, paint, pool)


def _forward(
    launch: Launcher, pixels: Tensor, keys: Tensor, values: Tensor | None, key_bias: Tensor | None,
    token_mask: Tensor | None, pixel_mask: Tensor | None, paint: bool, pool: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    case = TokenPixel(pixels, keys, values if paint else None, key_bias, token_mask, pixel_mask)
    painted, pooled, lse, stats = _token_pixel.forward(launch, case, paint, pool)
    return (
        painted if paint else pixels.new_empty((0,)),
        pooled[0] if pool else pixels.new_empty((0,)),
        lse if paint else pixels.new_empty((0,), dtype=torch.float32),
        stats if pool else pixels.new_empty((0,), dtype=torch.float32),
    )


def backward(
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
    """Implements `rrsis_kernels::bsc_backward`; the equations are in docs/kernels.md.

    Args:
        grad_painted: (B, N, D) or None.
        grad_pooled: (B, H, L, C) or None.
        grad_pixel_lse: (B, H, N) fp32 or None.
        pixels: as in `forward`.
        keys: as in `forward`.
        values: as in `forward`, or None where paint is not differentiated.
        key_bias: as in `forward`.
        token_mask: as in `forward`.
        pixel_mask: as in `forward`.
        pooled: output of `forward`, read with `pool`.
        pool_stats: output of `forward`, read with `pool`.
        paint: whether a gradient comes back through painted or pixel_lse.
        pool: whether one comes back through pooled.

    Returns:
        grad_pixels (B, N, C), grad_keys (B, H, L, C), grad_values (B, H, L, D; (0,) without values) and grad_key_bias
        (B, H, L), all of the dtype of `pixels`.
    """
    tensors = (grad_painted, grad_pooled, grad_pixel_lse, pixels, keys, values, key_bias, token_mask, pixel_mask)
    with torch.cuda.device_of(pixels):
        return _backward(Launcher(pixels.device), *tensors, pooled, pool_stats, paint, pool)


def _backward(
    launch: Launcher, grad_painted: Tensor | None, grad_pooled: Tensor | None, grad_pixel_lse: Tensor | None,
    pixels: Tensor, keys: Tensor, values: Tensor | None, key_bias: Tensor | None, token_mask: Tensor | None,
    pixel_mask: Tensor | None, pooled: Tensor, pool_stats: Tensor, paint: bool, pool: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    case = TokenPixel(pixels, keys, values, key_bias, token_mask, pixel_mask)
    pools = pool and grad_pooled is not None
    grads = Gradients(
        grad_painted if paint else None,
        grad_pixel_lse if paint else None,
        *((grad_pooled, pooled, pool_stats) if pools else (None,) * 3),
    )
    grad_pixels, (grad_keys,), grad_values, grad_key_bias, _ = _token_pixel.backward(launch, case, grads)
    return grad_pixels, grad_keys, pixels.new_empty((0,)) if grad_values is None else grad_values, grad_key_bias


SHIPPED = (
    # N, C, D, H, L: BTDNet's stages and Grounding DINO's fusion; many tokens; few channels; no powers of two.
    (17821, 256, 256, 4, 20),
    (17821, 256, 256, 4, 256),
    (14400, 128, 128, 4, 20),
    (1024, 64, 64, 4, 20),
    (3600, 256, 256, 8, 20),
    (225, 1024, 1024, 32, 20),
    (900, 72, 40, 3, 1000),
)
"""Shapes whose configurations the test of ahead-of-time compilation builds."""
TF32_SHIPPED = (SHIPPED[0], SHIPPED[4], SHIPPED[6])
"""Those whose fp32 products are compiled in TF32 too: one head, several and a part of one in a block of rows."""


def aot_specs(arch: int) -> list[AotSpec]:
    """Every kernel at every configuration that the shapes of `SHIPPED` take on an architecture.

    Args:
        arch: 80, 90 or 100.
    """
    specs = []
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        # fp16 is compiled from the same source as bf16: one shape stands for it.
        for shape in SHIPPED if dtype == torch.bfloat16 else SHIPPED[:1]:
            specs += _shape_specs(arch, dtype, shape)
    for shape in TF32_SHIPPED:
        specs += _shape_specs(arch, torch.float32, shape, tf32=True)
    return unique_specs(specs)


def _shape_specs(arch: int, dtype: torch.dtype, shape: tuple[int, ...], tf32: bool = False) -> list[AotSpec]:
    count, channels, painted, heads, tokens = shape
    launch = Recorder(arch, dtype, shape, tf32)

    def room(*size: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.empty(size, dtype=dtype, device="meta")

    inputs = (
        room(1, count, channels),
        room(1, heads, tokens, channels),
        room(1, heads, tokens, painted),
        room(1, heads, tokens),
        room(1, tokens, dtype=torch.bool),
        room(1, count, dtype=torch.bool),
    )
    _, pooled, lse, stats = _forward(launch, *inputs, True, True)
    _backward(launch, room(1, count, painted), pooled, lse, *inputs, pooled, stats, True, True)
    return launch.specs
