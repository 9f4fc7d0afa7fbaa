"""The Triton backend in an ordinary process: what it imports, what it refuses, and the choice between kernels."""

import subprocess
import sys

import pytest
import torch

from rrsis_kernels import backends, dispatch, info, library, triton, use_backend

ABLE = [op for op in backends.OPS if op in triton.KERNELS]
pytestmark = pytest.mark.skipif(triton.INTERPRETED, reason="kernels are interpreted in this process")


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU, calls may import triton")
def test_importing_and_running_on_the_cpu_leaves_triton_alone():
    out = run("""
import sys, torch
before = "triton" in sys.modules
import rrsis_kernels
rrsis_kernels.masked_cosine_loss(torch.randn(1, 5, 4), torch.randn(1, 5, 4), torch.ones(1, 5, dtype=torch.bool))
print(("triton" in sys.modules) == before)
""")
    assert out == "True\n"


def test_the_package_works_without_triton():
    out = run("""
import sys, torch
sys.modules["triton"] = None
import rrsis_kernels
from rrsis_kernels import backends, info
rrsis_kernels.masked_cosine_loss(torch.randn(1, 5, 4), torch.randn(1, 5, 4), torch.ones(1, 5, dtype=torch.bool))
print(backends.can_run("masked_cosine_loss", "triton", "cuda", torch.float32).reason)
info.report()
""")
    assert out == "triton is not installed\n"


@pytest.mark.skipif(not triton.INSTALLED, reason="triton is not installed")
def test_predicate():
    for op in ABLE:
        assert backends.can_run(op, "triton", "cuda", torch.bfloat16).ok
        assert "float64" in backends.can_run(op, "triton", "cuda", torch.float64).reason
        assert "TRITON_INTERPRET=1" in backends.can_run(op, "triton", "cpu", torch.float32).reason
        assert "not on mps" in backends.can_run(op, "triton", "mps", torch.float32).reason
        support = backends.can_choose(op, "triton", "cuda", torch.bfloat16)
        assert support.ok == ("triton" in backends.verified("cuda"))


@pytest.mark.skipif(not triton.INSTALLED, reason="triton is not installed")
def test_every_operator_with_kernels_has_an_entry_for_cuda():
    for name, (op, _) in library.OPERATORS.items():
        registered = torch._C._dispatch_has_kernel_for_dispatch_key(f"rrsis_kernels::{name}", "CUDA")
        assert registered or op not in triton.KERNELS


def test_an_operator_without_kernels_says_so(monkeypatch):
    monkeypatch.setattr(triton, "KERNELS", frozenset())
    monkeypatch.setattr(triton, "INSTALLED", True)
    assert (
        "no kernel of masked_cosine_loss yet"
        in backends.can_run("masked_cosine_loss", "triton", "cuda", torch.float32).reason
    )
    assert "no kernel of the operator yet" in info.report()


@pytest.fixture
def able(monkeypatch):
    """Makes a set of backends able to run whatever comes."""

    def set_able(*names, verified=()):
        support = {True: backends.Support(True, "able"), False: backends.Support(False, "unable")}
        monkeypatch.setattr(backends, "can_run", lambda op, backend, *rest: support[backend in names])
        monkeypatch.setattr(backends, "verified", lambda device_type: verified)

    return set_able


BOTH = ("cuda", "triton")


@pytest.mark.parametrize("op", backends.OPS)
def test_kernels_at_one_key(able, op):
    first = backends.preference(op)[0]
    other = "triton" if first == "cuda" else "cuda"
    able("cuda", "triton")
    assert dispatch.select(op, BOTH, "cuda", torch.float32) == first
    with use_backend(other):
        assert dispatch.select(op, BOTH, "cuda", torch.float32) == other
    with use_backend("reference"):  # a direct call of the operator
        assert dispatch.select(op, BOTH, "cuda", torch.float32) == first
    able("cuda", "triton", verified=(other,))
    assert dispatch.select(op, BOTH, "cuda", torch.float32) == other
    able(other)
    assert dispatch.select(op, BOTH, "cuda", torch.float32) == other


def test_no_kernel_at_a_key(able):
    able("triton")
    with use_backend("cuda"), pytest.raises(RuntimeError, match=r"op: no kernel can run on cuda \(cuda: unable\)"):
        dispatch.select("op", BOTH, "cuda", torch.float32)
    able()
    with pytest.raises(RuntimeError, match=r"\(cuda: unable; triton: unable\)"):
        dispatch.select("op", BOTH, "cuda", torch.float32)
    with pytest.raises(RuntimeError, match=r"op: no kernel can run on cuda \(cuda: unable; triton: unable\)"):
        dispatch.select("op", (), "cuda", torch.float32)
