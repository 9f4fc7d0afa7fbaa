"""A stream of random numbers that is the same on every platform and numpy version.

Only `PCG64` and the doubles that `Generator.random` makes of it are used, whose streams numpy keeps; whatever else is
drawn (integers, choices, shuffles) is made from those here. Drawing in blocks is also several times faster than scalar
calls.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")

LAYOUT, WORDS, RENDER = 0, 1, 2
"""Stream numbers: what stands where, what is said, how it looks. They are independent of one another."""


class Draws:
    """Random draws of one scene and one purpose.

    Args:
        key: Numbers that name the stream, e.g. (seed, split number, scene index, attempt, stream number).
        block: How many doubles are made at a time.
    """

    def __init__(self, key: Sequence[int], block: int = 256) -> None:
        self.generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(list(key))))
        self.random = self._doubles(block).__next__
        """A double in [0, 1)."""

    def _doubles(self, block: int) -> Iterator[float]:
        while True:
            yield from self.generator.random(block).tolist()

    def uniform(self, low: float, high: float) -> float:
        """A double between low and high."""
        return low + (high - low) * self.random()

    def integer(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + int(self.random() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.random() < probability

    def angle(self) -> float:
        """An angle in [0, 2π)."""
        return 2.0 * math.pi * self.random()

    def choice(self, items: Sequence[T]) -> T:
        """One of the items, all alike."""
        return items[int(self.random() * len(items))]

    def weighted(self, items: Sequence[T], weights: Sequence[float]) -> T:
        """One of the items with probability in proportion to its weight."""
        left = self.random() * sum(weights)
        for item, weight in zip(items, weights, strict=True):
            left -= weight
            if left < 0.0:
                return item
        # Rounding can leave a trace of the sum: the last item that can come at all.
        return next(item for item, weight in zip(reversed(items), reversed(weights), strict=True) if weight > 0.0)

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in random order (Fisher–Yates)."""
        result = list(items)
        for last in range(len(result) - 1, 0, -1):
            other = int(self.random() * (last + 1))
            result[last], result[other] = result[other], result[last]
        return result

    def noise(self, height: int, width: int) -> np.ndarray:
        """Uniform noise, uint8 (height, width)."""
        raw = self.generator.bit_generator.random_raw((height * width + 7) // 8)
        return np.asarray(raw, dtype="<u8").view(np.uint8)[: height * width].reshape(height, width)
