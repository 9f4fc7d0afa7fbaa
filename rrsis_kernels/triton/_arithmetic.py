"""Exponentials and products whose errors stay as small as PyTorch's."""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
LEAST_EXPONENT = tl.constexpr(-200.0)
"""Where the exponential is zero anyway."""


@triton.jit
def exp(x):
    """e^x for x <= 0 as exact as fp32 allows.

    The hardware has 2^x alone, and the rounding of x·log2(e) would be felt where scores are sharp: |x| times 6e-8.
    """
    x = tl.maximum(x, LEAST_EXPONENT, propagate_nan=tl.PropagateNan.ALL)
    power = x * LOG2_E
    rest = tl.fma(x, LOG2_E, -power)
    value = tl.exp2(power)
    return tl.fma(value, rest * LN_2, value)


@triton.jit
def add_product(a, b, sums, PRECISION: tl.constexpr):
    """`sums` + a · b; in exact fp32 the product of a block is summed by itself, whose errors grow less."""
    if a.dtype == tl.float32 and PRECISION == "ieee":
        # A plain addition would be folded into the product, as one long chain.
        part = tl.dot(a, b, input_precision=PRECISION)
        return tl.fma(part, 1.0, sums)
    return tl.dot(a, b, sums, input_precision=PRECISION)
