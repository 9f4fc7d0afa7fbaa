"""How a large raster is cut into overlapping windows, and how much each window counts at each of its pixels."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels; it may reach beyond the raster where that is smaller than a window.

    Attributes:
        top: First row.
        left: First column.
        height: Rows.
        width: Columns.
    """

    top: int
    left: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        """The row after the last one."""
        return self.top + self.height

    @property
    def right(self) -> int:
        """The column after the last one."""
        return self.left + self.width

    def shared_with(self, other: Box) -> Box | None:
        """The pixels in both, or None where there are none."""
        top, left = max(self.top, other.top), max(self.left, other.left)
        height, width = min(self.bottom, other.bottom) - top, min(self.right, other.right) - left
        return Box(top, left, height, width) if height > 0 and width > 0 else None

    def within(self, outer: Box) -> tuple[slice, slice]:
        """Slices that pick this rectangle out of an array that holds `outer`."""
        top, left = self.top - outer.top, self.left - outer.left
        return slice(top, top + self.height), slice(left, left + self.width)


@dataclass(frozen=True)
class WindowGrid:
    """The windows over a raster, row by row: equal squares, evenly spread, the last of a row flush with the edge.

    A raster that fits into one window is one window of the raster's own size, which is the rule of `rrsis.predict`.
    Where only one of its sides is shorter than a window, the windows reach beyond it.

    Attributes:
        height: Rows of the raster.
        width: Columns of the raster.
        window: Side of a window in pixels.
        overlap: Least number of pixels that neighbours share.
    """

    height: int
    width: int
    window: int
    overlap: int

    @property
    def is_single(self) -> bool:
        """Whether one window holds the whole raster."""
        return self.height <= self.window and self.width <= self.window

    @functools.cached_property
    def rows(self) -> list[int]:
        """First row of each row of windows."""
        return _starts(self.height, self.window, self.overlap)

    @functools.cached_property
    def columns(self) -> list[int]:
        """First column of each column of windows."""
        return _starts(self.width, self.window, self.overlap)

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    def __getitem__(self, index: int) -> Box:
        if not 0 <= index < len(self):
            raise IndexError(f"index: got {index}, expected 0 to {len(self) - 1}")
        if self.is_single:
            return Box(0, 0, self.height, self.width)
        row, column = divmod(index, len(self.columns))
        return Box(self.rows[row], self.columns[column], self.window, self.window)

    def touching(self, box: Box) -> list[int]:
        """Indices of the windows that share a pixel with `box`, in their order."""
        if self.is_single:
            return [0]
        rows = [row for row, top in enumerate(self.rows) if top < box.bottom and top + self.window > box.top]
        columns = [c for c, left in enumerate(self.columns) if left < box.right and left + self.window > box.left]
        return [row * len(self.columns) + column for row in rows for column in columns]


def window_weights(height: int, width: int, ramp: int) -> np.ndarray:
    """How much a window's prediction counts at each of its pixels.

    1 inside; over the `ramp` pixels next to an edge it falls in a straight line nearly to 0, because there the model
    sees least of what surrounds a pixel. It is never 0, so that a pixel with a single window keeps that window's value.

    Args:
        height: Rows of the window.
        width: Columns of the window.
        ramp: Pixels over which the weight falls; 0 gives 1 everywhere.

    Returns:
        ``(height, width)`` float32 in (0, 1].
    """
    return np.outer(_ramp(height, ramp), _ramp(width, ramp)).astype(np.float32)


def _ramp(length: int, ramp: int) -> np.ndarray:
    middle = np.arange(length) + 0.5
    return np.minimum(1.0, np.minimum(middle, length - middle) / max(ramp, 0.5))


def _starts(length: int, window: int, overlap: int) -> list[int]:
    if length <= window:
        return [0]
    count = -(-(length - window) // (window - overlap)) + 1
    return [round(index * (length - window) / (count - 1)) for index in range(count)]
