"""Samples to batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rrsis.data.types import ReferringSample
from rrsis.processing import BTDNetProcessor


class ReferringCollator:
    """Turns samples into the model's inputs, and keeps each mask at its own size beside them.

    Args:
        processor: makes the inputs.
        padding: True to pad to the longest expression of a batch, "max_length" for batches that are all as long.
    """

    def __init__(self, processor: BTDNetProcessor, padding: bool | str = True) -> None:
        self.processor = processor
        self.padding = padding

    def __call__(self, samples: Sequence[ReferringSample]) -> dict[str, Any]:
        """Makes a batch.

        Returns:
            The processor's tensors, and `truths`, a list of (H, W) bool arrays at the images' own sizes, by which the
            "native" protocol scores.
        """
        truths: list[np.ndarray] = [sample.mask for sample in samples]
        batch = self.processor(
            images=[sample.image for sample in samples],
            expressions=[sample.expression for sample in samples],
            masks=truths,
            categories=[sample.category for sample in samples],
            padding=self.padding,
        )
        return {**batch, "truths": truths}
