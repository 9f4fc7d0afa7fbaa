"""What every referring-segmentation data set of this package hands out: one image, one expression, one mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Dataset

SPLITS: tuple[str, ...] = ("train", "val", "test")
"""The names of the splits that every data set knows."""


@dataclass(frozen=True, eq=False)
class ReferringSample:
    """One expression about one image, with the mask of the object that it refers to.

    Attributes:
        image: RGB picture, uint8 (H, W, 3).
        expression: What is said about the object, as the data set has it apart from surplus blanks.
        mask: The referred object's visible pixels, bool (H, W), the image's own size.
        sample_id: Unique within the data set and split.
        image_id: Shared by all the expressions about one image.
        category: The object's category where the data set knows it.
        kind: Which kind of expression it is; SynthRRSIS only ("class", "colour", "size", "place", "relation",
            "combined").
    """

    image: np.ndarray
    expression: str
    mask: np.ndarray
    sample_id: str
    image_id: str
    category: str | None = None
    kind: str | None = None

    def __post_init__(self) -> None:
        if self.image.dtype != np.uint8 or self.image.ndim != 3 or self.image.shape[2] != 3:
            raise ValueError(f"image: got {self.image.dtype} {self.image.shape}, due is uint8 (H, W, 3)")
        if self.mask.dtype != np.bool_ or self.mask.shape != self.image.shape[:2]:
            raise ValueError(f"mask: got {self.mask.dtype} {self.mask.shape}, due is bool {self.image.shape[:2]}")

    @property
    def area(self) -> int:
        """Number of pixels of the referred object."""
        return int(np.count_nonzero(self.mask))


class ReferringDataset(Dataset[ReferringSample]):
    """A map-style data set of `ReferringSample`s.

    Subclasses give `__len__`, `__getitem__`, `expressions` and `sample_ids`; `name` and `split` say what it is.
    """

    name: str
    split: str

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> ReferringSample:
        raise NotImplementedError

    @property
    def expressions(self) -> Sequence[str]:
        """All expressions in the order of the samples, without decoding any image."""
        raise NotImplementedError

    @property
    def sample_ids(self) -> Sequence[str]:
        """The `sample_id` of all samples in their order, without decoding any image."""
        raise NotImplementedError

    def describe(self) -> str:
        """What is used, in words: data set, split and how many expressions. No sample is ever left out of the count."""
        return f"{self.name} {self.split}: {len(self)} expressions"

    def _position(self, index: int) -> int:
        """Index as a position from 0 on (negative ones count from the end).

        Raises:
            IndexError: The index lies outside the data set.
        """
        count = len(self)
        if not -count <= index < count:
            raise IndexError(f"index: got {index}, {self.name}/{self.split} has {count} samples")
        return int(index) % count


def check_split(split: str) -> str:
    """Returns the split.

    Raises:
        ValueError: It is not one of "train", "val", "test".
    """
    if split not in SPLITS:
        raise ValueError(f"split: got {split!r}, due is one of {', '.join(SPLITS)}")
    return split


def has_words(expression: str) -> bool:
    """Whether anything is said: a letter or a digit of any script."""
    return any(character.isalnum() for character in expression)


def clean_expression(text: str) -> str:
    """Expression with outer blanks dropped and inner runs of blanks made one."""
    return " ".join(text.split())
