"""Writes data sets in the layouts of RefSegRS, RRSIS-D and RISBench.

A layout appears whole or not at all: it is written to a folder beside the one asked for, which then takes its name.
"""

from __future__ import annotations

import json
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from .rle import encode_mask
from .rrsisd import IMAGE_FOLDER, INSTANCES_FILE, REFS_FILE
from .types import ReferringDataset, ReferringSample

RRSISD_CATEGORIES: tuple[str, ...] = (
    "airplane",
    "airport",
    "golf field",
    "expressway service area",
    "baseball field",
    "stadium",
    "ground track field",
    "storage tank",
    "basketball court",
    "chimney",
    "tennis court",
    "overpass",
    "train station",
    "ship",
    "expressway toll station",
    "dam",
    "harbor",
    "bridge",
    "vehicle",
    "windmill",
)
"""The 20 categories of RRSIS-D; their numbers count from 1."""

Splits = Mapping[str, ReferringDataset]


def _samples(splits: Splits) -> Iterator[tuple[str, int, ReferringSample]]:
    """Split, running number over all splits, and sample; with a progress bar."""
    total = sum(len(dataset) for dataset in splits.values())
    number = 0
    with tqdm(total=total, desc="writing", unit="expression") as bar:
        for split, dataset in splits.items():
            for index in range(len(dataset)):
                yield split, number, dataset[index]
                number += 1
                bar.update()


def _save_mask(mask: np.ndarray, path: Path) -> None:
    Image.fromarray(mask.astype(np.uint8) * 255).save(path)


def _write_phrases(splits: Splits, root: Path, images: str, masks: str, key: Callable[[int], tuple[str, str]]) -> None:
    """Layouts with phrase files. A key has one mask, so every expression gets an image of its own."""
    (root / images).mkdir()
    (root / masks).mkdir()
    lines: dict[str, list[str]] = {split: [] for split in splits}
    for split, number, sample in _samples(splits):
        name, file_name = key(number)
        Image.fromarray(sample.image).save(root / images / file_name)
        _save_mask(sample.mask, root / masks / file_name)
        lines[split].append(f"{name} {sample.expression}\n")
    for split, text in lines.items():
        (root / f"output_phrase_{split}.txt").write_text("".join(text), encoding="utf-8")


def _write_refsegrs(splits: Splits, root: Path) -> None:
    _write_phrases(splits, root, "images", "masks", lambda number: (str(number), f"{number}.tif"))


def _write_risbench(splits: Splits, root: Path) -> None:
    _write_phrases(splits, root, "img_rgb", "mask", lambda number: (f"{number:05d}.png",) * 2)


def _box(mask: np.ndarray) -> list[int]:
    """Left, top, right, bottom; the latter two are the last pixels'."""
    rows, columns = np.nonzero(mask)
    return [int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())] if rows.size else [0, 0, 0, 0]


def _write_rrsisd(splits: Splits, root: Path) -> None:
    (root / IMAGE_FOLDER).mkdir(parents=True)
    (root / REFS_FILE).parent.mkdir()
    numbers = {name: number for number, name in enumerate(RRSISD_CATEGORIES, start=1)}
    images: dict[str, dict[str, Any]] = {}
    annotations, refs = [], []
    for split, number, sample in _samples(splits):
        if sample.category not in numbers:
            raise ValueError(f"layout: rrsisd has no category {sample.category!r} (sample {sample.sample_id})")
        height, width = sample.mask.shape
        if sample.image_id not in images:
            file_name = f"{len(images):05d}.jpg"
            Image.fromarray(sample.image).save(root / IMAGE_FOLDER / file_name, quality=95)
            images[sample.image_id] = {"id": len(images), "file_name": file_name, "width": width, "height": height}
        image = images[sample.image_id]
        annotations.append(
            {
                "id": number,
                "image_id": image["id"],
                "categories_id": numbers[sample.category],
                "bbox": _box(sample.mask),
                "segmentation": [encode_mask(sample.mask)],
                "area": sample.area,
                "iscrowd": 0,
            }
        )
        text = sample.expression
        sentence = {"sent_id": number, "raw": text, "sent": text, "tokens": text.split()}
        refs.append(
            {
                "ref_id": number,
                "ann_id": number,
                "image_id": image["id"],
                "file_name": image["file_name"],
                "category_id": numbers[sample.category],
                "split": split,
                "sent_ids": [number],
                "sentences": [sentence],
            }
        )
    categories = [{"id": number, "name": name} for name, number in numbers.items()]
    instances = {"images": list(images.values()), "annotations": annotations, "categories": categories}
    (root / INSTANCES_FILE).write_text(json.dumps(instances), encoding="utf-8")
    with (root / REFS_FILE).open("wb") as stream:
        pickle.dump(refs, stream, protocol=2)


LAYOUTS: dict[str, Callable[[Splits, Path], None]] = {
    "refsegrs": _write_refsegrs,
    "rrsisd": _write_rrsisd,
    "risbench": _write_risbench,
}
"""What writes each layout."""


def write_layout(splits: Splits, layout: str, out: str | Path) -> Path:
    """Writes data sets as one folder in a published layout.

    Args:
        splits: The data set of each split.
        layout: "refsegrs", "rrsisd" or "risbench".
        out: The folder, which must not exist yet or be empty.

    Returns:
        The folder.

    Raises:
        ValueError: An unknown layout, or a sample that the layout has no place for.
        FileExistsError: The folder exists and is not empty, or is a file.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout: got {layout!r}, due is one of {', '.join(LAYOUTS)}")
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"out: {out} exists and is not an empty folder; nothing was written")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
    try:
        LAYOUTS[layout](splits, partial)
        # mkdtemp makes private folders; give what any other new folder would have.
        partial.chmod(0o755)
        # On POSIX this takes the place of an empty folder, and fails if something has come into it meanwhile.
        partial.replace(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out
