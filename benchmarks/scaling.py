"""How times grow with a size, or shrink with threads: series of timings and what they say beside linear growth."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

THREADS = "threads"
"""The axis along which time should fall; along all others it grows."""

UNITS = {"pixels": "pixel", "tokens": "token", "batch": "sample"}
"""What one of a size is called."""


class Series(NamedTuple):
    """Times of one implementation along one axis.

    Attributes:
        axis: what varies: a key of `UNITS`, or `THREADS`.
        what: the pass, and what is held fixed.
        implementation: what was timed.
        threads: of PyTorch; None where they vary.
        seconds: size → time, smallest size first.
    """

    axis: str
    what: str
    implementation: str
    threads: int | None
    seconds: Mapping[int, float]

    def relative_growth(self) -> float | None:
        """Time at the largest size over what linear growth from the smallest gives; 1 is linear. None for one size."""
        (smallest, first), (largest, last) = min(self.seconds.items()), max(self.seconds.items())
        return None if smallest == largest else last * smallest / (first * largest)

    def speed_up(self) -> float | None:
        """How many times as fast the largest size is as the smallest: what threads bring. None for one size."""
        (smallest, first), (largest, last) = min(self.seconds.items()), max(self.seconds.items())
        return None if smallest == largest else first / last


def collect(entries: Iterable[tuple[Mapping[str, Any], float]]) -> list[Series]:
    """Puts timings in series; where a point was timed several times, its median counts.

    Args:
        entries: (extra_info, seconds) of every benchmark; those without `scaling` are passed over.
    """
    points: dict[tuple[Any, ...], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for extra, seconds in entries:
        place = extra.get("scaling")
        if place is not None:
            threads = None if place["axis"] == THREADS else extra["threads"]
            key = (place["axis"], place["what"], extra["implementation"], threads)
            points[key][place["size"]].append(seconds)
    return [
        Series(*key, {size: statistics.median(times) for size, times in sorted(by_size.items())})
        for key, by_size in points.items()
    ]


def by_axis(series: Iterable[Series]) -> dict[tuple[str, tuple[int, ...]], list[Series]]:
    """Series that share an axis and its sizes, so that they fit in one table."""
    found: dict[tuple[str, tuple[int, ...]], list[Series]] = defaultdict(list)
    for one in series:
        found[one.axis, tuple(one.seconds)].append(one)
    return dict(found)


def header(axis: str, sizes: Sequence[int]) -> list[str]:
    """Titles of a table's columns."""
    found = ["pass, fixed sizes", "implementation"]
    found += [] if axis == THREADS else [THREADS]
    found += [f"{axis if place == 0 else ''} {size} ms".strip() for place, size in enumerate(sizes)]
    return found + (["speed-up"] if axis == THREADS else [f"µs per {UNITS[axis]}", "times linear"])


def row(series: Series) -> list[str]:
    """One line of the table that `header` titles: times, time per unit at both ends, growth or speed-up."""
    cells = [series.what, series.implementation] + ([] if series.threads is None else [str(series.threads)])
    cells += [f"{1e3 * time:.3f}" for time in series.seconds.values()]
    if series.axis == THREADS:
        return [*cells, _number(series.speed_up())]
    per_unit = [1e6 * time / size for size, time in series.seconds.items()]
    return [*cells, f"{_short(per_unit[0])} → {_short(per_unit[-1])}", _number(series.relative_growth())]


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
