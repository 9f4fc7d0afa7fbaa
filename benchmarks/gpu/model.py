"""`python -m benchmarks.gpu.model --device cuda --preset base`: a training step on our kernels and on the reference.

The first steps of both must agree; then both are timed. bf16 autocast on CUDA, as the recipe trains.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.gpu.kernels import kernels_of
from benchmarks.model_cases import REFERENCE, make_batch, make_model
from rrsis_kernels import use_backend

ALLOWED = 2e-2
"""Largest relative difference of loss and gradient norm between the two, in bf16."""
PRINTED_KERNELS = 20
"""Those that take longest; the JSON file has all."""


def make_step(preset: str, size: int, device: torch.device, backend: str) -> Callable[[], tuple[float, float]]:
    """Returns a step: forward, backward, clipping and AdamW; it gives the loss and the gradients' norm.

    Args:
        preset: of the configuration.
        size: of the batch.
        device: where it runs.
        backend: that is forced for the operators.
    """
    model = make_model(preset, REFERENCE).train().to(device)
    batch = {name: value.to(device) for name, value in make_batch(preset, size).items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-5, fused=device.type == "cuda")

    def step() -> tuple[float, float]:
        torch.manual_seed(0)  # D-MOLS and dropout draw the same
        optimizer.zero_grad()
        with use_backend(backend):
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                loss = model(**batch).loss
            loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item(), norm.item()

    return step


def seconds_of(step: Callable[[], object], repeats: int) -> float:
    """Median time of a step; it ends by itself with the device's work, because it returns numbers."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Reads the command line, compares, times, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--preset", default="base")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    ours = "triton" if arguments.device == "cuda" else "cpu"
    found = {}
    for backend in (ours, "reference"):
        step = make_step(arguments.preset, arguments.batch, device, backend)
        loss, norm = step()
        seconds = seconds_of(step, arguments.repeats)
        peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None
        found[backend] = {"loss": loss, "norm": norm, "seconds": seconds, "peak_gib": peak}
        print(f"{arguments.preset}, batch {arguments.batch}, {backend}: {seconds * 1e3:.1f} ms a step, loss {loss:.5f}")
        if device.type == "cuda":
            found[backend]["kernels"] = kernels = kernels_of([step])
            print(f"    kernels {sum(kernels.values()) / 1e3:.1f} ms, of these")
            for name, microseconds in list(kernels.items())[:PRINTED_KERNELS]:
                print(f"    {microseconds / 1e3:8.2f}  {name}")
        del step
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
    print(f"reference / {ours}: {found['reference']['seconds'] / found[ours]['seconds']:.2f}")
    arguments.out.write_text(json.dumps(vars(arguments) | {"out": None, "steps": found}, indent=1), encoding="utf-8")
    apart = [abs(found[ours][key] / found["reference"][key] - 1) for key in ("loss", "norm")]
    raise SystemExit(f"loss and norm are apart by {apart}" if max(apart) > ALLOWED else 0)


if __name__ == "__main__":
    main()
