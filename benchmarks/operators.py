"""An operator's passes (forward, backward, both) as each implementation runs them, and the bare products below them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy
import pytest
import torch
from torch import Tensor

from benchmarks import measure

Pair = tuple[Tensor, Tensor]

FORWARD, BACKWARD, BOTH = PASSES = ("forward", "backward", "forward+backward")

BARE = {name: f"bare {name} products" for name in PASSES}
"""The limit lines: nothing but the matrix products of a pass, from operands that are ready in memory."""

BY_NUMPY = ", by NumPy"
"""Ends the name of a limit line multiplied by NumPy's BLAS: torch's may leave a processor's widest vectors unused."""


class Case(NamedTuple):
    """One operator at one shape.

    Attributes:
        title: what stands before the pass in the group's name.
        sizes: what stands behind it, as "N=900 C=512".
        inputs: the arguments; the floating ones come first.
        leaves: to how many of them gradients flow.
        cotangents: of the outputs.
        oracle: makes the call that is trusted, given fp64 inputs.
        products: pass → the pairs of matrices (B, …, …) that it has to multiply.
    """

    title: str
    sizes: str
    inputs: Sequence[Tensor]
    leaves: int
    cotangents: Sequence[Tensor]
    oracle: Callable[..., measure.Call]
    products: Mapping[str, Callable[[], Sequence[Pair]]]


def limits(pass_name: str) -> tuple[str, ...]:
    """The limit lines of a pass: the forward products, in multiples of which goals are stated, and its own."""
    return tuple(dict.fromkeys((BARE[FORWARD], BARE[pass_name])))


def as_pass(pass_name: str, call: measure.Call, leaves: Sequence[Tensor], cotangents: Sequence[Tensor]) -> measure.Call:
    """What is timed of a call."""
    if pass_name == FORWARD:
        return measure.forward_only(call)
    run = measure.backward_only if pass_name == BACKWARD else measure.forward_backward
    return run(call, leaves, cotangents)


def expected_of(case: Case, pass_name: str) -> Sequence[Tensor]:
    """What a pass must return, in fp64."""
    inputs = measure.to_double(case.inputs)
    return as_pass(pass_name, case.oracle(*inputs), inputs[: case.leaves], measure.to_double(case.cotangents))()


def multiply(pairs: Sequence[Pair]) -> list[Tensor]:
    """The products; `torch.mm` where there is one matrix, which `torch.bmm` is slower at."""
    if len(pairs[0][0]) == 1:
        return [torch.mm(left[0], right[0])[None] for left, right in pairs]
    return [torch.bmm(left, right) for left, right in pairs]


def numpy_multiply(pairs: Sequence[Pair]) -> list[Tensor]:
    """The products by NumPy, which shares the tensors' memory."""
    return [torch.from_numpy(numpy.matmul(left.numpy(), right.numpy())) for left, right in pairs]


@contextlib.contextmanager
def numpy_threads() -> Iterator[None]:
    """Gives NumPy's BLAS as many threads as torch has; skips the test, with the reason, where that cannot be done."""
    threadpoolctl = pytest.importorskip("threadpoolctl", reason="threadpoolctl sets the threads of NumPy's BLAS")
    with threadpoolctl.threadpool_limits(torch.get_num_threads(), "blas"):
        yield


def time_pass(
    benchmark: Any,
    case: Case,
    pass_name: str,
    implementation: str,
    build: Callable[..., measure.Call] | None,
    **details: Any,
) -> None:
    """Checks one implementation of one pass against the oracle and times it.

    Args:
        benchmark: pytest-benchmark's fixture.
        case: the operator, its inputs and its oracle.
        pass_name: one of `PASSES`.
        implementation: its name, or one of `limits(pass_name)`.
        build: makes its call from the inputs; None for a limit line.
        **details: stored beside the times.
    """
    if build is None:
        which = next(name for name, line in BARE.items() if implementation.startswith(line))
        pairs = case.products[which]()
        expected = multiply([(left.double(), right.double()) for left, right in pairs])
        flat = [tensor for pair in pairs for tensor in pair]
        product = numpy_multiply if implementation.endswith(BY_NUMPY) else multiply
        call = measure.rotating(lambda copy: lambda: product(list(zip(copy[::2], copy[1::2], strict=True))), flat)
    else:
        expected = measure.remember((case.title, case.sizes, pass_name), lambda: expected_of(case, pass_name))
        for tensor in case.inputs[: case.leaves]:
            tensor.requires_grad_(pass_name != FORWARD)
        call = measure.rotating(
            lambda copy: as_pass(pass_name, build(*copy), copy[: case.leaves], case.cotangents), case.inputs
        )
    group = f"{case.title} {pass_name} {case.sizes}"
    with numpy_threads() if implementation.endswith(BY_NUMPY) else contextlib.nullcontext():
        measure.run(benchmark, call, expected, group=group, implementation=implementation, **details)
