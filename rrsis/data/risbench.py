"""RISBench: `img_rgb/<file>`, `mask/<file>`, `output_phrase_<split>.txt` with `<file> <sentence>`."""

from __future__ import annotations

from .phrases import Phrase, PhraseDataset


class RISBench(PhraseDataset):
    """RISBench (52 472 expressions, 512 × 512). True is what exceeds 0 in the mask."""

    name = "risbench"
    image_folder = "img_rgb"
    mask_folder = "mask"
    mask_threshold = 0

    def fault(self, phrase: Phrase) -> str | None:
        """What is wrong with a line, or None."""
        if "/" in phrase.key or "\\" in phrase.key or phrase.key.startswith("."):
            return f"it starts with {phrase.key!r}, due is the bare name of an image file"
        return super().fault(phrase)

    def file_name(self, key: str) -> str:
        """Name of the image and mask files: the key itself."""
        return key
