"""What the files of a data set on disk say that there is, with every fault noted instead of raised.

The readers stop at the first fault, as training must. Here reading goes on, so that one look finds them all.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from .build import DATASETS
from .files import read_mask
from .phrases import PhraseDataset, phrase_file_name, read_phrases
from .rrsisd import Annotations, Reference
from .types import has_words

KINDS: dict[str, str] = {
    "missing_file": "a file that is named is not there",
    "unreadable_image": "an image cannot be decoded",
    "unreadable_mask": "a mask cannot be decoded",
    "bad_entry": "a line or an entry is not as due",
    "no_words": "an expression without words",
    "size_mismatch": "mask and image differ in size",
    "empty_mask": "a mask without a pixel",
    "image_in_two_splits": "the same image in more than one split",
    "repeated_expression": "the same expression about the same image more than once",
}
"""Kinds of findings. The readers refuse those up to "no_words"; the others they read, by the rules of docs/data.md."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Attributes:
        kind: One of `KINDS`.
        split: The split, or several joined by "+"; empty where it concerns all.
        where: The file, or the line or reference.
        message: What is wrong.
    """

    kind: str
    split: str
    where: str
    message: str


@dataclass(frozen=True)
class Record:
    """One expression, with where its image is and how its mask is read.

    Attributes:
        split: Its split.
        where: Its line or reference, for people.
        sample_id: Its name in the data set.
        expression: What is said.
        image_path: The image's file.
        mask_key: Equal for expressions with the same mask.
        mask_where: The mask's file or annotation, for people.
        read_mask: Gives the mask, bool (h, w) at its own size, from the image's (H, W).
    """

    split: str
    where: str
    sample_id: str
    expression: str
    image_path: Path
    mask_key: Hashable
    mask_where: str
    read_mask: Callable[[int, int], np.ndarray]


Listing = tuple[list[Record], list[Finding]]


def list_dataset(name: str, root: Path, splits: Sequence[str]) -> Listing:
    """Lists the expressions of a data set, and what is wrong with its text files.

    Args:
        name: "refsegrs", "rrsisd" or "risbench".
        root: Its folder.
        splits: The splits to list.

    Returns:
        All expressions whose image and mask are known, and the findings.

    Raises:
        ValueError: It is another name.
    """
    reader = DATASETS.get(name)
    if name == "rrsisd":
        records, findings = _list_rrsisd(root, splits)
    elif isinstance(reader, type) and issubclass(reader, PhraseDataset):
        records, findings = [], []
        for split in splits:
            of_split = _list_phrases(reader, root, split)
            records += of_split[0]
            findings += of_split[1]
    else:
        raise ValueError(f"dataset: got {name!r}, due is refsegrs, rrsisd or risbench")
    seen: set[tuple[str, str]] = set()
    for record in records:
        key = (record.split, record.sample_id)
        if key in seen:
            findings.append(Finding("bad_entry", record.split, record.where, f"{record.sample_id} is listed twice"))
        seen.add(key)
        if not has_words(record.expression):
            message = f"got {record.expression!r}, due is at least one word"
            findings.append(Finding("no_words", record.split, record.where, message))
    return records, findings


def _list_phrases(reader: type[PhraseDataset], root: Path, split: str) -> Listing:
    path = root / phrase_file_name(split)
    try:
        phrases = read_phrases(path)
    except FileNotFoundError:
        return [], [Finding("missing_file", split, str(path), "the phrase file is not there")]
    except (OSError, ValueError) as error:
        return [], [Finding("bad_entry", split, str(path), str(error))]
    records, findings = [], []
    if not phrases:
        findings.append(Finding("bad_entry", split, str(path), "it holds no expressions"))
    for phrase in phrases:
        where = f"{path}, line {phrase.line}"
        fault = reader.key_fault(phrase.key)
        if fault:
            findings.append(Finding("bad_entry", split, where, fault))
            continue
        mask_path = reader.mask_path(root, phrase.key)
        records.append(
            Record(
                split=split,
                where=where,
                sample_id=phrase.sample_id,
                expression=phrase.expression,
                image_path=reader.image_path(root, phrase.key),
                mask_key=mask_path,
                mask_where=str(mask_path),
                read_mask=partial(_mask_of_file, mask_path, reader.mask_threshold),
            )
        )
    return records, findings


def _mask_of_file(path: Path, threshold: int, height: int, width: int) -> np.ndarray:
    return read_mask(path, threshold)


def _list_rrsisd(root: Path, splits: Sequence[str]) -> Listing:
    try:
        annotations = Annotations.load(root)
    except FileNotFoundError as error:
        return [], [Finding("missing_file", "", str(root), str(error))]
    except Exception as error:  # an unsafe pickle raises its own kind, and a broken one can raise any
        return [], [Finding("bad_entry", "", str(root), str(error))]
    records, findings = [], []
    for number, ref in enumerate(annotations.refs):
        split = ""
        try:
            split = annotations.split_of(ref)
            references = annotations.references(ref) if split in splits else []
        except ValueError as error:
            findings.append(Finding("bad_entry", split, f"reference number {number} of the file", str(error)))
            continue
        if split in splits and not references:
            findings.append(Finding("bad_entry", split, f"reference {ref['ref_id']}", "it has no sentences"))
        records += [_record(annotations, reference, split) for reference in references]
    for split in splits:
        if not any(record.split == split for record in records):
            findings.append(Finding("bad_entry", split, str(root), f"there are no expressions of split {split!r}"))
    return records, findings


def _record(annotations: Annotations, reference: Reference, split: str) -> Record:
    return Record(
        split=split,
        where=f"reference {reference.sample_id}",
        sample_id=reference.sample_id,
        expression=reference.expression,
        image_path=annotations.image_path(reference),
        mask_key=reference.annotation["id"],
        mask_where=f"annotation {reference.annotation['id']}",
        read_mask=partial(annotations.decode, reference),
    )
