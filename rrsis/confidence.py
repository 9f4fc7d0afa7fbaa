"""Bootstrap confidence intervals of figures that are ratios of sums: oIoU, mIoU and Pr@X are.

Expressions about one image share its difficulty, so they are no independent draws: what is drawn again here is images,
each with all the expressions about it (a cluster bootstrap). Drawing expressions would give too narrow intervals.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_DRAWS_AT_ONCE = 2_000_000
"""How many drawn cluster numbers are held in memory together."""


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made: percentiles of the figures over resampled sets of clusters.

    Attributes:
        resamples: How many sets of clusters are drawn, each as large as the original one.
        seed: Seed of the draws; the same scores and seed give the same intervals.
        level: Share of the resampled figures that the interval holds, as much left out below as above.

    Raises:
        ValueError: If a number is out of range.
    """

    resamples: int = 1000
    seed: int = 0
    level: float = 0.95

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise ValueError(f"resamples: got {self.resamples}, expected at least 1")
        if self.seed < 0:
            raise ValueError(f"seed: got {self.seed}, expected 0 or more")
        if not 0.0 < self.level < 1.0:
            raise ValueError(f"level: got {self.level}, expected a number between 0 and 1")

    def ratio_intervals(
        self,
        clusters: Sequence[Hashable],
        ratios: Mapping[str, tuple[np.ndarray, np.ndarray]],
        empty: float,
    ) -> dict[str, Any]:
        """Intervals of sum(numerators) / sum(denominators).

        Args:
            clusters: The cluster (image) of each of n expressions.
            ratios: For each figure its numerators (n,) and denominators (n,).
            empty: The value of a figure whose denominators sum to 0.

        Returns:
            ``{"level", "num_images", name: [low, high], ...}``; a figure's entry is None where there are fewer than two
            clusters, which say nothing about how figures vary.
        """
        names = list(ratios)
        # Numbers in the order of first appearance: names of images need no order of their own.
        numbers: dict[Hashable, int] = {}
        codes = np.asarray([numbers.setdefault(cluster, len(numbers)) for cluster in clusters])
        count = len(numbers)
        result: dict[str, Any] = {"level": self.level, "num_images": count}
        if count < 2:
            return result | dict.fromkeys(names)
        columns = [np.asarray(column, dtype=np.float64) for name in names for column in ratios[name]]
        sums = np.stack([np.bincount(codes, weights=column, minlength=count) for column in columns], axis=1)
        totals = self._resampled_sums(sums)
        numerators, denominators = totals[:, 0::2], totals[:, 1::2]
        figures = np.full_like(numerators, empty)
        np.divide(numerators, denominators, out=figures, where=denominators > 0)
        tail = (1.0 - self.level) / 2.0
        low, high = np.quantile(figures, [tail, 1.0 - tail], axis=0)
        return result | {name: [float(low[i]), float(high[i])] for i, name in enumerate(names)}

    def _resampled_sums(self, sums: np.ndarray) -> np.ndarray:
        """Column sums (resamples, S) over drawn clusters; ``sums`` is (clusters, S)."""
        generator = np.random.default_rng(self.seed)
        count, totals, done = len(sums), [], 0
        while done < self.resamples:
            rows = min(self.resamples - done, max(1, _DRAWS_AT_ONCE // count))
            drawn = generator.integers(0, count, size=(rows, count))
            # How often each cluster came up in each resample: the sums are then one matrix product.
            drawn += count * np.arange(rows)[:, None]
            times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
            totals.append(times @ sums)
            done += rows
        return np.concatenate(totals)


DEFAULT_BOOTSTRAP = Bootstrap()
"""95% intervals of 1000 resamples."""
