"""Measures the operators and Grounding DINO's layer on a device; writes JSON and a Markdown table.

    python -m benchmarks.gpu --device cuda --out results
    python -m benchmarks.gpu --device cpu --out results        a rehearsal on tiny shapes

Forward runs without autograd; "both" is forward and backward. The share of the floor uses the rates measured first.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu import layer, operators
from benchmarks.gpu.floors import BACKWARD, FORWARD, QUICK, SHAPES, Device, Shape, floor
from benchmarks.gpu.measure import Measured, ceilings, copies_of, measure

BOTH = "forward + backward"
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
COMPILED_LABELS = ("Grounding DINO layer", "BTDNet base, 1/8", "120² to 480²")
"""Where peers that torch.compile makes are measured: each takes seconds to compile."""
TOLERANCE = {torch.bfloat16: 2e-2, torch.float32: 1e-3}
"""‖out − due‖ / ‖due‖, against the reference in the same dtype."""


def passes(
    call: Callable, inputs: Sequence[Tensor], parameters: Sequence[Tensor], cotangents: Sequence[Tensor]
) -> dict[str, Callable]:
    """The call's forward, and its forward with the backward into inputs and parameters behind it."""
    leaves = [*(tensor for tensor in inputs if tensor.requires_grad), *parameters]

    def forward() -> Sequence[Tensor]:
        with torch.no_grad():
            return call(*inputs)

    def both() -> Sequence[Tensor]:
        outputs = [output for output in call(*inputs) if output.requires_grad]
        return torch.autograd.grad(outputs, leaves, cotangents[: len(outputs)])

    return {FORWARD: forward, BOTH: both}


def error_of(outputs: Sequence[Tensor], due: Sequence[Tensor]) -> float:
    """The largest ‖out − due‖ / ‖due‖; infinite where something is not finite."""
    errors = [
        ((a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-30))
        for a, b in zip(outputs, due, strict=False)
    ]
    worst = torch.stack(errors).max().item()
    return worst if worst == worst else float("inf")


class Run:
    """Measures one implementation after another and keeps what came of it."""

    def __init__(self, device: torch.device, rates: Device, seconds: float) -> None:
        self.device, self.rates = device, rates
        self.end = time.monotonic() + seconds
        self.records: list[dict[str, Any]] = []

    def compare(
        self,
        label: dict[str, Any],
        makers: dict[str, Callable[[], Callable]],
        inputs: Sequence[Tensor],
        floors: dict[str, float],
        reference: str,
        parameters: Sequence[Tensor] = (),
    ) -> None:
        """Measures every implementation on copies of the inputs; one that fails is noted with its reason."""
        sets = [
            inputs,
            *(
                [t.detach().clone().requires_grad_(t.requires_grad) for t in inputs]
                for _ in range(copies_of(inputs) - 1)
            ),
        ]
        made = makers[reference]()
        with torch.no_grad():
            due = [output.clone() for output in made(*inputs)]
        smooth = [output for output in made(*inputs) if output.requires_grad]
        cotangents = [torch.randn_like(output) for output in smooth]
        del made, smooth
        for name, make in makers.items():
            if time.monotonic() > self.end:
                self.records.append({**label, "implementation": name, "failed": "no time left"})
                continue
            try:
                call = make()
                by_set = [passes(call, each, parameters, cotangents) for each in sets]
                self._one(label | {"implementation": name}, by_set, due, floors)
            except Exception as error:  # a peer that cannot run on a device must not end the session
                self.records.append(
                    {**label, "implementation": name, "failed": f"{type(error).__name__}: {error}"[:300]}
                )
            print(_line(self.records[-1]), flush=True)

    def _one(
        self,
        label: dict[str, Any],
        by_set: Sequence[dict[str, Callable]],
        due: Sequence[Tensor],
        floors: dict[str, float],
    ) -> None:
        error = error_of(by_set[0][FORWARD](), due)
        record = {**label, "error": error, "right": error <= TOLERANCE[DTYPES[label["dtype"]]]}
        for pass_name in (FORWARD, BOTH):
            found: Measured = measure([each[pass_name] for each in by_set], self.device)
            record[pass_name] = found._asdict() | {"floor": floors.get(pass_name)}
        self.records.append(record)


def _line(record: dict[str, Any]) -> str:
    """A row of the table."""
    cells = [record["what"], record["shape"], record["dtype"], record["implementation"]]
    if "failed" in record:
        return "| " + " | ".join([*cells, record["failed"].splitlines()[0], "", "", "", "", ""]) + " |"
    for pass_name in (FORWARD, BOTH):
        found = record[pass_name]
        ratio = f"{found['seconds'] / found['floor']:.2f}×" if found["floor"] else ""
        peak = "" if found["peak_mib"] is None else f"{found['peak_mib']:.0f}"
        cells += [f"{found['seconds'] * 1e6:.1f} ({found['method']})", ratio, peak]
    return "| " + " | ".join([*cells, "" if record["right"] else f"WRONG by {record['error']:.1e}"]) + " |"


HEAD = (
    "| what | shape | dtype | implementation | forward, µs | of floor | MiB | both, µs | of floor | MiB | |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|"
)


def measure_operators(run: Run, shapes: Sequence[Shape], dtypes: Sequence[str], ours: str, compiled: bool) -> None:
    """Every shape in every dtype, ours and its peers; those that torch.compile makes in bf16 alone."""
    for shape in shapes:
        for name in dtypes:
            dtype = DTYPES[name]
            makers = operators.implementations(shape.op, ours)
            if not compiled or shape.label not in COMPILED_LABELS or name != "bfloat16":
                makers = {key: make for key, make in makers.items() if "compile" not in key and "Flex" not in key}
            forward, backward = (floor(shape, which, dtype).seconds(run.rates, dtype) for which in (FORWARD, BACKWARD))
            label = {"what": operators.NAMES[shape.op], "shape": f"{shape.label}, B={shape.batch}", "dtype": name}
            inputs = operators.make_inputs(shape, dtype, run.device)
            run.compare(label, makers, inputs, {FORWARD: forward, BOTH: forward + backward}, operators.EAGER)


def measure_layer(run: Run, dtypes: Sequence[str], ours: str, quick: bool, compiled: bool) -> None:
    """The layer that the operators were made for."""
    for name in dtypes:
        module, inputs = layer.make(DTYPES[name], run.device, quick)
        makers = {
            key: make for key, make in layer.implementations(module, ours).items() if compiled or "compile" not in key
        }
        label = {"what": "layer", "shape": layer.LABEL, "dtype": name}
        run.compare(label, makers, inputs, {}, "transformers", list(module.parameters()))


def main() -> None:
    """Reads the command line, measures, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--backend", help="ours; triton on CUDA, cpu on the CPU, where nothing else is said")
    parser.add_argument("--seconds", type=float, default=240, help="begin nothing new after that long")
    parser.add_argument("--ops", nargs="+", choices=("layer", *operators.NAMES), help="only these")
    parser.add_argument("--dtypes", nargs="+", choices=tuple(DTYPES), default=list(DTYPES))
    parser.add_argument("--no_compile", action="store_true", help="leave out what torch.compile makes")
    parser.add_argument("--out", type=Path, required=True, help="OUT.json and OUT.md are written")
    arguments = parser.parse_args()
    quick, device = arguments.device == "cpu", torch.device(arguments.device)
    ours = arguments.backend or ("cpu" if quick else "triton")
    torch.manual_seed(0)
    run = Run(device, ceilings(device), arguments.seconds)
    rates = {str(dtype).removeprefix("torch."): rate for dtype, rate in run.rates.flops.items()}
    print(run.rates.name, f"{run.rates.bandwidth / 1e12:.2f} TB/s")
    print(*(f"{name} {rate / 1e12:.0f} TFLOP/s" for name, rate in rates.items()))
    print(HEAD)
    compiled = not arguments.no_compile
    chosen = arguments.ops or ("layer", *operators.NAMES)
    if "layer" in chosen:
        measure_layer(run, arguments.dtypes, ours, quick, compiled and not quick)
    shapes = [shape for shape in (QUICK if quick else SHAPES) if shape.op in chosen]
    measure_operators(run, shapes, arguments.dtypes, ours, compiled)
    about = {"device": run.rates.name, "bandwidth": run.rates.bandwidth, "flops": rates, "torch": torch.__version__}
    arguments.out.with_suffix(".json").write_text(
        json.dumps({**about, "records": run.records}, indent=1), encoding="utf-8"
    )
    lines = [f"{run.rates.name}, torch {torch.__version__}, copy {run.rates.bandwidth / 1e12:.2f} TB/s", "", HEAD]
    arguments.out.with_suffix(".md").write_text("\n".join([*lines, *map(_line, run.records)]) + "\n", encoding="utf-8")
    wrong = [
        record
        for record in run.records
        if not record.get("right", True) or ("failed" in record and ours in record["implementation"])
    ]
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
