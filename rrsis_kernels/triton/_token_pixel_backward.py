"""Backward: the two softmaxes again, and the gradient of the scores, for a tile of pixels and a block of token rows."""

from __future__ import annotations

import triton
import triton.language as tl

from rrsis_kernels.triton._arithmetic import exp
from rrsis_kernels.triton._placement import place, row_block, tile_start
from rrsis_kernels.triton._products import row_product
from rrsis_kernels.triton._token_pixel_forward import (
    biased,
    kept_rows,
    of_head,
    paint_softmax,
    pool_scores,
    row_offsets,
    store_scores,
)


@triton.jit
def pool_delta_kernel(
    pooled, grad_pooled, delta, R, L, pooled_b, pooled_h, pooled_l, grad_b, grad_h, grad_l,
    C: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """delta[b, r] = <dY, Y> of every pooled row."""
    block, _, b = place(tl.cdiv(R, BLOCK_R), 1)
    r = block * BLOCK_R + tl.arange(0, BLOCK_R)
    head, token = r // L, r % L
    y = pooled + b * pooled_b + row_offsets(head, token, pooled_h, pooled_l)[:, None]
    dy = grad_pooled + b * grad_b + row_offsets(head, token, grad_h, grad_l)[:, None]
    sums = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    for start in range(0, C, BLOCK_C):
        channel = start + tl.arange(0, BLOCK_C)[None, :]
        mask = (r < R)[:, None] & (channel < C)
        sums += tl.load(y + channel, mask, 0.0).to(tl.float32) * tl.load(dy + channel, mask, 0.0).to(tl.float32)
    tl.store(delta + b * R + r, tl.sum(sums, 1), r < R)


@triton.jit
def paint_gradient(
    p, pull, kept, member, grad_lse, grad_lse_b, grad_lse_h, delta, n, block, b, N, H, L, BLOCK_R: tl.constexpr,
    GROUP: tl.constexpr, MANY: tl.constexpr,
):  # fmt: skip
    """P ∘ (dP − δ + d lse); δ is summed here, or read (MANY) where a head's rows are spread over blocks."""
    for g in tl.static_range(GROUP):
        head = block // tl.cdiv(L, BLOCK_R) if MANY else block * GROUP + g
        live = n < tl.where(head < H, N, 0)
        if MANY:
            less = tl.zeros_like(tl.sum(p, 1))
            if delta is not None:
                less = tl.load(delta + (b * H + head) * N + n, live, 0.0)
        else:
            less = tl.sum(of_head(g, member, p * pull, 0.0, GROUP), 1)
        if grad_lse is not None:
            less -= tl.load(grad_lse + b * grad_lse_b + head * grad_lse_h + n, live, 0.0)
        pull = of_head(g, member, pull - less[:, None], pull, GROUP)
    return tl.where(kept[None, :], p * pull, 0.0)


@triton.jit
def _gate_share(slopes, gate, gate_b, n, head, b, N, bank_heads):
    """Σ over rows of dS times the slope of the row's log sigmoid."""
    logit = tl.load(gate + b * gate_b + n, n < N, 0.0).to(tl.float32)
    rising = tl.sum(tl.where((head < bank_heads)[None, :], slopes, 0.0), 1)
    falling = tl.sum(tl.where((head < bank_heads)[None, :], 0.0, slopes), 1)
    return rising * tl.sigmoid(-logit) - falling * tl.sigmoid(logit)


@triton.jit
def pool_gradient(
    scores, pull, pool_stats, pool_delta, gate_partials, n, head, row, live, block, blocks, b, N, R, bank_heads,
    pixel_mask, gate, pixel_mask_b, gate_b,
):  # fmt: skip
    """Q and Q ∘ (dQ − <dY, Y>); what the gate gets from the block goes to `gate_partials`."""
    pooling = pool_scores(scores, n, live, head, b, N, bank_heads, pixel_mask, gate, pixel_mask_b, gate_b)
    stats = pool_stats + (b * R + row) * 2
    total = tl.load(stats + 1, live, 0.0)
    inverse = tl.where(total == 0.0, 0.0, 1.0 / tl.where(total == 0.0, 1.0, total))
    q = exp(pooling - tl.load(stats, live, 0.0)[None, :]) * inverse[None, :]
    part = q * (pull - tl.load(pool_delta + b * R + row, live, 0.0)[None, :])
    if gate is not None:
        share = _gate_share(part, gate, gate_b, n, head, b, N, bank_heads)
        tl.store(gate_partials + (b * blocks + block) * N + n, share, n < N)
    return q, part


@triton.jit
def backward_scores_kernel(
    pixels, keys, values, key_bias, token_mask, pixel_mask, gate, grad_painted, grad_pooled, grad_lse, pool_stats,
    pool_delta, lse, delta, probabilities, weights, slopes, bias_partials, gate_partials,
    N, H, L, granules, bank_heads, pixels_b, pixels_n, keys_b, keys_h, keys_l, values_b, values_h, values_l, bias_b,
    bias_h, token_mask_b, pixel_mask_b, gate_b, painted_b, painted_n, pooled_b, pooled_h, pooled_l,
    grad_lse_b, grad_lse_h,
    C: tl.constexpr, D: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
    GROUP: tl.constexpr, COLUMNS: tl.constexpr, MANY: tl.constexpr, GRANULE: tl.constexpr, PAINT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """dS, and the softmaxes P and Q that the products of the backward read, for a tile and a block of rows.

    `probabilities` is None without `grad_painted`, `weights` without `grad_pooled`. Sums of dS over the tile's pixels
    (paint's part) go to `bias_partials` (B, tiles, R), what the gate gets from this block to `gate_partials`
    (B, blocks, N).
    """
    R = H * L
    blocks = H * tl.cdiv(L, BLOCK_R) if MANY else tl.cdiv(H, GROUP)
    tiles = tl.cdiv(N, BLOCK_N)
    block, tile, b = place(blocks, tiles)
    n = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    head, token, row, live = row_block(block, H, L, GROUP, BLOCK_R, MANY)
    member = head - block * GROUP
    if MANY:
        member = head * 0
    i = tl.arange(0, BLOCK_N)
    pixels = tile_start(pixels, b, pixels_b, tile * BLOCK_N, pixels_n)
    zeros = tl.zeros((BLOCK_N, BLOCK_R), tl.float32)
    key_rows = row_offsets(head, token, keys_h, keys_l)
    scores = row_product(zeros, pixels, i * pixels_n, n < N, keys + b * keys_b, key_rows, live, C, BLOCK_C, PRECISION)
    scores = biased(scores, key_bias, head, token, live, b, bias_b, bias_h)
    slope = zeros
    if PAINT:
        kept = kept_rows(token_mask, token, live, b, token_mask_b)
        if MANY:
            sums = tl.load(lse + (b * H + block // tl.cdiv(L, BLOCK_R)) * N + n, n < N, 0.0)
            p = tl.where(kept[None, :], exp(scores - tl.where(sums == float("-inf"), 0.0, sums)[:, None]), 0.0)
        else:
            p = paint_softmax(scores, kept, member, None, n, block, b, N, H, GROUP)
        pull = zeros
        if grad_painted is not None:
            start = tile_start(grad_painted, b, painted_b, tile * BLOCK_N, painted_n)
            pull = row_product(
                zeros, start, i * painted_n, n < N, values + b * values_b,
                row_offsets(head, token, values_h, values_l), live, D, BLOCK_C, PRECISION,
            )  # fmt: skip
            store_scores(probabilities, p, tile, block, b, N, granules, COLUMNS, GRANULE)
        slope = paint_gradient(
            p, pull, kept, member, grad_lse, grad_lse_b, grad_lse_h, delta, n, block, b, N, H, L, BLOCK_R, GROUP, MANY
        )
        slope = tl.where((n < N)[:, None], slope, 0.0)
        tl.store(bias_partials + (b * tiles + tile) * R + row, tl.sum(slope, 0), live)
    if grad_pooled is not None:
        pull = row_product(
            zeros, pixels, i * pixels_n, n < N, grad_pooled + b * pooled_b,
            row_offsets(head, token, pooled_h, pooled_l), live, C, BLOCK_C, PRECISION,
        )  # fmt: skip
        q, part = pool_gradient(
            scores, pull, pool_stats, pool_delta, gate_partials, n, head, row, live, block, blocks, b, N, R, bank_heads,
            pixel_mask, gate, pixel_mask_b, gate_b,
        )  # fmt: skip
        store_scores(weights, q, tile, block, b, N, granules, COLUMNS, GRANULE)
        slope += part
    store_scores(slopes, slope, tile, block, b, N, granules, COLUMNS, GRANULE)
