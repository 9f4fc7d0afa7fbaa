"""Twin-stream attention in Triton: the implementations of `twin_stream_forward` and `twin_stream_backward`.

Both streams are the pool of one score matrix with 2·H heads, the target's first; a row's stream decides the sign of its
gate. The queries (and in the backward the pooled rows and their gradients) are copied behind each other for that.
"""

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
    target_queries: Tensor,
    background_queries: Tensor,
    gate: Tensor | None,
    pixel_mask: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Implements `rrsis_kernels::twin_stream_forward`; equations in `rrsis_kernels.twin_stream_attention`.

    Any strides, the last dimension contiguous.

    Args:
        pixels: (B, N, C) fp32, bf16 or fp16.
        target_queries: (B, H, K, C).
        background_queries: (B, H, K, C).
        gate: (B, N) of the dtype of `pixels` or fp32, or None.
        pixel_mask: (B, N) bool or None.

    Returns:
        target and background (B, H, K, C), and pool_stats (B, 2, H, K, 2) fp32.
    """
    with torch.cuda.device_of(pixels):
        return _forward(Launcher(pixels.device), pixels, target_queries, background_queries, gate, pixel_mask)


def _forward(
    launch: Launcher, pixels: Tensor, target_queries: Tensor, background_queries: Tensor, gate: Tensor | None,
    pixel_mask: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    case = _case(pixels, target_queries, background_queries, gate, pixel_mask)
    _, (target, background), _, stats = _token_pixel.forward(launch, case, False, True)
    return target, background, stats.unflatten(1, (2, target_queries.shape[1]))


def _case(
    pixels: Tensor, target_queries: Tensor, background_queries: Tensor, gate: Tensor | None, pixel_mask: Tensor | None
) -> TokenPixel:
    keys = torch.cat([target_queries, background_queries], 1)
    return TokenPixel(pixels, keys, pixel_mask=pixel_mask, gate=gate, banks=2)


def backward(
    grad_target: Tensor | None,
    grad_background: Tensor | None,
    pixels: Tensor,
    target_queries: Tensor,
    background_queries: Tensor,
    gate: Tensor | None,
    pixel_mask: Tensor | None,
    target: Tensor,
    background: Tensor,
    pool_stats: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Implements `rrsis_kernels::twin_stream_backward`; the equations are in docs/kernels.md.

    Args:
        grad_target: (B, H, K, C) or None.
        grad_background: (B, H, K, C) or None.
        pixels: as in `forward`.
        target_queries: as in `forward`.
        background_queries: as in `forward`.
        gate: as in `forward`.
        pixel_mask: as in `forward`.
        target: output of `forward`.
        background: output of `forward`.
        pool_stats: output of `forward`.

    Returns:
        grad_pixels, grad_target_queries, grad_background_queries, and grad_gate of the gate's dtype ((0,) without one).
    """
    tensors = (pixels, target_queries, background_queries, gate, pixel_mask, target, background, pool_stats)
    with torch.cuda.device_of(pixels):
        return _backward(Launcher(pixels.device), grad_target, grad_background, *tensors)


def _backward(
    launch: Launcher, grad_target: Tensor | None, grad_background: Tensor | None, pixels: Tensor,
    target_queries: Tensor, background_queries: Tensor, gate: Tensor | None, pixel_mask: Tensor | None, target: Tensor,
    background: Tensor, pool_stats: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    case = _case(pixels, target_queries, background_queries, gate, pixel_mask)
    grads = Gradients(None, None, None, None, None)
    if grad_target is not None or grad_background is not None:
        pair = [torch.zeros_like(target) if grad is None else grad for grad in (grad_target, grad_background)]
        grads = Gradients(None, None, torch.cat(pair, 1), torch.cat([target, background], 1), pool_stats)
    grad_pixels, (grad_targets, grad_backgrounds), _, _, grad_gate = _token_pixel.backward(launch, case, grads)
    return grad_pixels, grad_targets, grad_backgrounds, pixels.new_empty((0,)) if grad_gate is None else grad_gate


SHIPPED = (
    # N, C, H, K of BTDNet's decoder at 480², and a size that is no power of two.
    (3600, 256, 8, 8),
    (900, 72, 3, 5),
)
"""Shapes whose configurations the test of ahead-of-time compilation builds."""
TF32_SHIPPED = SHIPPED
"""Those whose fp32 products are compiled in TF32 too."""


def aot_specs(arch: int) -> list[AotSpec]:
    """Every kernel at every configuration that the shapes of `SHIPPED` take on an architecture.

    Args:
        arch: 80, 90 or 100.
    """
    specs = []
    for dtype in (torch.bfloat16, torch.float32):
        for shape in SHIPPED if dtype == torch.bfloat16 else SHIPPED[:1]:
            specs += _shape_specs(arch, dtype, shape)
    for shape in TF32_SHIPPED:
        specs += _shape_specs(arch, torch.float32, shape, tf32=True)
    return unique_specs(specs)


def _shape_specs(arch: int, dtype: torch.dtype, shape: tuple[int, ...], tf32: bool = False) -> list[AotSpec]:
    count, channels, heads, queries = shape
    launch = Recorder(arch, dtype, shape, tf32)
    pixels = torch.empty(1, count, channels, dtype=dtype, device="meta")
    rows = torch.empty(1, heads, queries, channels, dtype=dtype, device="meta")
    gate = torch.empty(1, count, device="meta")
    inputs = (pixels, rows, rows, gate, torch.empty(1, count, dtype=torch.bool, device="meta"))
    target, background, stats = _forward(launch, *inputs)
    _backward(launch, target, background, *inputs, target, background, stats)
    return launch.specs
