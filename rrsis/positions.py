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
    return torch.as_tensor(_table(height, width, channels), device=like.device).to(like.dtype)


@lru_cache(maxsize=64)
def _table(height: int, width: int, channels: int) -> np.ndarray:
    """The positions in float32, kept: every layer of every step asks for the same few."""
    bands = channels // 4
    frequency = 2 * math.pi / 10000 ** (np.arange(bands) / bands)

    def waves(length: int) -> np.ndarray:
        angle = ((np.arange(length) + 0.5) / length)[:, None] * frequency
        return np.concatenate([np.sin(angle), np.cos(angle)], axis=-1)

    rows = np.broadcast_to(waves(height)[:, None], (height, width, 2 * bands))
    columns = np.broadcast_to(waves(width)[None], (height, width, 2 * bands))
    return np.concatenate([rows, columns], axis=-1).reshape(height * width, channels).astype(np.float32)
