"""What every benchmark does: check the very call that it is about to time, time it, and note what it was."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._functorch import config as functorch_config

from benchmarks.memory import peak_extra_mib
from rrsis_kernels import library, use_backend

Call = Callable[[], Sequence[Tensor]]

OURS = "rrsis_kernels"
"""The implementation to which ratios are given."""

TOLERANCE = {torch.float32: 2e-4, torch.bfloat16: 5e-2, torch.float64: 1e-10}
"""Largest error of our calls, as a share of the largest magnitude of the output; tests/ tests numerics."""

PEER_ALLOWANCE = 10.0
"""A peer may be that much less exact: it has to compute the same thing, not to meet our tolerance."""

SLOW_SECONDS, SLOW_ROUNDS = 1.0, 3
"""A call that takes longer is timed that often, where pytest-benchmark would call it ten times."""

COPIES = 3
"""How many copies of its inputs a call takes in turn; see `rotating`."""


def require_extension() -> None:
    """Skips the test, with the reason, where the C++ kernels are not there."""
    status = library.extension_status()["_C"]
    if not status.loaded:
        pytest.skip(f"the C++ kernels are not there: {status.reason}")


def on_cpu_kernels(call: Call) -> Call:
    """The same call with the C++ kernels forced: a benchmark must not time a fallback by accident."""
    require_extension()

    def forced() -> Sequence[Tensor]:
        with use_backend("cpu"):
            return call()

    return forced


def on_reference(call: Call) -> Call:
    """The same call with the reference backend forced."""

    def forced() -> Sequence[Tensor]:
        with use_backend("reference"):
            return call()

    return forced


def forward_only(call: Call) -> Call:
    """The call without autograd, as in inference."""

    def forward() -> Sequence[Tensor]:
        with torch.no_grad():
            return call()

    return forward


def forward_backward(call: Call, inputs: Sequence[Tensor], cotangents: Sequence[Tensor]) -> Call:
    """The call and the gradients of <outputs, cotangents> with respect to ``inputs``, which is what it returns."""

    def both() -> Sequence[Tensor]:
        outputs = call()
        return torch.autograd.grad(outputs, inputs, cotangents)

    return both


def backward_only(call: Call, inputs: Sequence[Tensor], cotangents: Sequence[Tensor]) -> Call:
    """The gradients alone: the graph is made here, once, and kept."""
    # A compiled graph that may overwrite what its forward saved cannot run twice.
    with functorch_config.patch(donated_buffer=False):
        outputs = call()
    return lambda: torch.autograd.grad(outputs, inputs, cotangents, retain_graph=True)


class Rotation:
    """Calls that differ in their inputs' addresses alone, one after the other."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self.calls = calls
        self._next = itertools.cycle(calls).__next__

    def __call__(self) -> Sequence[Tensor]:
        return self._next()()


def rotating(build: Callable[[Sequence[Tensor]], Call], inputs: Sequence[Tensor]) -> Rotation:
    """Makes a call on copies of the inputs, so that it does not find them in the cache from the time before.

    Args:
        build: makes the call from one copy.
        inputs: the tensors; copies require gradients where these do.
    """
    copies = [
        [tensor.detach().clone().requires_grad_(tensor.requires_grad) for tensor in inputs] for _ in range(COPIES)
    ]
    return Rotation([build(copy) for copy in copies])


def check(call: Call, expected: Sequence[Tensor], what: str, allowance: float = 1.0) -> None:
    """Compares what a call returns with the fp64 oracle; ``allowance`` multiplies the tolerance.

    Raises:
        AssertionError: If a shape differs, a value is not finite, or an error is too large.
    """
    outputs = call()
    assert len(outputs) == len(expected), f"{what}: returned {len(outputs)} tensors, due are {len(expected)}"
    for index, (output, due) in enumerate(zip(outputs, expected, strict=True)):
        assert output.shape == due.shape, f"{what}: output {index} is {tuple(output.shape)}, due is {tuple(due.shape)}"
        assert torch.isfinite(output).all(), f"{what}: output {index} is not finite"
        error = (output.double() - due).abs().max() / due.abs().max().clamp_min(1e-12)
        assert error <= allowance * TOLERANCE[output.dtype], (
            f"{what}: output {index} is off by {error:.2e} of its magnitude"
        )


def run(
    benchmark: Any,
    call: Call,
    expected: Sequence[Tensor],
    *,
    group: str,
    implementation: str,
    **details: Any,
) -> None:
    """Checks a call, measures its peak of extra memory, then times it.

    Args:
        benchmark: pytest-benchmark's fixture.
        call: What is timed; returns tensors.
        expected: What it must return, from fp64.
        group: The calls that are compared with each other.
        implementation: Which of them this is; `OURS` for the kernels of this project.
        **details: Sizes and the like, stored beside the times.
    """
    for each in getattr(call, "calls", [call]):
        check(each, expected, f"{group}, {implementation}", 1.0 if implementation == OURS else PEER_ALLOWANCE)
    start = time.perf_counter()
    peak = peak_extra_mib(call)
    is_slow = time.perf_counter() - start > SLOW_SECONDS
    memory = {"peak_extra_mib": round(peak.mib, 2)} if peak.mib is not None else {"peak_extra_reason": peak.reason}
    benchmark.group = group
    benchmark.extra_info.update(implementation=implementation, threads=torch.get_num_threads(), **memory, **details)
    if is_slow:
        benchmark.pedantic(call, rounds=SLOW_ROUNDS)
    else:
        benchmark(call)


_latest: dict[Any, Sequence[Tensor]] = {}


def remember(key: Any, compute: Callable[[], Sequence[Tensor]]) -> Sequence[Tensor]:
    """What was computed for a key; only the latest is kept, for the implementations that are compared in a row.

    Args:
        key: says everything that the result depends on; inputs are drawn from the same seed in every test.
        compute: makes the result.
    """
    if key not in _latest:
        _latest.clear()
        _latest[key] = [tensor.detach() for tensor in compute()]
    return _latest[key]


def to_double(tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Detached fp64 copies that require gradients; masks and None as they are."""
    return [
        tensor.detach().double().requires_grad_() if tensor is not None and tensor.is_floating_point() else tensor
        for tensor in tensors
    ]
