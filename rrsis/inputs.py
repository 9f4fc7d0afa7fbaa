"""What users give to a model, checked and brought into shape: expressions, and images of any kind as 8-bit RGB.

Images of any kind become 8-bit RGB by these rules: the EXIF orientation is applied; grey is repeated in three channels;
a palette is resolved; transparent pixels are laid over black, the usual no-data value of aerial images; one channel of
more than 8 bits is stretched linearly from its 2nd to its 98th percentile (sensors rarely fill 16 bits, and which they
fill differs); of 16-bit RGB, Pillow keeps the upper 8 bits.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

STRETCH_PERCENTILES = (2.0, 98.0)
"""Percentiles between which a single channel of more than 8 bits is stretched."""


def load_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads an image file as 8-bit RGB by the rules in this module's text.

    Args:
        path: A file of any format that Pillow reads; of several frames the first one.

    Returns:
        ``(H, W, 3)`` uint8.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a readable image, or is too large to be decoded at once.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"image: no file {str(path)!r}")
    try:
        with warnings.catch_warnings():
            # Between one and two times Pillow's limit an image is legal here; beyond, Pillow raises.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                opened.load()
                return to_rgb(ImageOps.exif_transpose(opened))
    except Image.DecompressionBombError as error:
        raise ValueError(f"image: {str(path)!r} is too large to be decoded at once ({error})") from error
    except (UnidentifiedImageError, OSError, SyntaxError, EOFError) as error:
        raise ValueError(f"image: {str(path)!r} is not a readable image ({error})") from error


def to_rgb(image: Image.Image) -> np.ndarray:
    """Turns a Pillow image of any mode into ``(H, W, 3)`` uint8 by the rules in this module's text."""
    if image.mode.startswith("I") or image.mode == "F":
        grey = _stretch(np.asarray(image, dtype=np.float64))
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return np.array(image.convert("RGB"))


def check_expressions(expressions: Sequence[str]) -> list[str]:
    """Returns the expressions, blanks at their ends removed.

    Raises:
        ValueError: If there is none or one of them holds no letter or digit.
    """
    if not expressions:
        raise ValueError("expression: got none, expected at least one")
    for expression in expressions:
        if not any(character.isalnum() for character in expression):
            raise ValueError(f"expression: got {expression!r}, expected words")
    return [expression.strip() for expression in expressions]


def _stretch(values: np.ndarray) -> np.ndarray:
    """Linear stretch of ``(H, W)`` to uint8 between two percentiles; NaN becomes 0, a constant image mid-grey."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return np.zeros(values.shape, dtype=np.uint8)
    low, high = np.percentile(finite, STRETCH_PERCENTILES)
    if high <= low:
        low, high = finite.min(), finite.max()
    if high <= low:
        return np.where(np.isfinite(values), np.uint8(127), np.uint8(0))
    scaled = np.nan_to_num((values - low) / (high - low), nan=0.0, posinf=1.0, neginf=0.0)
    return np.rint(scaled.clip(0.0, 1.0) * 255).astype(np.uint8)
