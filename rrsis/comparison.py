"""Runs of several variants and seeds side by side: mean and standard deviation, as a table, as JSON and as curves."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rrsis.io import atomic_write

FIGURES = ("oIoU", "mIoU", "Pr@0.5", "selection")
"""What is compared: protocol "native", and the selection rate (`rrsis.selection`)."""


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        variant: what was trained.
        seed: with which seed.
        folder: where it lies.
    """

    variant: str
    seed: int
    folder: Path

    @classmethod
    def of(cls, root: Path, variant: str, seed: int) -> Run:
        """The run of that variant and seed below a folder."""
        return cls(variant, seed, root / re.sub(r"[^\w-]+", "-", variant) / f"seed{seed}")

    @property
    def selection_file(self) -> Path:
        """Where the selection rate is kept."""
        return self.folder / "selection.json"

    def is_complete(self) -> bool:
        """Whether it was trained to its end: metrics.json is written last but for pictures."""
        return (self.folder / "metrics.json").is_file()


@dataclass(frozen=True)
class Result:
    """What one run came to.

    Attributes:
        run: which.
        figures: by the names of `FIGURES`, in [0, 1].
        by_kind: selection rate by kind of expression.
        curve: (step, validation mIoU) pairs.
        seconds: of training.
    """

    run: Run
    figures: dict[str, float]
    by_kind: dict[str, float]
    curve: list[tuple[int, float]]
    seconds: float


def read_runs(runs: Sequence[Run]) -> list[Result]:
    """Reads what complete runs left.

    Raises:
        FileNotFoundError: a run is not complete.
    """
    results = []
    for run in runs:
        metrics = json.loads((run.folder / "metrics.json").read_text(encoding="utf-8"))
        selection = json.loads(run.selection_file.read_text(encoding="utf-8"))
        overall = metrics["protocols"]["native"]["overall"]
        figures = {name: overall[name] for name in FIGURES[:-1]} | {"selection": selection["selection_rate"]}
        results.append(Result(run, figures, selection["by_kind"], _curve(run.folder), metrics["train_seconds"]))
    return results


def _curve(folder: Path) -> list[tuple[int, float]]:
    """Validation mIoU by step, from the trainer's state in the newest checkpoint."""
    states = sorted(folder.glob("checkpoint-*/trainer_state.json"), key=lambda path: path.stat().st_mtime)
    if not states:
        return []
    history = json.loads(states[-1].read_text(encoding="utf-8"))["log_history"]
    return [(entry["step"], entry["eval_mIoU"]) for entry in history if "eval_mIoU" in entry]


def _by_variant(results: Sequence[Result]) -> dict[str, list[Result]]:
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.run.variant, []).append(result)
    return groups


def _spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation, in points; of a single run the latter is not known."""
    points = 100 * np.asarray(values, dtype=np.float64)
    return float(points.mean()), float(points.std(ddof=1)) if len(points) > 1 else float("nan")


def _cell(values: Sequence[float]) -> str:
    mean, deviation = _spread(values)
    return f"{mean:.1f}" if np.isnan(deviation) else f"{mean:.1f} ± {deviation:.1f}"


def _against(results: Sequence[Result], base: Sequence[Result], name: str) -> str:
    """Mean and deviation of the differences from the base's runs of the same seeds."""
    due = {result.run.seed: result.figures[name] for result in base}
    pairs = [result.figures[name] - due[result.run.seed] for result in results if result.run.seed in due]
    return _cell(pairs) if pairs else "–"


def render_comparison(results: Sequence[Result]) -> str:
    """A Markdown table, in points: mean ± standard deviation over seeds, and the difference from the first variant."""
    groups = _by_variant(results)
    base_name, base = next(iter(groups.items()))
    lines = [
        f"| variant | runs | {' | '.join(FIGURES)} | mIoU against {base_name} | minutes |",
        f"|---|---|{'---|' * len(FIGURES)}---|---|",
    ]
    for variant, group in groups.items():
        cells = [_cell([result.figures[name] for result in group]) for name in FIGURES]
        difference = "" if group is base else _against(group, base, "mIoU")
        minutes = np.mean([result.seconds for result in group]) / 60
        lines.append(f"| {variant} | {len(group)} | {' | '.join(cells)} | {difference} | {minutes:.1f} |")
    kinds = sorted({kind for result in results for kind in result.by_kind})
    lines += [
        "",
        "Selection rate by kind of expression:",
        "",
        f"| variant | {' | '.join(kinds)} |",
        f"|---|{'---|' * len(kinds)}",
    ]
    for variant, group in groups.items():
        cells = [
            _cell([result.by_kind[kind] for result in group if kind in result.by_kind] or [float("nan")])
            for kind in kinds
        ]
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(lines)


def save_comparison(folder: Path, results: Sequence[Result], facts: Mapping[str, Any]) -> None:
    """Writes comparison.md, comparison.json (every run's figures beside what made them) and comparison.png."""
    runs = [
        {
            "variant": r.run.variant,
            "seed": r.run.seed,
            **r.figures,
            "by_kind": r.by_kind,
            "seconds": r.seconds,
            "curve": r.curve,
        }
        for r in results
    ]
    with atomic_write(folder / "comparison.json") as temporary:
        temporary.write_text(json.dumps({"runs": runs, **facts}, indent=2) + "\n", encoding="utf-8")
    with atomic_write(folder / "comparison.md") as temporary:
        temporary.write_text(render_comparison(results) + "\n", encoding="utf-8")
    _draw(folder / "comparison.png", _by_variant(results))


def _draw(path: Path, groups: Mapping[str, Sequence[Result]]) -> None:
    """Validation mIoU against steps: a variant's mean, and the range of its seeds."""
    figure = Figure(figsize=(7, 4.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for index, (variant, group) in enumerate(groups.items()):
        curves = [result.curve for result in group if result.curve]
        if not curves:
            continue
        length = min(map(len, curves))
        steps = [step for step, _ in curves[0][:length]]
        values = 100 * np.array([[value for _, value in curve[:length]] for curve in curves])
        colour = f"C{index}"
        axes.plot(steps, values.mean(0), color=colour, marker="o", markersize=3, label=variant)
        axes.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=0.12, linewidth=0)
    axes.set(xlabel="step", ylabel="validation mIoU, points")
    axes.grid(alpha=0.3)
    if groups:
        axes.legend(fontsize=8)
    with atomic_write(path) as temporary:
        figure.savefig(temporary)
