"""Fixtures of the kernel tests: every way the operators can run here, and output buffers that start as NaN."""

import contextlib

import pytest
from kernel_cases import (
    AUTOMATIC,
    CAPABILITIES,
    GPU_BACKENDS,
    KERNELS,
    REFERENCE,
    on_device_of,
    poison_allocations,
    poisoned_empty,
    set_capability,
    use_environment_schedule,
    why_not,
)

from rrsis_kernels import use_backend


@pytest.fixture(scope="session", autouse=True)
def _schedule():
    """The order in which emulated CUDA threads run: RRSIS_CUDA_EMULATION_SCHEDULE, set by tests/cuda_emulation."""
    use_environment_schedule()


@pytest.fixture(autouse=True)
def _poisoned_buffers():
    """Fills what is newly allocated with NaN: outputs and working memory of the C++ kernels, and PyTorch's own."""
    poison_allocations(True)
    yield
    poison_allocations(False)


def _use(name):
    reason = why_not(name)
    if reason:
        pytest.skip(reason)
    backend, _, capability = name.partition("-")
    if capability:
        set_capability(CAPABILITIES.index(capability))
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(on_device_of(name))
            if backend == "triton":
                stack.enter_context(poisoned_empty())
            stack.enter_context(use_backend(backend))
            yield name
    finally:
        if capability:
            set_capability(AUTOMATIC)


@pytest.fixture(params=KERNELS)
def kernel(request):
    """Each set of kernels in turn, forced."""
    yield from _use(request.param)


@pytest.fixture(params=(REFERENCE, *KERNELS))
def implementation(request):
    """Each set of kernels and the reference in turn, forced."""
    yield from _use(request.param)


@pytest.fixture(params=(REFERENCE, "cpu", *GPU_BACKENDS))
def backend(request):
    """The reference and each backend as it chooses itself, forced; for what does not depend on arithmetic."""
    yield from _use(request.param)
