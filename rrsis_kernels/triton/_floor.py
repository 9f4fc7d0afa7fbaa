"""Predicted traffic, arithmetic and floor time of the token-pixel operators: `python -m rrsis_kernels.triton._floor`.

The floor counts every input and output once and the products of the equations without padding; what the kernels move
adds their workspace and what is read again, as if nothing stayed in the second-level cache.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from rrsis_kernels.triton import _config
from rrsis_kernels.triton._token_pixel import TokenPixel

BYTES_PER_SECOND = 4.3e12
FLOPS_PER_SECOND = 790e12
"""An H200: its memory and its bf16 products."""

SHAPES = (
    (17821, 256, 4, 20),
    (17821, 256, 4, 256),
    (14400, 128, 4, 20),
    (3600, 256, 8, 20),
    (900, 512, 16, 20),
    (225, 1024, 32, 20),
)
"""N, C (and D), H, L of the targets, per sample."""


class Cost(NamedTuple):
    """Bytes and flops of one sample in bf16: at the least, and as the kernels do it.

    Attributes:
        least_bytes: inputs and outputs once.
        moved_bytes: with workspace and second reads.
        least_flops: products of the equations.
        done_flops: products with padded rows and recomputed scores.
    """

    least_bytes: int
    moved_bytes: int
    least_flops: int
    done_flops: int

    @property
    def floor(self) -> float:
        """Seconds that the least would take."""
        return max(self.least_bytes / BYTES_PER_SECOND, self.least_flops / FLOPS_PER_SECOND)

    @property
    def predicted(self) -> float:
        """Seconds that the kernels would take if they reached both rates, one at a time being the limit."""
        return max(self.moved_bytes / BYTES_PER_SECOND, self.done_flops / FLOPS_PER_SECOND)


def cost(shape: tuple[int, int, int, int], backward: bool, arch: int = 90) -> Cost:
    """What `bidirectional_spatial_correlation` costs per sample in bf16, D = C, both directions.

    Args:
        shape: N, C, H, L.
        backward: of the backward, else of the forward.
        arch: whose table decides which kernels run.
    """
    n, c, h, tokens = shape
    room = torch.empty(1, n, c, dtype=torch.bfloat16, device="meta")
    rows = torch.empty(1, h, tokens, c, dtype=torch.bfloat16, device="meta")
    kernel = "backward" if backward else "forward"
    fused = TokenPixel(room, rows, rows).fused(arch, kernel)
    blocks = fused[1] if fused else _config.row_blocks(h, tokens, _config.WIDEST["half"][kernel])
    pixels, scores, lse = 2 * n * c, 2 * n * h * tokens, 4 * n * h
    product, padded = 2 * n * c * h * tokens, 2 * n * c * blocks.rows * blocks.blocks
    if backward:
        least = 3 * pixels + lse
        # Scores: x and dO in; P, dS (and Q) out. Spread: Q and dS in, dx out. Gather: x, dO, P and dS in.
        moved = 5 * pixels + (4 if fused else 7) * scores + lse
        done = 3 * padded + (4 * padded if fused else 4 * product)
        if blocks.many:  # scores and <dO, value> once more, for the sums over a head
            moved, done = moved + 2 * pixels, done + 2 * padded
        return Cost(least, moved, 7 * product, done)
    least = 2 * pixels + lse
    # Scores: x in, W (and P) out. Spread: P in, painted out. Gather: x and W in.
    moved = 3 * pixels + (2 if fused else 4) * scores + lse
    done = (2 * padded if fused else padded + product) + product
    if blocks.many:
        moved, done = moved + pixels, done + padded
    return Cost(least, moved, 3 * product, done)


def table() -> str:
    """Markdown of all shapes."""
    lines = [
        "| N, C, H, L | pass | MB, least | MB moved | GFLOP, least | GFLOP done | floor µs | predicted µs | ratio |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for shape in SHAPES:
        for backward in (False, True):
            it = cost(shape, backward)
            numbers = (it.least_bytes / 1e6, it.moved_bytes / 1e6, it.least_flops / 1e9, it.done_flops / 1e9)
            times = (1e6 * it.floor, 1e6 * it.predicted, it.predicted / it.floor)
            cells = [", ".join(map(str, shape)), "backward" if backward else "forward"]
            lines.append("| " + " | ".join(cells + [f"{number:.2f}" for number in (*numbers, *times)]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
