"""Time and memory of a call on a device: CUDA graphs and events, inputs in turn so that no cache holds them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.gpu.floors import Device

Call = Callable[[], object]

COLD_BYTES = 200 * 2**20
"""Inputs in turn add up to this much, more than any cache holds."""
MOST_COPIES = 16
REPEATS, LEAST_REPEATS = 20, 5
SECONDS = 0.4
"""A slow peer is timed no longer than that, but for `LEAST_REPEATS`."""


class Measured(NamedTuple):
    """Median time of one call, how it was taken, and the memory that the call needed beyond its inputs."""

    seconds: float
    method: str
    peak_mib: float | None


def copies_of(tensors: Sequence[Tensor]) -> int:
    """How many sets of inputs a call has to take in turn."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return max(2, min(MOST_COPIES, -(-COLD_BYTES // max(size, 1))))


def measure(calls: Sequence[Call], device: torch.device) -> Measured:
    """Median time of one of the calls, made one after the other.

    Args:
        calls: the same work on different copies of its inputs.
        device: where they run.
    """
    for call in calls[:2]:
        call()
    if device.type != "cuda":
        return Measured(_clock(calls), "clock", None)
    peak = _peak(calls[0])
    graph = _graph_of(calls)
    run, method = (graph.replay, "graph") if graph else (lambda: [call() for call in calls], "events")
    run()
    torch.cuda.synchronize()
    began = time.perf_counter()
    run()
    torch.cuda.synchronize()
    repeats = int(SECONDS / max(time.perf_counter() - began, 1e-6))
    times = [_between_events(run) for _ in range(max(LEAST_REPEATS, min(REPEATS, repeats)))]
    torch.cuda.synchronize()
    return Measured(statistics.median(a.elapsed_time(b) for a, b in times) / 1e3 / len(calls), method, peak)


def _between_events(run: Call) -> tuple[torch.cuda.Event, torch.cuda.Event]:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    return start, end


def _clock(calls: Sequence[Call]) -> float:
    times = []
    for call in [*calls, *calls]:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _peak(call: Call) -> float:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def _graph_of(calls: Sequence[Call]) -> torch.cuda.CUDAGraph | None:
    """All calls in one graph; None where something in them cannot be captured."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for call in calls[:2]:
            call()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            for call in calls:
                call()
    except RuntimeError:
        torch.cuda.synchronize()
        return None
    return graph


def ceilings(device: torch.device) -> Device:
    """What this device attains: reading and writing a large tensor, and products of large matrices.

    `copy_` would be captured as a copy by the device's copy engines, which move less than its processors do.
    """
    size = 2**28 if device.type == "cuda" else 2**22
    source = torch.empty(size, dtype=torch.float32, device=device).normal_()
    copy = torch.empty_like(source)
    bandwidth = 8 * size / measure([lambda: torch.neg(source, out=copy)], device).seconds
    flops, side = {}, 8192 if device.type == "cuda" else 256
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        flops[dtype] = 2 * side**3 / measure([lambda a=a, b=b: a @ b], device).seconds
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return Device(name, bandwidth, flops)
