"""RISBench: `img_rgb/<file>`, `mask/<file>`, `output_phrase_<split>.txt` with `<file> <sentence>`."""

from __future__ import annotations

from .phrases import PhraseDataset


class RISBench(PhraseDataset):
    """RISBench (52 472 expressions, 512 × 512). True is what exceeds 0 in the mask."""

    name = "risbench"
    image_folder = "img_rgb"
    mask_folder = "mask"
    mask_threshold = 0

    @classmethod
    def key_fault(cls, key: str) -> str | None:
        """What is wrong with a file name, or None."""
        if "/" in key or "\\" in key or key.startswith("."):
            return f"it starts with {key!r}, due is the bare name of an image file"
        return None

    @classmethod
    def file_name(cls, key: str) -> str:
        """Name of the image and mask files: the key itself."""
        return key
