"""Run-length masks in COCO's encoding, checked before they are believed.

A mask is ``{"size": [height, width], "counts": ...}``. The counts are lengths of runs down the columns, of pixels
outside and inside in turn, as a list of numbers or as COCO's compressed string. pycocotools decodes runs that end too
early into uninitialised memory, so nothing from a file goes to it unchecked: reading is done here, writing there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """Encodes a mask.

    Args:
        mask: bool (H, W).

    Returns:
        ``{"size": [H, W], "counts": compressed string}``, ready for JSON.

    Raises:
        TypeError: The mask is not bool.
    """
    if mask.dtype != np.bool_:
        raise TypeError(f"mask: got dtype {mask.dtype}, due is bool")
    runs = coco_mask.encode(np.asfortranarray(mask.view(np.uint8)))
    return {"size": [int(side) for side in runs["size"]], "counts": runs["counts"].decode("ascii")}


def decode_mask(runs: Any) -> np.ndarray:
    """Decodes a mask.

    Args:
        runs: ``{"size": [H, W], "counts": list of numbers, compressed string or bytes}``.

    Returns:
        bool (H, W).

    Raises:
        ValueError: It is none, or its runs do not fill H × W pixels exactly.
    """
    (height, width), lengths = checked_runs(runs)
    inside = np.arange(len(lengths)) % 2 == 1
    return np.repeat(inside, lengths).reshape(width, height).T


def checked_runs(runs: Any) -> tuple[tuple[int, int], list[int]]:
    """Size and run lengths of an encoded mask, after all checks; no pixel is made.

    Raises:
        ValueError: As `decode_mask`.
    """
    if not isinstance(runs, Mapping) or "size" not in runs or "counts" not in runs:
        found = sorted(runs) if isinstance(runs, Mapping) else repr(runs)
        raise ValueError(f"run-length mask: got {found}, due are size and counts")
    size, counts = runs["size"], runs["counts"]
    if not isinstance(size, Sequence) or len(size) != 2 or not all(_is_count(side) and side > 0 for side in size):
        raise ValueError(f"run-length mask: its size is {size!r}, due is [height, width] in whole pixels")
    if isinstance(counts, str | bytes):
        lengths = _decompress(counts)
    elif isinstance(counts, Sequence) and all(_is_count(length) for length in counts):
        lengths = [int(length) for length in counts]
    else:
        raise ValueError("run-length mask: its counts are neither a string nor a list of whole numbers")
    height, width = int(size[0]), int(size[1])
    if min(lengths, default=0) < 0 or sum(lengths) != height * width:
        raise ValueError(
            f"run-length mask: its runs cover {sum(lengths)} pixels (shortest {min(lengths, default=0)}), "
            f"due are {height} x {width} = {height * width}"
        )
    return (height, width), lengths


def _is_count(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _decompress(counts: str | bytes) -> list[int]:
    """COCO's string: base 32 from the low digits on, 32 marks "more follows", from the fourth run on differences."""
    lengths: list[int] = []
    value = shift = 0
    for character in counts if isinstance(counts, bytes) else counts.encode("utf-8"):
        digit = character - 48
        if not 0 <= digit < 64:
            raise ValueError(f"run-length mask: its counts hold the character {chr(character)!r}")
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            value -= 1 << shift
        if len(lengths) > 2:
            value += lengths[-2]
        lengths.append(value)
        value = shift = 0
    if shift:
        raise ValueError("run-length mask: its counts break off within a number")
    return lengths
