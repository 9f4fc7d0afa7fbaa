"""The weights that are kept are chosen on validation data, never on the test split: what would do so is refused."""

from __future__ import annotations

from pathlib import Path

from rrsis.data.listing import list_dataset

VALIDATION_SPLITS = ("val", "train")
"""Splits that may choose the best weights."""

MOST_SHARED = 0.5
"""Share of the validation expressions that may stand in the test split too: published splits repeat a few."""


def check_validation_split(split: str) -> None:
    """Raises a ValueError unless a split may choose the best weights."""
    if split not in VALIDATION_SPLITS:
        raise ValueError(
            f"--validation_split must be {' or '.join(VALIDATION_SPLITS)}, since weights are never chosen on test; "
            f"got {split}"
        )


def check_apart_from_test(dataset: str, root: str, split: str) -> None:
    """Looks whether the test data go under another split's name.

    Args:
        dataset: "refsegrs", "rrsisd" or "risbench".
        root: its folder.
        split: the split that chooses the best weights.

    Raises:
        ValueError: most of that split's expressions are, about the same images, in the test split.
    """
    records, _ = list_dataset(dataset, Path(root), (split, "test"))
    places: dict[str, set[tuple[str, str]]] = {split: set(), "test": set()}
    for record in records:
        places[record.split].add((str(record.image_path), record.expression))
    shared = len(places[split] & places["test"])
    if shared > MOST_SHARED * len(places[split]):
        raise ValueError(
            f"--validation_split {split} would choose the weights on test data: {shared} of its {len(places[split])} "
            f"expressions in {root} are in the test split too. Weights are never chosen on test"
        )
