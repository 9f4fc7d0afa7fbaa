"""Products between scores and rows: what tokens send to pixels and pixels to tokens, and sums of partial results.

Stored scores are (B, N, pitch), in blocks of columns (`_placement`).
"""

from __future__ import annotations

import triton
import triton.language as tl

from rrsis_kernels.triton._arithmetic import add_product, exp
from rrsis_kernels.triton._placement import columns_of, dense_start, place, row_of_column, tile_start


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
        sums = add_product(a, b, sums, PRECISION)
    return sums


@triton.jit
def _spread(
    sums, scores, score_rows, pixel_live, rows, H, L, head_stride, token_stride, channel, inside,
    BLOCK_R: tl.constexpr, GROUP: tl.constexpr, COLUMNS: tl.constexpr, MANY: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    columns = columns_of(H, L, GROUP, COLUMNS, MANY)
    for start in range(0, columns, BLOCK_R):
        column = start + tl.arange(0, BLOCK_R)
        head, token, live = row_of_column(column, H, L, GROUP, COLUMNS, MANY)
        row = head * head_stride + token * token_stride
        a = tl.load(
            scores + (score_rows[:, None] + column[None, :]), pixel_live[:, None] & (column < columns)[None, :], 0.0
        )
        b = tl.load(rows + (row[:, None] + channel[None, :]), live[:, None] & inside[None, :], 0.0)
        sums = add_product(a, b, sums, PRECISION)
    return sums


@triton.jit
def spread_kernel(
    scores, rows, other_scores, other_rows, out, N, H, L, granules, rows_b, rows_h, rows_l, other_b, other_h, other_l,
    WIDTH: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_R: tl.constexpr, GROUP: tl.constexpr,
    COLUMNS: tl.constexpr, MANY: tl.constexpr, GRANULE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """out[b, n] = Σ_r scores[b, n, r] · rows[b, r], plus that of `other_scores` and `other_rows` if there are any."""
    block, tile, b = place(tl.cdiv(WIDTH, BLOCK_W), tl.cdiv(N, BLOCK_N))
    n = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    channel = block * BLOCK_W + tl.arange(0, BLOCK_W)
    live, inside = n < N, channel < WIDTH
    i, first, pitch = tl.arange(0, BLOCK_N), tile * BLOCK_N, granules * GRANULE
    score_rows = i * pitch
    sums = tl.zeros((BLOCK_N, BLOCK_W), tl.float32)
    start = dense_start(scores, b, N, first, pitch)
    sums = _spread(
        sums, start, score_rows, live, rows + b * rows_b, H, L, rows_h, rows_l, channel, inside, BLOCK_R,
        GROUP, COLUMNS, MANY, PRECISION,
    )  # fmt: skip
    if other_scores is not None:
        start = dense_start(other_scores, b, N, first, pitch)
        sums = _spread(
            sums, start, score_rows, live, other_rows + b * other_b, H, L, other_h, other_l, channel, inside,
            BLOCK_R, GROUP, COLUMNS, MANY, PRECISION,
        )  # fmt: skip
    target = dense_start(out, b, N, first, WIDTH) + ((i * WIDTH)[:, None] + channel[None, :])
    tl.store(target, sums.to(out.dtype.element_ty), live[:, None] & inside[None, :])


@triton.jit
def _split_stats(tile_stats, first, last, row, live, R, BLOCK_T: tl.constexpr):
    """Maximum and total of the exponentials over some tiles, for some rows."""
    top = tl.full(row.shape, float("-inf"), tl.float32)
    total = tl.zeros(row.shape, tl.float32)
    for start in range(first, last, BLOCK_T):
        tile = start + tl.arange(0, BLOCK_T)
        stats, mask = tile_stats + (2 * tile * R)[:, None] + row[None, :], (tile < last)[:, None] & live[None, :]
        tops = tl.load(stats, mask, float("-inf"))
        now = tl.maximum(top, tl.max(tops, 0))
        shift = tl.where(now == float("-inf"), 0.0, now)
        part = tl.sum(tl.load(stats + R, mask, 0.0) * exp(tops - shift[None, :]), 0)
        total = total * exp(top - shift) + part
        top = now
    return top, tl.where(top == float("-inf"), 0.0, top), total


@triton.jit
def gather_kernel(
    scores, rows, tile_stats, out, other_out, pool_stats, split_stats, N, H, L, granules, rows_b, rows_n, splits,
    split_tiles, bank_rows,
    WIDTH: tl.constexpr, TILE: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_N: tl.constexpr,
    GROUP: tl.constexpr, COLUMNS: tl.constexpr, MANY: tl.constexpr, GRANULE: tl.constexpr, WHOLE: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """out[b, split, r] = Σ_n scores[b, n, r] · rows[b, n] over the pixels of a split, `split_tiles` tiles of TILE.

    With `tile_stats` (B, tiles, 2, R) the scores are exponentials relative to their tile's maximum; they are brought to
    the split's maximum, and that and its total go to `split_stats` (B, splits, 2, R). WHOLE: there is one split, which
    is the result: rows from `bank_rows` on go to `other_out`, and a softmax is divided by its total, which goes to
    `pool_stats` (B, R, 2) with the maximum.

    N·pitch stays within 32 bits, which `can_run` sees to: with a product of 64 some configuration spills on each
    architecture, whatever the order.
    """
    R, pitch, columns = H * L, granules * GRANULE, columns_of(H, L, GROUP, COLUMNS, MANY)
    row_blocks, blocks = tl.cdiv(columns, BLOCK_R), tl.cdiv(WIDTH, BLOCK_W)
    block, split, b = place(row_blocks * blocks, splits)
    column = (block // blocks) * BLOCK_R + tl.arange(0, BLOCK_R)
    head, token, real = row_of_column(column, H, L, GROUP, COLUMNS, MANY)
    row = head * L + token
    channel = (block % blocks) * BLOCK_W + tl.arange(0, BLOCK_W)
    inside = channel < WIDTH
    first = split * split_tiles
    if tile_stats is not None:
        tiles = tl.cdiv(N, TILE)
        tile_stats += b * tiles * 2 * R
        top, shift, total = _split_stats(tile_stats, first, tl.minimum(first + split_tiles, tiles), row, real, R, 16)
        if block % blocks == 0:
            if WHOLE:
                stats = pool_stats + (b * R + row) * 2
                tl.store(stats, shift, real)
                tl.store(stats + 1, total, real)
            else:
                stats = split_stats + (b * splits + split) * 2 * R + row
                tl.store(stats, top, real)
                tl.store(stats + R, total, real)
    sums = tl.zeros((BLOCK_R, BLOCK_W), tl.float32)
    for start in range(first * TILE, tl.minimum((first + split_tiles) * TILE, N), BLOCK_N):
        i = tl.arange(0, BLOCK_N)
        live = (start + i < N)[:, None]
        weights = tile_start(scores, b, N * pitch, start, pitch) + ((i * pitch)[:, None] + column[None, :])
        a = tl.trans(tl.load(weights, live & (column < columns)[None, :], 0.0))
        x = tile_start(rows, b, rows_b, start, rows_n) + ((i * rows_n)[:, None] + channel[None, :])
        x = tl.load(x, live & inside[None, :], 0.0)
        if tile_stats is not None:
            # The product's factor and not the weights': those go to the matrix cores as they were stored.
            tile_top = tl.load(tile_stats + (2 * (start // TILE)) * R + row, real, float("-inf"))
            part = tl.dot(a, x, input_precision=PRECISION)
            sums = tl.fma(part, exp(tile_top - shift)[:, None], sums)
        else:
            sums = add_product(a, x, sums, PRECISION)
    mask = real[:, None] & inside[None, :]
    if WHOLE:
        if tile_stats is not None:
            sums = tl.where((total == 0.0)[:, None], 0.0, sums / tl.where(total == 0.0, 1.0, total)[:, None])
        result, bank = sums.to(out.dtype.element_ty), (row < bank_rows)[:, None]
        tl.store(out + b * bank_rows * WIDTH + ((row * WIDTH)[:, None] + channel[None, :]), result, mask & bank)
        if other_out is not None:
            other_out += b * (R - bank_rows) * WIDTH
            tl.store(other_out + (((row - bank_rows) * WIDTH)[:, None] + channel[None, :]), result, mask & (bank == 0))
    else:
        target = out + (b * splits + split) * R * WIDTH + ((row * WIDTH)[:, None] + channel[None, :])
        tl.store(target, sums, mask)


@triton.jit
def combine_kernel(
    partials, split_stats, out, other_out, pool_stats, splits, rows, bank_rows, width,
    BLOCK_S: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """out[b, r] = Σ_s partials[b, s, r], rows of `width` numbers, in one order; from `bank_rows` on in `other_out`.

    With `split_stats` (B, splits, 2, rows) the splits are softmaxes of their own: they are weighted to one over all of
    them, whose maximum and total go to `pool_stats` (B, rows, 2).
    """
    blocks = tl.cdiv(width, BLOCK_E)
    block, r, b = place(blocks, rows)
    e = block * BLOCK_E + tl.arange(0, BLOCK_E)
    live, split = e < width, tl.arange(0, BLOCK_S)
    sums = tl.zeros((BLOCK_E,), tl.float32)
    total = tl.sum(sums, 0)
    top = total + float("-inf")
    partials += (b * splits * rows + r) * width
    for start in range(0, splits, BLOCK_S):
        s = start + split
        part = tl.load(partials + s[:, None] * rows * width + e[None, :], (s < splits)[:, None] & live[None, :], 0.0)
        if split_stats is not None:
            stats = split_stats + (b * splits + s) * 2 * rows + r
            tops = tl.load(stats, s < splits, float("-inf"))
            now = tl.maximum(top, tl.max(tops, 0))
            shift = tl.where(now == float("-inf"), 0.0, now)
            factor, before = exp(tops - shift), exp(top - shift)
            total = total * before + tl.sum(tl.load(stats + rows, s < splits, 0.0) * factor, 0)
            part *= factor[:, None]
            sums *= before
            top = now
        sums += tl.sum(part, 0)
    if split_stats is not None:
        sums = tl.where(total == 0.0, 0.0, sums / tl.where(total == 0.0, 1.0, total))
        if block == 0:
            stats = pool_stats + (b * rows + r) * 2
            tl.store(stats, tl.where(top == float("-inf"), 0.0, top))
            tl.store(stats + 1, total)
    result = sums.to(out.dtype.element_ty)
    if other_out is None:
        tl.store(out + (b * rows + r) * width + e, result, live)
    elif r < bank_rows:
        tl.store(out + (b * bank_rows + r) * width + e, result, live)
    else:
        tl.store(other_out + (b * (rows - bank_rows) + (r - bank_rows)) * width + e, result, live)
