"""What pytest-benchmark wrote, read and merged: repeated runs of the same thing become one figure and its spread."""

from __future__ import annotations

import json
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.ratios import KINDS
from benchmarks.scaling import Series, collect


class Run(NamedTuple):
    """One JSON file.

    Attributes:
        origin: machine, versions and commit, in words.
        date: when it began.
        entries: its timings: group, `extra_info` and `stats` as pytest-benchmark names them.
    """

    origin: str
    date: str
    entries: Sequence[Mapping[str, Any]]


class Timing(NamedTuple):
    """One implementation in one group, over all runs.

    Attributes:
        implementation: what was timed.
        median: seconds; the median over the runs of their medians.
        least: seconds; the least of all.
        spread: largest less smallest median over the runs, as a share of `median`; None for one run.
        runs: how many.
        ratios: kind (`ratios.KINDS`) → the median over the runs of the ratio within a run.
        peak_mib: peak of extra memory; None where unknown.
    """

    implementation: str
    median: float
    least: float
    spread: float | None
    runs: int
    ratios: Mapping[str, float]
    peak_mib: float | None


Groups = dict[str, dict[str, Timing]]
"""Group → implementation → timing."""


class Results(NamedTuple):
    """Everything that came from one machine with the same versions and commit.

    Attributes:
        facts: where the figures come from, in words.
        by_threads: threads → what was compared with them.
        series: what was timed along a size, or along threads.
        notes: why something is missing.
    """

    facts: str
    by_threads: dict[int, Groups]
    series: list[Series]
    notes: list[str]


def read(path: Path) -> Run:
    """Reads a file that `pytest benchmarks/ --benchmark-json FILE` wrote.

    Raises:
        ValueError: the file is no such JSON, or holds no timing; the message names it.
        OSError: the file cannot be read.
    """
    try:
        document = json.loads(path.read_text())
        entries = [entry for entry in document["benchmarks"] if "implementation" in entry["extra_info"]]
        for entry in entries:
            entry["group"], entry["extra_info"]["threads"], entry["stats"]["median"], entry["stats"]["min"]
        run = Run(_origin(document), document["datetime"][:10], entries)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} must be what --benchmark-json wrote; reading it failed: {error!r}") from error
    if not entries:
        raise ValueError(f"{path} must hold timings of benchmarks/; it has none")
    return run


def _origin(document: Mapping[str, Any]) -> str:
    machine, commit = document["machine_info"], document["commit_info"]
    versions = ", ".join(f"{name} {version}" for name, version in machine.get("versions", {}).items())
    return (
        f"{machine['cpu'].get('brand_raw', machine['machine'])}, {machine['cpu'].get('count', '?')} logical cores; "
        f"Python {machine['python_version']}{', ' if versions else ''}{versions}; "
        f"commit {str(commit.get('id') or 'unknown')[:12]}{' with changes' if commit.get('dirty') else ''}"
    )


def merge(runs: Iterable[Run]) -> list[Results]:
    """Puts runs of the same origin together, in the order in which the origins came."""
    by_origin: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_origin[run.origin].append(run)
    return [_merge_origin(origin, same) for origin, same in by_origin.items()]


def _merge_origin(origin: str, runs: Sequence[Run]) -> Results:
    entries = [entry for run in runs for entry in run.entries]
    found: dict[int, dict[str, dict[str, list[Mapping[str, Any]]]]] = defaultdict(lambda: defaultdict(dict))
    for entry in entries:
        extra = entry["extra_info"]
        if "scaling" not in extra:
            found[extra["threads"]][entry["group"]].setdefault(extra["implementation"], []).append(entry)
    dates = sorted({run.date for run in runs})
    facts = f"{origin}; {' to '.join(dict.fromkeys((dates[0], dates[-1])))}; {len(runs)} run(s)"
    by_threads = {
        threads: {
            group: {name: _merge_entries(name, same) for name, same in by_name.items()}
            for group, by_name in groups.items()
        }
        for threads, groups in sorted(found.items())
    }
    series = collect((entry["extra_info"], entry["stats"]["median"]) for entry in entries)
    return Results(facts, by_threads, series, list(dict.fromkeys(_values(entries, "peak_extra_reason"))))


def _merge_entries(name: str, entries: Sequence[Mapping[str, Any]]) -> Timing:
    medians = [entry["stats"]["median"] for entry in entries]
    median = statistics.median(medians)
    ratios = {
        kind: statistics.median(found) for kind in KINDS if (found := _values(entries, f"median_ratio_to_{kind}"))
    }
    peaks = _values(entries, "peak_extra_mib")
    return Timing(
        implementation=name,
        median=median,
        least=min(entry["stats"]["min"] for entry in entries),
        spread=(max(medians) - min(medians)) / median if len(medians) > 1 else None,
        runs=len(medians),
        ratios=ratios,
        peak_mib=statistics.median(peaks) if peaks else None,
    )


def _values(entries: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    found = (entry["extra_info"].get(name) for entry in entries)
    return [value for value in found if value is not None]


def suite_of(group: str) -> str:
    """The part of a group's name before its sizes: "bsc forward N=900 …" → "bsc forward"."""
    return re.split(r"\s+\S+=", group, maxsplit=1)[0]


def sizes_of(group: str) -> str:
    """What `suite_of` leaves: "N=900 …"."""
    return group[len(suite_of(group)) :].strip() or group


def by_suite(groups: Groups) -> dict[str, Groups]:
    """Suite → its groups, in their order."""
    suites: dict[str, Groups] = defaultdict(dict)
    for group, timings in groups.items():
        suites[suite_of(group)][group] = timings
    return dict(suites)


def implementations(groups: Groups) -> list[str]:
    """All implementations of some groups, in the order in which they come."""
    return list(dict.fromkeys(name for timings in groups.values() for name in timings))
