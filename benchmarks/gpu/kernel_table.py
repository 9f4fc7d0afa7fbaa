"""`python -m benchmarks.gpu.kernel_table`: what the Triton kernels need, and what no kernel can be faster than.

Compiles every shipped configuration for each architecture, without a GPU, and writes three Markdown tables; `--write`
puts them between the marks in docs/kernels.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from benchmarks.gpu.floors import BACKWARD, CORRELATION, FORWARD, H200, SHAPES, Shape, floor
from benchmarks.gpu.traffic import DTYPE, traffic
from rrsis_kernels.backends import OPS

BEGIN, END = "<!-- python -m benchmarks.gpu.kernel_table --write -->", "<!-- end of the kernel table -->"
PAGE = Path(__file__).parents[2] / "docs" / "kernels.md"


def resource_rows() -> list[str]:
    """A line per kernel and configuration: registers, shared memory and spills on each architecture."""
    import triton

    from rrsis_kernels.triton import KERNELS, _compile, _config, module

    needs: dict[tuple[str, str], dict[int, str]] = {}
    for op in (op for op in OPS if op in KERNELS):
        for arch in _config.ARCHITECTURES:
            for spec in module(op).aot_specs(arch):
                found = _compile.resources(_compile.compile_spec(spec, arch))
                marks = f"{found.registers} / {found.shared / 1024:.0f} / {found.spills}"
                needs.setdefault((op, spec.name), {})[arch] = marks + (" wgmma" if found.wgmma else "")
    heads = " | ".join(f"sm_{arch}" for arch in _config.ARCHITECTURES)
    rows = [
        f"Registers per thread / KiB of shared memory / bytes spilled per thread (Triton {triton.__version__}):",
        "",
        f"| operator | kernel and configuration | {heads} |",
        f"|---|---|{'---|' * len(_config.ARCHITECTURES)}",
    ]
    for (op, name), by_arch in needs.items():
        rows.append(f"| `{op}` | {name} | {' | '.join(by_arch.get(arch, '—') for arch in _config.ARCHITECTURES)} |")
    return rows


def floor_rows() -> list[str]:
    """A line per shape, pass and dtype: bytes, operations, and the time on an H200 that follows."""
    fast, plain = (H200.flops[dtype] / 1e12 for dtype in (torch.bfloat16, torch.float32))
    rows = [
        f"Floors on an {H200.name} ({H200.bandwidth / 1e12} TB/s, {fast:.0f} TFLOP/s bf16, {plain:.0f} fp32): "
        "computed, not measured.",
        "",
        "| operator | shape | pass | dtype | MB | GFLOP | floor, µs |",
        "|---|---|---|---|---|---|---|",
    ]
    for shape in SHAPES:
        for dtype in (torch.bfloat16, torch.float32):
            for pass_name in (FORWARD, BACKWARD):
                least = floor(shape, pass_name, dtype)
                name = str(dtype).removeprefix("torch.")
                numbers = f"{least.bytes / 1e6:.1f} | {least.flops / 1e9:.1f} | {least.seconds(H200, dtype) * 1e6:.1f}"
                rows.append(f"| `{shape.op}` | {shape.label}, B={shape.batch} | {pass_name} | {name} | {numbers} |")
    return rows


MANY_TOKENS = Shape(CORRELATION, "256 tokens", 1, 17821, 256, 4, 256)


def traffic_rows() -> list[str]:
    """A line per shape and pass of the correlation: what its kernels move and compute, and the time that follows."""
    rows = [
        f"What the correlation's kernels move and compute in bf16 on an {H200.name}, as if the second-level cache kept "
        "nothing: predicted, not measured.",
        "",
        "| shape | pass | MB moved | GFLOP done | predicted, µs | of the floor |",
        "|---|---|---|---|---|---|",
    ]
    for shape in (*(shape for shape in SHAPES if shape.op == CORRELATION), MANY_TOKENS):
        for pass_name in (FORWARD, BACKWARD):
            done = traffic(shape, pass_name)
            seconds, least = done.seconds(H200, DTYPE), floor(shape, pass_name, DTYPE).seconds(H200, DTYPE)
            numbers = f"{done.bytes / 1e6:.1f} | {done.flops / 1e9:.1f} | {seconds * 1e6:.1f} | {seconds / least:.2f}×"
            rows.append(f"| {shape.label}, B={shape.batch} | {pass_name} | {numbers} |")
    return rows


def put_between_marks(page: str, rows: list[str]) -> str:
    """The page with the lines between its marks replaced."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return before + "\n".join([BEGIN, "", *rows, "", END]) + after


def main() -> None:
    """Prints the tables or writes them into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}, instead of printing")
    arguments = parser.parse_args()
    rows = [*resource_rows(), "", *floor_rows(), "", *traffic_rows()]
    if arguments.write:
        PAGE.write_text(put_between_marks(PAGE.read_text(encoding="utf-8"), rows), encoding="utf-8")
    else:
        print("\n".join(rows))


if __name__ == "__main__":
    main()
