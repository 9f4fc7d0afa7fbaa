"""Bidirectional spatial correlation against eager PyTorch, two SDPA calls, and the bare matrix products."""

import torch
from torch.nn import functional as F

from benchmarks import measure
from rrsis_kernels import bidirectional_spatial_correlation, reference

# N, C, H, L: Grounding DINO's encoder with short and long texts, then BTDNet at 480 x 480, 1/4 to 1/32.
FULL = [
    (17821, 256, 4, 20),
    (17821, 256, 4, 256),
    (14400, 128, 4, 20),
    (3600, 256, 8, 20),
    (900, 512, 16, 20),
    (225, 1024, 32, 20),
]
QUICK = [(1024, 64, 4, 20), (225, 128, 8, 20)]


def make_inputs(shape):
    """pixels, keys, values, key_bias and token_mask of one image whose last tokens are padding."""
    count, channels, heads, tokens = shape
    pixels = torch.randn(1, count, channels)
    keys = torch.randn(1, heads, tokens, channels) * channels**-0.5
    values = torch.randn(1, heads, tokens, channels)
    key_bias = torch.randn(1, heads, tokens)
    token_mask = torch.arange(tokens)[None] < tokens - 3
    return pixels, keys, values, key_bias, token_mask


def fused(pixels, keys, values, key_bias, token_mask):
    """Painted and pooled by the C++ kernels."""
    arguments = (pixels, keys, values, key_bias, token_mask)
    return measure.on_cpu_kernels(lambda: bidirectional_spatial_correlation(*arguments)[:2])


def eager(*inputs):
    """Painted and pooled by the reference: absorbed, in plain PyTorch."""
    return lambda: reference.bidirectional_spatial_correlation(*inputs)[:2]


def compiled(*inputs):
    """The reference under torch.compile."""
    function = torch.compile(reference.bidirectional_spatial_correlation, fullgraph=True)
    return lambda: function(*inputs)[:2]


def two_sdpa_calls(pixels, keys, values, key_bias, token_mask):
    """F.scaled_dot_product_attention once in each direction; it gives no pixel_lse."""
    heads = keys.shape[1]

    def call():
        bias = key_bias.masked_fill(~token_mask[:, None], -torch.inf)[:, :, None]
        by_head = pixels[:, None].expand(-1, heads, -1, -1)
        painted = F.scaled_dot_product_attention(by_head, keys, values, attn_mask=bias, scale=1.0).sum(1)
        # Constant over the pixels, the bias falls out of this softmax.
        pooled = F.scaled_dot_product_attention(keys, by_head, by_head, scale=1.0)
        return painted, pooled

    return call


def bare_products(pixels, keys, values, key_bias, token_mask):
    """The three matrix products alone, with ready weights: the line below which no unfused form can be."""
    with torch.no_grad():
        scores = torch.einsum("bhlc,bnc->bhln", keys, pixels) + key_bias[..., None]
        paint = scores.masked_fill(~token_mask[:, None, :, None], -torch.inf).softmax(2)[0].flatten(0, 1).T.contiguous()
        pool = scores.softmax(3)[0].flatten(0, 1).contiguous()
    rows, painters, matrix = keys[0].flatten(0, 1), values[0].flatten(0, 1), pixels[0]

    def call():
        torch.mm(rows, matrix.T)
        return torch.mm(paint, painters)[None], torch.mm(pool, matrix).unflatten(0, keys.shape[1:3])[None]

    return call


IMPLEMENTATIONS = {
    measure.OURS: fused,
    "eager, absorbed": eager,
    "torch.compile, absorbed": compiled,
    "two SDPA calls": two_sdpa_calls,
    "bare matrix products": bare_products,
}
FORWARD_ONLY = {"bare matrix products"}


def test_forward(benchmark, shape, implementation):
    inputs = make_inputs(shape)
    expected = measure.forward_only(eager(*measure.to_double(inputs)))()
    call = measure.forward_only(IMPLEMENTATIONS[implementation](*inputs))
    group = "bsc forward N={} C={} H={} L={}".format(*shape)
    measure.run(benchmark, call, expected, group=group, implementation=implementation, shape=shape)


def test_forward_backward(benchmark, shape, implementation):
    inputs = make_inputs(shape)
    cotangents = torch.randn_like(inputs[0]), torch.randn_like(inputs[1])
    oracle = measure.to_double(inputs)
    expected = measure.forward_backward(eager(*oracle), oracle[:4], measure.to_double(cotangents))()
    for tensor in inputs[:4]:
        tensor.requires_grad_()
    call = measure.forward_backward(IMPLEMENTATIONS[implementation](*inputs), inputs[:4], cotangents)
    group = "bsc forward+backward N={} C={} H={} L={}".format(*shape)
    measure.run(benchmark, call, expected, group=group, implementation=implementation, shape=shape)
