"""Bidirectional spatial correlation in bf16: ours against ours in fp32, eager bf16, and the bare products in bf16."""

import pytest
import torch

from benchmarks import bsc, measure
from benchmarks.operators import BACKWARD, BARE, FORWARD, time_pass

FULL, QUICK, HAS_LIMITS = bsc.FULL, bsc.QUICK, True

FP32 = ", fp32"
"""Ends the name of what computes the same numbers in fp32."""

# Where the processor multiplies no bf16, torch's bf16 products are no limit: the fp32 ones stand beside them.
IMPLEMENTATIONS = {
    measure.OURS: bsc.fused,
    measure.OURS + FP32: bsc.fused,
    "eager, absorbed": bsc.eager,
    BARE[FORWARD] + FP32: None,
}


MANY_TOKENS = 64


def skip_emulated(tokens, implementation):
    """Skips torch's bf16 products where they would take minutes."""
    uses_torch = measure.OURS not in implementation and not implementation.endswith(FP32)
    if uses_torch and tokens > MANY_TOKENS and not torch.cpu._is_avx512_bf16_supported():
        pytest.skip("this processor has no bf16 products, and torch's emulation takes up to a minute a call")


def run(benchmark, shape, pass_name, implementation):
    skip_emulated(shape[-1], implementation)
    case = bsc.make_case(shape, torch.bfloat16, title="bsc bf16")
    if implementation.endswith(FP32):
        case = bsc.in_fp32(case)
    time_pass(benchmark, case, pass_name, implementation, IMPLEMENTATIONS.get(implementation), shape=shape)


def test_forward(benchmark, shape, implementation):
    run(benchmark, shape, FORWARD, implementation)


def test_backward(benchmark, shape, implementation):
    run(benchmark, shape, BACKWARD, implementation)
