"""Sizes of objects as shares of their images, in decades, so that the bins hold for images of any size."""

from __future__ import annotations

import numpy as np

SIZE_BINS: tuple[tuple[str, float], ...] = (
    ("tiny (< 0.1%)", 0.001),
    ("small (0.1-1%)", 0.01),
    ("medium (1-10%)", 0.1),
    ("large (>= 10%)", float("inf")),
)
"""Name of each bin and the share of the image's pixels that lies just beyond it; from small to large."""

EMPTY = "empty"
"""The bin of masks without a pixel."""

SIZE_NAMES: tuple[str, ...] = (EMPTY, *(name for name, _ in SIZE_BINS))
"""All bins, in the order in which tables show them."""


def size_of(mask: np.ndarray) -> str:
    """The bin of a true mask.

    Args:
        mask: bool (H, W), at its own size.

    Returns:
        One of `SIZE_NAMES`.
    """
    share = np.count_nonzero(mask) / mask.size
    if share == 0:
        return EMPTY
    return next(name for name, beyond in SIZE_BINS if share < beyond)
