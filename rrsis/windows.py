"""Swin's window attention for image sizes that are known only when it runs, as in an exported graph.

timm pads, rolls and slices by amounts that follow from the size. As symbols they decide branches (is there anything to
pad?), and a graph would hold for sizes that take the same ones. Here the same pixels are gathered by index instead, and
the size decides nothing but lengths.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

OTHER_REGION = -100.0
"""Score, as in timm, of a pair that shares a window but not a region of the image."""


@contextlib.contextmanager
def windows_of_any_size(model: nn.Module) -> Iterator[None]:
    """Lets the Swin blocks of a model attend by `attend_in_windows` while the block runs."""
    blocks = [module for module in model.modules() if hasattr(module, "shift_size") and hasattr(module, "_attn")]
    for block in blocks:
        # On the instance, where it goes before the class's own method.
        block._attn = functools.partial(attend_in_windows, block)
    try:
        yield
    finally:
        for block in blocks:
            del block._attn


def attend_in_windows(block: nn.Module, features: Tensor) -> Tensor:
    """What `block._attn(features)` computes, for a Swin or SwinV2 block of timm.

    Args:
        block: the block; its windows and shifts stay as they are, whatever the size.
        features: (B, h, w, C).

    Returns:
        (B, h, w, C).
    """
    batch, height, width, channels = features.shape
    places = _places(height, width, block.window_size, block.shift_size, features.device)
    # The padding is one pixel that many places gather: the row behind the image's own.
    pixels = F.pad(features.flatten(1, 2), (0, 0, 0, 1))
    windows = pixels.index_select(1, places.source.flatten()).reshape(-1, block.window_area, channels)
    mask = None
    if any(block.shift_size):
        apart = places.region[:, None] != places.region[:, :, None]
        mask = torch.where(apart, OTHER_REGION, 0.0).to(features.dtype)
    windows = block.attn(windows, mask=mask)
    return windows.reshape(batch, -1, channels).index_select(1, places.back).view(features.shape)


class _Places(NamedTuple):
    """Where the pixels of an image are among the places of its windows.

    Attributes:
        source: (windows, places of one) which pixel is there; h · w where there is padding.
        region: (windows, places of one) which of the image's parts that the shift has brought together it is from.
        back: (h · w) for each pixel the place that it was brought to.
    """

    source: Tensor
    region: Tensor
    back: Tensor


def _places(height: int, width: int, window: tuple[int, int], shift: tuple[int, int], device: torch.device) -> _Places:
    (tall, wide), (down, right) = window, shift
    rows, columns = (height + tall - 1) // tall, (width + wide - 1) // wide
    index = torch.arange(rows * columns, device=device)[:, None]
    place = torch.arange(tall * wide, device=device)
    y, x = index // columns * tall + place // wide, index % columns * wide + place % wide
    source = torch.where((y < height) & (x < width), (y + down) % height * width + (x + right) % width, height * width)
    region_y = (y >= (rows - 1) * tall).long() + (y >= rows * tall - down).long()
    region_x = (x >= (columns - 1) * wide).long() + (x >= columns * wide - right).long()

    pixel = torch.arange(height * width, device=device)
    y, x = (pixel // width - down) % height, (pixel % width - right) % width
    back = (y // tall * columns + x // wide) * (tall * wide) + y % tall * wide + x % wide
    return _Places(source, 3 * region_y + region_x, back)
