"""`python -m benchmarks.gpu.kernels --out kernels.json`: how long each kernel of an operator takes on this GPU.

Forward and backward of every shape, by torch's profiler: which kernel to work on. `--once` runs one shape's passes and
measures nothing, for `ncu --set full python -m benchmarks.gpu.kernels --once ...`.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.__main__ import BOTH, DTYPES, passes
from benchmarks.gpu.floors import SHAPES, Shape
from benchmarks.gpu.measure import copies_of
from benchmarks.gpu.operators import NAMES, implementations, make_inputs

REPEATS = 5
SHORTEST_NAME = 60
"""Characters of a kernel's name that are shown."""


def calls_of(shape: Shape, dtype: torch.dtype, backend: str) -> list[Callable[[], object]]:
    """Forward and backward on several sets of inputs, so that no cache holds them."""
    inputs = make_inputs(shape, dtype, torch.device("cuda"))
    call = implementations(shape.op, "triton")[backend]()
    cotangents = [torch.randn_like(output) for output in call(*inputs) if output.requires_grad]
    sets = [inputs, *(make_inputs(shape, dtype, torch.device("cuda")) for _ in range(min(copies_of(inputs), 4) - 1))]
    return [passes(call, each, (), cotangents)[BOTH] for each in sets]


def kernels_of(calls: list[Callable[[], object]]) -> dict[str, float]:
    """Microseconds that each kernel takes in one call, the longest first."""
    for call in calls:
        call()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(REPEATS):
            for call in calls:
                call()
        torch.cuda.synchronize()
    found: dict[str, float] = defaultdict(float)
    for event in profiler.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            found[event.name[:SHORTEST_NAME]] += event.device_time_total / (REPEATS * len(calls))
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def main() -> None:
    """Reads the command line, profiles, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", default=["triton"])
    parser.add_argument("--dtypes", nargs="+", choices=tuple(DTYPES), default=["bfloat16"])
    parser.add_argument("--once", type=int, metavar="NUMBER", help="run only this shape, once")
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args()
    if arguments.once is not None:
        calls_of(SHAPES[arguments.once], DTYPES[arguments.dtypes[0]], arguments.backends[0])[0]()
        torch.cuda.synchronize()
        return
    records = []
    for shape in SHAPES:
        for backend in arguments.backends:
            for dtype in arguments.dtypes:
                kernels = kernels_of(calls_of(shape, DTYPES[dtype], backend))
                records.append({"shape": [*shape], "backend": backend, "dtype": dtype, "kernels": kernels})
                print(f"{NAMES[shape.op]}, {shape.label}, {backend}, {dtype}: {sum(kernels.values()):.1f} us")
                for name, time in kernels.items():
                    print(f"    {time:8.1f}  {name}")
    if arguments.out:
        arguments.out.write_text(json.dumps(records, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
