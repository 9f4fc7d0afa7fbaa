"""Fixtures of the kernel tests: every way the operators can run here, and output buffers that start as NaN."""

import contextlib

import pytest
from kernel_cases import (
    AUTOMATIC,
    CAPABILITIES,
    KERNELS,
    REFERENCE,
    on_device_of,
    poison_allocations,
    poisoned_empty,
    set_capability,
    why_not,
)

from rrsis_kernels import use_backend


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
            if backend == "triton":
                stack.enter_context(on_device_of(name))
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


@pytest.fixture(params=(REFERENCE, "cpu", "triton"))
def backend(request):
    """The reference and each backend as it chooses itself, forced; for what does not depend on arithmetic."""
    yield from _use(request.param)
