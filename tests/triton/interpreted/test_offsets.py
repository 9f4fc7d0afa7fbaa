"""Tensors of more than 2³¹ elements: files with holes, of which the kernels touch a few pages."""

import pytest
import torch
from kernel_cases import correlation_case, cosine_case, cotangents

from rrsis_kernels import triton
from rrsis_kernels.triton import _launch
from rrsis_kernels.triton._products import spread_kernel
from rrsis_kernels.triton._token_pixel import MOST_PIXELS, near

FAR = 2**31


@pytest.fixture
def sparse(tmp_path):
    """Makes tensors of any strides; what is not written is zero and takes no memory."""
    files = []

    def make(size, strides, dtype=torch.float16):
        files.append(tmp_path / str(len(files)))
        length = sum((count - 1) * stride for count, stride in zip(size, strides, strict=True)) + 1
        return torch.from_file(str(files[-1]), shared=True, size=length, dtype=dtype).as_strided(size, strides)

    yield make
    for file in files:
        file.unlink()


def spread_out(sparse, tensor):
    """The same values, a tile of pixels after 2³¹ elements and the second sample farther still."""
    _, count, channels = tensor.shape
    far = sparse(tensor.shape, (count * FAR // MOST_PIXELS, FAR // MOST_PIXELS, 1), tensor.dtype)
    assert (count - 1) * far.stride(1) >= FAR
    assert near(far, MOST_PIXELS) is far, "it would be copied"
    return far.copy_(tensor)


def test_correlation(sparse):
    case = correlation_case((2, 140, 16, 16, 2, 5), torch.float16)
    module = triton.module(case.op)

    def results(pixels, spread):
        inputs = (case.tensors | {"pixels": pixels}).values()
        outputs = module.forward(*inputs, True, True)
        painted, pooled, lse = cotangents(dict(enumerate(outputs[:3])))
        return *outputs, *module.backward(spread(painted), pooled, lse, *inputs, outputs[1], outputs[3], True, True)

    due = results(case.tensors["pixels"], lambda tensor: tensor)
    got = results(spread_out(sparse, case.tensors["pixels"]), lambda tensor: spread_out(sparse, tensor))
    assert all(torch.equal(*pair) for pair in zip(got, due, strict=True))


def test_masked_cosine(sparse):
    case = cosine_case((2, 140, 16), torch.float16)
    prediction, target, mask = case.tensors.values()
    module = triton.module(case.op)
    far = spread_out(sparse, prediction), spread_out(sparse, target)
    assert torch.equal(module.forward(*far, mask), module.forward(prediction, target, mask))
    got, due = (module.backward(torch.ones(2), *pair, mask) for pair in (far, (prediction, target)))
    assert all(torch.equal(*pair) for pair in zip(got, due, strict=True))


def spread(scores, rows):
    """Rows to pixels, by scores of any pitch."""
    batch, count, total = scores.shape
    width, pitch = rows.shape[-1], scores.stride(1)
    tensors = {"scores": scores, "rows": rows, "out": torch.empty(batch, count, width)}
    none = dict.fromkeys(("other_scores", "other_rows")) | dict.fromkeys(("other_b", "other_h", "other_l"), 0)
    sizes = {"N": count, "H": 1, "L": total, "granules": pitch // 8, "WIDTH": width, "PRECISION": "ieee"}
    columns = {"GRANULE": 8, "COLUMNS": total, "GROUP": 1, "MANY": False}
    strides = {"rows_b": rows.stride(0), "rows_h": 0, "rows_l": width}
    blocks = {"BLOCK_N": 16, "BLOCK_W": 16, "BLOCK_R": 16, "warps": 4}
    _launch.run(spread_kernel, (batch * -(-count // 16),), **tensors, **none, **sizes, **columns, **strides, **blocks)
    return tensors["out"]


def test_scores(sparse):
    """A second sample's scores behind 2³¹ of the first."""
    scores, rows, pitch = torch.randn(2, 48, 16), torch.randn(2, 16, 16), 2**26
    assert 48 * pitch >= FAR
    far = sparse(scores.shape, (48 * pitch, pitch, 1), scores.dtype).copy_(scores)
    torch.testing.assert_close(spread(far, rows), scores @ rows)


def test_what_is_counted_in_32_bits_is_refused():
    can_run = triton.module("bidirectional_spatial_correlation").can_run
    sizes = {"B": 9, "N": 2**22, "C": 256, "D": 256, "H": 8, "L": 27}
    assert can_run(torch.float16, sizes).ok, "pixels of more than 2³¹ elements"
    assert not can_run(torch.float16, sizes | {"L": 29}).ok
    assert "scores" in can_run(torch.float16, sizes | {"L": 29}).reason
    sizes = {"B": 1, "N": 2**22, "C": 16, "H": 8, "K": 15}
    assert not triton.module("twin_stream_attention").can_run(torch.float16, sizes).ok, "of both streams"
