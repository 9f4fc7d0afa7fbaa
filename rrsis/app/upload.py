"""Images from strangers: size and kind are checked before anything is decoded."""

from __future__ import annotations

import os
import warnings

import numpy as np
from PIL import Image, ImageOps

from rrsis.inputs import to_rgb

FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF")
"""What is opened. Pillow knows more, among them formats that it hands to other programs (EPS)."""


class UploadError(ValueError):
    """What is wrong with an upload, in words for whoever sent it."""


def read_upload(path: str | os.PathLike[str], *, max_bytes: int, max_pixels: int) -> np.ndarray:
    """Reads an uploaded image as 8-bit RGB by the rules of `rrsis.inputs`.

    Args:
        path: the uploaded file.
        max_bytes: largest file.
        max_pixels: most pixels, checked against the file's header.

    Returns:
        (H, W, 3) uint8.

    Raises:
        UploadError: it is too large or no readable image; the message does not name the path on the server.
    """
    size = os.path.getsize(path)
    if size > max_bytes:
        raise UploadError(f"The file has {size / 1e6:.1f} MB; this page takes at most {max_bytes / 1e6:.1f} MB.")
    try:
        with warnings.catch_warnings():
            # The limit below is this page's own; Pillow's warning would come before it and go to the log.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as opened:
                _check_pixels(*opened.size, max_pixels)
                opened.load()
                return to_rgb(ImageOps.exif_transpose(opened))
    except UploadError:
        raise
    except Image.DecompressionBombError as error:
        raise UploadError(f"The image has too many pixels; this page takes at most {max_pixels:,}.") from error
    except Exception as error:  # a hostile file can make a decoder raise anything: struct.error, KeyError, MemoryError
        raise UploadError(f"This file is not a readable image ({', '.join(FORMATS)} are understood).") from error


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise UploadError(
            f"The image has {width} × {height} = {width * height:,} pixels; this page takes at most {max_pixels:,}. "
            "python -m rrsis.predict has no such limit."
        )
