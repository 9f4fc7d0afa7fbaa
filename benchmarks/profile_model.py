"""`python -m benchmarks.profile_model --preset base`: where a step of BTDNet spends its time, as Markdown tables."""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.measure import OURS, Call
from benchmarks.model_cases import INFERENCE, MODES, TRAINING, VARIANTS, image_size
from rrsis.component_times import BACKWARD_PASS, FORWARD_PASS, Booking, PartHooks, measure_parts

PARTS = {
    r"encoder\.image\.(stem|stages\.\d+)": "backbone",
    r"encoder\.text": "text encoder",
    r"encoder\.fusions\.\d+": "BSC stages",
    r"pixel_decoder": "pixel decoder (FPN convolutions)",
    r"decoder": "decoder: gates, resizing, norms, positions",
    r"decoder\.layers\.\d+\.pool": "decoder: twin-stream attention",
    r"decoder\.layers\.\d+\.paint": "decoder: paint",
    r"decoder\.layers\.\d+\.update": "decoder: pixel update (depthwise 3×3, MLP)",
    r"decoder\.layers\.\d+\.(words|contrast|mlp)": "decoder: words, self-attention, MLP of the queries",
    r"decoder\.(head|detail)": "decoder: joint head, fine detail",
    r"reconstruction": "D-MOLS",
    r"": "losses",
}
"""Full names of modules → the part that their time is booked on; the innermost module counts."""


def _row(label: str, spent: dict[Booking, float], total: float) -> str:
    def of(pass_name: str) -> float:
        return sum(time for booking, time in spent.items() if booking.pass_name == pass_name)

    ours = sum(time for booking, time in spent.items() if booking.op)
    both = of(FORWARD_PASS) + of(BACKWARD_PASS)
    return f"| {label} | {of(FORWARD_PASS):.1f} | {of(BACKWARD_PASS):.1f} | {100 * both / total:.1f} | {ours:.1f} |"


def to_markdown(spent: dict[Booking, float]) -> str:
    """Two tables: the parts, the longest first, and our operators."""
    total = sum(spent.values())
    head = ["| {} | forward ms | backward ms | share % | our operators ms |", "|---|--:|--:|--:|--:|"]
    lines = []
    for title, keys in (("part", [booking.part for booking in spent]), ("our operator", [b.op for b in spent])):
        rows: dict[str, dict[Booking, float]] = defaultdict(dict)
        for key, (booking, milliseconds) in zip(keys, spent.items(), strict=True):
            if key is not None:
                rows[key][booking] = milliseconds
        lines += ["", head[0].format(title), head[1]]
        ordered = sorted(rows.items(), key=lambda item: -sum(item[1].values()))
        lines += [_row(key, bookings, total) for key, bookings in ordered]
        everything = {booking: time for bookings in rows.values() for booking, time in bookings.items()}
        lines += [_row("**sum**", everything, total)]
    return "\n".join(lines[1:]) + "\n"


def top_operators(averages: Iterable[Any], steps: int, rows: int = 12) -> str:
    """A table of the operators with the most time of their own."""
    lines = ["| operator | ms of its own | calls |", "|---|--:|--:|"]
    for entry in sorted(averages, key=lambda entry: -entry.self_cpu_time_total)[:rows]:
        lines.append(f"| `{entry.key}` | {entry.self_cpu_time_total / 1e3 / steps:.1f} | {entry.count / steps:g} |")
    return "\n".join(lines) + "\n"


def _median_ms(call: Call, steps: int) -> float:
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def profile_model(preset: str, mode: str, batch: int, variant: str, steps: int) -> str:
    """Profiles some steps after one to warm up.

    Returns:
        Markdown.
    """
    unmarked = MODES[mode](preset, variant, batch)
    unmarked()
    undisturbed = _median_ms(unmarked, steps)
    hooks: list[PartHooks] = []
    call = MODES[mode](preset, variant, batch, prepare=lambda model: hooks.append(PartHooks(model, PARTS)))
    call()
    hooks[0].made.clear()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(steps):
            call()
    spent = measure_parts(profiler.events(), hooks[0], steps)
    return "\n".join(
        [
            f"# {mode.capitalize()} of `{preset}`: B={batch}, {image_size(preset)}², {variant}, "
            f"{torch.get_num_threads()} thread(s), torch {torch.__version__}\n",
            f"{undisturbed:.0f} ms a step; {sum(spent.values()):.0f} ms under the profiler, of which the tables are "
            f"(means over {steps} step(s)).\n",
            to_markdown(spent),
            top_operators(profiler.key_averages(), steps),
        ]
    )


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile_model", description=__doc__)
    parser.add_argument("--preset", choices=("tiny", "base"), default="tiny")
    parser.add_argument("--mode", choices=(TRAINING, INFERENCE), default=TRAINING)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--variant", choices=tuple(VARIANTS), default=OURS)
    parser.add_argument("--steps", type=int, default=3, help="how many are profiled")
    parser.add_argument("--threads", type=int, default=None, help="threads of PyTorch (default: its own choice)")
    parser.add_argument("--out", type=Path, default=None, help="Markdown file; the tables are printed in any case")
    arguments = parser.parse_args(argv)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    tables = profile_model(arguments.preset, arguments.mode, arguments.batch, arguments.variant, arguments.steps)
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(tables, encoding="utf-8")
    print(tables)


if __name__ == "__main__":
    main()
