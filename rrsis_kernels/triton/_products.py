"""Products between scores and rows: what tokens send to pixels and pixels to tokens, and sums of partial results.

Scores are stored as (B, N, pitch), the R = H·L rows of all heads along the last dimension; pitch is R rounded up to 16
and the columns behind R hold zeros, so that every row of scores starts aligned and whole vectors can be read.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def place(blocks, tiles):
    """This program's block, tile and batch entry; blocks of one tile are neighbours and share its rows in L2."""
    program = tl.program_id(0)
    return program % blocks, (program // blocks) % tiles, (program // blocks // tiles).to(tl.int64)


@triton.jit
def tile_start(base, b, batch_stride, start, stride):
    """The tensor from its pixel `start` of sample b: only the start of a tile is counted in 64 bits."""
    return base + b * batch_stride + tl.cast(start, tl.int64) * stride


@triton.jit
def dense_start(base, b, N, start, width):
    """The same of a dense tensor (B, N, width). A sample's N·width may pass 32 bits, so it is not a stride here."""
    return base + (b * N + start) * width


@triton.jit
def row_product(
    sums, left, left_rows, left_live, right, right_rows, right_live, DEPTH: tl.constexpr, BLOCK_DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """`sums` plus left · rightᵀ, both given by the offsets of their rows."""
    for start in range(0, DEPTH, BLOCK_DEPTH):
        channel = start + tl.arange(0, BLOCK_DEPTH)
        inside = channel < DEPTH
        a = tl.load(left + (left_rows[:, None] + channel[None, :]), left_live[:, None] & inside[None, :], 0.0)
        b = tl.load(right + (right_rows[None, :] + channel[:, None]), right_live[None, :] & inside[:, None], 0.0)
        sums = tl.dot(a, b, sums, input_precision=PRECISION)
    return sums


@triton.jit
def _spread(
    sums, scores, score_rows, pixel_live, rows, R, pitch, L, head_stride, token_stride, channel, inside,
    BLOCK_R: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    for start in range(0, R, BLOCK_R):
        r = start + tl.arange(0, BLOCK_R)
        row = (r // L) * head_stride + (r % L) * token_stride
        a = tl.load(scores + (score_rows[:, None] + r[None, :]), pixel_live[:, None] & (r < pitch)[None, :], 0.0)
        b = tl.load(rows + (row[:, None] + channel[None, :]), (r < R)[:, None] & inside[None, :], 0.0)
        sums = tl.dot(a, b, sums, input_precision=PRECISION)
    return sums


@triton.jit
def spread_kernel(
    scores, rows, other_scores, other_rows, out, N, R, pitch, L, rows_b, rows_h, rows_l, other_b, other_h, other_l,
    WIDTH: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_R: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """out[b, n] = Σ_r scores[b, n, r] · rows[b, r], plus that of `other_scores` and `other_rows` if there are any."""
    block, tile, b = place(tl.cdiv(WIDTH, BLOCK_W), tl.cdiv(N, BLOCK_N))
    n = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    channel = block * BLOCK_W + tl.arange(0, BLOCK_W)
    live, inside = n < N, channel < WIDTH
    i, first = tl.arange(0, BLOCK_N), tile * BLOCK_N
    score_rows = i * pitch
    sums = tl.zeros((BLOCK_N, BLOCK_W), tl.float32)
    start = dense_start(scores, b, N, first, pitch)
    sums = _spread(
        sums, start, score_rows, live, rows + b * rows_b, R, pitch, L, rows_h, rows_l, channel, inside, BLOCK_R,
        PRECISION,
    )  # fmt: skip
    if other_scores is not None:
        start = dense_start(other_scores, b, N, first, pitch)
        sums = _spread(
            sums, start, score_rows, live, other_rows + b * other_b, R, pitch, L, other_h, other_l, channel, inside,
            BLOCK_R, PRECISION,
        )  # fmt: skip
    target = dense_start(out, b, N, first, WIDTH) + ((i * WIDTH)[:, None] + channel[None, :])
    tl.store(target, sums.to(out.dtype.element_ty), live[:, None] & inside[None, :])


@triton.jit
def _split_stats(tile_stats, first, last, r, R):
    """Maximum and total of the exponentials over some tiles, for rows r."""
    top = tl.full(r.shape, float("-inf"), tl.float32)
    for tile in range(first, last):
        top = tl.maximum(top, tl.load(tile_stats + (2 * tile) * R + r, r < R, float("-inf")))
    shift = tl.where(top == float("-inf"), 0.0, top)
    total = tl.zeros(r.shape, tl.float32)
    for tile in range(first, last):
        tile_top = tl.load(tile_stats + (2 * tile) * R + r, r < R, float("-inf"))
        total += tl.load(tile_stats + (2 * tile + 1) * R + r, r < R, 0.0) * tl.exp(tile_top - shift)
    return top, shift, total


@triton.jit
def gather_kernel(
    scores, rows, tile_stats, out, split_stats, N, R, pitch, rows_b, rows_n, splits, split_tiles,
    WIDTH: tl.constexpr, TILE: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """out[b, split, r] = Σ_n scores[b, n, r] · rows[b, n] over the pixels of a split, `split_tiles` tiles of TILE.

    With `tile_stats` (B, tiles, 2, R) the scores are exponentials relative to their tile's maximum; they are brought to
    the split's maximum, and that and its total go to `split_stats` (B, splits, 2, R).

    N·pitch stays within 32 bits, which `can_run` sees to: with a product of 64 some configuration spills on each
    architecture, whatever the order.
    """
    row_blocks, blocks = tl.cdiv(R, BLOCK_R), tl.cdiv(WIDTH, BLOCK_W)
    block, split, b = place(row_blocks * blocks, splits)
    r = (block // blocks) * BLOCK_R + tl.arange(0, BLOCK_R)
    channel = (block % blocks) * BLOCK_W + tl.arange(0, BLOCK_W)
    inside = channel < WIDTH
    first = split * split_tiles
    if tile_stats is not None:
        tiles = tl.cdiv(N, TILE)
        tile_stats += b * tiles * 2 * R
        top, shift, total = _split_stats(tile_stats, first, tl.minimum(first + split_tiles, tiles), r, R)
        if block % blocks == 0:
            stats = split_stats + (b * splits + split) * 2 * R + r
            tl.store(stats, top, r < R)
            tl.store(stats + R, total, r < R)
    sums = tl.zeros((BLOCK_R, BLOCK_W), tl.float32)
    for start in range(first * TILE, tl.minimum((first + split_tiles) * TILE, N), BLOCK_N):
        i = tl.arange(0, BLOCK_N)
        live = (start + i < N)[:, None]
        weights = tile_start(scores, b, N * pitch, start, pitch) + ((i * pitch)[:, None] + r[None, :])
        a = tl.load(weights, live & (r < pitch)[None, :], 0.0)
        x = tile_start(rows, b, rows_b, start, rows_n) + ((i * rows_n)[:, None] + channel[None, :])
        x = tl.load(x, live & inside[None, :], 0.0)
        if tile_stats is not None:
            tile_top = tl.load(tile_stats + (2 * (start // TILE)) * R + r, r < R, float("-inf"))
            a = (a.to(tl.float32) * tl.exp(tile_top - shift)[None, :]).to(a.dtype)
        sums = tl.dot(tl.trans(a), x, sums, input_precision=PRECISION)
    target = out + (b * splits + split) * R * WIDTH + ((r * WIDTH)[:, None] + channel[None, :])
    tl.store(target, sums.to(out.dtype.element_ty), (r < R)[:, None] & inside[None, :])


@triton.jit
def combine_kernel(
    partials, split_stats, out, other_out, pool_stats, splits, elements, bank_elements, R, width,
    BLOCK_S: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """out[b, e] = Σ_s partials[b, s, e], in one order; elements behind `bank_elements` go to `other_out`.

    With `split_stats` (B, splits, 2, R) the splits are softmaxes of their own: they are weighted to one over all of
    them, whose maximum and total go to `pool_stats` (B, R, 2).
    """
    block, _, b = place(tl.cdiv(elements, BLOCK_E), 1)
    e = block * BLOCK_E + tl.arange(0, BLOCK_E)
    live = e < elements
    r = e // width
    shift = tl.zeros((BLOCK_E,), tl.float32)
    if split_stats is not None:
        split_stats += b * splits * 2 * R
        top = tl.full((BLOCK_E,), float("-inf"), tl.float32)
        for start in range(0, splits, BLOCK_S):
            s = start + tl.arange(0, BLOCK_S)
            stats = split_stats + 2 * s[:, None] * R + r[None, :]
            top = tl.maximum(top, tl.max(tl.load(stats, (s < splits)[:, None] & live[None, :], float("-inf")), 0))
        shift = tl.where(top == float("-inf"), 0.0, top)
    sums = tl.zeros((BLOCK_E,), tl.float32)
    total = tl.zeros((BLOCK_E,), tl.float32)
    for start in range(0, splits, BLOCK_S):
        s = start + tl.arange(0, BLOCK_S)
        mask = (s < splits)[:, None] & live[None, :]
        part = tl.load(partials + (b * splits + s)[:, None] * elements + e[None, :], mask, 0.0)
        if split_stats is not None:
            stats = split_stats + 2 * s[:, None] * R + r[None, :]
            factor = tl.exp(tl.load(stats, mask, float("-inf")) - shift[None, :])
            total += tl.sum(tl.load(stats + R, mask, 0.0) * factor, 0)
            part *= factor
        sums += tl.sum(part, 0)
    if split_stats is not None:
        sums = tl.where(total == 0.0, 0.0, sums / tl.where(total == 0.0, 1.0, total))
        stats = pool_stats + (b * R + r) * 2
        once = live & (e % width == 0)
        tl.store(stats, shift, once)
        tl.store(stats + 1, total, once)
    result = sums.to(out.dtype.element_ty)
    tl.store(out + b * bank_elements + e, result, live & (e < bank_elements))
    if other_out is not None:
        target = other_out + b * (elements - bank_elements) + (e - bank_elements)
        tl.store(target, result, live & (e >= bank_elements))
