"""Profiles forward and backward of the spatial correlation on a device and writes where the time went.

The shape is the one of Grounding DINO's fusion layer that docs/performance.md uses: 17 821 pixels, 20 tokens.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

import rrsis_kernels

BATCH, PIXELS, CHANNELS, HEADS, TOKENS = 1, 17_821, 256, 4, 20


def run_once(inputs: list[torch.Tensor]) -> None:
    """One forward and backward pass over (pixels, keys, values)."""
    result = rrsis_kernels.bidirectional_spatial_correlation(*inputs)
    (result.painted.sum() + result.pooled.sum() + result.pixel_lse.sum()).backward()


def profile_device(device: str, dtype: torch.dtype, repeats: int) -> str:
    """The profiler's table of ``repeats`` passes, the most expensive entry first."""
    token_shape = (BATCH, HEADS, TOKENS, CHANNELS)
    shapes = [(BATCH, PIXELS, CHANNELS), token_shape, token_shape]
    inputs = [torch.randn(shape, device=device, dtype=dtype, requires_grad=True) for shape in shapes]
    for _ in range(3):
        run_once(inputs)
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device == "cuda" else [])
    with profile(activities=activities) as profiler:
        for _ in range(repeats):
            run_once(inputs)
        if device == "cuda":
            torch.cuda.synchronize()
    key = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    return profiler.key_averages().table(sort_by=key, row_limit=30)


def main() -> None:
    """Reads the command line, profiles and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), required=True)
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--out", type=Path, required=True, help="text file for the table")
    arguments = parser.parse_args()
    table = profile_device(arguments.device, getattr(torch, arguments.dtype), arguments.repeats)
    arguments.out.write_text(table + "\n", encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
