"""`python -m benchmarks.gpu.tiles --out tiles.json`: how other block shapes than the table's would do on this GPU.

Of `rrsis_kernels/triton/_config.py` one entry at a time is changed, the operators that take it are timed, and what was
faster than the table (and right) is printed first. All is compiled by several processes beforehand, then timed alone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.gpu.__main__ import BOTH, DTYPES, TOLERANCE, error_of, passes
from benchmarks.gpu.floors import CORRELATION, COSINE, FORWARD, SHAPES, STATISTICS, STREAMS, Shape
from benchmarks.gpu.measure import COLD_BYTES, measure
from benchmarks.gpu.operators import EAGER, implementations, make_inputs
from rrsis_kernels.triton import _config
from rrsis_kernels.triton._config import Tile, Work

BASE = "as in the table"
LABELS = {
    CORRELATION: ("Grounding DINO layer", "BTDNet base, 1/4", "BTDNet base, 1/8", "BTDNet base, 1/32"),
    STREAMS: ("BTDNet base, 1/8",),
    STATISTICS: ("120² to 480²",),
    COSINE: ("BTDNet base, 1/32", "BTDNet base, 1/8"),
}
"""The shapes that are timed, by operator."""


class Change(NamedTuple):
    """One entry of the table, and what stands there instead.

    Attributes:
        name: of the entry, as a person reads it.
        value: that is tried.
        ops: that take the entry.
        pass_name: which has to be timed to see it.
        apply: puts a value there and returns the one before.
    """

    name: str
    value: Any
    ops: tuple[str, ...]
    pass_name: str
    apply: Callable[[Any], Any]


def _into(table: dict | list, key: Any) -> Callable[[Any], Any]:
    def apply(value: Any) -> Any:
        before, table[key] = table[key], value
        return before

    return apply


def _into_module(name: str) -> Callable[[Any], Any]:
    def apply(value: Any) -> Any:
        before = getattr(_config, name)
        setattr(_config, name, value)
        return before

    return apply


def product_changes(arch: int, kind: str) -> list[Change]:
    """Entries of the kernels that multiply matrices."""
    halves = kind == "half"
    table, found = _config.TABLE[arch][kind], []

    def add(kernel: str, pass_name: str, ops: tuple[str, ...], tiles: list[Tile]) -> None:
        found.extend(Change(f"{kind} {kernel}", t, ops, pass_name, _into(table, kernel)) for t in tiles)

    both, paints = (CORRELATION, STREAMS), (CORRELATION,)
    wide = 1 if halves else 2  # numbers twice as wide: half the channels of a step
    add("forward", FORWARD, both, [Tile(n, 0, 64 // wide, w, 3) for n, w in product((64, 128), (4, 8))])
    add("forward_wide", FORWARD, paints, [Tile(64, 0, c // wide, w, 3) for c, w in product((64, 128), (4, 8))])
    add("backward", BOTH, both, [Tile(64, 0, c // wide, w, 3) for c, w in product((32, 64), (4, 8))])
    add("spread", BOTH, paints, [Tile(n, 32, c // wide, w, 3) for n, c, w in product((64, 128), (64, 128), (4, 8))])
    add("gather", BOTH, both, [Tile(n, 64, c // wide, w, 3) for n, c, w in product((64, 128), (64, 128), (4, 8))])
    return found


def other_changes(arch: int) -> list[Change]:
    """Entries of the fused kernels, of those that do not multiply, and what holds for all."""
    found, fused = [], _config.FUSED_TABLE[arch]
    tiles = [Tile(n, 0, 0, w, stages) for n, w, stages in ((64, 4, 1), (64, 4, 2), (128, 8, 1), (128, 8, 2))]
    for kernel, pass_name in (("forward", FORWARD), ("backward", BOTH)):
        for position, (widest, _) in enumerate(fused.get(kernel, ())):
            apply = _into(fused[kernel], position)
            values = [(widest, tile) for tile in (None, *tiles)]
            found.extend(Change(f"fused {kernel} {widest}", v, (CORRELATION,), pass_name, apply) for v in values)
    for rows in (32, 64, 128):
        found.append(Change("fused rows", rows, (CORRELATION,), BOTH, _into_module("FUSED_ROWS")))
    for count in (1, 4):
        apply = _into_module("PROGRAMS_PER_PROCESSOR")
        found.append(Change("programs per processor", count, (CORRELATION, STREAMS), BOTH, apply))
    bound = _config.MEMORY_BOUND[arch]
    sizes = {("cosine", COSINE): (2048, 4096, 8192), ("statistics", STATISTICS): (256, 512, 1024)}
    for (name, op), tried in sizes.items():
        for elements, warps in product(tried, (4, 8)):
            found.append(Change(name, Work(elements, warps), (op,), BOTH, _into(bound, name)))
    return found


@contextlib.contextmanager
def made(change: Change | None) -> Iterator[None]:
    """The table with the change in it."""
    if change is None:
        yield
        return
    before = change.apply(change.value)
    try:
        yield
    finally:
        change.apply(before)


class Task(NamedTuple):
    """A change and a call that shows what it does."""

    change: Change | None
    shape: Shape
    dtype: str
    pass_name: str

    def inputs(self, device: torch.device) -> list[torch.Tensor]:
        torch.manual_seed(0)
        return make_inputs(self.shape, DTYPES[self.dtype], device)


def tasks(arch: int, kinds: list[str], entries: list[str] | None) -> list[Task]:
    """Every change (of some entries) on every shape that could notice it, and before them the table itself."""
    chosen = [shape for shape in SHAPES if shape.label in LABELS[shape.op]]
    dtypes = DTYPES if "single" in kinds else ["bfloat16"]
    base = [Task(None, shape, dtype, name) for shape in chosen for dtype in dtypes for name in (FORWARD, BOTH)]
    changes = [*(change for kind in kinds for change in product_changes(arch, kind)), *other_changes(arch)]
    changes = [change for change in changes if entries is None or change.name in entries]
    found = []
    for change in changes:
        dtype = "float32" if change.name.startswith("single") else "bfloat16"
        found += [Task(change, shape, dtype, change.pass_name) for shape in chosen if shape.op in change.ops]
    return base + found


def call_of(task: Task, inputs: list[torch.Tensor]) -> Callable[[], object]:
    """The pass that is timed, on these inputs."""
    call = implementations(task.shape.op, "triton")["triton"]()
    if task.pass_name == FORWARD:
        return passes(call, inputs, (), ())[FORWARD]
    outputs = [output for output in call(*inputs) if output.requires_grad]
    return passes(call, inputs, (), [torch.randn_like(output) for output in outputs])[BOTH]


def compile_share(share: list[int], arch: int, kinds: list[str], entries: list[str] | None) -> None:
    """Runs some of the tasks once, so that Triton's cache on disk holds their kernels."""
    everything = tasks(arch, kinds, entries)
    for number in share:
        task = everything[number]
        with made(task.change), contextlib.suppress(Exception):
            call_of(task, task.inputs(torch.device("cuda")))()
    torch.cuda.synchronize()


def time_task(task: Task, device: torch.device, due: dict[tuple, list[torch.Tensor]]) -> dict[str, Any]:
    """What a task takes, or why it fails."""
    name = (task.change.name, str(task.change.value)) if task.change else (BASE, "")
    record = dict(zip(("entry", "value"), name, strict=True))
    record |= {"shape": f"{task.shape.op}: {task.shape.label}", "dtype": task.dtype, "pass": task.pass_name}
    try:
        with made(task.change):
            inputs = task.inputs(device)
            key = (task.shape, task.dtype)
            if key not in due:
                with torch.no_grad():
                    due[key] = [t.clone() for t in implementations(task.shape.op, "triton")[EAGER]()(*inputs)]
            forward = implementations(task.shape.op, "triton")["triton"]()
            with torch.no_grad():
                error = error_of(forward(*inputs), due[key])
            size = sum(t.numel() * t.element_size() for t in inputs)
            copies = max(2, min(6, COLD_BYTES // size))
            sets = [[t.detach().clone().requires_grad_(t.requires_grad) for t in inputs] for _ in range(copies)]
            found = measure([call_of(task, each) for each in sets], device)
        return record | {"seconds": found.seconds, "right": error <= TOLERANCE[DTYPES[task.dtype]]}
    except Exception as error:  # too much shared memory for this GPU, say: the others are timed nevertheless
        return record | {"failed": f"{type(error).__name__}: {error}"[:200]}


def best_of(records: list[dict[str, Any]]) -> list[str]:
    """For each shape and entry, the three fastest values beside the table's own."""
    base = {(r["shape"], r["dtype"], r["pass"]): r["seconds"] for r in records if r["entry"] == BASE and "seconds" in r}
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for record in records:
        if record["entry"] != BASE and record.get("right"):
            groups.setdefault((record["shape"], record["entry"], record["dtype"], record["pass"]), []).append(record)
    lines = []
    for (shape, entry, dtype, pass_name), group in groups.items():
        due = base.get((shape, dtype, pass_name))
        if due is None:
            continue
        best = sorted(group, key=lambda record: record["seconds"])[:3]
        marks = ", ".join(f"{record['value']} {record['seconds'] / due:.2f}" for record in best)
        lines.append(f"{shape} | {pass_name} | {entry} | {due * 1e6:.1f} us | {marks}")
    return lines


def main() -> None:
    """Reads the command line, compiles, times, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count() - 2, help="processes that compile")
    parser.add_argument("--seconds", type=float, default=120, help="begin nothing new after that long")
    parser.add_argument("--kinds", nargs="+", choices=("half", "single", "tf32"), default=["half"])
    parser.add_argument("--entries", nargs="+", help="only these, by the names that the output has")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    arguments = parser.parse_args()
    end = time.monotonic() + arguments.seconds
    device = torch.device("cuda")
    arch = _config.architecture(device)
    everything = tasks(arch, arguments.kinds, arguments.entries)
    print(f"{torch.cuda.get_device_name()}: {len(everything)} timings", flush=True)
    context = multiprocessing.get_context("spawn")
    shares = [list(range(job, len(everything), arguments.jobs)) for job in range(arguments.jobs)]
    workers = [
        context.Process(target=compile_share, args=(share, arch, arguments.kinds, arguments.entries))
        for share in shares
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(max(1.0, end - arguments.seconds / 3 - time.monotonic()))
    for worker in workers:
        if worker.is_alive():
            worker.terminate()
    print(f"compiled, {end - time.monotonic():.0f} s left", flush=True)
    records: list[dict[str, Any]] = []
    due: dict[tuple, list[torch.Tensor]] = {}
    for task in everything:
        if time.monotonic() > end:
            break
        records.append(time_task(task, device, due))
    arguments.out.write_text(json.dumps(records, indent=0), encoding="utf-8")
    print(*best_of(records), sep="\n")
    failed = sum("failed" in record for record in records)
    wrong = [record for record in records if not record.get("right", True)]
    print(f"{len(records)} of {len(everything)} timed, {failed} failed, {len(wrong)} wrong")
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
