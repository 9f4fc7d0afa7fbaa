"""Inputs of each operator on a device, and the implementations that are compared there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

import rrsis_kernels
from benchmarks.gpu.floors import CORRELATION, COSINE, STATISTICS, STREAMS, Shape
from rrsis_kernels import TwinMaskStatistics, reference, use_backend

Implementation = Callable[..., Sequence[Tensor]]

EAGER, COMPILED = "absorbed, eager", "absorbed, torch.compile"
SMOOTH = 5
"""The first of the statistics, which have gradients."""


def make_inputs(shape: Shape, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    """Random inputs; those that are features or logits come first and require gradients."""

    def normal(*size: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(size, device=device) * scale).to(dtype).requires_grad_()

    batch, count, channels = shape.batch, shape.pixels, shape.channels
    rows, scale = (batch, shape.heads, shape.tokens, channels), max(channels, 1) ** -0.5
    if shape.op == CORRELATION:
        return [normal(batch, count, channels), normal(*rows, scale=scale), normal(*rows)]
    if shape.op == STREAMS:
        gate = torch.randn(batch, count, device=device, requires_grad=True)
        return [normal(batch, count, channels), normal(*rows, scale=scale), normal(*rows, scale=scale), gate]
    if shape.op == STATISTICS:
        maps = [normal(batch, shape.low, shape.low, scale=3.0) for _ in range(2)]
        return [*maps, torch.rand(batch, shape.high, shape.high, device=device) < 0.1]
    every = torch.ones(batch, count, dtype=torch.bool, device=device)
    return [normal(batch, count, channels), normal(batch, count, channels), every]


def _tensors(result: Tensor | tuple) -> list[Tensor]:
    if isinstance(result, TwinMaskStatistics):
        return list(result)[:SMOOTH]
    return [result] if isinstance(result, Tensor) else [tensor for tensor in result if tensor is not None]


def _forced(op: str, backend: str) -> Implementation:
    def call(*inputs: Tensor) -> list[Tensor]:
        with use_backend(backend):
            return _tensors(getattr(rrsis_kernels, op)(*inputs))

    return call


def _compiled(op: str) -> Implementation:
    function = torch.compile(getattr(reference, op), dynamic=False)
    return lambda *inputs: _tensors(function(*inputs))


def two_sdpa_calls(pixels: Tensor, keys: Tensor, values: Tensor) -> list[Tensor]:
    """Paint and pool as F.scaled_dot_product_attention, once in each direction; it gives no pixel_lse."""
    by_head = pixels[:, None].expand(-1, keys.shape[1], -1, -1)
    painted = F.scaled_dot_product_attention(by_head, keys, values, scale=1.0).sum(1)
    return [painted, F.scaled_dot_product_attention(keys, by_head, by_head, scale=1.0)]


def two_gated_sdpa_calls(pixels: Tensor, target: Tensor, background: Tensor, gate: Tensor) -> list[Tensor]:
    """Both streams as F.scaled_dot_product_attention, with the gate as a bias over the pixels."""
    by_head = pixels[:, None].expand(-1, target.shape[1], -1, -1)
    streams = ((target, gate), (background, -gate))
    biases = [F.logsigmoid(logit).to(pixels.dtype)[:, None, None, :] for _, logit in streams]
    return [
        F.scaled_dot_product_attention(queries, by_head, by_head, attn_mask=bias, scale=1.0)
        for (queries, _), bias in zip(streams, biases, strict=True)
    ]


def _two_flex_calls() -> Implementation:
    from torch.nn.attention.flex_attention import flex_attention

    attend = torch.compile(flex_attention, dynamic=False)

    def call(pixels: Tensor, keys: Tensor, values: Tensor) -> list[Tensor]:
        by_head = pixels[:, None].expand(-1, keys.shape[1], -1, -1).contiguous()
        painted = attend(by_head, keys, values, scale=1.0).sum(1)
        return [painted, attend(keys, by_head, by_head, scale=1.0)]

    return call


def implementations(op: str, ours: str) -> dict[str, Callable[[], Implementation]]:
    """What is compared for an operator, by name; made when it is needed, because some compile.

    Args:
        op: one of our public functions.
        ours: the backend that is measured.
    """
    found = {ours: lambda: _forced(op, ours)}
    if ours == "triton":  # on CUDA: beside it stand the C++ kernels, whose products have a forward alone
        found["cuda"] = lambda: _forced(op, "cuda")
    found |= {EAGER: lambda: _forced(op, "reference"), COMPILED: lambda: _compiled(op)}
    if op == CORRELATION:
        found |= {"two SDPA calls": lambda: two_sdpa_calls, "two FlexAttention calls": _two_flex_calls}
    if op == STREAMS:
        found |= {"two SDPA calls": lambda: two_gated_sdpa_calls}
    return found


NAMES = {CORRELATION: "correlation", STREAMS: "twin stream", STATISTICS: "mask statistics", COSINE: "masked cosine"}
