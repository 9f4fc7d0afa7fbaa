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
from .types import ReferringDataset, ReferringSample, check_split, clean_expression

REFS_FILE = "rrsisd/refs(unc).p"
INSTANCES_FILE = "rrsisd/instances.json"
IMAGE_FOLDER = "images/rrsisd/JPEGImages"


@dataclass(frozen=True)
class Reference:
    """One expression of RRSIS-D.

    Attributes:
        sample_id: "<ref_id>-<number of the sentence>".
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
    return {entry["id"]: entry for entry in instances[key]}


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
        refs_path = require_file(self.root / REFS_FILE, "references")
        instances_path = require_file(self.root / INSTANCES_FILE, "annotations")
        try:
            instances = json.loads(instances_path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{instances_path} is not JSON: {error}") from error
        self.images = _index(instances, "images", instances_path)
        self._annotations = _index(instances, "annotations", instances_path)
        self.categories = {key: entry["name"] for key, entry in _index(instances, "categories", instances_path).items()}
        refs = load_plain_pickle(refs_path)
        if not isinstance(refs, list):
            raise ValueError(f"{refs_path}: got a {type(refs).__name__}, due is a list of references")
        try:
            of_split = [ref for ref in refs if ref["split"] == split]
            self.references = [item for ref in of_split for item in self._references(ref, refs_path)]
        except (KeyError, TypeError) as error:
            raise ValueError(f"{refs_path} or {instances_path}: an entry is not as due: {error!r}") from error
        if not self.references:
            raise ValueError(f"{refs_path} holds no expressions of split {split!r}")

    def _references(self, ref: Mapping[str, Any], path: Path) -> list[Reference]:
        """The expressions of one entry of the refs file."""
        ref_id = ref["ref_id"]
        annotation = self._annotations.get(ref["ann_id"])
        if annotation is None:
            raise ValueError(f"{path}: reference {ref_id} has ann_id {ref['ann_id']}, which is not in {INSTANCES_FILE}")
        image = self.images.get(annotation["image_id"])
        # The refs file's own file_name can carry an annotation number; the image list has the true one.
        file_name = image["file_name"] if image else ref["file_name"]
        category_id = _category_id(annotation)
        category = self.categories.get(_category_id(ref) if category_id is None else category_id)
        bbox = annotation.get("bbox")
        box = tuple(float(value) for value in bbox) if bbox is not None and len(bbox) == 4 else None
        result = []
        for number, sentence in enumerate(ref["sentences"]):
            expression = clean_expression(sentence.get("raw") or sentence["sent"])
            if not expression:
                raise ValueError(f"{path}: reference {ref_id} has a sentence without words")
            result.append(Reference(f"{ref_id}-{number}", expression, annotation, file_name, category, box))
        return result

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

    def image_path(self, reference: Reference) -> Path:
        """Where the image of a reference is."""
        return self.root / IMAGE_FOLDER / reference.file_name

    def __getitem__(self, index: int) -> ReferringSample:
        reference = self.references[self._position(index)]
        image = read_image(self.image_path(reference))
        height, width = image.shape[:2]
        try:
            mask = decode_segmentation(reference.annotation.get("segmentation"), height, width)
        except ValueError as error:
            path, name = self.root / INSTANCES_FILE, reference.annotation["id"]
            raise ValueError(f"{path}: annotation {name}: {error}") from error
        return ReferringSample(
            image=image,
            expression=reference.expression,
            mask=fit_mask(mask, height, width),
            sample_id=reference.sample_id,
            image_id=Path(reference.file_name).stem,
            category=reference.category,
        )
