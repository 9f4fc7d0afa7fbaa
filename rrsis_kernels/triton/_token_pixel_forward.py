"""Forward: scores of a tile of pixels against a block of token rows, and their two softmaxes."""

from __future__ import annotations

import triton
import triton.language as tl

from rrsis_kernels.triton._arithmetic import exp
from rrsis_kernels.triton._placement import dense_start, place, row_block, tile_start
from rrsis_kernels.triton._products import row_product


@triton.jit
def row_offsets(head, token, head_stride, token_stride):
    """Where rows of a sample start: 32 bits, which the launcher sees to, take half the registers of 64."""
    return head * head_stride + token * token_stride


@triton.jit
def log_sigmoid(x):
    """Log σ(x) without overflow."""
    return tl.minimum(x, 0.0) - tl.log(1.0 + exp(-tl.abs(x)))


@triton.jit
def pool_scores(scores, n, live, head, b, N, bank_heads, pixel_mask, gate, pixel_mask_b, gate_b):
    """What the pool's softmax sees: scores with the gate of the row's stream, -inf at pixels that do not count."""
    counted = n < N
    if pixel_mask is not None:
        counted = counted & (tl.load(pixel_mask + b * pixel_mask_b + n, n < N, 0) != 0)
    if gate is not None:
        logit = tl.load(gate + b * gate_b + n, n < N, 0.0).to(tl.float32)
        target = (head < bank_heads)[None, :]
        scores += tl.where(target, log_sigmoid(logit)[:, None], log_sigmoid(-logit)[:, None])
    return tl.where(counted[:, None] & live[None, :], scores, float("-inf"))


@triton.jit
def store_scores(base, scores, tile, block, b, N, granules, COLUMNS: tl.constexpr, GRANULE: tl.constexpr):
    """Writes a tile of scores to the columns of its block in (B, N, pitch)."""
    # Only the tile's start needs 64 bits: 64-bit offsets would take the registers of two more tiles of scores.
    pitch = granules * GRANULE
    base = dense_start(base, b, N, tile * scores.shape[0], pitch)
    i, j = tl.arange(0, scores.shape[0]), tl.arange(0, scores.shape[1])
    real = (tile * scores.shape[0] + i < N)[:, None] & (j < COLUMNS)[None, :]
    target = base + ((i * pitch)[:, None] + (block * COLUMNS + j)[None, :])
    tl.store(target, scores.to(base.dtype.element_ty), real)


@triton.jit
def biased(scores, key_bias, head, token, live, b, bias_b, bias_h):
    """Scores plus the bias of their rows."""
    if key_bias is not None:
        offset = head * bias_h + token
        scores += tl.load(key_bias + b * bias_b + offset, live, 0.0).to(tl.float32)[None, :]
    return scores


@triton.jit
def kept_rows(token_mask, token, live, b, token_mask_b):
    """Rows whose token is real."""
    if token_mask is not None:
        live = live & (tl.load(token_mask + b * token_mask_b + token, live, 0) != 0)
    return live


@triton.jit
def of_head(g, member, values, other, GROUP: tl.constexpr):
    """`values` in the columns of the block's g-th head, `other` elsewhere; a block of one head needs no choice."""
    if GROUP == 1:
        return values
    return tl.where((member == g)[None, :], values, other)


@triton.jit
def paint_softmax(scores, kept, member, lse, n, block, b, N, H, GROUP: tl.constexpr):
    """Softmax over the kept rows of each of the block's GROUP heads; `member` says which of them a row belongs to.

    With `lse` (B, H, N) the logarithms of the sums are written too. A pixel without a kept row gets zeros and -inf.
    """
    low = tl.where(kept[None, :], scores, float("-inf"))
    p = low
    for g in tl.static_range(GROUP):
        top = tl.max(of_head(g, member, low, float("-inf"), GROUP), 1)
        p = of_head(g, member, low - tl.where(top == float("-inf"), 0.0, top)[:, None], p, GROUP)
    p = exp(p)
    for g in tl.static_range(GROUP):
        total = tl.sum(of_head(g, member, p, 0.0, GROUP), 1)
        safe = tl.where(total == 0.0, 1.0, total)
        if lse is not None:
            top = tl.max(of_head(g, member, low, float("-inf"), GROUP), 1)
            head = block * GROUP + g
            value = tl.where(total == 0.0, float("-inf"), top + tl.log(safe))
            tl.store(lse + (b * H + head) * N + n, value, n < tl.where(head < H, N, 0))
        p = of_head(g, member, p * (1.0 / safe)[:, None], p, GROUP)
    return p


@triton.jit
def row_stats_kernel(
    pixels, keys, key_bias, token_mask, values, grad_painted, lse, delta, N, H, L,
    pixels_b, pixels_n, keys_b, keys_h, keys_l, bias_b, bias_h, token_mask_b,
    values_b, values_h, values_l, painted_b, painted_n,
    C: tl.constexpr, D: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """lse[b, h, n] of heads that take several blocks; with `grad_painted` also delta = Σ_l P · <dO, value>."""
    head, tile, b = place(H, tl.cdiv(N, BLOCK_N))
    n = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    pixels = tile_start(pixels, b, pixels_b, tile * BLOCK_N, pixels_n)
    if grad_painted is not None:
        grad_painted = tile_start(grad_painted, b, painted_b, tile * BLOCK_N, painted_n)
    i = tl.arange(0, BLOCK_N)
    top = tl.full((BLOCK_N,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_N,), tl.float32)
    pulled = tl.zeros((BLOCK_N,), tl.float32)
    for start in range(0, L, BLOCK_R):
        token = start + tl.arange(0, BLOCK_R)
        heads, live = head + token * 0, token < L
        zeros = tl.zeros((BLOCK_N, BLOCK_R), tl.float32)
        rows = row_offsets(heads, token, keys_h, keys_l)
        scores = row_product(zeros, pixels, i * pixels_n, n < N, keys + b * keys_b, rows, live, C, BLOCK_C, PRECISION)
        scores = biased(scores, key_bias, heads, token, live, b, bias_b, bias_h)
        kept = kept_rows(token_mask, token, live, b, token_mask_b)
        scores = tl.where(kept[None, :], scores, float("-inf"))
        now = tl.maximum(top, tl.max(scores, 1))
        shift = tl.where(now == float("-inf"), 0.0, now)
        e, factor = exp(scores - shift[:, None]), exp(top - shift)
        total = total * factor + tl.sum(e, 1)
        top = now
        if grad_painted is not None:
            rows = row_offsets(heads, token, values_h, values_l)
            pull = row_product(
                zeros, grad_painted, i * painted_n, n < N, values + b * values_b, rows, live, D, BLOCK_C,
                PRECISION,
            )  # fmt: skip
            pulled = pulled * factor + tl.sum(e * pull, 1)
    empty = total == 0.0
    safe = tl.where(empty, 1.0, total)
    target = (b * H + head) * N + n
    tl.store(lse + target, tl.where(empty, float("-inf"), top + tl.log(safe)), n < N)
    if grad_painted is not None:
        tl.store(delta + target, pulled / safe, n < N)


@triton.jit
def pool_tile(
    scores, weights, tile_stats, tile, block, n, head, row, live, b, N, R, granules, bank_heads, pixel_mask, gate,
    pixel_mask_b, gate_b, COLUMNS: tl.constexpr, GRANULE: tl.constexpr,
):  # fmt: skip
    """Writes exponentials relative to the tile's maximum to `weights`, that and their total to `tile_stats`."""
    pooling = pool_scores(scores, n, live, head, b, N, bank_heads, pixel_mask, gate, pixel_mask_b, gate_b)
    top = tl.max(pooling, 0)
    shift = tl.where(top == float("-inf"), 0.0, top)
    # The products read rounded weights, so the total has to be that of the rounded ones.
    w = exp(pooling - shift[None, :]).to(weights.dtype.element_ty)
    stats = tile_stats + (b * tl.cdiv(N, scores.shape[0]) + tile) * 2 * R + row
    tl.store(stats, top, live)
    tl.store(stats + R, tl.sum(w.to(tl.float32), 0), live)
    store_scores(weights, w, tile, block, b, N, granules, COLUMNS, GRANULE)


@triton.jit
def forward_scores_kernel(
    pixels, keys, key_bias, token_mask, pixel_mask, gate, probabilities, weights, tile_stats, lse,
    N, H, L, granules, bank_heads, pixels_b, pixels_n, keys_b, keys_h, keys_l, bias_b, bias_h, token_mask_b,
    pixel_mask_b, gate_b,
    C: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr, GROUP: tl.constexpr,
    COLUMNS: tl.constexpr, MANY: tl.constexpr, GRANULE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Scores of a tile of pixels against a block of rows, and what paint and pool make of them.

    With `lse`, the paint's softmax goes to `probabilities` (unless None) and its lse is written, or read if MANY. With
    `weights`, the exponentials relative to the tile's maximum go there, and that and their total to `tile_stats`.
    """
    R = H * L
    blocks = H * tl.cdiv(L, BLOCK_R) if MANY else tl.cdiv(H, GROUP)
    tiles = tl.cdiv(N, BLOCK_N)
    block, tile, b = place(blocks, tiles)
    n = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    head, token, row, live = row_block(block, H, L, GROUP, BLOCK_R, MANY)
    scores = row_product(
        tl.zeros((BLOCK_N, BLOCK_R), tl.float32), tile_start(pixels, b, pixels_b, tile * BLOCK_N, pixels_n),
        tl.arange(0, BLOCK_N) * pixels_n, n < N,
        keys + b * keys_b, row_offsets(head, token, keys_h, keys_l), live, C, BLOCK_C, PRECISION,
    )  # fmt: skip
    scores = biased(scores, key_bias, head, token, live, b, bias_b, bias_h)
    if lse is not None:
        kept = kept_rows(token_mask, token, live, b, token_mask_b)
        if MANY:
            sums = tl.load(lse + (b * H + block // tl.cdiv(L, BLOCK_R)) * N + n, n < N, 0.0)
            p = tl.where(kept[None, :], exp(scores - tl.where(sums == float("-inf"), 0.0, sums)[:, None]), 0.0)
        else:
            p = paint_softmax(scores, kept, head - block * GROUP, lse, n, block, b, N, H, GROUP)
        if probabilities is not None:
            store_scores(probabilities, p, tile, block, b, N, granules, COLUMNS, GRANULE)
    if weights is not None:
        pool_tile(
            scores, weights, tile_stats, tile, block, n, head, row, live, b, N, R, granules, bank_heads,
            pixel_mask, gate, pixel_mask_b, gate_b, COLUMNS, GRANULE,
        )  # fmt: skip
