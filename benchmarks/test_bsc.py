"""Bidirectional spatial correlation against eager PyTorch, two SDPA calls, and the bare matrix products."""

from benchmarks import bsc
from benchmarks.operators import BACKWARD, BARE, BOTH, BY_NUMPY, FORWARD, time_pass

FULL, QUICK, HAS_LIMITS = bsc.FULL, bsc.QUICK, True
IMPLEMENTATIONS = {**bsc.IMPLEMENTATIONS, BARE[FORWARD] + BY_NUMPY: None}


def run(benchmark, shape, pass_name, implementation):
    build = IMPLEMENTATIONS.get(implementation)
    time_pass(benchmark, bsc.make_case(shape), pass_name, implementation, build, shape=shape)


def test_forward(benchmark, shape, implementation):
    run(benchmark, shape, FORWARD, implementation)


def test_backward(benchmark, shape, implementation):
    run(benchmark, shape, BACKWARD, implementation)


def test_forward_backward(benchmark, shape, implementation):
    run(benchmark, shape, BOTH, implementation)
