"""`python -m benchmarks.report FILE.json … --out DIR`: pytest-benchmark's JSON as Markdown tables and plots."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")  # no screen is needed
from matplotlib import pyplot as plt

from benchmarks.measure import OURS
from rrsis.io import atomic_write

TABLE_FILE = "report.md"


class Timing(NamedTuple):
    """One implementation's time in one group.

    Attributes:
        implementation: what was timed.
        median: seconds.
        least: seconds.
        rounds: over how many rounds.
        ratio: how many times as long as ours the median is; None where ours was not timed.
    """

    implementation: str
    median: float
    least: float
    rounds: int
    ratio: float | None


class Run(NamedTuple):
    """One JSON file.

    Attributes:
        facts: where its figures come from, in words.
        groups: the timings that are compared with each other, by the group's name.
    """

    facts: str
    groups: dict[str, list[Timing]]


def read(path: Path) -> Run:
    """Reads a file that `pytest benchmarks/ --benchmark-json FILE` wrote.

    Raises:
        ValueError: the file is no such JSON, or holds no timing; the message names it.
        OSError: the file cannot be read.
    """
    try:
        document = json.loads(path.read_text())
        entries = [entry for entry in document["benchmarks"] if "implementation" in entry["extra_info"]]
        facts = _facts(document, entries)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} must be what --benchmark-json wrote; reading it failed: {error!r}") from error
    if not entries:
        raise ValueError(f"{path} must hold timings of benchmarks/; it has none")
    groups: dict[str, list[Timing]] = defaultdict(list)
    for entry in entries:
        stats, extra = entry["stats"], entry["extra_info"]
        timing = Timing(
            extra["implementation"], stats["median"], stats["min"], stats["rounds"], extra.get("median_ratio_to_ours")
        )
        groups[entry["group"]].append(timing)
    return Run(facts, dict(groups))


def _facts(document: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> str:
    machine, commit = document["machine_info"], document["commit_info"]
    threads = sorted({entry["extra_info"]["threads"] for entry in entries})
    versions = ", ".join(f"{name} {version}" for name, version in machine.get("versions", {}).items())
    return (
        f"{machine['cpu'].get('brand_raw', machine['machine'])}, {machine['cpu'].get('count', '?')} logical cores, "
        f"{' and '.join(map(str, threads))} thread(s); Python {machine['python_version']}"
        f"{', ' if versions else ''}{versions}; commit {str(commit.get('id') or 'unknown')[:12]}"
        f"{' with changes' if commit.get('dirty') else ''}; {document['datetime'][:10]}"
    )


def to_markdown(runs: Sequence[Run]) -> str:
    """One table a run: a row for each implementation, groups together."""
    lines = [
        "# Benchmarks",
        "",
        f"Ratios are medians over that of `{OURS}` in the same group: `2.50` took two and a half times as long.",
    ]
    for run in runs:
        lines += ["", f"## {run.facts}", ""]
        lines += ["| what | implementation | median ms | least ms | ratio | rounds |", "|---|---|--:|--:|--:|--:|"]
        for group, timings in run.groups.items():
            for timing in timings:
                lines.append(
                    f"| {group} | {timing.implementation} | {1e3 * timing.median:.3f} | {1e3 * timing.least:.3f} | "
                    f"{'–' if timing.ratio is None else f'{timing.ratio:.2f}'} | {timing.rounds} |"
                )
    return "\n".join(lines) + "\n"


def save_plot(path: Path, title: str, facts: str, groups: Mapping[str, Sequence[Timing]]) -> None:
    """Bars of every implementation's ratio to ours, a cluster for each group; the dashed line is ours."""
    names = list(dict.fromkeys(timing.implementation for timings in groups.values() for timing in timings))
    names = [name for name in names if name != OURS]
    height = 0.8 / max(1, len(names))
    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.34 * len(groups) * (len(names) + 1)), layout="constrained")
    for place, name in enumerate(names):
        rows = [
            (row + height * place, timing.ratio)
            for row, timings in enumerate(groups.values())
            for timing in timings
            if timing.implementation == name and timing.ratio is not None
        ]
        bars = axes.barh([row for row, _ in rows], [ratio for _, ratio in rows], height, align="edge", label=name)
        axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes.axvline(1, color="black", linestyle="--", linewidth=1)
    axes.set_yticks([row + 0.4 for row in range(len(groups))], [_tail(group) for group in groups])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel(f"times as long as {OURS} (median)")
    axes.set_title(f"{title}\n{facts}", fontsize=9)
    axes.legend(fontsize=8)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)


def _suite(group: str) -> str:
    """The part of a group's name before its sizes: "bsc forward N=900 …" → "bsc forward"."""
    return re.split(r"\s+\S+=", group, maxsplit=1)[0]


def _tail(group: str) -> str:
    return group[len(_suite(group)) :].strip() or group


def report(files: Sequence[Path], out: Path) -> list[Path]:
    """Writes the tables and one plot for each suite of each file.

    Args:
        files: what `--benchmark-json` wrote.
        out: folder for `report.md` and the PNG files.

    Returns:
        The files written.

    Raises:
        ValueError: a file is not what it should be; nothing is written then.
        OSError: a file cannot be read or written.
    """
    runs = [read(path) for path in files]
    written = []
    for path, run in zip(files, runs, strict=True):
        suites: dict[str, dict[str, list[Timing]]] = defaultdict(dict)
        for group, timings in run.groups.items():
            suites[_suite(group)][group] = timings
        for suite, groups in suites.items():
            written.append(out / f"{path.stem}-{re.sub(r'[^a-z0-9]+', '-', suite.lower())}.png")
            save_plot(written[-1], suite, run.facts, groups)
    with atomic_write(out / TABLE_FILE) as temporary:
        temporary.write_text(to_markdown(runs))
    return [out / TABLE_FILE, *written]


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.json")
    parser.add_argument("--out", type=Path, required=True, help="folder for report.md and the plots")
    arguments = parser.parse_args(argv)
    try:
        written = report(arguments.files, arguments.out)
    except (ValueError, OSError) as error:
        sys.exit(f"benchmarks.report: {error}")
    print("\n".join(map(str, written)))


if __name__ == "__main__":
    main()
