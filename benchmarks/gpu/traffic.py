"""What the Triton kernels of `bidirectional_spatial_correlation` move and compute beside their floor: predicted."""

from __future__ import annotations

import torch

from benchmarks.gpu.floors import BACKWARD, FORWARD, Floor, Shape, floor
from rrsis_kernels.triton import _config

DTYPE, ARCHITECTURE = torch.bfloat16, 90


def traffic(shape: Shape, pass_name: str) -> Floor:
    """Bytes and operations with workspace, second reads, padded rows and recomputed scores, in bf16 on sm_90.

    As if the second-level cache kept nothing; partial sums of rows are left out.
    """
    fused, blocks = _plan(shape, pass_name)
    least = floor(shape, pass_name, DTYPE)
    per_pixel = shape.batch * shape.pixels * DTYPE.itemsize
    pixels, scores = per_pixel * shape.channels, per_pixel * blocks.pitch
    flops = 2 * shape.batch * shape.pixels * shape.channels
    product, padded = flops * shape.heads * shape.tokens, flops * blocks.rows * blocks.blocks
    if pass_name == FORWARD:
        # Scores: x in, W (and P) out. Spread: P in, painted out. Gather: x and W in.
        moved = pixels + (2 if fused else 4) * scores
        done = 2 * padded + product if fused else padded + 2 * product
        again = 1
    else:
        # Scores: x and dO in; P, dS (and Q) out. Spread: Q and dS in, dx out. Gather: x, dO, P and dS in.
        moved = 2 * pixels + (4 if fused else 7) * scores
        done = 3 * padded + (4 * padded if fused else 4 * product)
        again = 2
    if blocks.many:  # scores (and <dO, value>) once more, for the sums over a head
        moved, done = moved + again * pixels, done + again * padded
    return Floor(least.bytes + moved, done)


def _plan(shape: Shape, pass_name: str) -> tuple[bool, _config.RowBlocks]:
    """Whether one kernel keeps whole rows of pixels, and the blocks of rows."""
    from rrsis_kernels.triton._token_pixel import TokenPixel

    kernel = "backward" if pass_name == BACKWARD else "forward"
    pixels = torch.empty(1, shape.pixels, shape.channels, dtype=DTYPE, device="meta")
    rows = torch.empty(1, shape.heads, shape.tokens, shape.channels, dtype=DTYPE, device="meta")
    if plan := TokenPixel(pixels, rows, rows).fused(ARCHITECTURE, kernel):
        return True, plan[1]
    widest = _config.WIDEST[_config.kind_of(DTYPE, tf32=False)][kernel]
    return False, _config.row_blocks(shape.heads, shape.tokens, widest)
