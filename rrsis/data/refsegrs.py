"""RefSegRS: `images/<id>.tif`, `masks/<id>.tif`, `output_phrase_<split>.txt` with `<digits> <expression>`."""

from __future__ import annotations

from .phrases import PhraseDataset


class RefSegRS(PhraseDataset):
    """RefSegRS (2172 / 431 / 1817 expressions, 512 × 512). Masks are 0 and 255; true is what exceeds 50."""

    name = "refsegrs"
    image_folder = "images"
    mask_folder = "masks"
    # The masks hold 0 and 255. Published loaders draw the line at 50, so resampled copies agree with theirs.
    mask_threshold = 50

    @classmethod
    def key_fault(cls, key: str) -> str | None:
        """What is wrong with a number, or None."""
        if not (key.isascii() and key.isdigit()):
            return f"it starts with {key!r}, due are the digits of an image's number"
        return None

    @classmethod
    def file_name(cls, key: str) -> str:
        """Name of the image and mask files of a number."""
        return f"{key}.tif"
