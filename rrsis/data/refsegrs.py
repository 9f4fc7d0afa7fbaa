"""RefSegRS: `images/<id>.tif`, `masks/<id>.tif`, `output_phrase_<split>.txt` with `<digits> <expression>`."""

from __future__ import annotations

from .phrases import Phrase, PhraseDataset


class RefSegRS(PhraseDataset):
    """RefSegRS (2172 / 431 / 1817 expressions, 512 × 512). Masks are 0 and 255; true is what exceeds 50."""

    name = "refsegrs"
    image_folder = "images"
    mask_folder = "masks"
    # The masks hold 0 and 255. Published loaders draw the line at 50, so resampled copies agree with theirs.
    mask_threshold = 50

    def fault(self, phrase: Phrase) -> str | None:
        """What is wrong with a line, or None."""
        if not (phrase.key.isascii() and phrase.key.isdigit()):
            return f"it starts with {phrase.key!r}, due are the digits of an image's number"
        return super().fault(phrase)

    def file_name(self, key: str) -> str:
        """Name of the image and mask files of a number."""
        return f"{key}.tif"
