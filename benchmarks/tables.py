"""Results of the benchmarks as Markdown: short tables to read, and one with every figure."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import scaling
from benchmarks.measure import OURS
from benchmarks.operators import BARE
from benchmarks.ratios import KINDS
from benchmarks.results import Groups, Results, Timing, by_suite, implementations, sizes_of

INTRODUCTION = f"""# Benchmarks

`ms` are medians of `{OURS}`, and `±` is how far those of repeated runs lie apart. What follows are multiples of time.
`/ bare`: `{OURS}` over the bare matrix products of the same pass, the limit line; `/ bare forward`: over those of the
forward pass. Then each peer over `{OURS}`: 2.50 took two and a half times as long. Every figure is in details.md.
"""

NOTHING = "–"


def _number(value: float | None, digits: int = 2) -> str:
    return NOTHING if value is None else f"{value:.{digits}f}"


def _spread(timing: Timing) -> str:
    return NOTHING if timing.spread is None else f"{100 * timing.spread:.0f}%"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> list[str]:
    """A Markdown table whose first `words` columns are words, and the others numbers."""
    rule = "|".join(["---"] * words + ["--:"] * (len(titles) - words))
    return [f"| {' | '.join(titles)} |", f"|{rule}|", *(f"| {' | '.join(row)} |" for row in rows)]


def _peers(groups: Groups) -> list[str]:
    return [name for name in implementations(groups) if name != OURS and name not in BARE.values()]


def ratio_table(groups: Groups) -> list[str]:
    """One line a group: our time, what it is of the limits, and what the peers' are of it."""
    peers = _peers(groups)
    limits = [
        kind
        for kind in KINDS
        if kind != "ours" and any(OURS in by_name and kind in by_name[OURS].ratios for by_name in groups.values())
    ]
    rows = []
    for group, by_name in groups.items():
        ours = by_name.get(OURS)
        row = [sizes_of(group), _number(ours and 1e3 * ours.median, 3), _spread(ours) if ours else NOTHING]
        row += [_number(ours.ratios.get(kind) if ours else None) for kind in limits]
        row += [_number(by_name[name].ratios.get("ours") if name in by_name else None) for name in peers]
        rows.append(row)
    return _table(["", "ms", "±", *(f"/ {KINDS[kind]}" for kind in limits), *peers], rows)


def memory_table(groups: Groups) -> list[str]:
    """One line a group: each implementation's peak of extra memory; nothing where none is known."""
    names = implementations(groups)
    if all(timing.peak_mib is None for by_name in groups.values() for timing in by_name.values()):
        return []
    rows = [
        [sizes_of(group), *(_number(by_name[name].peak_mib if name in by_name else None, 1) for name in names)]
        for group, by_name in groups.items()
    ]
    return _table(["peak of extra memory, MiB", *names], rows)


def scaling_tables(series: Sequence[scaling.Series]) -> list[str]:
    """One table for each axis."""
    lines = []
    for (axis, sizes), same in scaling.by_axis(series).items():
        titles = scaling.header(axis, sizes)
        lines += ["", *_table(titles, [scaling.row(one) for one in same], words=2)]
    return lines


def to_markdown(results: Sequence[Results]) -> str:
    """The tables to read."""
    lines = [INTRODUCTION]
    for one in results:
        lines += [f"## {one.facts}", "", *(f"Note: {note}.\n" for note in one.notes)]
        for threads, groups in one.by_threads.items():
            for suite, same in by_suite(groups).items():
                lines += [f"### {suite}, {threads} thread(s)", "", *ratio_table(same), ""]
                lines += [*memory_table(same), ""]
        if one.series:
            lines += [
                "### Scaling",
                "",
                "`times linear` is the time at the largest size over linear growth from the smallest.",
            ]
            lines += [*scaling_tables(one.series), ""]
    return "\n".join(lines)


def to_details(results: Sequence[Results]) -> str:
    """A table of every figure."""
    titles = ["what", "threads", "implementation", "median ms", "least ms", "spread", "runs"]
    titles += [f"/ {name}" for name in KINDS.values()] + ["peak MiB"]
    lines = ["# Benchmarks, every figure", ""]
    for one in results:
        rows = [
            [
                *(group, str(threads), timing.implementation),
                *(_number(1e3 * timing.median, 3), _number(1e3 * timing.least, 3), _spread(timing), str(timing.runs)),
                *(_number(timing.ratios.get(kind)) for kind in KINDS),
                _number(timing.peak_mib, 1),
            ]
            for threads, groups in one.by_threads.items()
            for group, by_name in groups.items()
            for timing in by_name.values()
        ]
        lines += [f"## {one.facts}", "", *_table(titles, rows, words=3), ""]
    return "\n".join(lines)
