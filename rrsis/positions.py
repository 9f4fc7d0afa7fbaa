"""Two-dimensional sinusoidal positions: without them "upper left" has no meaning."""

from __future__ import annotations

import math
from functools import lru_cache
from types import ModuleType
from typing import Any

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
    if torch.compiler.is_exporting():
        # An exported size is a symbol, which neither NumPy nor a cache can hold.
        with like.device:
            waves = [_waves(length, bands, torch) for length in (height, width)]
    else:
        waves = [_kept_waves(length, bands) for length in (height, width)]
    rows, columns = (torch.as_tensor(wave, device=like.device, dtype=like.dtype) for wave in waves)
    shape = (height, width, 2 * bands)
    return torch.cat([rows[:, None].expand(shape), columns[None].expand(shape)], dim=-1).flatten(0, 1)


def _waves(length: int, bands: int, library: ModuleType) -> Any:
    """Sines, then cosines along one side in float64, (length, 2 · bands); `library` is numpy or torch."""
    frequency = 2 * math.pi / 10000 ** (library.arange(bands, dtype=library.float64) / bands)
    angle = ((library.arange(length, dtype=library.float64) + 0.5) / length)[:, None] * frequency
    return library.concatenate([library.sin(angle), library.cos(angle)], axis=-1)


@lru_cache(maxsize=64)
def _kept_waves(length: int, bands: int) -> np.ndarray:
    """The waves in float32; kept, as every layer asks for the same."""
    return _waves(length, bands, np).astype(np.float32)
