"""What only the token-pixel kernels of Triton have: rows in blocks of several heads or of a part of one, and the like.

tests/kernels has what all backends share; `test_interpreter.py` runs that here as well.
"""

import dataclasses

import pytest
import torch
from kernel_cases import assert_accurate, correlation_case, poisoned_empty, twin_stream_case

from rrsis_kernels import triton, use_backend
from rrsis_kernels.triton import _config


@pytest.fixture(autouse=True)
def _forced():
    with use_backend("triton"), poisoned_empty():
        yield


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((1, 200, 16, 16, 8, 20), {"masks": False}),  # three heads in a block
        ((1, 70, 33, 17, 2, 150), {}),  # heads of several blocks; channels of odd size
        ((1, 70, 16, 16, 2, 150), {"direction": "paint"}),
        ((1, 70, 16, 16, 2, 150), {"direction": "pool"}),
        ((2, 65, 16, 0, 2, 5), {}),
        ((2, 20, 16, 16, 0, 3), {}),
        ((1, 1, 1, 1, 1, 1), {"masks": False}),
    ],
)
def test_correlation(shape, options, dtype):
    assert_accurate(correlation_case(shape, dtype, **options))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shape", [(1, 33, 16, 1, 150), (2, 20, 16, 0, 3)])
def test_twin_streams_of_several_blocks_or_none(shape, dtype):
    assert_accurate(twin_stream_case(shape, dtype))


@pytest.mark.parametrize(
    "case",
    [
        correlation_case((1, 140, 40, 17, 8, 20), masks=False),
        correlation_case((1, 70, 33, 17, 2, 150)),
        twin_stream_case((1, 140, 40, 3, 5)),
    ],
    ids=["correlation", "heads of several blocks", "twin streams"],
)
def test_blocks_of_tf32(monkeypatch, case):
    """They have block shapes of their own. The interpreter multiplies in full precision whatever is asked for."""
    monkeypatch.setattr(_config, "tf32_asked", lambda: True)
    assert_accurate(case)


def test_no_channels_are_refused():
    for channels in (0, 1):
        assert triton.module("twin_stream_attention").can_run(torch.float32, {"C": channels}).ok == bool(channels)


def test_any_strides():
    """Strides of 0 among them, to the last bit."""
    case = correlation_case((2, 40, 16, 16, 2, 5))
    turned = {
        "pixels": case.tensors["pixels"].transpose(0, 1).contiguous().transpose(0, 1),
        "keys": case.tensors["keys"].transpose(1, 2).contiguous().transpose(1, 2),
        "values": case.tensors["values"][:, :1].expand(-1, 2, -1, -1),
        "pixel_mask": case.tensors["pixel_mask"][:1].expand(2, -1),
    }
    moved = dataclasses.replace(case, tensors=case.tensors | turned)
    dense = dataclasses.replace(case, tensors={n: t.contiguous() for n, t in moved.tensors.items()})
    got, due = moved.run(), dense.run()
    assert all(torch.equal(got[name], due[name]) for name in due)


@pytest.mark.parametrize(
    "given", [(True, False, False), (False, False, True), (False, True, False), (True, True, False)]
)
def test_gradients_that_did_not_come(given):
    """A gradient of None counts as zeros, bit for bit."""
    case = correlation_case((2, 70, 16, 20, 3, 20))
    module = triton.module(case.op)
    inputs = list(case.tensors.values())
    outputs = module.forward(*inputs, True, True)
    full = [torch.randn_like(output) for output in outputs[:3]]
    some = [grad if there else None for grad, there in zip(full, given, strict=True)]
    zeros = [grad if there else torch.zeros_like(grad) for grad, there in zip(full, given, strict=True)]
    got = module.backward(*some, *inputs, outputs[1], outputs[3], given[0] or given[2], given[1])
    due = module.backward(*zeros, *inputs, outputs[1], outputs[3], True, True)
    for value, expected in zip(got, due, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)


def test_statistics_are_those_of_the_reference():
    """The shift and the total that other backends keep too: the total is that of exponentials relative to the shift."""
    case = correlation_case((2, 90, 16, 16, 2, 5))
    _, _, _, stats = triton.module(case.op).forward(*case.tensors.values(), True, True)
    scores = torch.einsum("bhlc,bnc->bhln", case.tensors["keys"], case.tensors["pixels"])
    scores = (scores + case.tensors["key_bias"][..., None]).masked_fill(
        ~case.tensors["pixel_mask"][:, None, None], -torch.inf
    )
    torch.testing.assert_close(stats[1, ..., 0] + stats[1, ..., 1].log(), scores[1].logsumexp(-1))
    assert stats[0].eq(0).all()


def test_one_missing_stream_counts_as_zeros():
    case = twin_stream_case((2, 50, 16, 2, 3))
    module = triton.module(case.op)
    target, background, stats = module.forward(*case.tensors.values())
    grad = torch.randn_like(target)
    got = module.backward(grad, None, *case.tensors.values(), target, background, stats)
    due = module.backward(grad, torch.zeros_like(grad), *case.tensors.values(), target, background, stats)
    assert all(torch.equal(*pair) for pair in zip(got, due, strict=True))
    assert got[2].eq(0).all()
