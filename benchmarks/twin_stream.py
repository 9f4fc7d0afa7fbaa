"""Twin-stream attention as each implementation writes it, and the matrix products that it cannot avoid."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from benchmarks import measure
from benchmarks.operators import BACKWARD, BOTH, FORWARD, Case
from rrsis_kernels import reference, twin_stream_attention


def fused(*inputs):
    """The C++ kernels."""
    return measure.on_cpu_kernels(lambda: tuple(twin_stream_attention(*inputs)))


def eager(*inputs):
    """The reference: plain PyTorch."""
    return lambda: tuple(reference.twin_stream_attention(*inputs))


def compiled(*inputs):
    """The reference under torch.compile."""
    function = torch.compile(reference.twin_stream_attention, fullgraph=True)
    return lambda: tuple(function(*inputs))


def two_sdpa_calls(pixels, target_queries, background_queries, gate):
    """F.scaled_dot_product_attention for each stream, the gate as its additive mask."""
    heads = target_queries.shape[1]

    def call():
        by_head = pixels[:, None].expand(-1, heads, -1, -1)
        return tuple(
            F.scaled_dot_product_attention(
                queries, by_head, by_head, attn_mask=F.logsigmoid(sign * gate)[:, None, None], scale=1.0
            )
            for queries, sign in ((target_queries, 1), (background_queries, -1))
        )

    return call


IMPLEMENTATIONS = {
    measure.OURS: fused,
    "eager": eager,
    "torch.compile": compiled,
    "two SDPA calls": two_sdpa_calls,
}


def make_case(shape):
    """The operator at one shape."""
    batch, count, channels, heads, queries = shape
    pixels = torch.randn(batch, count, channels)
    streams = [torch.randn(batch, heads, queries, channels) * channels**-0.5 for _ in range(2)]
    inputs = [pixels, *streams, torch.randn(batch, count) * 3]
    cotangents = [torch.randn_like(stream) for stream in streams]
    return Case(
        title="twin stream",
        sizes="B={} N={} C={} H={} K={}".format(*shape),
        inputs=inputs,
        leaves=4,
        cotangents=cotangents,
        oracle=eager,
        products={
            FORWARD: lambda: forward_products(*inputs),
            BACKWARD: lambda: backward_products(*inputs, *cotangents),
            BOTH: lambda: forward_products(*inputs) + backward_products(*inputs, *cotangents),
        },
    )


def _rows(*streams):
    """Both streams' queries of all heads below each other, (B, 2HK, C)."""
    return torch.cat([stream.flatten(1, 2) for stream in streams], 1)


def _weights(pixels, rows, gate):
    """The softmax over the pixels, (B, 2HK, N) in fp64."""
    bias = F.logsigmoid(torch.stack([gate, -gate], 1).double()).repeat_interleave(rows.shape[1] // 2, 1)
    return (rows.double() @ pixels.double().mT + bias).softmax(2)


@torch.no_grad()
def forward_products(pixels, target_queries, background_queries, gate):
    """Score and pool, the weights ready."""
    rows = _rows(target_queries, background_queries)
    return [(rows, pixels.mT), (_weights(pixels, rows, gate).to(pixels.dtype), pixels)]


@torch.no_grad()
def backward_products(pixels, target_queries, background_queries, gate, *cotangents):
    """The scores again, the gradient of the weights, two products into the pixels and one into the queries."""
    rows, grad_rows = _rows(target_queries, background_queries), _rows(*cotangents)
    weights = _weights(pixels, rows, gate)
    grad_weights = grad_rows.double() @ pixels.double().mT
    grad_scores = weights * (grad_weights - (weights * grad_weights).sum(2, keepdim=True))
    weights, grad_scores = weights.to(pixels.dtype), grad_scores.to(pixels.dtype)
    return [
        (rows, pixels.mT),
        (grad_rows, pixels.mT),
        (grad_scores.mT.contiguous(), rows),  # into the pixels, through the scores
        (weights.mT.contiguous(), grad_rows),  # into the pixels that were pooled
        (grad_scores, pixels),  # into the queries
    ]
