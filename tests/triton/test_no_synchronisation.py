"""Between a call and its kernels nothing waits for the device, so that a CUDA graph can capture it: no GPU needed.

The launchers run on fake CUDA tensors, which have no values: whoever asks for one fails.
"""

import contextlib
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rrsis_kernels import triton as kernels

if not kernels.INSTALLED:
    pytest.skip("triton is not installed", allow_module_level=True)
if kernels.INTERPRETED:
    pytest.skip("kernels are interpreted in this process", allow_module_level=True)

sys.path.insert(0, str(Path(__file__).parents[1] / "kernels"))
from kernel_cases import DTYPES, correlation_case, cosine_case, mask_statistics_case, twin_stream_case
from triton.runtime.jit import JITFunction

from rrsis_kernels.triton import _config


class LeftTheDeviceError(Exception):
    """A tensor came to the CPU, or one on the CPU was used."""


class OnTheDevice(TorchDispatchMode):
    """Refuses what gives a tensor elsewhere than on CUDA: that is a copy which waits."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if any(isinstance(leaf, torch.Tensor) and leaf.device.type != "cuda" for leaf in tree_leaves(out)):
            raise LeftTheDeviceError(func)
        return out


@contextlib.contextmanager
def fake_device():
    with FakeTensorMode(), OnTheDevice(), torch.device("cuda"):
        yield


@pytest.fixture
def launches(monkeypatch):
    """Names of the kernels that would have been launched."""
    names = []
    monkeypatch.setattr(JITFunction, "run", lambda kernel, *args, **kwargs: names.append(kernel.__name__))
    monkeypatch.setattr(torch.cuda, "device_of", lambda tensor: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(_config, "processors", lambda device: 132)
    return names


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda tensor: tensor.sum().item(), DataDependentOutputException),
        (lambda tensor: tensor.tolist(), DataDependentOutputException),
        (lambda tensor: bool(tensor.any()), DataDependentOutputException),
        (lambda tensor: tensor[tensor > 0], DynamicOutputShapeException),
        (lambda tensor: tensor.cpu(), LeftTheDeviceError),
        (lambda tensor: tensor.to("cpu", non_blocking=True), LeftTheDeviceError),
    ],
)
def test_what_waits_is_seen(call, error):
    with fake_device():
        tensor = torch.empty(3)
        with pytest.raises(error):
            call(tensor)


CASES = {
    "fused": lambda dtype: correlation_case((2, 300, 64, 64, 4, 20), dtype),
    "via scores": lambda dtype: correlation_case((2, 300, 256, 256, 4, 20), dtype),
    "many tokens": lambda dtype: correlation_case((1, 300, 72, 40, 3, 300), dtype, masks=False, bias=False),
    "twin streams": lambda dtype: twin_stream_case((2, 300, 256, 8, 8), dtype),
    "mask statistics": lambda dtype: mask_statistics_case((2, 15, 15), (60, 60), dtype),
    "masked cosine": lambda dtype: cosine_case((2, 300, 96), dtype),
    "nothing": lambda dtype: correlation_case((2, 0, 16, 16, 2, 5), dtype),
}


def on_fake_device(case):
    return [
        None if t is None else torch.empty_strided(t.shape, t.stride(), dtype=t.dtype) for t in case.tensors.values()
    ]


def both_passes(case):
    """Forward and backward with the arguments that the operators get."""
    module = kernels.module(case.op)
    inputs = on_fake_device(case)
    if case.op == "bidirectional_spatial_correlation":
        painted, pooled, lse, stats = module.forward(*inputs, True, True)
        module.backward(painted, pooled, lse, *inputs, pooled, stats, True, True)
    elif case.op == "twin_stream_attention":
        outputs = module.forward(*inputs)
        module.backward(*outputs[:2], *inputs, *outputs)
    elif case.op == "twin_mask_statistics":
        sums = module.forward(*inputs, 0.5)
        module.backward(sums, *inputs, 0.5)
    else:
        module.backward(module.forward(*inputs), *inputs)


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_nothing_waits(launches, name, dtype):
    case = CASES[name](dtype)
    with fake_device():
        both_passes(case)
    assert bool(launches) == (name != "nothing")
    assert any("fused" in kernel for kernel in launches) == (name == "fused" and dtype != torch.float32)
