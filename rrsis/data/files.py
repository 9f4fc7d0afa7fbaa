"""Images and masks from disk, with errors that name the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def require_file(path: Path, what: str) -> Path:
    """Returns the path.

    Raises:
        FileNotFoundError: There is no such file; the message says what it is and where it was looked for.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{what} is missing: {path}")
    return path


def require_folder(root: str | Path) -> Path:
    """Returns the root folder of a data set.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"root: there is no folder {root}")
    return root


def _read(path: Path, what: str, mode: str | None) -> np.ndarray:
    require_file(path, what)
    try:
        with Image.open(path) as image:
            return np.array(image if mode is None else image.convert(mode))
    except Exception as error:  # on a broken file decoders raise OSError, SyntaxError, struct.error and others
        raise OSError(f"{what} cannot be read: {path}: {error}") from error


def read_image(path: Path) -> np.ndarray:
    """Reads a picture as RGB, uint8 (H, W, 3).

    Raises:
        FileNotFoundError: It is not there.
        OSError: It cannot be decoded.
    """
    return _read(path, "image", "RGB")


def read_mask(path: Path, threshold: int) -> np.ndarray:
    """Reads a mask: true where any channel's value exceeds the threshold, bool (H, W).

    Raises:
        FileNotFoundError: It is not there.
        OSError: It cannot be decoded.
    """
    values = _read(path, "mask", None)
    if values.dtype == np.bool_:
        return values
    if values.ndim == 3:
        values = values.max(axis=2)
    return values > threshold


def fit_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """The mask at the image's size.

    Where the two differ, the mask is stretched over the whole image (nearest neighbour), as it happens in published
    work too, where image and mask are each resized to the network's square.

    Args:
        mask: bool (h, w).
        height: H of the image.
        width: W of the image.

    Returns:
        bool (H, W).
    """
    if mask.shape == (height, width):
        return mask
    rows = (2 * np.arange(height) + 1) * mask.shape[0] // (2 * height)
    columns = (2 * np.arange(width) + 1) * mask.shape[1] // (2 * width)
    return mask[rows[:, None], columns[None, :]]
