"""Fixtures of the kernel tests: every way the operators can run here, and output buffers that start as NaN."""

import pytest
from kernel_cases import AUTOMATIC, CAPABILITIES, KERNELS, REFERENCE, poison_allocations, set_capability, why_not

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
        with use_backend(backend):
            yield name
    finally:
        if capability:
            set_capability(AUTOMATIC)


@pytest.fixture(params=KERNELS)
def kernel(request):
    """Each compiled kernel set in turn, forced."""
    yield from _use(request.param)


@pytest.fixture(params=(REFERENCE, *KERNELS))
def implementation(request):
    """Each compiled kernel set and the reference in turn, forced."""
    yield from _use(request.param)


@pytest.fixture(params=(REFERENCE, "cpu"))
def backend(request):
    """The reference and the CPU kernels as they choose themselves, forced; for what does not depend on arithmetic."""
    yield from _use(request.param)
