"""The Triton kernels of the token-pixel operators, called directly in Triton's interpreter, against fp64.

Triton decides when a kernel is defined whether it is interpreted: these tests run in a process of their own, which
`test_interpreted` starts. The interpreter multiplies the bit patterns of bf16, so fp32 and fp16 stand for all dtypes.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rrsis_kernels import backends
from rrsis_kernels import triton as kernels

sys.path.insert(0, str(Path(__file__).parents[1] / "kernels"))
from kernel_cases import Case, assert_accurate, correlation_case, cotangents, twin_stream_case

inside = pytest.mark.skipif(not kernels.INTERPRETED, reason="interpreted: test_interpreted starts a process for it")
DTYPES = (torch.float32, torch.float16)


@pytest.mark.slow
@pytest.mark.skipif(not kernels.INSTALLED, reason="triton is not installed")
@pytest.mark.skipif(kernels.INTERPRETED, reason="this is the process that it starts")
def test_interpreted():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", __file__]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]


@pytest.fixture(autouse=True)
def _poisoned():
    """Uninitialised memory holds NaN, so that what is not written cannot pass."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


class Direct(Case):
    """A case whose kernels are called without dispatch or autograd."""

    def run(self):
        if backends.forced_backend() == "reference":
            return super().run()
        if self.op == "twin_stream_attention":
            return self._twin_streams()
        return self._correlation()

    def _correlation(self):
        module = kernels.module(self.op)
        inputs = [self.tensors[name] for name in ("pixels", "keys", "values", "key_bias", "token_mask", "pixel_mask")]
        paint, pool = self.options["direction"] != "pool", self.options["direction"] != "paint"
        painted, pooled, lse, stats = module.forward(*inputs, paint, pool)
        for output, asked in ((painted, paint), (lse, paint), (pooled, pool), (stats, pool)):
            assert asked or output.shape == (0,)
        outputs = ({"painted": painted} if paint else {}) | ({"pooled": pooled} if pool else {})
        outputs |= {"pixel_lse": lse} if paint else {}
        grads = dict(zip(outputs, cotangents(outputs), strict=True))
        back = module.backward(
            *(grads.get(name) for name in ("painted", "pooled", "pixel_lse")), *inputs, pooled, stats, paint, pool
        )
        names = ("pixels", "keys", "values", "key_bias")
        given = [name for name in names if self.tensors[name] is not None]
        return outputs | {f"grad_{name}": grad for name, grad in zip(names, back, strict=True) if name in given}

    def _twin_streams(self):
        module = kernels.module(self.op)
        names = ("pixels", "target_queries", "background_queries", "gate")
        inputs = [self.tensors[name] for name in (*names, "pixel_mask")]
        target, background, stats = module.forward(*inputs)
        outputs = {"target": target, "background": background}
        back = module.backward(*cotangents(outputs), *inputs, target, background, stats)
        given = [name for name in names if self.tensors[name] is not None]
        return outputs | {f"grad_{name}": grad for name, grad in zip(names, back, strict=True) if name in given}


def direct(case):
    return Direct(case.op, case.tensors, case.differentiable, case.options)


@inside
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((2, 150, 24, 20, 3, 20), {}),
        ((1, 200, 16, 16, 8, 20), {"masks": False}),  # three heads in a block
        ((2, 37, 40, 16, 5, 7), {"bias": False}),
        ((1, 70, 33, 17, 2, 150), {}),  # heads of several blocks; channels of odd size
        ((2, 65, 16, 0, 2, 5), {}),
        ((1, 130, 80, 24, 1, 1), {"sharpness": 8.0}),
        ((1, 1, 1, 1, 1, 1), {"masks": False}),
    ],
)
def test_correlation(shape, options, dtype):
    assert_accurate(direct(correlation_case(shape, dtype, **options)))


@inside
@pytest.mark.parametrize("direction", ["paint", "pool"])
@pytest.mark.parametrize("shape", [(2, 90, 24, 20, 3, 20), (1, 70, 16, 16, 2, 100)])
def test_one_direction(shape, direction):
    assert_accurate(direct(correlation_case(shape, direction=direction)))


@inside
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((2, 150, 24, 2, 5), {}),
        ((1, 70, 40, 3, 8), {"gate": None}),
        ((2, 200, 16, 1, 3), {"gate": torch.float16, "masks": False}),
        ((1, 33, 16, 1, 150), {}),
    ],
)
def test_twin_streams(shape, options, dtype):
    if options.get("gate") == torch.float16 and dtype == torch.float32:
        options = options | {"gate": torch.float32}
    assert_accurate(direct(twin_stream_case(shape, dtype, **options)))


@inside
@pytest.mark.parametrize("zero", range(6))
def test_empty_correlation(zero):
    shape = [2, 20, 16, 16, 2, 3]
    shape[zero] = 0
    if zero != 2:  # C of 0 is refused
        assert_accurate(direct(correlation_case(tuple(shape))))
    assert kernels.module("bidirectional_spatial_correlation").can_run(torch.float32, {"C": shape[2]}).ok == (zero != 2)


@inside
@pytest.mark.parametrize("zero", [0, 1, 3, 4])
def test_empty_twin_streams(zero):
    shape = [2, 20, 16, 2, 3]
    shape[zero] = 0
    assert_accurate(direct(twin_stream_case(tuple(shape))))


@inside
def test_any_strides():
    case = correlation_case((2, 40, 16, 16, 2, 5))
    turned = {
        "pixels": case.tensors["pixels"].transpose(0, 1).contiguous().transpose(0, 1),
        "keys": case.tensors["keys"].transpose(1, 2).contiguous().transpose(1, 2),
        "values": case.tensors["values"][:, :1].expand(-1, 2, -1, -1),
        "pixel_mask": case.tensors["pixel_mask"][:1].expand(2, -1),
    }
    moved = Case(case.op, case.tensors | turned, case.differentiable, case.options)
    plain = Case(case.op, {n: t.contiguous() for n, t in moved.tensors.items()}, case.differentiable, case.options)
    got, due = direct(moved).run(), direct(plain).run()
    assert all(torch.equal(got[name], due[name]) for name in due)


@inside
@pytest.mark.parametrize(
    "given", [(True, False, False), (False, False, True), (False, True, False), (True, True, False)]
)
def test_gradients_that_did_not_come(given):
    """A gradient of None counts as zeros, bit for bit."""
    case = direct(correlation_case((2, 70, 16, 20, 3, 20)))
    module = kernels.module(case.op)
    inputs = list(case.tensors.values())
    outputs = module.forward(*inputs, True, True)
    full = [torch.randn_like(output) for output in outputs[:3]]
    some = [grad if there else None for grad, there in zip(full, given, strict=True)]
    zeros = [grad if there else torch.zeros_like(grad) for grad, there in zip(full, given, strict=True)]
    got = module.backward(*some, *inputs, outputs[1], outputs[3], given[0] or given[2], given[1])
    due = module.backward(*zeros, *inputs, outputs[1], outputs[3], True, True)
    for value, expected in zip(got, due, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)


@inside
def test_statistics_are_those_of_the_reference():
    """The shift and the total that other backends keep too: the total is that of exponentials relative to the shift."""
    case = correlation_case((2, 90, 16, 16, 2, 5))
    _, _, _, stats = kernels.module(case.op).forward(*case.tensors.values(), True, True)
    scores = torch.einsum("bhlc,bnc->bhln", case.tensors["keys"], case.tensors["pixels"])
    scores = (scores + case.tensors["key_bias"][..., None]).masked_fill(
        ~case.tensors["pixel_mask"][:, None, None], -torch.inf
    )
    torch.testing.assert_close(stats[1, ..., 0] + stats[1, ..., 1].log(), scores[1].logsumexp(-1))
    assert stats[0].eq(0).all()


@inside
def test_one_missing_stream_counts_as_zeros():
    case = twin_stream_case((2, 50, 16, 2, 3))
    module = kernels.module(case.op)
    target, background, stats = module.forward(*case.tensors.values())
    grad = torch.randn_like(target)
    got = module.backward(grad, None, *case.tensors.values(), target, background, stats)
    due = module.backward(grad, torch.zeros_like(grad), *case.tensors.values(), target, background, stats)
    assert all(torch.equal(*pair) for pair in zip(got, due, strict=True))
    assert got[2].eq(0).all()
