"""`compute-sanitizer python -m benchmarks.gpu.small_run --device cuda`: every kernel once, on small and odd sizes."""

from __future__ import annotations

import argparse
import itertools

import torch

from benchmarks.gpu.floors import CORRELATION, COSINE, STATISTICS, STREAMS, Shape
from benchmarks.gpu.operators import implementations, make_inputs

SHAPES = (
    Shape(CORRELATION, "odd", 2, 133, 40, 3, 7),
    Shape(CORRELATION, "even", 1, 256, 64, 2, 16),
    Shape(STREAMS, "odd", 2, 133, 40, 3, 5),
    Shape(STATISTICS, "odd", 2, 0, 0, low=13, high=50),
    Shape(STATISTICS, "even", 1, 0, 0, low=16, high=64),
    Shape(COSINE, "odd", 2, 133, 40),
)


def main() -> None:
    """Runs forward and backward of each operator."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    device = torch.device(parser.parse_args().device)
    backends = ("triton", "cuda") if device.type == "cuda" else ("cpu",)
    for shape, ours in itertools.product(SHAPES, backends):
        for dtype in (torch.bfloat16, torch.float32):
            inputs = make_inputs(shape, dtype, device)
            outputs = implementations(shape.op, backends[0])[ours]()(*inputs)
            torch.autograd.backward([output.sum() for output in outputs if output.requires_grad])
            assert all(tensor.grad.isfinite().all() for tensor in inputs if tensor.requires_grad), shape
    print("every kernel ran")


if __name__ == "__main__":
    main()
