"""Launchers that both operators share: which kernels run in which order, on which workspace.

Everything can go *via scores*: one kernel per direction makes the softmaxes (and in the backward the gradient of the
scores) for a tile of pixels and a block of rows, chunked over the channels, so that any C, D, H and L fits; plain
products do the rest. The scores are small beside the pixels (H·L numbers per pixel against C + D). Where whole rows of
pixels fit into registers, kernels that keep them write the pixels' output themselves and move fewer bytes.

Workspace of the forward, per sample: P and W (N·R numbers of the features' dtype each, R padded to whole blocks),
maxima and totals of the tiles and splits, and R·C fp32 per split. Of the backward: P, Q and dS (N·R each), sums of dS
per tile, R·(C + D) fp32 per split, for a gate N fp32 per block of rows, for heads in several blocks 2·H·N fp32.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from rrsis_kernels.backends import Support
from rrsis_kernels.triton import _config
from rrsis_kernels.triton._launch import Launcher
from rrsis_kernels.triton._products import combine_kernel, gather_kernel, spread_kernel
from rrsis_kernels.triton._token_pixel_backward import backward_scores_kernel, pool_delta_kernel
from rrsis_kernels.triton._token_pixel_forward import forward_scores_kernel, row_stats_kernel
from rrsis_kernels.triton._token_pixel_fused import backward_fused_kernel, forward_fused_kernel

COMBINE = _config.Tile(0, 64, 128, 4, 2)
DELTA = _config.Tile(0, 16, 64, 4, 2)
MOST_PIXELS = 128
"""Pixels of the largest tile."""
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def can_run(dtype: torch.dtype, shapes: dict[str, int] | None = None) -> Support:
    """Whether the kernels take such tensors, and why (not).

    Args:
        dtype: of the features.
        shapes: sizes by letter, where they are known.
    """
    if dtype not in DTYPES:
        return Support(False, f"the Triton kernels take fp32, bf16 and fp16, not {dtype}")
    sizes = shapes or {}
    if sizes.get("C", 1) < 1:
        return Support(False, "the Triton kernels need at least one channel")
    rows = sizes.get("H", 1) * max(sizes.get("L", 1), 2 * sizes.get("K", 1))
    if rows * max(sizes.get("C", 1), sizes.get("D", 1)) >= 2**31:
        return Support(False, "the Triton kernels count the numbers of a sample's tokens in 32 bits")
    # Scores are stored in whole blocks: no more than twice the tokens of a head, and 8.
    if sizes.get("N", 0) * (2 * rows + 8 * sizes.get("H", 1)) >= 2**31:
        return Support(False, "the Triton kernels count a sample's scores (N × H·L) in 32 bits")
    return Support(True, "Triton kernels")


def near(tensor: Tensor | None, rows_of_tile: int = 0) -> Tensor | None:
    """The tensor, or a dense copy of one with strides so long that kernels could not count within 32 bits.

    Args:
        tensor: any.
        rows_of_tile: how many rows lie in what a kernel counts from one start; 0: a whole sample.
    """
    if tensor is None:
        return None
    sizes = (rows_of_tile, *tensor.shape[2:]) if rows_of_tile else tensor.shape[1:]
    span = sum((size - 1) * stride for size, stride in zip(sizes, tensor.stride()[1:], strict=True) if size)
    return tensor if span < 2**31 else tensor.contiguous()


@dataclasses.dataclass(frozen=True)
class TokenPixel:
    """Inputs of a token-pixel operator; strides are free but for the last dimension.

    Attributes:
        pixels: (B, N, C).
        keys: (B, H, L, C), the heads of all banks behind each other.
        values: (B, H, L, D) or None.
        key_bias: (B, H, L) or None.
        token_mask: (B, L) bool or None.
        pixel_mask: (B, N) bool or None.
        gate: (B, N) or None; heads of the first bank see log σ(gate), others log σ(−gate).
        banks: equal parts of the heads that get an output of their own.
    """

    pixels: Tensor
    keys: Tensor
    values: Tensor | None = None
    key_bias: Tensor | None = None
    token_mask: Tensor | None = None
    pixel_mask: Tensor | None = None
    gate: Tensor | None = None
    banks: int = 1

    def __post_init__(self) -> None:
        """Copies what lies too far apart."""
        object.__setattr__(self, "pixels", near(self.pixels, MOST_PIXELS))
        for name in ("keys", "values", "key_bias"):
            object.__setattr__(self, name, near(getattr(self, name)))

    @property
    def sizes(self) -> tuple[int, int, int, int, int]:
        """B, N, C, H, L."""
        return *self.pixels.shape, *self.keys.shape[1:3]

    @property
    def empty(self) -> bool:
        """Whether there is no score at all."""
        return 0 in self.sizes

    def scores(self, blocks: _config.RowBlocks) -> Tensor:
        """Room for scores of the features' dtype."""
        return self.pixels.new_empty(self.sizes[0], self.sizes[1], blocks.pitch)

    def numbers(self, *shape: int) -> Tensor:
        """Room for fp32 numbers."""
        return self.pixels.new_empty(shape, dtype=torch.float32)

    def arguments(self, launch: Launcher) -> dict[str, Any]:
        """What all score kernels take."""
        _, count, channels, heads, tokens = self.sizes
        return {
            "pixels": self.pixels, "keys": self.keys, "key_bias": self.key_bias, "token_mask": self.token_mask,
            "N": count, "H": heads, "L": tokens, "C": channels,
            **_strides("pixels", self.pixels, "bn"), **_strides("keys", self.keys, "bhl"),
            **_strides("bias", self.key_bias, "bh"), **_strides("token_mask", self.token_mask, "b"),
            "PRECISION": launch.precision(self.pixels.dtype),
        }  # fmt: skip

    def row_blocks(self, launch: Launcher, kernel: str) -> _config.RowBlocks:
        """How kernels via scores cut the rows."""
        widest = _config.WIDEST[launch.kind(self.pixels.dtype)][kernel]
        return _config.row_blocks(*self.sizes[3:], widest)

    def pool_arguments(self, blocks: _config.RowBlocks) -> dict[str, Any]:
        """What the pool's softmax takes besides, and where scores are stored."""
        return _columns(blocks) | {
            "pixel_mask": self.pixel_mask, "gate": self.gate,
            "bank_heads": self.sizes[3] // self.banks,
            **_strides("pixel_mask", self.pixel_mask, "b"), **_strides("gate", self.gate, "b"),
        }  # fmt: skip

    @property
    def width(self) -> int:
        """The power of two that rows of pixels and of painted pixels fit in."""
        painted = 0 if self.values is None else self.values.shape[-1]
        return _config.power_of_two(max(self.pixels.shape[-1], painted))

    def fused(self, arch: int, kernel: str) -> tuple[_config.Tile, _config.RowBlocks] | None:
        """How a kernel that keeps whole rows of pixels runs; None where it does not fit."""
        tile = _config.fused_tile(arch, self.pixels.dtype, kernel, self.width)
        blocks = _config.row_blocks(*self.sizes[3:], _config.FUSED_ROWS)
        return None if tile is None or blocks.many else (tile, blocks)

    def fused_arguments(self, tile: _config.Tile, blocks: _config.RowBlocks) -> dict[str, Any]:
        """What those kernels take besides."""
        painted = 0 if self.values is None else self.values.shape[-1]
        return {
            "values": self.values, **_strides("values", self.values, "bhl"), "D": painted,
            "WHOLE_C": _config.power_of_two(self.pixels.shape[-1]), "WHOLE_D": _config.power_of_two(painted),
            "BLOCK_N": tile.pixels, "BLOCK_R": blocks.rows,
        }  # fmt: skip


def _strides(name: str, tensor: Tensor | None, letters: str) -> dict[str, int]:
    return {f"{name}_{letter}": 0 if tensor is None else tensor.stride(i) for i, letter in enumerate(letters)}


def forward(
    launch: Launcher, case: TokenPixel, paint: bool, pool: bool
) -> tuple[Tensor | None, list[Tensor], Tensor | None, Tensor | None]:
    """Paint and pool.

    Args:
        launch: runs or records.
        case: the inputs; `values` with `paint`.
        paint: whether to paint.
        pool: whether to pool.

    Returns:
        painted (B, N, D), pooled (B, H / banks, L, C) of each bank, pixel_lse (B, H, N) and pool_stats (B, H, L, 2):
        shift and total of every row's softmax over the pixels. None or no banks for what was not asked for.
    """
    batch, count, channels, heads, tokens = case.sizes
    painted = case.pixels.new_empty(batch, count, case.values.shape[-1]) if paint else None
    lse = case.numbers(batch, heads, count) if paint else None
    banks = case.banks if pool else 0
    pooled = [case.pixels.new_empty(batch, heads // case.banks, tokens, channels) for _ in range(banks)]
    stats = case.numbers(batch, heads, tokens, 2) if pool else None
    if case.empty:
        if paint:
            lse.fill_(-torch.inf)
        for output in (painted, stats, *pooled):
            _ = output is None or output.zero_()
        return painted, pooled, lse, stats
    fused = case.fused(launch.arch, "forward") if paint and painted.numel() else None
    blocks = fused[1] if fused else case.row_blocks(launch, "forward")
    weights = case.scores(blocks) if pool else None
    if fused:
        tiles, tile_stats = _forward_fused(launch, case, *fused, weights, painted, lse)
    else:
        probabilities = case.scores(blocks) if paint and painted.numel() else None
        tiles, tile_stats = _forward_scores(launch, case, blocks, probabilities, weights, lse)
        if probabilities is not None:
            _spread(launch, case, blocks, probabilities, case.values, None, None, painted)
    if pool:
        _gather(launch, case, blocks, weights, case.pixels, pooled, tiles, tile_stats, stats)
    return painted, pooled, lse, stats


def _forward_fused(
    launch: Launcher, case: TokenPixel, tile: _config.Tile, blocks: _config.RowBlocks, weights: Tensor | None,
    painted: Tensor, lse: Tensor,
) -> tuple[int, Tensor | None]:  # fmt: skip
    """painted, W and the lse; returns the pixels of a tile, and the tiles' maxima and totals."""
    batch, count, _, heads, tokens = case.sizes
    tiles = -(-count // tile.pixels)
    stats = None if weights is None else case.numbers(batch, tiles, 2, heads * tokens)
    arguments = case.arguments(launch) | case.pool_arguments(blocks) | case.fused_arguments(tile, blocks)
    outputs = {"painted": painted, "weights": weights, "tile_stats": stats, "lse": lse}
    launch(forward_fused_kernel, batch * tiles, arguments | outputs, tile)
    return tile.pixels, stats


def _forward_scores(
    launch: Launcher, case: TokenPixel, blocks: _config.RowBlocks, probabilities: Tensor | None,
    weights: Tensor | None, lse: Tensor | None,
) -> tuple[int, Tensor | None]:  # fmt: skip
    """P, W and the lse; returns the pixels of a tile, and the tiles' maxima and totals."""
    batch, count, channels, heads, tokens = case.sizes
    tile = _config.tile(launch.arch, launch.kind(case.pixels.dtype), "forward", blocks.rows, channels)
    tiles = -(-count // tile.pixels)
    stats = None if weights is None else case.numbers(batch, tiles, 2, heads * tokens)
    if blocks.many and lse is not None:
        _row_stats(launch, case, tile, blocks, None, lse, None)
    arguments = case.arguments(launch) | case.pool_arguments(blocks) | _score_blocks(tile, blocks)
    outputs = {"probabilities": probabilities, "weights": weights, "tile_stats": stats, "lse": lse}
    launch(forward_scores_kernel, batch * tiles * blocks.blocks, arguments | outputs, tile)
    return tile.pixels, stats


def _score_blocks(tile: _config.Tile, blocks: _config.RowBlocks) -> dict[str, Any]:
    return {"BLOCK_N": tile.pixels, "BLOCK_R": blocks.rows, "BLOCK_C": tile.channels, "MANY": blocks.many}


def _row_stats(
    launch: Launcher, case: TokenPixel, tile: _config.Tile, blocks: _config.RowBlocks, grad_painted: Tensor | None,
    lse: Tensor, delta: Tensor | None,
) -> None:  # fmt: skip
    """Logarithms of sums (and δ) of heads whose rows are spread over several blocks."""
    batch, count, _, heads, _ = case.sizes
    values = None if grad_painted is None else case.values
    arguments = case.arguments(launch) | {
        "values": values, "grad_painted": grad_painted, "lse": lse, "delta": delta,
        "D": 0 if values is None else values.shape[-1],
        **_strides("values", values, "bhl"), **_strides("painted", grad_painted, "bn"),
        "BLOCK_N": tile.pixels, "BLOCK_R": blocks.rows, "BLOCK_C": tile.channels,
    }  # fmt: skip
    launch(row_stats_kernel, batch * -(-count // tile.pixels) * heads, arguments, tile)


def _spread(
    launch: Launcher, case: TokenPixel, blocks: _config.RowBlocks, scores: Tensor, rows: Tensor,
    other_scores: Tensor | None, other_rows: Tensor | None, out: Tensor,
) -> None:  # fmt: skip
    """Out (B, N, width) = scores · rows, plus other_scores · other_rows if given."""
    batch, count, _, heads, tokens = case.sizes
    width = out.shape[-1]
    tile = _config.tile(launch.arch, launch.kind(out.dtype), "spread", blocks.pitch, width)
    arguments = {
        "scores": scores, "rows": rows, "other_scores": other_scores, "other_rows": other_rows, "out": out,
        "N": count, "H": heads, "L": tokens, **_columns(blocks), "MANY": blocks.many,
        **_strides("rows", rows, "bhl"), **_strides("other", other_rows, "bhl"), "WIDTH": width,
        "BLOCK_N": tile.pixels, "BLOCK_W": tile.channels, "BLOCK_R": tile.rows,
        "PRECISION": launch.precision(out.dtype),
    }  # fmt: skip
    launch(spread_kernel, batch * -(-count // tile.pixels) * -(-width // tile.channels), arguments, tile)


def _columns(blocks: _config.RowBlocks) -> dict[str, Any]:
    """What kernels have to know to say whose a column of stored scores is."""
    return {
        "granules": blocks.pitch // _config.GRANULE, "GRANULE": _config.GRANULE, "COLUMNS": blocks.columns,
        "GROUP": blocks.group,
    }  # fmt: skip


def _gather(
    launch: Launcher, case: TokenPixel, blocks: _config.RowBlocks, scores: Tensor, rows: Tensor, outs: list[Tensor],
    tile_pixels: int = 0, tile_stats: Tensor | None = None, pool_stats: Tensor | None = None,
) -> None:  # fmt: skip
    """Each of `outs` (B, H / banks, L, width) = scoresᵀ · rows (B, N, width), with `tile_stats` a softmax."""
    batch, count, _, heads, tokens = case.sizes
    total, width = heads * tokens, rows.shape[-1]
    tile = _config.tile(launch.arch, launch.kind(rows.dtype), "gather", total, width)
    if tile_pixels:
        tile = tile._replace(pixels=min(tile.pixels, tile_pixels))  # a step lies within one tile of the scores
    unit = tile_pixels or max(tile.pixels, 64)
    programs = batch * -(-blocks.pitch // tile.rows) * -(-width // tile.channels)
    parts, each = _config.splits(-(-count // unit), programs, launch.processors, -(-2 * total // unit))
    partials = case.numbers(batch, parts, total, width) if parts > 1 else None
    split_stats = case.numbers(batch, parts, 2, total) if parts > 1 and tile_stats is not None else None
    arguments = {
        "scores": scores, "rows": rows, "tile_stats": tile_stats, "out": outs[0] if partials is None else partials,
        "other_out": outs[1] if partials is None and outs[1:] else None, "pool_stats": pool_stats,
        "split_stats": split_stats, "N": count, "H": heads, "L": tokens, **_columns(blocks), "MANY": blocks.many,
        **_strides("rows", rows, "bn"), "splits": parts, "split_tiles": each, "bank_rows": total // len(outs),
        "WIDTH": width, "TILE": unit, "BLOCK_R": tile.rows, "BLOCK_W": tile.channels, "BLOCK_N": tile.pixels,
        "WHOLE": partials is None, "PRECISION": launch.precision(rows.dtype),
    }  # fmt: skip
    launch(gather_kernel, programs * parts, arguments, tile)
    if partials is not None:
        _combine(launch, partials, outs, total, split_stats, pool_stats)


def _combine(
    launch: Launcher, partials: Tensor, outs: list[Tensor], rows: int = 1, split_stats: Tensor | None = None,
    pool_stats: Tensor | None = None,
) -> None:  # fmt: skip
    """Sums partials (B, splits, …) over the splits into one or two outputs, in one order."""
    batch, parts = partials.shape[:2]
    if split_stats is None and len(outs) == 1:
        rows = 1  # where rows stand behind each other they are one
    width = partials[0, 0].numel() // rows
    block = min(COMBINE.channels, _config.power_of_two(width))
    arguments = {
        "partials": partials, "split_stats": split_stats, "out": outs[0], "other_out": outs[1] if outs[1:] else None,
        "pool_stats": pool_stats, "splits": parts, "rows": rows, "bank_rows": rows // len(outs), "width": width,
        "BLOCK_S": min(COMBINE.rows, _config.power_of_two(parts)), "BLOCK_E": block,
    }  # fmt: skip
    launch(combine_kernel, batch * rows * -(-width // block), arguments, COMBINE)


@dataclasses.dataclass(frozen=True)
class Gradients:
    """What comes back to a token-pixel operator, and what its forward kept.

    Attributes:
        painted: (B, N, D) or None.
        lse: (B, H, N) or None.
        pooled: (B, H, L, C), or None where nothing was pooled.
        output: the pooled output itself, with `pooled`.
        stats: the pool's shift and total (B, H, L, 2), with `pooled`.
    """

    painted: Tensor | None
    lse: Tensor | None
    pooled: Tensor | None
    output: Tensor | None
    stats: Tensor | None

    def __post_init__(self) -> None:
        """Copies what lies too far apart, and makes the statistics dense."""
        object.__setattr__(self, "painted", near(self.painted, MOST_PIXELS))
        object.__setattr__(self, "stats", None if self.stats is None else self.stats.contiguous())
        for name in ("pooled", "output", "lse"):
            object.__setattr__(self, name, near(getattr(self, name)))

    @property
    def paints(self) -> bool:
        """Whether anything comes back through paint."""
        return self.painted is not None or self.lse is not None


def backward(
    launch: Launcher, case: TokenPixel, grads: Gradients
) -> tuple[Tensor, list[Tensor], Tensor | None, Tensor, Tensor | None]:
    """Gradients of all inputs.

    Returns:
        grad_pixels, grad_keys of each bank, grad_values (None without values), grad_key_bias (paint's share: the
        pool's is zero analytically), grad_gate (None without a gate).
    """
    batch, count, _, heads, tokens = case.sizes
    pixels = case.pixels.new_empty(case.pixels.shape)
    keys = [case.pixels.new_empty(batch, heads // case.banks, tokens, case.sizes[2]) for _ in range(case.banks)]
    values = None if case.values is None else case.pixels.new_empty(case.values.shape)
    bias = case.pixels.new_empty(batch, heads, tokens)
    gate = None if case.gate is None else case.gate.new_empty(case.gate.shape)
    if grads.painted is not None and grads.painted.numel() == 0:
        grads = dataclasses.replace(grads, painted=None)
    if case.empty or not (grads.paints or grads.pooled is not None):
        for output in (pixels, *keys, values, bias, gate):
            _ = output is None or output.zero_()
        return pixels, keys, values, bias, gate
    if values is not None and grads.painted is None:
        values.zero_()
    fused = case.fused(launch.arch, "backward")
    blocks = fused[1] if fused else case.row_blocks(launch, "backward")
    probabilities = case.scores(blocks) if grads.painted is not None else None
    slopes = case.scores(blocks)
    if fused:
        bias_partials, gate_partials = _backward_fused(launch, case, *fused, grads, probabilities, slopes, pixels)
    else:
        weights = case.scores(blocks) if grads.pooled is not None else None
        bias_partials, gate_partials = _backward_scores(launch, case, blocks, grads, probabilities, weights, slopes)
        _spread(launch, case, blocks, slopes, case.keys, weights, grads.pooled, pixels)
    _gather(launch, case, blocks, slopes, case.pixels, keys)
    if probabilities is not None:
        _gather(launch, case, blocks, probabilities, grads.painted, [values])
    if bias_partials is None:
        bias.zero_()
    else:
        _combine(launch, bias_partials, [bias])
    if gate is not None:
        _combine(launch, gate_partials, [gate])
    return pixels, keys, values, bias, gate


def _backward_fused(
    launch: Launcher, case: TokenPixel, tile: _config.Tile, blocks: _config.RowBlocks, grads: Gradients,
    probabilities: Tensor | None, slopes: Tensor, grad_pixels: Tensor,
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """P, dS and the pixels' gradient; returns what the key bias and the gate get from each tile or block."""
    arguments, bias, gate = _backward_arguments(launch, case, blocks, tile, grads)
    outputs = {"probabilities": probabilities, "slopes": slopes, "grad_pixels": grad_pixels}
    arguments |= case.fused_arguments(tile, blocks) | outputs
    launch(backward_fused_kernel, case.sizes[0] * -(-case.sizes[1] // tile.pixels), arguments, tile)
    return bias, gate


def _backward_scores(
    launch: Launcher, case: TokenPixel, blocks: _config.RowBlocks, grads: Gradients, probabilities: Tensor | None,
    weights: Tensor | None, slopes: Tensor,
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """P, Q and dS; returns what the key bias and the gate get from each tile or block."""
    batch, count, channels, heads, tokens = case.sizes
    tile = _config.tile(launch.arch, launch.kind(case.pixels.dtype), "backward", blocks.rows, channels)
    lse = delta = None
    if blocks.many and grads.paints:
        lse = case.numbers(batch, heads, count)
        delta = None if grads.painted is None else case.numbers(batch, heads, count)
        _row_stats(launch, case, tile, blocks, grads.painted, lse, delta)
    arguments, bias, gate = _backward_arguments(launch, case, blocks, tile, grads)
    arguments |= _score_blocks(tile, blocks) | {
        "values": case.values, **_strides("values", case.values, "bhl"), "lse": lse, "delta": delta,
        "probabilities": probabilities, "weights": weights, "slopes": slopes,
        "D": 0 if case.values is None else case.values.shape[-1],
    }  # fmt: skip
    launch(backward_scores_kernel, batch * -(-count // tile.pixels) * blocks.blocks, arguments, tile)
    return bias, gate


def _backward_arguments(
    launch: Launcher, case: TokenPixel, blocks: _config.RowBlocks, tile: _config.Tile, grads: Gradients
) -> tuple[dict[str, Any], Tensor | None, Tensor | None]:
    """What both kernels of the backward take, with room for partial sums of the key bias and of the gate."""
    batch, count, _, heads, tokens = case.sizes
    pool_delta = None
    if grads.pooled is not None:
        pool_delta = case.numbers(batch, heads, tokens)
        _pool_delta(launch, case, grads, pool_delta)
    bias = case.numbers(batch, -(-count // tile.pixels), heads * tokens) if grads.paints else None
    gate = None if case.gate is None else case.numbers(batch, blocks.blocks, count)
    arguments = case.arguments(launch) | case.pool_arguments(blocks) | {
        "grad_painted": grads.painted, "grad_pooled": grads.pooled, "grad_lse": grads.lse, "pool_stats": grads.stats,
        "pool_delta": pool_delta, "bias_partials": bias, "gate_partials": gate,
        **_strides("painted", grads.painted, "bn"), **_strides("pooled", grads.pooled, "bhl"),
        **_strides("grad_lse", grads.lse, "bh"), "PAINT": grads.paints,
    }  # fmt: skip
    return arguments, bias, gate


def _pool_delta(launch: Launcher, case: TokenPixel, grads: Gradients, out: Tensor) -> None:
    """<dY, Y> of every row."""
    batch, _, channels, heads, tokens = case.sizes
    arguments = {
        "pooled": grads.output, "grad_pooled": grads.pooled, "delta": out, "R": heads * tokens, "L": tokens,
        **_strides("pooled", grads.output, "bhl"), **_strides("grad", grads.pooled, "bhl"), "C": channels,
        "BLOCK_R": DELTA.rows, "BLOCK_C": min(DELTA.channels, _config.power_of_two(channels)),
    }  # fmt: skip
    launch(pool_delta_kernel, batch * -(-heads * tokens // DELTA.rows), arguments, DELTA)
