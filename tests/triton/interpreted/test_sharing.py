"""Compiled and Triton kernels behind one dispatch key: each call and each backward takes the one it should.

In the interpreter the key is the CPU's; on a GPU the same entry stands at CUDA's.
"""

import contextlib

import pytest
import torch
from kernel_cases import OPS, function_of_first, leaf_and_loss, poisoned_empty, why_not

from rrsis_kernels import backends, dispatch, info, triton, use_backend

ABLE = [op for op in OPS if op in triton.KERNELS]
needs_extension = pytest.mark.skipif(why_not("cpu") is not None, reason=str(why_not("cpu")))


@needs_extension
@pytest.mark.parametrize("op", ABLE)
def test_a_backward_runs_on_the_backend_of_its_forward(launched, op):
    with use_backend("triton"):
        leaf, loss = leaf_and_loss(op)
    with use_backend("cpu"):
        (interpreted,) = torch.autograd.grad(loss, leaf)
    assert launched == [f"{op}.forward", f"{op}.backward"]
    launched.clear()
    with use_backend("cpu"):
        leaf, loss = leaf_and_loss(op)
    with use_backend("triton"):
        (compiled,) = torch.autograd.grad(loss, leaf)
    assert launched == []
    torch.testing.assert_close(interpreted, compiled)


@needs_extension
@pytest.mark.parametrize("op", ABLE)
def test_the_verified_kernel_is_the_automatic_choice(launched, op):
    leaf, loss = leaf_and_loss(op)
    torch.autograd.grad(loss, leaf)
    assert launched == []
    assert backends.choose(op, "cpu", torch.float32) == "cpu"


@pytest.mark.parametrize("op", ABLE)
def test_a_compiled_function_takes_what_is_forced(launched, op):
    call, tensor = function_of_first(op)
    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    for name in ("triton", "reference", "triton"):
        with use_backend(name):
            for got, due in zip(compiled(tensor).values(), call(tensor).values(), strict=True):
                torch.testing.assert_close(got, due)
    assert launched == [f"{op}.forward"] * 4


@pytest.mark.parametrize("op", ABLE)
def test_what_triton_cannot_run_is_refused(op):
    with (
        use_backend("triton"),
        pytest.raises(RuntimeError, match=f"{op}: the forced backend 'triton' cannot run: .*64"),
    ):
        backends.choose(op, "cpu", torch.float64)
    support = backends.can_run(op, "triton", "cuda", torch.float32)
    assert not support.ok
    assert "takes tensors on the CPU (TRITON_INTERPRET is set), not on cuda" in support.reason


def test_info_says_what_is_interpreted():
    assert "interpreted" in info.report()
    with use_backend("triton"):
        for op in ABLE:
            assert info.backend_table("cpu")[op]["float32"] == "triton"


def test_select_with_one_candidate():
    with use_backend("cpu") if ABLE else contextlib.nullcontext():
        assert dispatch.select(ABLE[0], ("triton",), "cpu", torch.float32) == "triton"


def test_uninitialised_tensors_are_poisoned():
    with poisoned_empty():
        made = [
            torch.empty(100),
            torch.empty_like(torch.ones(3, 4)),
            torch.ones(2).new_empty((5, 5)),
            torch.empty_strided((2, 3), (1, 2)),
        ]
        assert all(tensor.isnan().all() for tensor in made)
        assert (torch.empty(100, dtype=torch.int32) == torch.iinfo(torch.int32).max).all()
