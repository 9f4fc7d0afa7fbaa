"""The least that each operator has to do: bytes through the device's memory and multiplications, forward and backward.

Every input is read once and every output written once; no program can be faster than the larger of the two times.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

FORWARD, BACKWARD = "forward", "backward"


class Device(NamedTuple):
    """Rates of a device: attainable bytes a second, and multiply-add operations a second by dtype."""

    name: str
    bandwidth: float
    flops: dict[torch.dtype, float]


H200 = Device("H200", 4.3e12, {torch.bfloat16: 790e12, torch.float16: 790e12, torch.float32: 60e12})
"""What is attainable, a little under the data sheet; fp32 without TF32."""
H100 = Device("H100", 3.0e12, {torch.bfloat16: 750e12, torch.float16: 750e12, torch.float32: 60e12})


class Floor(NamedTuple):
    """Bytes to move and operations to do."""

    bytes: float
    flops: float

    def seconds(self, device: Device, dtype: torch.dtype) -> float:
        """The time that no program can be under."""
        return max(self.bytes / device.bandwidth, self.flops / device.flops[dtype])


class Shape(NamedTuple):
    """One call's sizes; what an operator has not got is 0. For `masked_cosine_loss` every row counts."""

    op: str
    label: str
    batch: int
    pixels: int
    channels: int
    heads: int = 0
    tokens: int = 0
    low: int = 0
    high: int = 0


CORRELATION, STREAMS = "bidirectional_spatial_correlation", "twin_stream_attention"
STATISTICS, COSINE = "twin_mask_statistics", "masked_cosine_loss"

SHAPES = (
    Shape(CORRELATION, "Grounding DINO layer", 1, 17821, 256, 4, 20),
    Shape(CORRELATION, "BTDNet base, 1/4", 16, 14400, 128, 4, 20),
    Shape(CORRELATION, "BTDNet base, 1/8", 16, 3600, 256, 8, 20),
    Shape(CORRELATION, "BTDNet base, 1/16", 16, 900, 512, 16, 20),
    Shape(CORRELATION, "BTDNet base, 1/32", 16, 225, 1024, 32, 20),
    Shape(STREAMS, "BTDNet base, 1/8", 16, 3600, 256, 8, 8),
    Shape(STREAMS, "BTDNet base, 1/16", 16, 900, 256, 8, 8),
    Shape(STREAMS, "BTDNet base, 1/32", 16, 225, 256, 8, 8),
    Shape(STATISTICS, "120² to 480²", 16, 0, 0, low=120, high=480),
    Shape(STATISTICS, "120² to 240²", 96, 0, 0, low=120, high=240),
    Shape(COSINE, "BTDNet base, 1/32", 16, 225, 1024),
    Shape(COSINE, "BTDNet base, 1/8", 16, 3600, 256),
)
QUICK = (
    Shape(CORRELATION, "quick", 2, 64, 32, 2, 5),
    Shape(STREAMS, "quick", 2, 64, 32, 2, 4),
    Shape(STATISTICS, "quick", 2, 0, 0, low=6, high=24),
    Shape(COSINE, "quick", 2, 64, 32),
)
"""For a rehearsal without a GPU."""


def floor(shape: Shape, pass_name: str, dtype: torch.dtype) -> Floor:
    """What one pass of an operator cannot do without."""
    of_op = {CORRELATION: _correlation, STREAMS: _streams, STATISTICS: _statistics, COSINE: _cosine}
    return of_op[shape.op](shape, pass_name == BACKWARD, dtype.itemsize)


def _correlation(s: Shape, backward: bool, item: int) -> Floor:
    """Forward: score, paint, pool. Backward: score, two products of cotangents, two into pixels, one per token side."""
    map_bytes, token_bytes = s.batch * s.pixels * s.channels * item, s.batch * s.heads * s.tokens * s.channels * item
    lse = 4 * s.batch * s.heads * s.pixels
    product = 2 * s.batch * s.pixels * s.channels * s.heads * s.tokens
    if backward:
        return Floor(3 * map_bytes + 6 * token_bytes + lse, 7 * product)
    return Floor(2 * map_bytes + 3 * token_bytes + lse, 3 * product)


def _streams(s: Shape, backward: bool, item: int) -> Floor:
    map_bytes, query_bytes = (
        s.batch * s.pixels * s.channels * item,
        2 * s.batch * s.heads * s.tokens * s.channels * item,
    )
    gate = 4 * s.batch * s.pixels
    product = 2 * s.batch * s.pixels * s.channels * 2 * s.heads * s.tokens
    if backward:
        return Floor(2 * map_bytes + 4 * query_bytes + 2 * gate, 5 * product)
    return Floor(map_bytes + 2 * query_bytes + gate, 2 * product)


def _statistics(s: Shape, backward: bool, item: int) -> Floor:
    maps = 2 * s.batch * s.low * s.low * item
    return Floor(s.batch * s.high * s.high + (2 if backward else 1) * maps, 0)


def _cosine(s: Shape, backward: bool, item: int) -> Floor:
    maps = 2 * s.batch * s.pixels * s.channels * item
    return Floor(s.batch * s.pixels + (2 if backward else 1) * maps, 0)
