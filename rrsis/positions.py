"""Two-dimensional sinusoidal positions: without them "upper left" has no meaning."""

from __future__ import annotations

import math

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
    frequency = 2 * math.pi / 10000 ** (torch.arange(bands, device=like.device, dtype=torch.float32) / bands)

    def waves(length: int) -> Tensor:
        place = (torch.arange(length, device=like.device, dtype=torch.float32) + 0.5) / length
        angle = place[:, None] * frequency
        return torch.cat([angle.sin(), angle.cos()], dim=-1)

    rows = waves(height)[:, None].expand(height, width, 2 * bands)
    columns = waves(width)[None].expand(height, width, 2 * bands)
    return torch.cat([rows, columns], dim=-1).reshape(height * width, channels).to(like.dtype)
