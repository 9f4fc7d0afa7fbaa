"""Bidirectional spatial correlation as each implementation writes it, and the matrix products that it cannot avoid."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from benchmarks import measure
from benchmarks.operators import BACKWARD, BOTH, FORWARD, Case
from rrsis_kernels import bidirectional_spatial_correlation, reference

# B, N, C, H, L: Grounding DINO's encoder with short and long texts, BTDNet at 480 x 480 from 1/4 to 1/32, and the tiny
# BTDNet in training.
FULL = [
    (1, 17821, 256, 4, 20),
    (1, 17821, 256, 4, 256),
    (1, 14400, 128, 4, 20),
    (1, 3600, 256, 8, 20),
    (1, 900, 512, 16, 20),
    (1, 225, 1024, 32, 20),
    (32, 1024, 32, 4, 16),
    (32, 256, 64, 4, 16),
    (32, 64, 128, 4, 16),
    (32, 16, 256, 4, 16),
]
QUICK = [(1, 1024, 64, 4, 20), (4, 64, 128, 4, 16)]

PADDING = 3
"""The last tokens of every text, masked."""


def fused(*inputs):
    """Painted and pooled by the C++ kernels."""
    return measure.on_cpu_kernels(lambda: bidirectional_spatial_correlation(*inputs)[:2])


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


IMPLEMENTATIONS = {
    measure.OURS: fused,
    "eager, absorbed": eager,
    "torch.compile, absorbed": compiled,
    "two SDPA calls": two_sdpa_calls,
}


def make_inputs(shape, dtype=torch.float32):
    """pixels, keys, values, key_bias and token_mask; the last tokens of each text are padding."""
    batch, count, channels, heads, tokens = shape
    pixels = torch.randn(batch, count, channels)
    keys = torch.randn(batch, heads, tokens, channels) * channels**-0.5
    values = torch.randn(batch, heads, tokens, channels)
    key_bias = torch.randn(batch, heads, tokens)
    token_mask = (torch.arange(tokens) < tokens - PADDING).expand(batch, tokens)
    return [tensor.to(dtype) for tensor in (pixels, keys, values, key_bias)] + [token_mask]


def make_case(shape, dtype=torch.float32, title="bsc"):
    """The operator at one shape."""
    inputs = make_inputs(shape, dtype)
    cotangents = [torch.randn_like(inputs[0]), torch.randn_like(inputs[1])]
    return _case(title, "B={} N={} C={} H={} L={}".format(*shape), inputs, cotangents)


def in_fp32(case):
    """The same case, down to the rounded numbers, in fp32."""
    inputs = [tensor.float() if tensor.is_floating_point() else tensor for tensor in case.inputs]
    return _case(case.title, case.sizes, inputs, [tensor.float() for tensor in case.cotangents])


def _case(title, sizes, inputs, cotangents):
    return Case(
        title=title,
        sizes=sizes,
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


def _weights(pixels, keys, key_bias, token_mask):
    """Both softmaxes (B, H, L, N) of the scores, in fp64."""
    scores = torch.einsum("bhlc,bnc->bhln", keys.double(), pixels.double()) + key_bias.double()[..., None]
    return scores.masked_fill(~token_mask[:, None, :, None], -torch.inf).softmax(2), scores.softmax(3)


@torch.no_grad()
def forward_products(pixels, keys, values, key_bias, token_mask):
    """Score, paint and pool, the weights ready."""
    paint, pool = (weights.flatten(1, 2).to(pixels.dtype) for weights in _weights(pixels, keys, key_bias, token_mask))
    return [
        (keys.flatten(1, 2), pixels.mT),
        (paint.mT.contiguous(), values.flatten(1, 2)),
        (pool, pixels),
    ]


def _softmax_gradient(weights, gradient, dim):
    return weights * (gradient - (weights * gradient).sum(dim, keepdim=True))


@torch.no_grad()
def backward_products(pixels, keys, values, key_bias, token_mask, grad_painted, grad_pooled):
    """The scores again, two gradients of weights, and two products each into pixels and tokens; weights ready."""
    dtype = pixels.dtype
    paint, pool = _weights(pixels, keys, key_bias, token_mask)
    grad_paint = torch.einsum("bhld,bnd->bhln", values.double(), grad_painted.double())
    grad_pool = torch.einsum("bhlc,bnc->bhln", grad_pooled.double(), pixels.double())
    grad_scores = _softmax_gradient(paint, grad_paint, 2) + _softmax_gradient(pool, grad_pool, 3)
    paint, pool, grad_scores = (matrix.flatten(1, 2).to(dtype) for matrix in (paint, pool, grad_scores))
    rows, painters, grad_rows = keys.flatten(1, 2), values.flatten(1, 2), grad_pooled.flatten(1, 2)
    return [
        (rows, pixels.mT),
        (painters, grad_painted.mT),
        (grad_rows, pixels.mT),
        (grad_scores.mT.contiguous(), rows),  # into the pixels, through the scores
        (pool.mT.contiguous(), grad_rows),  # into the pixels that were pooled
        (grad_scores, pixels),  # into the keys
        (paint, grad_painted),  # into the values
    ]
