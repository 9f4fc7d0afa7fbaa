"""What RefSegRS and RISBench share: a text file of `<key> <expression>` lines, one image and one mask per key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .files import fit_mask, read_image, read_mask, require_file, require_folder
from .types import ReferringDataset, ReferringSample, check_split, clean_expression, has_words


@dataclass(frozen=True)
class Phrase:
    """One line of a phrase file.

    Attributes:
        line: Its number, from 1.
        key: What it starts with.
        expression: The rest, runs of blanks made one.
    """

    line: int
    key: str
    expression: str

    @property
    def sample_id(self) -> str:
        """Name of its sample: the same key can stand on several lines, the line's number makes it unique."""
        return f"{self.key}-{self.line}"


def read_phrases(path: Path) -> list[Phrase]:
    """Reads a phrase file; blank lines are no lines.

    Raises:
        FileNotFoundError: It is not there.
        ValueError: It is not UTF-8 text.
    """
    require_file(path, "phrase file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error
    phrases = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            key, _, rest = line.strip().partition(" ")
            key, _, tail = key.partition("\t")
            phrases.append(Phrase(number, key, clean_expression(f"{tail} {rest}")))
    return phrases


def phrase_file_name(split: str) -> str:
    """Name of the phrase file of a split."""
    return f"output_phrase_{split}.txt"


class PhraseDataset(ReferringDataset):
    """A data set with `output_phrase_<split>.txt`. Images and masks are opened when a sample is asked for.

    Args:
        root: Its folder.
        split: "train", "val" or "test".

    Raises:
        ValueError: An unknown split, an empty phrase file, a line without an expression or with a key of a wrong form.
        FileNotFoundError: The folder or the phrase file is not there; for a sample, its image or mask.
    """

    image_folder: str
    mask_folder: str
    mask_threshold: int

    def __init__(self, root: str | Path, split: str = "train") -> None:
        self.split = check_split(split)
        self.root = require_folder(root)
        self.phrase_file = self.root / phrase_file_name(split)
        self.phrases = read_phrases(self.phrase_file)
        if not self.phrases:
            raise ValueError(f"{self.phrase_file} holds no expressions")
        for phrase in self.phrases:
            fault = self.fault(phrase)
            if fault:
                raise ValueError(f"{self.phrase_file}, line {phrase.line}: {fault}")

    @classmethod
    def fault(cls, phrase: Phrase) -> str | None:
        """What is wrong with a line, or None."""
        key_fault = cls.key_fault(phrase.key)
        if key_fault is None and not has_words(phrase.expression):
            return f"nothing is said about {phrase.key!r}"
        return key_fault

    @classmethod
    def key_fault(cls, key: str) -> str | None:
        """What is wrong with what a line starts with, or None."""
        raise NotImplementedError

    @classmethod
    def file_name(cls, key: str) -> str:
        """Name of the image and mask files of a key."""
        raise NotImplementedError

    @classmethod
    def image_path(cls, root: Path, key: str) -> Path:
        """Where a key's image is."""
        return root / cls.image_folder / cls.file_name(key)

    @classmethod
    def mask_path(cls, root: Path, key: str) -> Path:
        """Where a key's mask is."""
        return root / cls.mask_folder / cls.file_name(key)

    def __len__(self) -> int:
        return len(self.phrases)

    @property
    def expressions(self) -> Sequence[str]:
        """All expressions in the order of the samples."""
        return [phrase.expression for phrase in self.phrases]

    @property
    def sample_ids(self) -> Sequence[str]:
        """Names of all samples in their order."""
        return [phrase.sample_id for phrase in self.phrases]

    def __getitem__(self, index: int) -> ReferringSample:
        phrase = self.phrases[self._position(index)]
        image = read_image(self.image_path(self.root, phrase.key))
        mask = fit_mask(read_mask(self.mask_path(self.root, phrase.key), self.mask_threshold), *image.shape[:2])
        return ReferringSample(image, phrase.expression, mask, phrase.sample_id, phrase.key)
