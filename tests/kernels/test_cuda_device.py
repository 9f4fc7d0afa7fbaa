"""The CUDA half of the build: one kernel compiled by it runs on the device through the stable ABI."""

import pytest
import torch

from rrsis_kernels import info, library

needs_library = pytest.mark.skipif(
    not library.extension_status()["_C_cuda"].loaded, reason=f"_C_cuda: {info.native_files()['_C_cuda']}"
)
needs_device = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.mark.gpu
@needs_library
@needs_device
@pytest.mark.parametrize("shape", [(0,), (1,), (7, 129), (1 << 21,)])
def test_kernel_runs_on_the_current_stream(shape):
    values = torch.randn(shape, device="cuda")
    with torch.cuda.stream(torch.cuda.Stream()):
        doubled = torch.ops.rrsis_kernels.cuda_device_check(values)
    torch.cuda.synchronize()
    torch.testing.assert_close(doubled, 2 * values, rtol=0, atol=0)


@pytest.mark.gpu
@needs_library
@needs_device
def test_wrong_dtype_is_refused():
    with pytest.raises(RuntimeError, match="expected float32"):
        torch.ops.rrsis_kernels.cuda_device_check(torch.zeros(3, device="cuda", dtype=torch.float64))


def test_tensors_on_the_cpu_have_no_such_kernel():
    with pytest.raises(NotImplementedError, match="cuda_device_check"):
        torch.ops.rrsis_kernels.cuda_device_check(torch.zeros(3))
