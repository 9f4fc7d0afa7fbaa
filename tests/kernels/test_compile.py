"""One graph under torch.compile with any N and L, and under torch.export; on every backend."""

import pytest
import torch
from kernel_cases import OPS, Case, Draw, correlation_case, mask_statistics_case, skip_unless_supported, why_not
from torch._dynamo.testing import CompileCounterWithBackend

import rrsis_kernels
from rrsis_kernels import nn as kernel_nn
from rrsis_kernels import use_backend


@pytest.fixture(autouse=True)
def _forget_graphs():
    """What another test compiled of the same function is no business of this one's."""
    torch._dynamo.reset()


def skip_unless_all_are_supported():
    for op in OPS:
        skip_unless_supported(op, torch.float32)


def everything(pixels, keys, values, key_bias, token_mask, pixel_mask, gate, logits, mask):
    """All four ops in one graph, so that it is compiled once."""
    out = rrsis_kernels.bidirectional_spatial_correlation(pixels, keys, values, key_bias, token_mask, pixel_mask)
    streams = rrsis_kernels.twin_stream_attention(out.painted, out.pooled, keys, gate, pixel_mask)
    cosine = rrsis_kernels.masked_cosine_loss(out.painted, pixels, pixel_mask)
    sums = rrsis_kernels.twin_mask_statistics(logits, -logits, mask)
    smooth = sums.bce_joint + sums.bce_background + cosine + out.pixel_lse.mean((1, 2))
    return smooth.sum() + streams.target.square().sum() + streams.background.square().sum()


def arguments(pixels, tokens, side, seed=0):
    case = correlation_case((3, pixels, 8, 8, 2, tokens), masks=False, seed=seed).tensors
    draw = Draw(seed)
    case["token_mask"] = draw.mask(3, tokens, share=0.8)
    case["pixel_mask"] = draw.mask(3, pixels, share=0.8)
    for name in ("pixels", "keys"):
        case[name].requires_grad_()
    statistics = mask_statistics_case((3, 7, 9), (side, side + 1), valid=False, seed=seed).tensors
    gate = draw.normal(3, pixels)
    return (*case.values(), gate, statistics["target_logits"], statistics["mask"])


def value_and_gradients(function, args):
    loss = function(*args)
    return loss.detach(), *torch.autograd.grad(loss, args[:2])


def test_one_graph_for_any_number_of_pixels_and_tokens(backend):
    skip_unless_all_are_supported()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(everything, fullgraph=True, dynamic=True, backend=counter)
    counts = []
    for sizes in ((20, 5, 14), (33, 11, 21), (50, 17, 30)):
        args = arguments(*sizes)
        for got, due in zip(value_and_gradients(compiled, args), value_and_gradients(everything, args), strict=True):
            torch.testing.assert_close(got, due)
        counts.append(counter.frame_count)
    # Dynamo may begin the first graph again, to make a constant of `joint_scale`; no other sizes may need another one.
    assert counts == [counts[0]] * 3


@pytest.mark.slow
def test_inductor(backend):
    skip_unless_all_are_supported()
    compiled = torch.compile(everything, fullgraph=True)
    args = arguments(20, 5, 14)
    for got, due in zip(value_and_gradients(compiled, args), value_and_gradients(everything, args), strict=True):
        torch.testing.assert_close(got, due, atol=1e-4, rtol=1e-4)


def test_forcing_a_backend_inside_and_outside_of_a_compiled_function():
    """A graph is made anew where another backend is forced, and a `with` may stand inside it."""
    if why_not("cpu"):
        pytest.skip(why_not("cpu"))
    graphs = []

    def record(module, inputs):
        graphs.append([node.target for node in module.graph.nodes if node.op == "call_function"])
        return module

    case = correlation_case((2, 9, 4, 3, 2, 3))

    def paint(pixels):
        return Case(case.op, case.tensors | {"pixels": pixels}, ())()["painted"]

    def ours(targets):
        return any("rrsis_kernels" in str(target) for target in targets)

    pixels = case.tensors["pixels"]
    compiled = torch.compile(paint, fullgraph=True, backend=record)
    compiled(pixels)
    with use_backend("reference"):
        compiled(pixels)
    compiled(pixels)
    assert [ours(targets) for targets in graphs] == [True, False]

    def inside(pixels):
        with use_backend("reference"):
            first = paint(pixels)
        return first + paint(pixels)

    torch.testing.assert_close(torch.compile(inside, fullgraph=True, backend=record)(pixels), 2 * paint(pixels))


class Layers(torch.nn.Module):
    """Both layers behind one another."""

    def __init__(self):
        super().__init__()
        self.correlation = kernel_nn.BidirectionalSpatialCorrelation(8, 6, 8, 2)
        self.streams = kernel_nn.TwinStreamAttention(8, 2, order="absorbed")

    def forward(self, pixels, tokens, queries, token_mask):
        painted, pooled, pixel_lse = self.correlation(pixels, tokens, token_mask)
        return pooled, *self.streams(painted, queries, -queries, pixel_lse.mean(1))


def test_export_with_any_number_of_pixels(backend):
    skip_unless_all_are_supported()
    torch.manual_seed(0)
    layers = Layers().eval()
    inputs = torch.randn(2, 20, 8), torch.randn(2, 5, 6), torch.randn(2, 3, 8), torch.rand(2, 5) < 0.8
    pixels = torch.export.Dim("pixels", min=2, max=4096)
    program = torch.export.export(layers, inputs, dynamic_shapes=({1: pixels}, None, None, None))
    ours = [node for node in program.graph.nodes if "rrsis_kernels" in str(node.target)]
    assert len(ours) == (0 if backend == "reference" else 2)
    for count in (20, 77):
        inputs = (torch.randn(2, count, 8), *inputs[1:])
        for got, due in zip(program.module()(*inputs), layers(*inputs), strict=True):
            torch.testing.assert_close(got, due)
