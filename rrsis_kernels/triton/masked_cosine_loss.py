"""Masked cosine loss in Triton: each counted row is read once, rows that do not count are not read at all."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from rrsis_kernels.ops._common import rows_contiguous
from rrsis_kernels.reference import COSINE_EPS
from rrsis_kernels.triton import _config
from rrsis_kernels.triton._aot import ELEMENT_TYPES, AotSpec, elementwise_spec
from rrsis_kernels.triton._launch import run
from rrsis_kernels.triton._support import can_run

__all__ = ["aot_specs", "backward", "can_run", "forward"]

MAX_PARTIALS = 1024
"""Partial sums of a sample: what one program of the combining kernel takes in at once."""
MAX_BLOCK_C = 2048
"""Longer rows are read in chunks, in the backward twice."""
MAX_ROWS = 64
COUNT_BLOCK = 1024
FLOOR = tl.constexpr(COSINE_EPS)


@triton.jit
def _load_pair(x_rows, y_rows, counted, C, chunk, BLOCK_C: tl.constexpr):
    """A chunk of the counted rows of both inputs, zeros elsewhere."""
    columns = (chunk * BLOCK_C + tl.arange(0, BLOCK_C))[None, :]
    inside = counted[:, None] & (columns < C)
    x = tl.load(x_rows[:, None] + columns, mask=inside, other=0.0)
    y = tl.load(y_rows[:, None] + columns, mask=inside, other=0.0)
    return x.to(tl.float32), y.to(tl.float32)


@triton.jit
def _row_products(x_rows, y_rows, counted, C, ROWS: tl.constexpr, BLOCK_C: tl.constexpr, CHUNKS: tl.constexpr):
    """Σ xy, Σ xx and Σ yy of each counted row; zeros for the others."""
    xy = tl.zeros([ROWS], tl.float32)
    xx = tl.zeros([ROWS], tl.float32)
    yy = tl.zeros([ROWS], tl.float32)
    for chunk in range(CHUNKS):
        x, y = _load_pair(x_rows, y_rows, counted, C, chunk, BLOCK_C)
        xy += tl.sum(x * y, 1)
        xx += tl.sum(x * x, 1)
        yy += tl.sum(y * y, 1)
    return xy, xx, yy


@triton.jit
def _at_least_floor(square):
    """A row's length as it is divided by. NaN stays: a maximum would drop it."""
    length = tl.sqrt_rn(square)
    return tl.where(length < FLOOR, FLOOR, length)


@triton.jit
def _forward_kernel(
    x_ptr, y_ptr, mask_ptr, sums_ptr, counts_ptr, N, C, partials,
    x_batch, x_row, y_batch, y_row, mask_batch, mask_row,
    ROWS: tl.constexpr, BLOCK_C: tl.constexpr, CHUNKS: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    part, sample = tl.program_id(0), tl.program_id(1).to(tl.int64)
    total = tl.zeros([ROWS], tl.float32)
    count = tl.zeros([ROWS], tl.int32)
    for tile in range(TILES):
        rows = (part * TILES + tile) * ROWS + tl.arange(0, ROWS)
        at = rows.to(tl.int64)
        counted = tl.load(mask_ptr + sample * mask_batch + at * mask_row, mask=rows < N, other=0) != 0
        xy, xx, yy = _row_products(
            x_ptr + sample * x_batch + at * x_row,
            y_ptr + sample * y_batch + at * y_row,
            counted,
            C,
            ROWS,
            BLOCK_C,
            CHUNKS,
        )
        cosine = tl.div_rn(tl.div_rn(xy, _at_least_floor(xx)), _at_least_floor(yy))
        total += tl.where(counted, 1.0 - cosine, 0.0)
        count += counted.to(tl.int32)
    tl.store(sums_ptr + sample * partials + part, tl.sum(total))
    tl.store(counts_ptr + sample * partials + part, tl.sum(count))


@triton.jit
def _mean_kernel(sums_ptr, counts_ptr, loss_ptr, partials, BLOCK: tl.constexpr):
    """Adds a sample's partial sums, always in the same order."""
    sample = tl.program_id(0).to(tl.int64)
    part = tl.arange(0, BLOCK)
    total = tl.sum(tl.load(sums_ptr + sample * partials + part, mask=part < partials, other=0.0))
    count = tl.sum(tl.load(counts_ptr + sample * partials + part, mask=part < partials, other=0))
    tl.store(loss_ptr + sample, tl.div_rn(total, tl.maximum(count, 1).to(tl.float32)))


@triton.jit
def _count_kernel(mask_ptr, counts_ptr, N, partials, mask_batch, mask_row, BLOCK: tl.constexpr, TILES: tl.constexpr):
    part, sample = tl.program_id(0), tl.program_id(1).to(tl.int64)
    count = tl.zeros([BLOCK], tl.int32)
    for tile in range(TILES):
        rows = (part * TILES + tile) * BLOCK + tl.arange(0, BLOCK)
        at = rows.to(tl.int64) * mask_row
        count += (tl.load(mask_ptr + sample * mask_batch + at, mask=rows < N, other=0) != 0).to(tl.int32)
    tl.store(counts_ptr + sample * partials + part, tl.sum(count))


@triton.jit
def _backward_kernel(
    grad_ptr, x_ptr, y_ptr, mask_ptr, counts_ptr, dx_ptr, dy_ptr, N, C, partials,
    grad_batch, x_batch, x_row, y_batch, y_row, mask_batch, mask_row,
    ROWS: tl.constexpr, BLOCK_C: tl.constexpr, CHUNKS: tl.constexpr, BLOCK_PARTIALS: tl.constexpr,
):  # fmt: skip
    """d(1 − cos)/dx = cos·x/|x|² − y/(|x||y|), the first term only where |x| is not floored; the same for y."""
    sample = tl.program_id(1).to(tl.int64)
    part = tl.arange(0, BLOCK_PARTIALS)
    count = tl.sum(tl.load(counts_ptr + sample * partials + part, mask=part < partials, other=0))
    scale = tl.load(grad_ptr + sample * grad_batch) / tl.maximum(count, 1).to(tl.float32)

    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    at = rows.to(tl.int64)
    counted = tl.load(mask_ptr + sample * mask_batch + at * mask_row, mask=rows < N, other=0) != 0
    x_rows, y_rows = x_ptr + sample * x_batch + at * x_row, y_ptr + sample * y_batch + at * y_row
    xy, xx, yy = _row_products(x_rows, y_rows, counted, C, ROWS, BLOCK_C, CHUNKS)
    x_length, y_length = _at_least_floor(xx), _at_least_floor(yy)
    scales = tl.where(counted, scale, 0.0)
    cross = tl.div_rn(tl.div_rn(scales, x_length), y_length)
    own = cross * xy
    own_x = tl.where(tl.sqrt_rn(xx) < FLOOR, 0.0, tl.div_rn(tl.div_rn(own, x_length), x_length))
    own_y = tl.where(tl.sqrt_rn(yy) < FLOOR, 0.0, tl.div_rn(tl.div_rn(own, y_length), y_length))

    dx_rows, dy_rows = dx_ptr + (sample * N + at) * C, dy_ptr + (sample * N + at) * C
    for chunk in range(CHUNKS):
        # The loads of a single chunk are the ones of _row_products: the compiler merges them.
        x, y = _load_pair(x_rows, y_rows, counted, C, chunk, BLOCK_C)
        dx = own_x[:, None] * x - cross[:, None] * y
        dy = own_y[:, None] * y - cross[:, None] * x
        columns = (chunk * BLOCK_C + tl.arange(0, BLOCK_C))[None, :]
        written = (rows < N)[:, None] & (columns < C)
        tl.store(dx_rows[:, None] + columns, dx.to(dx_ptr.dtype.element_ty), mask=written)
        tl.store(dy_rows[:, None] + columns, dy.to(dy_ptr.dtype.element_ty), mask=written)


class _Blocks(NamedTuple):
    """How a launch cuts rows into programs."""

    rows: int
    block_c: int
    chunks: int

    def constexprs(self) -> dict[str, int]:
        return {"ROWS": self.rows, "BLOCK_C": self.block_c, "CHUNKS": self.chunks}


def _blocks(work: _config.Work, count: int, channels: int, itemsize: int) -> _Blocks:
    block_c = min(triton.next_power_of_2(channels), MAX_BLOCK_C)
    rows = max(1, 2 * work.elements // (itemsize * block_c))
    return _Blocks(min(rows, MAX_ROWS, triton.next_power_of_2(count)), block_c, triton.cdiv(channels, block_c))


def _split(tiles: int) -> tuple[int, int]:
    """Tiles per program, a power of two, and programs: at most `MAX_PARTIALS`."""
    each = triton.next_power_of_2(triton.cdiv(tiles, MAX_PARTIALS))
    return each, triton.cdiv(tiles, each)


def forward(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """`masked_cosine_forward`: (B,) fp32, the mean of 1 − cos over the counted rows."""
    prediction, target, mask = rows_contiguous(prediction), rows_contiguous(target), mask.view(torch.uint8)
    batch, count, channels = prediction.shape
    if 0 in (batch, count):
        return prediction.new_zeros((batch,), dtype=torch.float32)
    work = _config.work(_config.architecture(prediction.device), "cosine")
    blocks = _blocks(work, count, channels, prediction.element_size())
    tiles, partials = _split(triton.cdiv(count, blocks.rows))
    sums = prediction.new_empty((batch, partials), dtype=torch.float32)
    counts = prediction.new_empty((batch, partials), dtype=torch.int32)
    run(
        *(_forward_kernel, (partials, batch), prediction, target, mask, sums, counts, count, channels, partials),
        *(*prediction.stride()[:2], *target.stride()[:2], *mask.stride()),
        **blocks.constexprs(),
        TILES=tiles,
        warps=work.warps,
    )
    loss = prediction.new_empty((batch,), dtype=torch.float32)
    run(_mean_kernel, (batch,), sums, counts, loss, partials, BLOCK=triton.next_power_of_2(partials), warps=4)
    return loss


def backward(grad_loss: Tensor, prediction: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """`masked_cosine_backward`: gradients of both inputs, in their dtype."""
    prediction, target, mask = rows_contiguous(prediction), rows_contiguous(target), mask.view(torch.uint8)
    batch, count, channels = prediction.shape
    grads = prediction.new_empty(prediction.shape), prediction.new_empty(target.shape)
    if 0 in prediction.shape:
        return grads
    tiles, partials = _split(triton.cdiv(count, COUNT_BLOCK))
    counts = prediction.new_empty((batch, partials), dtype=torch.int32)
    mask_arguments = (mask, counts, count, partials, *mask.stride())
    run(_count_kernel, (partials, batch), *mask_arguments, BLOCK=COUNT_BLOCK, TILES=tiles, warps=4)
    work = _config.work(_config.architecture(prediction.device), "cosine")
    blocks = _blocks(work, count, channels, prediction.element_size())
    run(
        *(_backward_kernel, (triton.cdiv(count, blocks.rows), batch)),
        *(grad_loss, prediction, target, mask, counts, *grads, count, channels, partials),
        *(grad_loss.stride(0), *prediction.stride()[:2], *target.stride()[:2], *mask.stride()),
        **blocks.constexprs(),
        BLOCK_PARTIALS=triton.next_power_of_2(partials),
        warps=work.warps,
    )
    return grads


def aot_specs(arch: int) -> list[AotSpec]:
    """The kernels at the widths of BTDNet's stages and at one that is read in chunks."""
    work = _config.work(arch, "cosine")
    specs = []
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        element = ELEMENT_TYPES[dtype]
        for channels in (128, 1024, 3000):
            blocks = _blocks(work, 4096, channels, dtype.itemsize)
            pointers = dict.fromkeys(("x_ptr", "y_ptr", "dx_ptr", "dy_ptr"), f"*{element}")
            pointers |= {"mask_ptr": "*u8", "sums_ptr": "*fp32", "counts_ptr": "*i32", "grad_ptr": "*fp32"}
            widths = {name: "i32:16" for name in ("C", "x_batch", "x_row", "y_batch", "y_row") if channels % 16 == 0}
            for kernel, extra in ((_forward_kernel, {"TILES": 1}), (_backward_kernel, {"BLOCK_PARTIALS": 4})):
                name = f"{kernel.__name__.strip('_')} {element} C={channels}"
                constexprs = blocks.constexprs() | extra
                specs.append(elementwise_spec(name, kernel, pointers | widths, constexprs, work.warps, True))
    types = {"mask_ptr": "*u8", "sums_ptr": "*fp32", "counts_ptr": "*i32", "loss_ptr": "*fp32"}
    constexprs = {"BLOCK": COUNT_BLOCK, "TILES": 1}
    specs.append(elementwise_spec("count_kernel", _count_kernel, types, constexprs, 4, True))
    specs.append(elementwise_spec("mean_kernel", _mean_kernel, types, {"BLOCK": MAX_PARTIALS}, 4, True))
    return specs
