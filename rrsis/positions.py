"""Two-dimensional sinusoidal positions: without them "upper left" has no meaning."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


def sine_positions(height: int, width: int, channels: int, like: Tensor) -> Tensor:
    """Sines and cosines of the pixel centres' places in the image (DETR, arXiv 2005.12872, §A.4).

    Places are fractions of the image, so that a feature map of any resolution carries the same positions.

    Args:
        height: rows of the feature map.
        width: columns of the feature map.
        channels: a multiple of 4; half of them tell the row, half the column.
        like: the result takes its device and dtype.

    Returns:
        (height · width, channels).
    """
    bands = channels // 4
    rows, columns = (
        torch.as_tensor(_waves(length, bands), device=like.device, dtype=like.dtype) for length in (height, width)
    )
    shape = (height, width, 2 * bands)
    return torch.cat([rows[:, None].expand(shape), columns[None].expand(shape)], dim=-1).flatten(0, 1)


@lru_cache(maxsize=64)
def _waves(length: int, bands: int) -> np.ndarray:
    """Sines, then cosines along one side in float32, (length, 2 · bands); kept, as every layer asks for the same."""
    frequency = 2 * math.pi / 10000 ** (np.arange(bands) / bands)
    angle = ((np.arange(length) + 0.5) / length)[:, None] * frequency
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=-1).astype(np.float32)
