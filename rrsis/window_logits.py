"""Logits of a scene's windows on disk, and their blend: what lets an interrupted run go on and bounds its memory.

A group of windows (one batch of the model) is one file, there whole or not at all; a run that goes on computes the
groups that are missing. Groups never depend on which were computed before: the same batches give the same bits.

Probabilities are blended, not logits: a window that cannot see what an expression speaks of often says so with a very
large logit, and in a mean of logits it would overrule the neighbour that does see it.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rrsis.io import atomic_write
from rrsis.model import BTDNetOutput
from rrsis.tiling import Box, WindowGrid, window_weights


class WindowLogits:
    """The logits of all windows of a scene for all expressions.

    Args:
        folder: Where they are kept; made when the first group is put.
        grid: The windows.
        group_size: Windows in a group; the last one may hold fewer.
    """

    def __init__(self, folder: str | os.PathLike[str], grid: WindowGrid, group_size: int) -> None:
        self.folder = Path(folder)
        self.grid = grid
        self.group_size = group_size

    @property
    def num_groups(self) -> int:
        """How many groups there are."""
        return -(-len(self.grid) // self.group_size)

    def members(self, group: int) -> range:
        """Indices of the windows of a group."""
        first = group * self.group_size
        return range(first, min(first + self.group_size, len(self.grid)))

    def has(self, group: int) -> bool:
        """Whether a group is there."""
        return self._path(group).is_file()

    def put(self, group: int, logits: np.ndarray) -> None:
        """Keeps the logits of a group.

        Args:
            group: Which.
            logits: ``(windows, expressions, h, w)`` float32 in the model's own resolution; of length 0 for a group that
                is all no-data.
        """
        with atomic_write(self._path(group)) as temporary:
            np.save(temporary, logits)

    def get(self, index: int, expression: int) -> np.ndarray | None:
        """Logits ``(h, w)`` of one window and expression; None for a group that is all no-data."""
        # Mapped, because only one window of the group is wanted.
        group = np.load(self._path(index // self.group_size), mmap_mode="r")
        return np.array(group[index % self.group_size, expression]) if len(group) else None

    def _path(self, group: int) -> Path:
        return self.folder / f"group-{group:07d}.npy"


class Blend:
    """Probabilities of one expression at any place of the scene, the windows' seams blended.

    Args:
        logits: All windows' logits.
        processor: The model's processor, whose post-processing turns logits into probabilities.
        expression: Which expression, by its number.
    """

    def __init__(self, logits: WindowLogits, processor: Any, expression: int) -> None:
        self.logits = logits
        self.processor = processor
        self.expression = expression
        box = logits.grid[0]
        self.weights = window_weights(box.height, box.width, logits.grid.overlap)
        # Neighbouring tiles share windows: a few are kept, so that most are resized once or twice.
        self._window = functools.lru_cache(maxsize=8)(self._probabilities)

    def __call__(self, box: Box) -> np.ndarray:
        """Blends.

        Args:
            box: A place inside the scene.

        Returns:
            ``(height, width)`` float32 in [0, 1]; 0 where no window was computed because all is no-data.
        """
        # In float64 the product of two float32 is exact: a pixel with one window keeps that window's value.
        total = np.zeros((box.height, box.width))
        weight = np.zeros((box.height, box.width))
        for index in self.logits.grid.touching(box):
            probabilities = self._window(index)
            if probabilities is None:
                continue
            window = self.logits.grid[index]
            shared = box.shared_with(window)
            here, there = shared.within(box), shared.within(window)
            total[here] += probabilities[there].astype(np.float64) * self.weights[there]
            weight[here] += self.weights[there]
        return np.divide(total, weight, out=total, where=weight > 0).astype(np.float32)

    def _probabilities(self, index: int) -> np.ndarray | None:
        logits = self.logits.get(index, self.expression)
        if logits is None:
            return None
        outputs = BTDNetOutput(logits=torch.from_numpy(logits)[None])
        return self.processor.post_process_probabilities(outputs, [self.weights.shape])[0].numpy()
