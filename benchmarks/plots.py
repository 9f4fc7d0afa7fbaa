"""Results of the benchmarks as pictures: each suite's ratios, how times grow, and a summary for the README."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no screen is needed
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from benchmarks.measure import OURS
from benchmarks.operators import BARE
from benchmarks.results import Groups, by_suite, implementations, sizes_of, suite_of
from benchmarks.scaling import THREADS, Series
from rrsis.io import atomic_write

LIMIT_LABEL = "bare matrix products alone (limit line)"

HEADLINES = {
    "bsc forward": "spatial correlation",
    "bsc forward+backward": "spatial correlation, forward + backward",
    "twin stream forward+backward": "twin-stream attention, forward + backward",
    "mask statistics forward+backward": "losses from upsampled masks, forward + backward",
    "Grounding DINO layer forward": "Grounding DINO's fusion layer",
    "Grounding DINO layer forward+backward": "Grounding DINO's fusion layer, forward + backward",
    "model tiny training": "BTDNet (tiny), a training step",
}
"""Suites whose first group is in the summary, and how they are called there."""

OURS_COLOUR, PEER_COLOUR, LIMIT_COLOUR = "#1a7f37", "#4c78a8", "#9a9a9a"
LIMIT_COLOURS = dict(zip(BARE.values(), ("#c8c8c8", LIMIT_COLOUR, LIMIT_COLOUR), strict=True))


def _save(figure: Figure, path: Path, dpi: int = 120) -> None:
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=dpi, facecolor="white")
    plt.close(figure)


def _title(figure: Figure, text: str) -> None:
    figure.suptitle("\n".join(textwrap.wrap(text, 120)), fontsize=9)


def save_ratios(path: Path, title: str, groups: Groups) -> None:
    """Bars of every implementation's ratio to ours, a cluster for each group; the dashed line is ours."""
    names = [name for name in implementations(groups) if name != OURS]
    height = 0.8 / max(1, len(names))
    figure, axes = plt.subplots(figsize=(9, 1.8 + 0.3 * len(groups) * (len(names) + 1)), layout="constrained")
    for place, name in enumerate(names):
        rows = [
            (row + height * place, by_name[name].ratios["ours"])
            for row, by_name in enumerate(groups.values())
            if name in by_name and "ours" in by_name[name].ratios
        ]
        bars = axes.barh(
            [row for row, _ in rows],
            [ratio for _, ratio in rows],
            height,
            align="edge",
            label=name,
            color=LIMIT_COLOURS.get(name),
        )
        axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes.axvline(1, color="black", linestyle="--", linewidth=1)
    axes.set_yticks([row + 0.4 for row in range(len(groups))], [sizes_of(group) for group in groups])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel(f"times as long as {OURS} (median)")
    _title(figure, title)
    if names:
        figure.legend(fontsize=8, loc="outside lower center", ncols=3)
    _save(figure, path)


def save_scaling(path: Path, title: str, axis: str, series: Sequence[Series]) -> None:
    """Times against sizes, both logarithmic; dashed, from each series' first point, linear growth (or fall)."""
    figure, axes = plt.subplots(figsize=(9, 5.5), layout="constrained")
    for one in series:
        sizes, times = list(one.seconds), [1e3 * time for time in one.seconds.values()]
        threads = "" if one.threads is None else f", {one.threads} thread(s)"
        (line,) = axes.plot(sizes, times, marker="o", label=f"{one.implementation}, {one.what}{threads}")
        ideal = [times[0] * (sizes[0] / size if axis == THREADS else size / sizes[0]) for size in sizes]
        axes.plot(sizes, ideal, linestyle="--", linewidth=1, color=line.get_color())
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set_xlabel(axis)
    axes.set_ylabel("ms (dashed: linear)")
    _title(figure, title)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    _save(figure, path)


def headline_groups(groups: Groups) -> Groups:
    """The first group of each suite of `HEADLINES`, where it has ours and somebody to compare it with."""
    suites = by_suite(groups)
    firsts = [next(iter(suites[suite].items())) for suite in HEADLINES if suite in suites]
    return {group: by_name for group, by_name in firsts if OURS in by_name and len(by_name) > 1}


def _summary_rows(groups: Groups) -> Iterator[tuple[str, float | None]]:
    """(label, ratio) of each bar; the ratio of a heading is None."""
    for group, by_name in groups.items():
        yield f"{HEADLINES[suite_of(group)]}   {sizes_of(group)}", None
        bare = [name for name in by_name if name in BARE.values()]
        for name, timing in by_name.items():
            if name not in bare and name != OURS:
                yield name, timing.ratios["ours"]
        if bare:  # the last is that of the same pass
            yield LIMIT_LABEL, by_name[bare[-1]].ratios["ours"]


def save_summary(path: Path, facts: str, groups: Groups) -> None:
    """The headline cases in one picture that is readable at 800 pixels: each peer's time as a multiple of ours.

    Args:
        path: PNG file.
        facts: where the figures come from.
        groups: from `headline_groups`.
    """
    rows = list(_summary_rows(groups))
    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.21 * len(rows)), layout="constrained")
    for row, (label, ratio) in enumerate(rows):
        if ratio is None:
            blank = {"facecolor": "white", "edgecolor": "none", "pad": 1}
            place = axes.get_yaxis_transform()
            axes.text(0, row + 0.1, label, transform=place, fontsize=9, weight="bold", va="center", bbox=blank)
            continue
        axes.barh(row, ratio - 1, left=1, color=LIMIT_COLOUR if label == LIMIT_LABEL else PEER_COLOUR, height=0.75)
        axes.text(max(ratio, 1) * 1.04, row, f"{ratio:.2f}  {label}", fontsize=9, va="center")
    axes.axvline(1, color=OURS_COLOUR, linewidth=2, zorder=1)
    ratios = [ratio for _, ratio in rows if ratio is not None]
    axes.set_xscale("log")
    # The labels stand behind the bars: on a logarithmic axis they need a share of its length.
    axes.set_xlim(min(0.5, *ratios) / 1.1, max(ratios) * 6)
    ticks = [tick for tick in (0.5, 1, 2, 5, 10, 20, 50) if tick <= 1.5 * max(ratios)]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(len(rows) - 0.4, -0.8)
    axes.set_yticks([])
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.set_xlabel(f"time as a multiple of {OURS} (green line); right of it {OURS} is the faster")
    _title(figure, facts)
    _save(figure, path, dpi=200)
