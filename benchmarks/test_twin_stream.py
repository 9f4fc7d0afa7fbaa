"""Twin-stream attention against eager PyTorch, SDPA with a materialised gate, and the bare matrix products."""

from benchmarks import twin_stream
from benchmarks.operators import BACKWARD, BOTH, FORWARD, time_pass

# B, N, C, H, K: BTDNet's memories at 480 x 480, 1/8, 1/16 and 1/4, and the tiny BTDNet in training.
FULL = [
    (1, 3600, 256, 8, 8),
    (1, 900, 256, 8, 8),
    (1, 14400, 256, 8, 8),
    (32, 64, 64, 4, 4),
    (32, 256, 64, 4, 4),
    (32, 1024, 64, 4, 4),
]
QUICK = [(1, 1024, 64, 4, 4)]
IMPLEMENTATIONS, HAS_LIMITS = twin_stream.IMPLEMENTATIONS, True


def run(benchmark, shape, pass_name, implementation):
    build = IMPLEMENTATIONS.get(implementation)
    time_pass(benchmark, twin_stream.make_case(shape), pass_name, implementation, build, shape=shape)


def test_forward(benchmark, shape, implementation):
    run(benchmark, shape, FORWARD, implementation)


def test_backward(benchmark, shape, implementation):
    run(benchmark, shape, BACKWARD, implementation)


def test_forward_backward(benchmark, shape, implementation):
    run(benchmark, shape, BOTH, implementation)
