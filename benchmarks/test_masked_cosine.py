"""Masked cosine loss against F.cosine_similarity under a mask."""

import torch
from torch.nn import functional as F

from benchmarks import measure
from rrsis_kernels import masked_cosine_loss, reference

# B, N, C: BTDNet's memory at 1/8 of 480 x 480, and training of the tiny model.
FULL = [(8, 3600, 256), (32, 256, 64)]
QUICK = [(8, 256, 64)]


def make_inputs(shape):
    """prediction, target and mask, a quarter of whose rows count."""
    return torch.randn(*shape), torch.randn(*shape), torch.rand(shape[:2]) < 0.25


def fused(*inputs):
    """The C++ kernels."""
    return measure.on_cpu_kernels(lambda: (masked_cosine_loss(*inputs),))


def cosine_similarity(prediction, target, mask):
    """What one writes without the op."""
    distance = 1 - F.cosine_similarity(prediction, target, dim=-1)
    return ((distance * mask).sum(1) / mask.sum(1).clamp_min(1),)


def eager(*inputs):
    """`cosine_similarity` as it stands."""
    return lambda: cosine_similarity(*inputs)


def compiled(*inputs):
    """`cosine_similarity` under torch.compile."""
    function = torch.compile(cosine_similarity, fullgraph=True)
    return lambda: function(*inputs)


def oracle(*inputs):
    """The reference."""
    return lambda: (reference.masked_cosine_loss(*inputs),)


IMPLEMENTATIONS = {measure.OURS: fused, "F.cosine_similarity": eager, "the same, torch.compile": compiled}


def test_forward(benchmark, shape, implementation):
    inputs = make_inputs(shape)
    expected = measure.forward_only(oracle(*measure.to_double(inputs)))()
    call = measure.forward_only(IMPLEMENTATIONS[implementation](*inputs))
    group = "masked cosine forward B={} N={} C={}".format(*shape)
    measure.run(benchmark, call, expected, group=group, implementation=implementation, shape=shape)


def test_forward_backward(benchmark, shape, implementation):
    inputs = make_inputs(shape)
    cotangents = [torch.rand(shape[0])]
    double = measure.to_double(inputs)
    expected = measure.forward_backward(oracle(*double), double[:2], measure.to_double(cotangents))()
    for tensor in inputs[:2]:
        tensor.requires_grad_()
    call = measure.forward_backward(IMPLEMENTATIONS[implementation](*inputs), inputs[:2], cotangents)
    group = "masked cosine forward+backward B={} N={} C={}".format(*shape)
    measure.run(benchmark, call, expected, group=group, implementation=implementation, shape=shape)
