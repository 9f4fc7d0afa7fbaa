"""Block shapes, warps, stages and splits: one table per architecture and a rule for how rows are blocked.

What stands for sm_90 in half precision and for the kernels without products was chosen on an H200
(`python -m benchmarks.gpu.tiles`, 2026-11-26). The other numbers come from register and shared-memory counts of
compiled code, which the test of ahead-of-time compilation prints, and from predicted traffic. Nothing is measured at a
user's call unless `RRSIS_KERNELS_AUTOTUNE=1` asks for it (`_launch.run`).
"""

from __future__ import annotations

import functools
import os
from typing import NamedTuple

import torch

from rrsis_kernels.triton import INTERPRETED

AUTOTUNE_VARIABLE = "RRSIS_KERNELS_AUTOTUNE"
ARCHITECTURES = (80, 90, 100)
GRANULE = 8
"""Columns of scores that are stored together: 16 bytes in half precision, one access of a thread."""
MOST_GROUPED = 4
"""Heads that one block of rows may hold: each costs two masked reductions over the block."""


class Tile(NamedTuple):
    """One configuration of a kernel.

    Attributes:
        pixels: pixels of a program, or of one step where it walks over them.
        rows: token rows of a program, or of one step.
        channels: channels of a program, or of one step.
        warps: its warps.
        stages: depth of its software pipeline.
    """

    pixels: int
    rows: int
    channels: int
    warps: int
    stages: int


class Work(NamedTuple):
    """Size of a program of a kernel that does not multiply matrices.

    Attributes:
        elements: of its tile.
        warps: that share them.
    """

    elements: int
    warps: int


class RowBlocks(NamedTuple):
    """How the rows of all heads are cut into blocks.

    Attributes:
        rows: width of a block.
        group: whole heads in it.
        many: whether instead a head takes several blocks.
        blocks: how many there are.
        columns: of stored scores that belong to a block, a multiple of `GRANULE`.
    """

    rows: int
    group: int
    many: bool
    blocks: int
    columns: int

    @property
    def pitch(self) -> int:
        """Columns of stored scores."""
        return self.blocks * self.columns


# Rows of a block of scores, by what the accumulators leave room for: one of (pixels, rows) in the forward, three in
# the backward. fp32 is multiplied on plain cores, whose operands sit in registers as well; TF32 is not.
WIDEST = {
    "half": {"forward": 128, "backward": 64},
    "tf32": {"forward": 64, "backward": 64},
    "single": {"forward": 64, "backward": 64},
}

WIDE = {"forward": 64}
"""Rows of a block beyond which a kernel takes its configuration for wide blocks, where it has one."""

# By kind of kernel: scores are products over channels, spread goes from rows to pixels, gather from pixels to rows.
HALF = {
    "forward": Tile(128, 0, 64, 8, 3),
    "forward_wide": Tile(64, 0, 64, 8, 3),
    "backward": Tile(64, 0, 64, 8, 3),
    "spread": Tile(128, 32, 128, 8, 3),
    "gather": Tile(64, 64, 128, 8, 3),
}
# Numbers twice as wide on the same cores: half the channels, and fewer pixels where those are what is summed over.
TF32 = {
    "forward": Tile(64, 0, 32, 8, 3),
    "backward": Tile(32, 0, 32, 8, 3),
    "spread": Tile(64, 32, 64, 4, 3),
    "gather": Tile(32, 64, 64, 4, 3),
}
SINGLE = {
    "forward": Tile(64, 0, 16, 4, 2),
    "backward": Tile(64, 0, 16, 4, 2),
    "spread": Tile(64, 16, 64, 8, 2),
    "gather": Tile(16, 64, 64, 8, 2),
}
TABLE = {
    # What fits without spills differs: these are the largest tiles found that do, with Triton 3.6 and 3.8.
    80: {
        "half": HALF
        | {
            "forward": Tile(64, 0, 64, 8, 3),
            "backward": Tile(32, 0, 64, 8, 2),
            "gather": Tile(64, 64, 64, 8, 3),
        },
        "tf32": TF32,
        "single": SINGLE | {"spread": Tile(64, 16, 64, 4, 2)},
    },
    # Hopper's matrix instructions take 64 pixels, and four warps: eight share a tile of twice as many.
    90: {
        "half": HALF
        | {
            "forward": Tile(128, 0, 64, 4, 3),
            "backward": Tile(64, 0, 64, 4, 3),
            "gather": Tile(64, 64, 128, 4, 3),
        },
        "tf32": TF32 | {"backward": Tile(64, 0, 16, 8, 3)},
        "single": SINGLE | {"backward": Tile(64, 0, 16, 8, 2)},
    },
    100: {
        "half": HALF
        | {
            "forward": Tile(64, 0, 64, 8, 3),
            "backward": Tile(32, 0, 64, 8, 3),
            "spread": Tile(128, 32, 64, 8, 3),
            "gather": Tile(64, 64, 64, 8, 3),
        },
        "tf32": TF32 | {"spread": Tile(64, 32, 64, 8, 3)},
        "single": SINGLE,
    },
}

FUSED_ROWS = 32
"""Block of rows up to which kernels keep whole rows of pixels."""

# Kernel of that kind: configurations by the widest rows of pixels that they take, the narrowest first. On an H200 rows
# of 256 channels take 1.3 times as long (Grounding DINO's layer) as via scores, forward, and no less backward.
FUSED_TABLE: dict[int, dict[str, list[tuple[int, Tile | None]]]] = {
    80: {"forward": [(128, Tile(128, 0, 0, 8, 2))]},
    # With 8 warps on 64 pixels both halves of the warps would compute the same: Triton spreads chained products along
    # the pixels alone.
    90: {"forward": [(128, Tile(64, 0, 0, 4, 2))], "backward": [(128, Tile(64, 0, 0, 4, 2))]},
    100: {"forward": [(128, Tile(64, 0, 0, 4, 1))]},
}

MEASURED_SPILLS = {
    90: {"backward_scores_kernel": 128, "backward_fused_kernel": 16, "combine_kernel": 32, "gather_kernel": 8}
}
"""Bytes a thread that configurations measured on such a GPU may spill: they were the fastest all the same."""

# Cosine: elements of 2 bytes (half as many of 4) of one input. Statistics: pixels that are worked on at once.
MEMORY_BOUND = {
    80: {"cosine": Work(4096, 8), "statistics": Work(512, 4)},
    90: {"cosine": Work(2048, 4), "statistics": Work(512, 4)},
    100: {"cosine": Work(8192, 8), "statistics": Work(512, 4)},
}

INTERPRETED_FACTOR = 8
"""How much larger those are in the interpreter, where a program costs the same whatever its size."""

PROGRAMS_PER_PROCESSOR = 2
"""How many programs per multiprocessor the splits of `gather` aim at."""


def architecture(device: torch.device) -> int:
    """80, 90 or 100: whose row of the table a device takes. The CPU stands for the interpreter."""
    if device.type != "cuda":
        return 90
    major, _ = torch.cuda.get_device_capability(device)
    return 80 if major < 9 else 90 if major == 9 else 100


@functools.cache
def processors(device: torch.device) -> int:
    """Multiprocessors of a device; a small number for the interpreter, so that tests have splits to combine."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 3


def autotune() -> bool:
    """Whether the environment asks for autotuning; there is nothing to time in the interpreter."""
    return os.environ.get(AUTOTUNE_VARIABLE) == "1" and not INTERPRETED


def tf32_asked() -> bool:
    """Whether PyTorch's own matmul setting asks for TF32; otherwise products of fp32 are exact."""
    return torch.backends.cuda.matmul.fp32_precision == "tf32"


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least n and 16, the smallest side of a product."""
    return max(16, 1 << max(n - 1, 0).bit_length())


def row_blocks(heads: int, tokens: int, widest: int) -> RowBlocks:
    """Cuts rows into blocks with the fewest padded columns; of equals, the one with fewer heads in a block.

    A block must be a power of two wide. L = 20 alone would waste 12 of 32 columns; three heads fill 60 of 64.
    """
    if power_of_two(tokens) > widest:
        return RowBlocks(widest, 1, True, heads * -(-tokens // widest), widest)
    options = []
    for group in range(1, min(MOST_GROUPED, heads) + 1):
        rows, blocks = power_of_two(group * tokens), -(-heads // group)
        if rows <= widest:
            columns = -(-group * tokens // GRANULE) * GRANULE
            options.append((rows * blocks, group, RowBlocks(rows, group, False, blocks, columns)))
    return min(options)[2]


def kind_of(dtype: torch.dtype, tf32: bool) -> str:
    """Which part of the table products of a dtype take: "half", "tf32" (fp32 on matrix cores) or "single"."""
    if dtype != torch.float32:
        return "half"
    return "tf32" if tf32 else "single"


def tile(arch: int, kind: str, kernel: str, rows: int = 0, channels: int = 0) -> Tile:
    """The configuration of a kernel, with blocks no larger than what they cover.

    Args:
        arch: of `ARCHITECTURES`.
        kind: as `kind_of` gives it.
        kernel: "forward", "backward", "spread" or "gather".
        rows: of the block (scores), or how many there are.
        channels: how many there are.
    """
    entries = TABLE[arch][kind]
    entry = entries[kernel]
    if rows > WIDE.get(kernel, rows):
        entry = entries.get(f"{kernel}_wide", entry)
    if kernel == "spread":
        rows = min(entry.rows, power_of_two(rows))
    elif kernel == "gather":
        rows = entry.rows  # fewer would not fill the instructions of a Hopper product
    return entry._replace(rows=rows, channels=min(entry.channels, power_of_two(channels)))


def fused_tile(arch: int, dtype: torch.dtype, kernel: str, width: int) -> Tile | None:
    """The configuration of a kernel that keeps whole rows of pixels; None where they do not fit.

    Args:
        arch: of `ARCHITECTURES`.
        dtype: of the features.
        kernel: "forward" or "backward".
        width: channels of a pixel, a power of two.
    """
    entries = FUSED_TABLE[arch].get(kernel, ())
    return next((entry for widest, entry in entries if dtype != torch.float32 and width <= widest), None)


def work(arch: int, kernel: str) -> Work:
    """The configuration of a memory-bound kernel.

    Args:
        arch: of `ARCHITECTURES`.
        kernel: "cosine" or "statistics".
    """
    entry = MEMORY_BOUND[arch][kernel]
    return entry._replace(elements=INTERPRETED_FACTOR * entry.elements) if INTERPRETED else entry


def splits(tiles: int, programs: int, device_processors: int, least_tiles: int) -> tuple[int, int]:
    """Over how many parts a sum over tiles is split, and the tiles of a part.

    Args:
        tiles: there are.
        programs: that one part has.
        device_processors: multiprocessors to fill.
        least_tiles: below which a part writes more partial sums than it reads pixels.
    """
    wanted = max(1, PROGRAMS_PER_PROCESSOR * device_processors // max(programs, 1))
    each = max(-(-tiles // wanted), min(least_tiles, tiles), 1)
    return -(-tiles // each), each
