"""RRSIS-D: `rrsisd/refs(unc).p`, `rrsisd/instances.json`, `images/rrsisd/JPEGImages/*.jpg`.

The layout is that of the REFER toolkit: the pickle holds a list of references {ref_id, ann_id, image_id, category_id,
split, sentences: [{sent_id, raw, sent, tokens}]}, the JSON file holds images, annotations (image_id, segmentation,
bbox) and categories. Its peculiarities are listed in docs/data.md.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from .files import fit_mask, read_image, require_file, require_folder
from .rle import decode_mask
from .safe_pickle import load_plain_pickle
from .types import SPLITS, ReferringDataset, ReferringSample, check_split, clean_expression, has_words

REFS_FILE = "rrsisd/refs(unc).p"
INSTANCES_FILE = "rrsisd/instances.json"
IMAGE_FOLDER = "images/rrsisd/JPEGImages"


@dataclass(frozen=True)
class Reference:
    """One expression of RRSIS-D.

    Attributes:
        sample_id: `<ref_id>-<number of the sentence>`.
        expression: The sentence.
        annotation: The annotation of its object.
        file_name: Name of the image file.
        category: Name of the object's category.
        box: The object's box (left, top, right, bottom) in pixels of the mask.
    """

    sample_id: str
    expression: str
    annotation: Mapping[str, Any]
    file_name: str
    category: str | None
    box: tuple[float, float, float, float] | None


def _category_id(entry: Mapping[str, Any]) -> Any:
    # RRSIS-D's annotations say "categories_id" where COCO and the REFER toolkit say "category_id".
    return entry.get("categories_id", entry.get("category_id"))


def decode_segmentation(segmentation: Any, height: int, width: int) -> np.ndarray:
    """The mask of an annotation: the union of its parts, which can overlap.

    Args:
        segmentation: A list of run-length parts {size, counts}, one such part, or a list of polygons.
        height: H of the image, for polygons, which do not say.
        width: W of the image.

    Returns:
        bool (h, w), at the size that the parts name.

    Raises:
        ValueError: It is none of these, or its parts differ in size.
    """
    parts = [segmentation] if isinstance(segmentation, Mapping) else segmentation
    if not isinstance(parts, Sequence) or isinstance(parts, str) or not parts:
        raise ValueError(f"segmentation: got {segmentation!r}, due is a list of {{size, counts}} or of polygons")
    if all(isinstance(part, Mapping) for part in parts):
        masks = [decode_mask(part) for part in parts]
    else:
        _check_polygons(parts)
        masks = [coco_mask.decode(run).astype(bool) for run in coco_mask.frPyObjects(list(parts), height, width)]
    sizes = {mask.shape for mask in masks}
    if len(sizes) > 1:
        raise ValueError(f"segmentation: its parts have different sizes {sorted(sizes)}")
    return np.logical_or.reduce(masks)


def _check_polygons(polygons: Sequence[Any]) -> None:
    # pycocotools takes four numbers for a box and fails on other input with whatever comes first.
    for polygon in polygons:
        if not isinstance(polygon, Sequence) or isinstance(polygon, str) or len(polygon) < 6 or len(polygon) % 2:
            raise ValueError(
                f"segmentation: got the part {polygon!r}, due is {{size, counts}} or x, y of 3 corners or more"
            )
        if not all(isinstance(number, int | float) and math.isfinite(number) for number in polygon):
            raise ValueError(f"segmentation: the polygon {polygon!r} holds what is no finite number")


def _index(instances: Mapping[str, Any], key: str, path: Path) -> dict[Any, Mapping[str, Any]]:
    if not isinstance(instances.get(key), list):
        raise ValueError(f"{path}: it has no list {key!r}")
    entries: dict[Any, Mapping[str, Any]] = {}
    try:
        for entry in instances[key]:
            if entries.setdefault(entry["id"], entry) != entry:
                raise ValueError(f"{path}: {key!r} has two different entries with id {entry['id']}")
        return entries
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: an entry of {key!r} is not as due: {error!r}") from error


@dataclass(frozen=True)
class Annotations:
    """The two annotation files, read but for what the single references say.

    Attributes:
        root: The folder that holds `rrsisd/` and `images/`.
        images: Entries of the image list by id.
        annotations: Annotations by id.
        categories: Names of categories by id.
        refs: Entries of the refs file.
    """

    root: Path
    images: Mapping[Any, Mapping[str, Any]]
    annotations: Mapping[Any, Mapping[str, Any]]
    categories: Mapping[Any, str]
    refs: Sequence[Mapping[str, Any]]

    @staticmethod
    def load(root: Path) -> Annotations:
        """Reads both files.

        Raises:
            FileNotFoundError: One is not there.
            ValueError: One is not what it should be.
            UnsafePickleError: The refs file asks for more than plain values; nothing of it was run.
        """
        refs_path = require_file(root / REFS_FILE, "references")
        instances_path = require_file(root / INSTANCES_FILE, "annotations")
        try:
            instances = json.loads(instances_path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{instances_path} is not JSON: {error}") from error
        tables = [_index(instances, key, instances_path) for key in ("images", "annotations", "categories")]
        try:
            categories = {key: entry["name"] for key, entry in tables[2].items()}
        except (KeyError, TypeError) as error:
            raise ValueError(f"{instances_path}: a category is not as due: {error!r}") from error
        refs = load_plain_pickle(refs_path)
        if not isinstance(refs, list):
            raise ValueError(f"{refs_path}: got a {type(refs).__name__}, due is a list of references")
        return Annotations(root, tables[0], tables[1], categories, refs)

    def split_of(self, ref: Mapping[str, Any]) -> str:
        """The split of an entry of the refs file.

        Raises:
            ValueError: It names none of the three: it would never be read, which must not go unnoticed.
        """
        split = ref.get("split") if isinstance(ref, Mapping) else None
        if split not in SPLITS:
            raise ValueError(f"{self._name(ref)} has split {split!r}, due is one of {', '.join(SPLITS)}")
        return split

    def references(self, ref: Mapping[str, Any]) -> list[Reference]:
        """The expressions of one entry of the refs file; they can be without words.

        Raises:
            ValueError: The entry lacks something, or its annotation is not there.
        """
        try:
            return self._references(ref)
        except (KeyError, TypeError, AttributeError) as error:
            files = f"{self.root / REFS_FILE} or {self.root / INSTANCES_FILE}"
            raise ValueError(f"{files}: an entry is not as due: {error!r}") from error

    def _references(self, ref: Mapping[str, Any]) -> list[Reference]:
        ref_id = ref["ref_id"]
        annotation = self.annotations.get(ref["ann_id"])
        if annotation is None:
            raise ValueError(f"{self._name(ref)} has ann_id {ref['ann_id']}, which is not in {INSTANCES_FILE}")
        image = self.images.get(annotation["image_id"])
        # The refs file's own file_name can carry an annotation number; the image list has the true one.
        file_name = image["file_name"] if image else ref["file_name"]
        category_id = _category_id(annotation)
        category = self.categories.get(_category_id(ref) if category_id is None else category_id)
        bbox = annotation.get("bbox")
        box = tuple(float(value) for value in bbox) if bbox is not None and len(bbox) == 4 else None
        sentences = [clean_expression(sentence.get("raw") or sentence["sent"]) for sentence in ref["sentences"]]
        return [
            Reference(f"{ref_id}-{number}", expression, annotation, file_name, category, box)
            for number, expression in enumerate(sentences)
        ]

    def _name(self, ref: Any) -> str:
        return f"{self.root / REFS_FILE}: reference {ref.get('ref_id') if isinstance(ref, Mapping) else repr(ref)}"

    def image_path(self, reference: Reference) -> Path:
        """Where the image of a reference is."""
        return self.root / IMAGE_FOLDER / reference.file_name

    def decode(self, reference: Reference, height: int, width: int) -> np.ndarray:
        """The mask of a reference at the size that its annotation names.

        Args:
            reference: The reference.
            height: H of the image, for polygons.
            width: W of the image.

        Returns:
            bool (h, w).

        Raises:
            ValueError: The segmentation is none; the message names file and annotation.
        """
        try:
            return decode_segmentation(reference.annotation.get("segmentation"), height, width)
        except ValueError as error:
            where = f"{self.root / INSTANCES_FILE}: annotation {reference.annotation['id']}"
            raise ValueError(f"{where}: {error}") from error


class RRSISD(ReferringDataset):
    """RRSIS-D (12181 / 1740 / 3481 expressions). Images are opened when a sample is asked for.

    Args:
        root: The folder that holds `rrsisd/` and `images/`.
        split: "train", "val" or "test".

    Raises:
        ValueError: An unknown split, or annotations that do not fit together.
        FileNotFoundError: The folder or an annotation file is not there; for a sample, its image.
        UnsafePickleError: The refs file asks for more than plain values; nothing of it was run.
    """

    name = "rrsisd"

    def __init__(self, root: str | Path, split: str = "train") -> None:
        self.split = check_split(split)
        self.root = require_folder(root)
        self.annotations = Annotations.load(self.root)
        of_split = [ref for ref in self.annotations.refs if self.annotations.split_of(ref) == split]
        self.references = [item for ref in of_split for item in self.annotations.references(ref)]
        refs_path = self.root / REFS_FILE
        for reference in self.references:
            if not has_words(reference.expression):
                name = reference.sample_id.rpartition("-")[0]
                raise ValueError(f"{refs_path}: reference {name} has a sentence without words")
        if not self.references:
            raise ValueError(f"{refs_path} holds no expressions of split {split!r}")

    def __len__(self) -> int:
        return len(self.references)

    @property
    def expressions(self) -> Sequence[str]:
        """All expressions in the order of the samples."""
        return [reference.expression for reference in self.references]

    @property
    def sample_ids(self) -> Sequence[str]:
        """Names of all samples in their order."""
        return [reference.sample_id for reference in self.references]

    def __getitem__(self, index: int) -> ReferringSample:
        reference = self.references[self._position(index)]
        image = read_image(self.annotations.image_path(reference))
        height, width = image.shape[:2]
        return ReferringSample(
            image=image,
            expression=reference.expression,
            mask=fit_mask(self.annotations.decode(reference, height, width), height, width),
            sample_id=reference.sample_id,
            image_id=Path(reference.file_name).stem,
            category=reference.category,
        )
