"""How the spatial correlation's time grows with pixels, tokens and batch, and what a second thread brings or costs."""

import os

import pytest
import torch

from benchmarks import bsc, measure, scaling
from benchmarks.operators import BOTH, FORWARD, time_pass

LARGE, SMALL, SMALLEST = (1, 17821, 256, 4, 20), (1, 64, 128, 4, 16), (1, 16, 256, 4, 16)
QUICK_LARGE = (1, 4096, 64, 4, 20)
LETTERS = "BNCHL"

# Axis, its place among B, N, C, H, L, the shape, the sizes along it.
FULL_AXES = [
    ("pixels", 1, (1, None, 256, 4, 20), [2250 * factor for factor in (1, 2, 4, 8)]),
    ("tokens", 4, (1, 4500, 256, 4, None), [8, 16, 32, 64, 128]),
    ("batch", 0, (None, 256, 64, 4, 16), [1, 2, 4, 8, 16, 32]),
]
QUICK_AXES = [
    ("pixels", 1, (1, None, 64, 4, 20), [512, 2048]),
    ("tokens", 4, (1, 1024, 64, 4, None), [8, 32]),
    ("batch", 0, (None, 64, 64, 4, 16), [1, 4]),
]
THREADS = [1, 2]


def points(axes, thread_shapes):
    """(axis, what is fixed, size, shape) of every timing."""
    found = []
    for axis, place, fixed, sizes in axes:
        what = " ".join(f"{letter}={size}" for letter, size in zip(LETTERS, fixed, strict=True) if size is not None)
        found += [(axis, what, size, (*fixed[:place], size, *fixed[place + 1 :])) for size in sizes]
    for shape in thread_shapes:
        what = " ".join(f"{letter}={size}" for letter, size in zip(LETTERS, shape, strict=True))
        found += [(scaling.THREADS, what, threads, shape) for threads in THREADS]
    return found


FULL = points(FULL_AXES, [LARGE, SMALL, SMALLEST])
QUICK = points(QUICK_AXES, [QUICK_LARGE, SMALL])
IMPLEMENTATIONS = {measure.OURS: bsc.fused, "eager, absorbed": bsc.eager}


@pytest.fixture
def _threads(shape):
    """Sets the threads of a point on the axis of threads, and puts them back."""
    axis, _, size, _ = shape
    before = torch.get_num_threads()
    if axis == scaling.THREADS:
        if size > (cores := len(os.sched_getaffinity(0))):
            pytest.skip(f"{size} threads need as many cores; this process may use {cores}")
        torch.set_num_threads(size)
    yield
    torch.set_num_threads(before)


def run(benchmark, shape, pass_name, implementation):
    axis, what, size, sizes = shape
    place = {"axis": axis, "what": f"{pass_name} {what}", "size": size}
    case = bsc.make_case(sizes, title=f"bsc scaling over {axis},")
    time_pass(benchmark, case, pass_name, implementation, IMPLEMENTATIONS[implementation], scaling=place)


@pytest.mark.usefixtures("_threads")
def test_forward(benchmark, shape, implementation):
    run(benchmark, shape, FORWARD, implementation)


@pytest.mark.usefixtures("_threads")
def test_forward_backward(benchmark, shape, implementation):
    run(benchmark, shape, BOTH, implementation)
