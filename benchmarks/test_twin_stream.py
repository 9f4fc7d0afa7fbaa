"""Twin-stream attention against eager PyTorch and SDPA with a materialised gate."""

import torch
from torch.nn import functional as F

from benchmarks import measure
from rrsis_kernels import reference, twin_stream_attention

# N, C, H, K: BTDNet's memories at 480 x 480, 1/8, 1/16 and 1/4.
FULL = [(3600, 256, 8, 8), (900, 256, 8, 8), (14400, 256, 8, 8)]
QUICK = [(1024, 64, 4, 4)]


def make_inputs(shape):
    """pixels, target_queries, background_queries and gate of one image."""
    count, channels, heads, queries = shape
    pixels = torch.randn(1, count, channels)
    streams = [torch.randn(1, heads, queries, channels) * channels**-0.5 for _ in range(2)]
    return pixels, *streams, torch.randn(1, count) * 3


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


def test_forward(benchmark, shape, implementation):
    inputs = make_inputs(shape)
    expected = measure.forward_only(eager(*measure.to_double(inputs)))()
    call = measure.forward_only(IMPLEMENTATIONS[implementation](*inputs))
    group = "twin stream forward N={} C={} H={} K={}".format(*shape)
    measure.run(benchmark, call, expected, group=group, implementation=implementation, shape=shape)


def test_forward_backward(benchmark, shape, implementation):
    inputs = make_inputs(shape)
    cotangents = [torch.randn_like(inputs[1]) for _ in range(2)]
    oracle = measure.to_double(inputs)
    expected = measure.forward_backward(eager(*oracle), oracle, measure.to_double(cotangents))()
    for tensor in inputs:
        tensor.requires_grad_()
    call = measure.forward_backward(IMPLEMENTATIONS[implementation](*inputs), inputs, cotangents)
    group = "twin stream forward+backward N={} C={} H={} K={}".format(*shape)
    measure.run(benchmark, call, expected, group=group, implementation=implementation, shape=shape)
