"""Which backend runs: the automatic choice, forcing one, and the package without its extension."""

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from kernel_cases import OPS, small_case, why_not
from torch.utils._python_dispatch import TorchDispatchMode

import rrsis_kernels
from rrsis_kernels import backends, library, use_backend

needs_extension = pytest.mark.skipif(why_not("cpu") is not None, reason=str(why_not("cpu")))


class OpsCalled(TorchDispatchMode):
    """Notes which of our operators run."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == library.NAMESPACE:
            self.names.append(func.__name__)
        return func(*args, **(kwargs or {}))


def custom_ops_of(case):
    with OpsCalled() as called:
        case()
    return called.names


@needs_extension
@pytest.mark.parametrize("op", OPS)
def test_the_cpu_kernels_are_chosen_on_the_cpu(op):
    assert backends.choose(op, "cpu", torch.float32) == "cpu"
    assert len(custom_ops_of(small_case(op))) == 1
    with use_backend("reference"):
        assert custom_ops_of(small_case(op)) == []
    assert len(custom_ops_of(small_case(op))) == 1, "what was forced stays forced"


def test_the_reference_is_chosen_where_nothing_is_verified(monkeypatch):
    monkeypatch.setattr(backends, "_gpus_are_verified", lambda: False)
    assert backends.choose(OPS[0], "cuda", torch.float16) == "reference"
    assert backends.choose(OPS[0], "mps", torch.float32) == "reference"


@pytest.mark.parametrize("op", OPS)
def test_explanations_agree_with_the_choice(op):
    for device in ("cpu", "cuda:1", "meta"):
        for dtype in backends.DTYPES:
            supports = backends.explain(op, device, dtype)
            assert tuple(supports) == backends.preference(op)
            assert set(supports) == set(backends.BACKENDS)
            assert all(support.reason for support in supports.values())
            chosen = backends.choose(op, torch.device(device).type, dtype)
            assert chosen == next(name for name, support in supports.items() if support.ok)


def test_a_kernel_that_can_run_is_not_chosen_where_its_tests_never_passed(monkeypatch):
    monkeypatch.setattr(backends, "VERIFIED", {})
    monkeypatch.setattr(library, "_STATUS", {"_C": library.ExtensionStatus(True, "_C.so", "")})
    assert backends.can_run(OPS[0], "cpu", "cpu", torch.float32).ok
    support = backends.can_choose(OPS[0], "cpu", "cpu", torch.float32)
    assert not support.ok
    assert "tests have not passed on cpu" in support.reason
    assert backends.choose(OPS[0], "cpu", torch.float32) == "reference"
    with use_backend("cpu"):
        assert backends.choose(OPS[0], "cpu", torch.float32) == "cpu"


@pytest.mark.parametrize(
    ("name", "reason"),
    [("triton", "takes tensors on CUDA|has no kernel"), ("cuda", "takes tensors on CUDA, not on cpu")],
)
@pytest.mark.parametrize("op", OPS)
def test_a_forced_backend_that_cannot_run_says_why(name, reason, op):
    due = rf"{op}: the forced backend '{name}' cannot run: .*({reason})"
    with use_backend(name), pytest.raises(RuntimeError, match=due):
        small_case(op)()


def test_the_cpu_backend_refuses_other_devices():
    support = backends.can_run(OPS[0], "cpu", "cuda", torch.float32)
    assert support == (False, "the cpu backend takes tensors on the CPU, not on cuda")


def test_the_environment_forces_and_the_context_goes_before_it(monkeypatch):
    monkeypatch.setenv(backends.ENVIRONMENT_VARIABLE, "reference")
    assert custom_ops_of(small_case(OPS[0])) == []
    monkeypatch.setenv(backends.ENVIRONMENT_VARIABLE, "triton")
    with pytest.raises(RuntimeError, match="forced backend 'triton' cannot run"):
        small_case(OPS[0])()
    with use_backend("reference"):
        small_case(OPS[0])()
    monkeypatch.setenv(backends.ENVIRONMENT_VARIABLE, "abacus")
    with pytest.raises(
        ValueError, match="RRSIS_KERNELS_BACKEND must be one of cuda, triton, cpu, reference, got 'abacus'"
    ):
        small_case(OPS[0])()


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="got 'abacus'"), use_backend("abacus"):
        pass
    with pytest.raises(ValueError, match="got 'abacus'"):
        backends.can_run(OPS[0], "abacus", "cpu", torch.float32)


def test_forcing_is_undone_by_an_error_and_nests():
    with use_backend("reference"):
        with pytest.raises(KeyError), use_backend("triton"):
            raise KeyError
        assert backends.forced_backend() == "reference"
    assert backends.forced_backend() is None


def test_forcing_stays_in_its_thread():
    seen = []
    with use_backend("triton"):
        thread = threading.Thread(target=lambda: seen.append(backends.forced_backend()))
        thread.start()
        thread.join()
    assert seen == [None]


def test_the_package_works_without_its_extension(tmp_path):
    """Python, schemas and reference alone: the ops are there, and what is missing is said."""
    source = Path(rrsis_kernels.__file__).parent
    shutil.copytree(source, tmp_path / "rrsis_kernels", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    code = """
import torch, rrsis_kernels
from rrsis_kernels import backends, library
x, k = torch.randn(1, 5, 4, requires_grad=True), torch.randn(1, 2, 3, 4)
out = rrsis_kernels.bidirectional_spatial_correlation(x, k, k)
out.painted.sum().backward()
assert x.grad is not None and torch.ops.rrsis_kernels.bsc_forward.default._schema
with torch.device("meta"):
    tensors = torch.empty(1, 5, 4), torch.empty(1, 2, 3, 4), None, None, None, None
    shapes = torch.ops.rrsis_kernels.bsc_forward(*tensors, False, True)
assert [tuple(t.shape) for t in shapes] == [(0,), (1, 2, 3, 4), (0,), (1, 2, 3, 2)]
print(backends.explain("masked_cosine_loss", "cpu", torch.float32)["cpu"].reason)
try:
    with rrsis_kernels.use_backend("cpu"):
        rrsis_kernels.bidirectional_spatial_correlation(x, k, k)
except RuntimeError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": str(tmp_path)}
    )
    assert done.returncode == 0, done.stderr
    reason, error = done.stdout.splitlines()
    assert "_C is not built" in reason
    assert error.endswith(reason)


def test_training_does_not_choose_a_backend_without_a_backward(monkeypatch):
    def can_run(_op, backend, _device, _dtype, _shapes=None, function="forward"):
        return backends.Support(backend != "cuda" or function == "forward", backend)

    monkeypatch.setattr(backends, "can_run", can_run)
    monkeypatch.setattr(backends, "_gpus_are_verified", lambda: True)
    assert backends.choose("twin_mask_statistics", "cuda", torch.float32) == "cuda"
    assert backends.choose("twin_mask_statistics", "cuda", torch.float32, differentiate=True) == "triton"


@pytest.mark.parametrize("op", OPS)
def test_kernels_are_chosen_on_gpus_that_they_were_tested_on(monkeypatch, op):
    """In half precision all; exact products of fp32 are left to PyTorch."""
    monkeypatch.setattr(backends, "can_run", lambda *call: backends.Support(call[1] != "cpu", call[1]))
    monkeypatch.setattr(backends, "_gpus_are_verified", lambda: True)
    assert backends.choose(op, "cuda", torch.bfloat16) == backends.preference(op)[0]
    due = "reference" if op in backends.PRODUCTS else backends.preference(op)[0]
    assert backends.choose(op, "cuda", torch.float32) == due
    monkeypatch.setattr(backends, "_gpus_are_verified", lambda: False)
    assert backends.choose(op, "cuda", torch.bfloat16) == "reference"
    assert "on this GPU yet" in backends.can_choose(op, "triton", "cuda", torch.bfloat16).reason


@pytest.mark.parametrize(("majors", "verified"), [([9], True), ([9, 9], True), ([9, 8], False), ([12], False)])
def test_gpus_are_told_apart_by_their_capability(monkeypatch, majors, verified):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(majors))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (majors[index], 0))
    assert backends._gpus_are_verified.__wrapped__() == verified


def test_a_call_is_differentiated_where_autograd_follows_it():
    plain, leaf = torch.zeros(1), torch.zeros(1, requires_grad=True)
    assert not backends.will_be_differentiated(plain, None)
    assert backends.will_be_differentiated(plain, None, leaf)
    with torch.no_grad():
        assert not backends.will_be_differentiated(leaf)
