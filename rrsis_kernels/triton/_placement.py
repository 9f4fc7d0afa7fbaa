"""What a program works on, and where it lies: tiles of pixels, blocks of token rows, columns of stored scores.

Scores are stored as (B, N, pitch): COLUMNS columns, a multiple of 8, for each block of token rows, so that whole
vectors are written and read; columns of a block that are no row's hold zeros.
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
def row_block(block, H, L, GROUP: tl.constexpr, BLOCK_R: tl.constexpr, MANY: tl.constexpr):
    """Head, token, row and liveness of a block's columns: GROUP whole heads, or (MANY) a part of one head's tokens."""
    j = tl.arange(0, BLOCK_R)
    if MANY:
        per_head = tl.cdiv(L, BLOCK_R)
        head = block // per_head + j * 0
        first = (block % per_head) * BLOCK_R
        token = first + j
        row = (block // per_head) * L + first + j
        live = token < L
    else:
        head = block * GROUP + j // L
        token = j % L
        row = block * GROUP * L + j
        live = (j < GROUP * L) & (head < H)
    return head, token, row, live


@triton.jit
def columns_of(H, L, GROUP: tl.constexpr, COLUMNS: tl.constexpr, MANY: tl.constexpr):
    """How many columns all blocks have."""
    return (H * tl.cdiv(L, COLUMNS) if MANY else tl.cdiv(H, GROUP)) * COLUMNS


@triton.jit
def row_of_column(column, H, L, GROUP: tl.constexpr, COLUMNS: tl.constexpr, MANY: tl.constexpr):
    """Head, token and liveness of columns of stored scores."""
    block, j = column // COLUMNS, column % COLUMNS
    if MANY:
        per_head = tl.cdiv(L, COLUMNS)
        head = block // per_head
        token = (block % per_head) * COLUMNS + j
        live = (token < L) & (head < H)
    else:
        head = block * GROUP + j // L
        token = j % L
        live = (j < GROUP * L) & (head < H)
    return head, token, live
