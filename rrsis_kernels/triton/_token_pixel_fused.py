"""Kernels that keep whole rows of a tile of pixels: they walk over the heads and write what pixels get themselves.

They read and write fewer bytes than kernels via scores alone: P (forward) and Q (backward) stay on the chip, and the
pixels' output is summed over all heads in registers. Up to how many channels that fits without spills stands in the
table of configurations.
"""

from __future__ import annotations

import triton
import triton.language as tl

from rrsis_kernels.triton._placement import dense_start, place, row_block, tile_start
from rrsis_kernels.triton._token_pixel_backward import paint_gradient, pool_gradient
from rrsis_kernels.triton._token_pixel_forward import (
    biased,
    kept_rows,
    paint_softmax,
    pool_tile,
    row_offsets,
    store_scores,
)


@triton.jit
def whole_rows(base, rows, live, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """Rows of WIDTH channels, zeros up to PADDED."""
    channel = tl.arange(0, PADDED)
    return tl.load(base + (rows[:, None] + channel[None, :]), live[:, None] & (channel < WIDTH)[None, :], 0.0)


@triton.jit
def store_rows(out, sums, tile, b, N, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """Writes a tile of (B, N, WIDTH)."""
    i, channel = tl.arange(0, sums.shape[0]), tl.arange(0, PADDED)
    out = dense_start(out, b, N, tile * sums.shape[0], WIDTH)
    live = (tile * sums.shape[0] + i < N)[:, None] & (channel < WIDTH)[None, :]
    tl.store(out + ((i * WIDTH)[:, None] + channel[None, :]), sums.to(out.dtype.element_ty), live)


@triton.jit
def forward_fused_kernel(
    pixels, keys, values, key_bias, token_mask, pixel_mask, gate, painted, weights, tile_stats, lse,
    N, H, L, granules, bank_heads, pixels_b, pixels_n, keys_b, keys_h, keys_l, values_b, values_h, values_l, bias_b,
    bias_h, token_mask_b, pixel_mask_b, gate_b,
    C: tl.constexpr, D: tl.constexpr, WHOLE_C: tl.constexpr, WHOLE_D: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_R: tl.constexpr, GROUP: tl.constexpr, COLUMNS: tl.constexpr, GRANULE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Paints a tile of pixels and writes its lse; with `weights`, what the pool needs as in `forward_scores_kernel`."""
    _, tile, b = place(1, tl.cdiv(N, BLOCK_N))
    n = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    R, blocks = H * L, tl.cdiv(H, GROUP)
    i = tl.arange(0, BLOCK_N)
    x = whole_rows(tile_start(pixels, b, pixels_b, tile * BLOCK_N, pixels_n), i * pixels_n, n < N, C, WHOLE_C)
    sums = tl.zeros((BLOCK_N, WHOLE_D), tl.float32)
    for block in range(0, blocks):
        head, token, row, live = row_block(block, H, L, GROUP, BLOCK_R, False)
        k = whole_rows(keys + b * keys_b, row_offsets(head, token, keys_h, keys_l), live, C, WHOLE_C)
        scores = tl.dot(x, tl.trans(k), input_precision=PRECISION)
        scores = biased(scores, key_bias, head, token, live, b, bias_b, bias_h)
        kept = kept_rows(token_mask, token, live, b, token_mask_b)
        p = paint_softmax(scores, kept, head - block * GROUP, lse, n, block, b, N, H, GROUP)
        v = whole_rows(values + b * values_b, row_offsets(head, token, values_h, values_l), live, D, WHOLE_D)
        sums = tl.dot(p.to(v.dtype), v, sums, input_precision=PRECISION)
        if weights is not None:
            pool_tile(
                scores, weights, tile_stats, tile, block, n, head, row, live, b, N, R, granules, bank_heads,
                pixel_mask, gate, pixel_mask_b, gate_b, COLUMNS, GRANULE,
            )  # fmt: skip
    store_rows(painted, sums, tile, b, N, D, WHOLE_D)


@triton.jit
def backward_fused_kernel(
    pixels, keys, values, key_bias, token_mask, pixel_mask, gate, grad_painted, grad_pooled, grad_lse, pool_stats,
    pool_delta, probabilities, slopes, grad_pixels, bias_partials, gate_partials,
    N, H, L, granules, bank_heads, pixels_b, pixels_n, keys_b, keys_h, keys_l, values_b, values_h, values_l, bias_b,
    bias_h, token_mask_b, pixel_mask_b, gate_b, painted_b, painted_n, pooled_b, pooled_h, pooled_l,
    grad_lse_b, grad_lse_h,
    C: tl.constexpr, D: tl.constexpr, WHOLE_C: tl.constexpr, WHOLE_D: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_R: tl.constexpr, GROUP: tl.constexpr, COLUMNS: tl.constexpr, GRANULE: tl.constexpr, PAINT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """As `backward_scores_kernel`, but the pixels' gradient is written here and Q nowhere."""
    tiles = tl.cdiv(N, BLOCK_N)
    _, tile, b = place(1, tiles)
    n = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    R, blocks = H * L, tl.cdiv(H, GROUP)
    i = tl.arange(0, BLOCK_N)
    x = whole_rows(tile_start(pixels, b, pixels_b, tile * BLOCK_N, pixels_n), i * pixels_n, n < N, C, WHOLE_C)
    if grad_painted is not None:
        start = tile_start(grad_painted, b, painted_b, tile * BLOCK_N, painted_n)
        do = whole_rows(start, i * painted_n, n < N, D, WHOLE_D)
    sums = tl.zeros((BLOCK_N, WHOLE_C), tl.float32)
    for block in range(0, blocks):
        head, token, row, live = row_block(block, H, L, GROUP, BLOCK_R, False)
        member = head - block * GROUP
        k = whole_rows(keys + b * keys_b, row_offsets(head, token, keys_h, keys_l), live, C, WHOLE_C)
        scores = tl.dot(x, tl.trans(k), input_precision=PRECISION)
        scores = biased(scores, key_bias, head, token, live, b, bias_b, bias_h)
        slope = tl.zeros((BLOCK_N, BLOCK_R), tl.float32)
        if PAINT:
            kept = kept_rows(token_mask, token, live, b, token_mask_b)
            p = paint_softmax(scores, kept, member, None, n, block, b, N, H, GROUP)
            pull = slope
            if grad_painted is not None:
                v = whole_rows(values + b * values_b, row_offsets(head, token, values_h, values_l), live, D, WHOLE_D)
                pull = tl.dot(do, tl.trans(v), input_precision=PRECISION)
                store_scores(probabilities, p, tile, block, b, N, granules, COLUMNS, GRANULE)
            slope = paint_gradient(
                p, pull, kept, member, grad_lse, grad_lse_b, grad_lse_h, None, n, block, b, N, H, L, BLOCK_R, GROUP,
                False,
            )  # fmt: skip
            slope = tl.where((n < N)[:, None], slope, 0.0)
            tl.store(bias_partials + (b * tiles + tile) * R + row, tl.sum(slope, 0), live)
        if grad_pooled is not None:
            dy = whole_rows(grad_pooled + b * pooled_b, row_offsets(head, token, pooled_h, pooled_l), live, C, WHOLE_C)
            pull = tl.dot(x, tl.trans(dy), input_precision=PRECISION)
            q, part = pool_gradient(
                scores, pull, pool_stats, pool_delta, gate_partials, n, head, row, live, block, blocks, b, N, R,
                bank_heads, pixel_mask, gate, pixel_mask_b, gate_b,
            )  # fmt: skip
            sums = tl.dot(q.to(dy.dtype), dy, sums, input_precision=PRECISION)
            slope += part
        store_scores(slopes, slope, tile, block, b, N, granules, COLUMNS, GRANULE)
        sums = tl.dot(slope.to(k.dtype), k, sums, input_precision=PRECISION)
    store_rows(grad_pixels, sums, tile, b, N, C, WHOLE_C)
