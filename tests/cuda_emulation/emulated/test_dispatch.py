"""The emulated backend beside the others: forced and never chosen, forward and backward, compiled, reported."""

import contextlib
import ctypes

import pytest
import torch
from kernel_cases import OPS, function_of_first, leaf_and_loss

from rrsis_kernels import backends, info, library, use_backend

ABLE = [op for op in OPS if library.has_compiled("cuda", "cpu", op, "forward")]


@contextlib.contextmanager
def emulated_calls(due):
    """Asserts how many operators run in the emulation meanwhile."""
    count = ctypes.CDLL(library.extension_status()["emulation"].path).rrsis_cuda_emulation_calls
    before = count()
    yield
    assert count() - before == due


def test_some_operators_are_emulated():
    assert ABLE


@pytest.mark.parametrize("op", OPS)
def test_never_chosen_by_itself(op):
    for dtype in backends.DTYPES:
        assert backends.choose(op, "cpu", dtype) == "cpu"
    with emulated_calls(0):
        leaf, loss = leaf_and_loss(op)
        torch.autograd.grad(loss, leaf)
    if op in ABLE:
        assert backends.can_run(op, "cuda", "cpu", torch.float32).ok
        assert "tests have not passed on cpu" in backends.can_choose(op, "cuda", "cpu", torch.float32).reason


@pytest.mark.parametrize("op", ABLE)
def test_a_backward_runs_on_the_backend_of_its_forward(op):
    """Or on the cpu's kernels, where there is no emulated one."""
    with use_backend("cuda"), emulated_calls(1):
        leaf, loss = leaf_and_loss(op)
    with use_backend("cpu"), emulated_calls(int(library.has_compiled("cuda", "cpu", op, "backward"))):
        (emulated,) = torch.autograd.grad(loss, leaf)
    with use_backend("cpu"):
        leaf, loss = leaf_and_loss(op)
    with use_backend("cuda"), emulated_calls(0):
        (on_the_cpu,) = torch.autograd.grad(loss, leaf)
    torch.testing.assert_close(on_the_cpu, emulated)


@pytest.mark.parametrize("op", ABLE)
def test_a_compiled_function_takes_what_is_forced(op):
    call, tensor = function_of_first(op)
    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    for name in ("cuda", "reference", "cuda"):
        with use_backend(name), emulated_calls(2 if name == "cuda" else 0):
            got, due = compiled(tensor), call(tensor)
        for key in due:
            torch.testing.assert_close(got[key], due[key])


def test_info_says_what_is_emulated():
    assert any(line.split() == ["emulation", "loaded"] for line in info.report().splitlines())
    with use_backend("cuda"):
        for op in ABLE:
            assert info.backend_table("cpu")[op]["float32"] == "cuda"
            assert "float64" in info.backend_table("cpu")[op]["float64"]


def test_what_no_grid_holds_is_refused_before_anything_runs():
    def refusal(op, **sizes):
        return backends.can_run(op, "cuda", "cpu", torch.bfloat16, sizes)

    fits = {"B": 2, "N": 1 << 30, "C": 64, "D": 64, "H": 4, "L": 20}
    assert refusal("bidirectional_spatial_correlation", **fits).ok
    too_many = refusal("bidirectional_spatial_correlation", **(fits | {"B": 1 << 10}))
    assert not too_many.ok
    assert "tiles of pixels" in too_many.reason
    assert "channels" in refusal("bidirectional_spatial_correlation", **(fits | {"D": 1 << 23})).reason
    assert not refusal("twin_stream_attention", B=1 << 20, N=64, C=64, H=64, K=64).ok
