"""Twin mask statistics in Triton: logits are interpolated cell by cell, never as a map.

A *cell* is what lies between four neighbouring low-resolution logits. Every output pixel lies in one cell, so a program
loads a cell's four corners of both maps once and walks over its pixels. The backward sums each cell's gradients into
its four corners, and a second kernel adds up for every logit what its four cells hold for it: no atomics, one order.
Cell −1 is the strip before the first logit and cell n−1 the one behind the last: both see that logit alone, as in
`F.interpolate`.
"""

from __future__ import annotations

import collections
import ctypes
import functools
import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from rrsis_kernels.ops._common import rows_contiguous
from rrsis_kernels.triton import _config
from rrsis_kernels.triton._aot import ELEMENT_TYPES, AotSpec, elementwise_spec
from rrsis_kernels.triton._launch import run
from rrsis_kernels.triton._support import can_run

__all__ = ["aot_specs", "backward", "can_run", "forward"]

COLUMNS = 9
MAX_PARTIALS = 1024
"""Programs per sample in the forward, as far as a program can take several tiles."""
MAX_LANES = 32
"""Pixels of a cell's row that are taken at once; the rest follows in steps."""
MAX_ROWS = 8
"""Rows of a cell that one program takes; the other rows of a larger cell are other programs'."""
GATHER_BLOCK = 256


@triton.jit
def _source(index, ratio):
    """Where `F.interpolate` reads an output index, before it is clamped; in its own arithmetic."""
    return ratio * (index.to(tl.float32) + 0.5) - 0.5


@triton.jit
def _first_index(cell, ratio, inverse):
    """The first output index of a cell or of one behind it: a guess in real numbers, then what rounding makes of it."""
    guess = tl.floor((cell.to(tl.float32) + 0.5) * inverse - 0.5).to(tl.int32) - 1
    first = guess
    for step in tl.static_range(3):
        first += (tl.floor(_source(guess + step, ratio)).to(tl.int32) < cell).to(tl.int32)
    return tl.maximum(first, 0)


@triton.jit
def _share(index, cell, ratio, size, limit):
    """The weight of a cell's far corner at an output index, and whether the index is one of the cell's."""
    source = _source(index, ratio)
    far = tl.where(cell < 0, 1.0, tl.where(cell == size - 1, 0.0, source - cell.to(tl.float32)))
    return far, (tl.floor(source).to(tl.int32) == cell) & (index < limit)


@triton.jit
def _corners(map_ptr, row_stride, cy, cx, h, w, real):
    """The four logits around a cell, in fp32: near and far row, near and far column."""
    top = map_ptr + tl.maximum(cy, 0).to(tl.int64) * row_stride
    bottom = map_ptr + tl.minimum(cy + 1, h - 1).to(tl.int64) * row_stride
    left, right = tl.maximum(cx, 0), tl.minimum(cx + 1, w - 1)
    near_near = tl.load(top + left, mask=real, other=0.0).to(tl.float32)
    near_far = tl.load(top + right, mask=real, other=0.0).to(tl.float32)
    far_near = tl.load(bottom + left, mask=real, other=0.0).to(tl.float32)
    far_far = tl.load(bottom + right, mask=real, other=0.0).to(tl.float32)
    return near_near, near_far, far_near, far_far


@triton.jit
def _truth(at, inside):
    """The mask as the object's share of a pixel."""
    value = tl.load(at, mask=inside, other=0)
    if value.dtype == tl.uint8:
        return (value != 0).to(tl.float32)
    else:
        return value.to(tl.float32)


@triton.jit
def _sigmoid(z):
    """σ(z), and exp(−|z|) for `_softplus`. NaN stays NaN."""
    small = tl.exp(-tl.abs(z))
    large = 1.0 / (1.0 + small)
    return tl.where(z >= 0, large, small * large), small


@triton.jit
def _softplus(z, small):
    """log(1 + exp z) = max(z, 0) + 2·artanh(s) with s = e/(2 + e) ≤ 1/3, e = exp(−|z|): a series, no logarithm."""
    s = small / (2.0 + small)
    square = s * s
    series = tl.fma(square, 1 / 13, 1 / 11)
    series = tl.fma(square, series, 1 / 9)
    series = tl.fma(square, series, 1 / 7)
    series = tl.fma(square, series, 1 / 5)
    series = tl.fma(square, series, 1 / 3)
    return tl.where(z > 0, z, 0.0) + 2.0 * tl.fma(s * square, series, s)


@triton.jit
def _mix(near, far, share):
    return near * (1.0 - share) + far * share


@triton.jit
def _cells(tile, h, w, y_ratio, y_inverse, x_ratio, x_inverse, CELLS: tl.constexpr):
    """A tile's cells: their number, whether they exist, row and column, and the first output row and column."""
    cells = tile * CELLS + tl.arange(0, CELLS)
    cy, cx = cells // (w + 1) - 1, cells % (w + 1) - 1
    first_y, first_x = _first_index(cy, y_ratio, y_inverse), _first_index(cx, x_ratio, x_inverse)
    return cells, cells < (h + 1) * (w + 1), cy, cx, first_y, first_x


@triton.jit
def _pixels(mask_row_ptr, valid_row_ptr, real, cx, x, t0, t1, b0, b1, x_ratio, w, Wm, HAS_VALID: tl.constexpr):
    """Pixels [CELLS, LANES] of a row: which count, the mask, both maps there, and the far column's weight."""
    x_far, in_cell = _share(x, cx[:, None], x_ratio, w, Wm)
    inside = real[:, None] & in_cell
    if HAS_VALID:
        inside = inside & (tl.load(valid_row_ptr[:, None] + x, mask=inside, other=0) != 0)
    t = _truth(mask_row_ptr[:, None] + x, inside)
    return inside, t, _mix(t0[:, None], t1[:, None], x_far), _mix(b0[:, None], b1[:, None], x_far), x_far


@triton.jit
def _forward_kernel(
    target_ptr, background_ptr, mask_ptr, valid_ptr, sums_ptr, h, w, Hm, Wm, partials,
    target_batch, target_row, background_batch, background_row, mask_batch, mask_row, valid_batch, valid_row,
    y_ratio, y_inverse, x_ratio, x_inverse, joint_scale,
    HAS_VALID: tl.constexpr, CELLS: tl.constexpr, LANES: tl.constexpr, STEPS: tl.constexpr,
    ROWS: tl.constexpr, BANDS: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    part, sample = tl.program_id(0), tl.program_id(1).to(tl.int64)
    bce_joint = tl.zeros([CELLS, LANES], tl.float32)
    bce_target = tl.zeros([CELLS, LANES], tl.float32)
    bce_background = tl.zeros([CELLS, LANES], tl.float32)
    probability_sum = tl.zeros([CELLS, LANES], tl.float32)
    probability_mask_sum = tl.zeros([CELLS, LANES], tl.float32)
    mask_sum = tl.zeros([CELLS, LANES], tl.float32)
    count = tl.zeros([CELLS, LANES], tl.float32)
    intersection = tl.zeros([CELLS, LANES], tl.float32)
    union = tl.zeros([CELLS, LANES], tl.float32)
    for tile in range(TILES):
        cells, real, cy, cx, first_y, first_x = _cells(
            (part // BANDS) * TILES + tile, h, w, y_ratio, y_inverse, x_ratio, x_inverse, CELLS
        )
        t00, t01, t10, t11 = _corners(target_ptr + sample * target_batch, target_row, cy, cx, h, w, real)
        b00, b01, b10, b11 = _corners(background_ptr + sample * background_batch, background_row, cy, cx, h, w, real)
        for row in range(ROWS):
            y = first_y + (part % BANDS) * ROWS + row
            y_far, in_cell_y = _share(y, cy, y_ratio, h, Hm)
            t0, t1 = _mix(t00, t10, y_far), _mix(t01, t11, y_far)
            b0, b1 = _mix(b00, b10, y_far), _mix(b01, b11, y_far)
            mask_row_ptr = mask_ptr + sample * mask_batch + y.to(tl.int64) * mask_row
            valid_row_ptr = valid_ptr + sample * valid_batch + y.to(tl.int64) * valid_row
            for step in range(STEPS):
                x = first_x[:, None] + (step * LANES + tl.arange(0, LANES))[None, :]
                inside, t, zt, zb, x_far = _pixels(
                    mask_row_ptr, valid_row_ptr, real & in_cell_y, cx, x, t0, t1, b0, b1, x_ratio, w, Wm, HAS_VALID
                )
                z = joint_scale * (zt - zb)
                probability, small = _sigmoid(z)
                bce_joint += tl.where(inside, _softplus(z, small) - z * t, 0.0)
                bce_target += tl.where(inside, _softplus(zt, tl.exp(-tl.abs(zt))) - zt * t, 0.0)
                bce_background += tl.where(inside, _softplus(zb, tl.exp(-tl.abs(zb))) - zb * (1.0 - t), 0.0)
                probability_sum += tl.where(inside, probability, 0.0)
                probability_mask_sum += tl.where(inside, probability * t, 0.0)
                mask_sum += t
                count += inside.to(tl.float32)
                intersection += (inside & (z > 0) & (t > 0.5)).to(tl.float32)
                union += (inside & ((z > 0) | (t > 0.5))).to(tl.float32)
    out = sums_ptr + sample * 9 * partials + part
    tl.store(out, tl.sum(bce_joint))
    tl.store(out + partials, tl.sum(bce_target))
    tl.store(out + 2 * partials, tl.sum(bce_background))
    tl.store(out + 3 * partials, tl.sum(probability_sum))
    tl.store(out + 4 * partials, tl.sum(probability_mask_sum))
    tl.store(out + 5 * partials, tl.sum(mask_sum))
    tl.store(out + 6 * partials, tl.sum(count))
    tl.store(out + 7 * partials, tl.sum(intersection))
    tl.store(out + 8 * partials, tl.sum(union))


@triton.jit
def _total_kernel(partial_ptr, total_ptr, partials, BLOCK: tl.constexpr):
    """One column of one sample: its partial sums, always in the same order."""
    entry = tl.program_id(0).to(tl.int64)
    part = tl.arange(0, BLOCK)
    tl.store(total_ptr + entry, tl.sum(tl.load(partial_ptr + entry * partials + part, mask=part < partials, other=0.0)))


@triton.jit
def _cells_kernel(
    grad_ptr, target_ptr, background_ptr, mask_ptr, valid_ptr, corners_ptr, h, w, Hm, Wm, grad_batch, grad_column,
    target_batch, target_row, background_batch, background_row, mask_batch, mask_row, valid_batch, valid_row,
    y_ratio, y_inverse, x_ratio, x_inverse, joint_scale,
    HAS_VALID: tl.constexpr, CELLS: tl.constexpr, LANES: tl.constexpr, STEPS: tl.constexpr,
    ROWS: tl.constexpr, BANDS: tl.constexpr,
):  # fmt: skip
    """What the pixels of each cell give to its four corners: (B, bands, 8, cells), four of the target's first."""
    part, sample = tl.program_id(0), tl.program_id(1).to(tl.int64)
    band = part % BANDS
    g = grad_ptr + sample * grad_batch
    g_joint, g_target, g_background = tl.load(g), tl.load(g + grad_column), tl.load(g + 2 * grad_column)
    g_sum, g_mask_sum = tl.load(g + 3 * grad_column), tl.load(g + 4 * grad_column)

    cells, real, cy, cx, first_y, first_x = _cells(part // BANDS, h, w, y_ratio, y_inverse, x_ratio, x_inverse, CELLS)
    t00, t01, t10, t11 = _corners(target_ptr + sample * target_batch, target_row, cy, cx, h, w, real)
    b00, b01, b10, b11 = _corners(background_ptr + sample * background_batch, background_row, cy, cx, h, w, real)
    dt00 = tl.zeros([CELLS], tl.float32)
    dt01 = tl.zeros([CELLS], tl.float32)
    dt10 = tl.zeros([CELLS], tl.float32)
    dt11 = tl.zeros([CELLS], tl.float32)
    db00 = tl.zeros([CELLS], tl.float32)
    db01 = tl.zeros([CELLS], tl.float32)
    db10 = tl.zeros([CELLS], tl.float32)
    db11 = tl.zeros([CELLS], tl.float32)
    for row in range(ROWS):
        y = first_y + band * ROWS + row
        y_far, in_cell_y = _share(y, cy, y_ratio, h, Hm)
        t0, t1 = _mix(t00, t10, y_far), _mix(t01, t11, y_far)
        b0, b1 = _mix(b00, b10, y_far), _mix(b01, b11, y_far)
        mask_row_ptr = mask_ptr + sample * mask_batch + y.to(tl.int64) * mask_row
        valid_row_ptr = valid_ptr + sample * valid_batch + y.to(tl.int64) * valid_row
        dt0 = tl.zeros([CELLS, LANES], tl.float32)
        dt1 = tl.zeros([CELLS, LANES], tl.float32)
        db0 = tl.zeros([CELLS, LANES], tl.float32)
        db1 = tl.zeros([CELLS, LANES], tl.float32)
        for step in range(STEPS):
            x = first_x[:, None] + (step * LANES + tl.arange(0, LANES))[None, :]
            inside, t, zt, zb, x_far = _pixels(
                mask_row_ptr, valid_row_ptr, real & in_cell_y, cx, x, t0, t1, b0, b1, x_ratio, w, Wm, HAS_VALID
            )
            probability, small = _sigmoid(joint_scale * (zt - zb))
            target_probability, small = _sigmoid(zt)
            background_probability, small = _sigmoid(zb)
            spread = probability * (1.0 - probability)
            dz = joint_scale * ((probability - t) * g_joint + spread * (t * g_mask_sum + g_sum))
            dt = tl.where(inside, dz + (target_probability - t) * g_target, 0.0)
            db = tl.where(inside, (background_probability - (1.0 - t)) * g_background - dz, 0.0)
            dt0 += dt * (1.0 - x_far)
            dt1 += dt * x_far
            db0 += db * (1.0 - x_far)
            db1 += db * x_far
        dt0_row, dt1_row, db0_row, db1_row = tl.sum(dt0, 1), tl.sum(dt1, 1), tl.sum(db0, 1), tl.sum(db1, 1)
        dt00 += dt0_row * (1.0 - y_far)
        dt01 += dt1_row * (1.0 - y_far)
        dt10 += dt0_row * y_far
        dt11 += dt1_row * y_far
        db00 += db0_row * (1.0 - y_far)
        db01 += db1_row * (1.0 - y_far)
        db10 += db0_row * y_far
        db11 += db1_row * y_far
    total_cells = (h + 1) * (w + 1)
    out = corners_ptr + (sample * BANDS + band) * 8 * total_cells + cells
    tl.store(out, dt00, mask=real)
    tl.store(out + total_cells, dt01, mask=real)
    tl.store(out + 2 * total_cells, dt10, mask=real)
    tl.store(out + 3 * total_cells, dt11, mask=real)
    tl.store(out + 4 * total_cells, db00, mask=real)
    tl.store(out + 5 * total_cells, db01, mask=real)
    tl.store(out + 6 * total_cells, db10, mask=real)
    tl.store(out + 7 * total_cells, db11, mask=real)


@triton.jit
def _gather_kernel(corners_ptr, grad_target_ptr, grad_background_ptr, h, w, BANDS: tl.constexpr, BLOCK: tl.constexpr):
    """Each logit's gradient: it is a corner of the four cells around it."""
    sample = tl.program_id(1).to(tl.int64)
    logit = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = logit < h * w
    i, j = logit // w, logit % w
    total_cells = (h + 1) * (w + 1)
    before = i * (w + 1) + j  # the cell before it in both directions
    after = before + w + 1  # the one behind it in y
    target = tl.zeros([BLOCK], tl.float32)
    background = tl.zeros([BLOCK], tl.float32)
    for band in range(BANDS):
        near = corners_ptr + (sample * BANDS + band) * 8 * total_cells
        target += tl.load(near + after + 1, mask=real, other=0.0)
        target += tl.load(near + total_cells + after, mask=real, other=0.0)
        target += tl.load(near + 2 * total_cells + before + 1, mask=real, other=0.0)
        target += tl.load(near + 3 * total_cells + before, mask=real, other=0.0)
        near += 4 * total_cells
        background += tl.load(near + after + 1, mask=real, other=0.0)
        background += tl.load(near + total_cells + after, mask=real, other=0.0)
        background += tl.load(near + 2 * total_cells + before + 1, mask=real, other=0.0)
        background += tl.load(near + 3 * total_cells + before, mask=real, other=0.0)
    out = sample * h * w + logit
    tl.store(grad_target_ptr + out, target.to(grad_target_ptr.dtype.element_ty), mask=real)
    tl.store(grad_background_ptr + out, background.to(grad_background_ptr.dtype.element_ty), mask=real)


def _single(value: float) -> float:
    """Rounded to fp32. Not by a tensor, which would be on the user's default device: reading it waits for a GPU."""
    return ctypes.c_float(value).value


@functools.lru_cache(maxsize=1024)
def largest_cell(size: int, extent: int) -> int:
    """How many of `extent` output indices lie in one cell between `size` logits, at the most."""
    ratio = _single(size / extent)
    cells = (math.floor(_single(_single(ratio * (index + 0.5)) - 0.5)) for index in range(extent))
    return max(collections.Counter(cells).values())


class _Cut(NamedTuple):
    """How a launch cuts cells into programs: see the kernels' constants of these names."""

    cells: int
    lanes: int
    steps: int
    rows: int
    bands: int

    def constexprs(self) -> dict[str, int]:
        return dict(zip(("CELLS", "LANES", "STEPS", "ROWS", "BANDS"), self, strict=True))


def _cut(work: _config.Work, logits: tuple[int, int], extent: tuple[int, int]) -> _Cut:
    high, wide = (largest_cell(size, length) for size, length in zip(logits, extent, strict=True))
    lanes, rows = min(triton.next_power_of_2(wide), MAX_LANES), min(high, MAX_ROWS)
    cells = min(work.elements // lanes, triton.next_power_of_2((logits[0] + 1) * (logits[1] + 1)))
    return _Cut(cells, lanes, triton.cdiv(wide, lanes), rows, triton.cdiv(high, rows))


class _Inputs(NamedTuple):
    """The tensors of a call, and what the kernels are told about them."""

    target: Tensor
    background: Tensor
    mask: Tensor
    valid: Tensor | None
    joint_scale: float

    @staticmethod
    def of(target: Tensor, background: Tensor, mask: Tensor, valid: Tensor | None, joint_scale: float) -> _Inputs:
        mask = mask.view(torch.uint8) if mask.dtype == torch.bool else mask
        valid = None if valid is None else valid.view(torch.uint8)
        return _Inputs(*map(rows_contiguous, (target, background, mask, valid)), joint_scale)

    def tensors(self) -> tuple[Tensor, ...]:
        return self.target, self.background, self.mask, self.mask if self.valid is None else self.valid

    def sizes(self) -> tuple[int, ...]:
        return (*self.target.shape[1:], *self.mask.shape[1:])

    def strides(self) -> tuple[int, ...]:
        return tuple(stride for tensor in self.tensors() for stride in tensor.stride()[:2])

    def ratios(self) -> tuple[float, ...]:
        """in/out and out/in of both axes; rounded to fp32 at the launch, they are PyTorch's."""
        h, w, high, wide = self.sizes()
        return h / high, high / h, w / wide, wide / w


def forward(
    target_logits: Tensor, background_logits: Tensor, mask: Tensor, valid: Tensor | None, joint_scale: float
) -> Tensor:
    """`mask_statistics_forward`: (B, 9) fp32, the sums in the order of `TwinMaskStatistics`."""
    inputs = _Inputs.of(target_logits, background_logits, mask, valid, joint_scale)
    batch = target_logits.shape[0]
    if mask.numel() == 0:
        return target_logits.new_zeros((batch, COLUMNS), dtype=torch.float32)
    h, w, high, wide = inputs.sizes()
    work = _config.work(_config.architecture(mask.device), "statistics")
    cut = _cut(work, (h, w), (high, wide))
    blocks = triton.cdiv((h + 1) * (w + 1), cut.cells)
    tiles = triton.next_power_of_2(triton.cdiv(blocks * cut.bands, MAX_PARTIALS))
    partials = triton.cdiv(blocks, tiles) * cut.bands
    partial_sums = target_logits.new_empty((batch, COLUMNS, partials), dtype=torch.float32)
    run(
        *(_forward_kernel, (partials, batch), *inputs.tensors(), partial_sums, *inputs.sizes(), partials),
        *(*inputs.strides(), *inputs.ratios(), joint_scale),
        HAS_VALID=inputs.valid is not None,
        **cut.constexprs(),
        TILES=tiles,
        warps=work.warps,
        fp_fusion=False,  # the indices are PyTorch's to the last bit
    )
    sums = target_logits.new_empty((batch, COLUMNS), dtype=torch.float32)
    block = triton.next_power_of_2(partials)
    run(_total_kernel, (batch * COLUMNS,), partial_sums, sums, partials, BLOCK=block, warps=4)
    return sums


def backward(
    grad_sums: Tensor,
    target_logits: Tensor,
    background_logits: Tensor,
    mask: Tensor,
    valid: Tensor | None,
    joint_scale: float,
) -> tuple[Tensor, Tensor]:
    """`mask_statistics_backward`: gradients of both maps, in their dtype."""
    inputs = _Inputs.of(target_logits, background_logits, mask, valid, joint_scale)
    batch = target_logits.shape[0]
    if mask.numel() == 0:
        return target_logits.new_zeros(target_logits.shape), target_logits.new_zeros(target_logits.shape)
    grads = target_logits.new_empty(target_logits.shape), target_logits.new_empty(target_logits.shape)
    h, w, high, wide = inputs.sizes()
    cells = (h + 1) * (w + 1)
    work = _config.work(_config.architecture(mask.device), "statistics")
    cut = _cut(work, (h, w), (high, wide))
    corners = grad_sums.new_empty((batch, cut.bands, 8, cells), dtype=torch.float32)
    run(
        *(_cells_kernel, (triton.cdiv(cells, cut.cells) * cut.bands, batch)),
        *(grad_sums, *inputs.tensors(), corners, *inputs.sizes(), *grad_sums.stride()),
        *(*inputs.strides(), *inputs.ratios(), joint_scale),
        HAS_VALID=inputs.valid is not None,
        **cut.constexprs(),
        warps=work.warps,
        fp_fusion=False,
    )
    gathered = (corners, *grads, h, w)
    grid = (triton.cdiv(h * w, GATHER_BLOCK), batch)
    run(_gather_kernel, grid, *gathered, BANDS=cut.bands, BLOCK=GATHER_BLOCK, warps=4, fp_fusion=False)
    return grads


def aot_specs(arch: int) -> list[AotSpec]:
    """The kernels at the sizes of BTDNet's losses (120² and 60² to 480²), all dtypes, with and without `valid`."""
    specs = []
    for dtype, mask, side, valid in (
        (torch.float32, torch.bool, 120, False),
        (torch.float32, torch.float32, 120, True),
        (torch.bfloat16, torch.bool, 120, False),
        (torch.float16, torch.float16, 60, True),
        (torch.bfloat16, torch.bool, 15, True),
    ):
        logits = f"*{ELEMENT_TYPES[dtype]}"
        types = {"target_ptr": logits, "background_ptr": logits, "valid_ptr": "*u8"}
        types |= {"grad_target_ptr": logits, "grad_background_ptr": logits}
        types["mask_ptr"] = "*u8" if mask == torch.bool else f"*{ELEMENT_TYPES[mask]}"
        types |= dict.fromkeys(("grad_ptr", "sums_ptr", "partial_ptr", "total_ptr", "corners_ptr"), "*fp32")
        types |= dict.fromkeys(("y_ratio", "y_inverse", "x_ratio", "x_inverse", "joint_scale"), "fp32")
        types |= dict.fromkeys(("mask_batch", "mask_row", "valid_batch", "valid_row"), "i32:16")
        name = f"{ELEMENT_TYPES[dtype]} {side}²→480² {mask}{' valid' if valid else ''}".replace("torch.", "")
        work = _config.work(arch, "statistics")
        for kernel, extra in ((_forward_kernel, {"TILES": 1}), (_cells_kernel, {})):
            constexprs = _cut(work, (side, side), (480, 480)).constexprs() | {"HAS_VALID": valid} | extra
            label = f"{kernel.__name__.strip('_')} {name}"
            specs.append(elementwise_spec(label, kernel, types, constexprs, work.warps, False))
        gather = {"BANDS": constexprs["BANDS"], "BLOCK": GATHER_BLOCK}
        specs.append(elementwise_spec(f"gather_kernel {name}", _gather_kernel, types, gather, 4, False))
    specs.append(elementwise_spec("total_kernel", _total_kernel, types, {"BLOCK": MAX_PARTIALS}, 4, True))
    return specs
