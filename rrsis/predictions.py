"""Predicted masks as a file that any system can write: ``predictions.json``.

.. code-block:: json

    {
      "format": "rrsis-predictions-1",
      "dataset": "rrsisd",
      "split": "test",
      "predictions": [
        {
          "sample_id": "11-0",
          "expression": "the grey ship",
          "score": 0.93,
          "segmentation": {"size": [800, 800], "counts": "..."},
          "segmentation_480": {"size": [480, 480], "counts": "..."}
        }
      ]
    }

``sample_id`` is the data set's name of the expression (`rrsis.data.ReferringDataset.sample_ids` lists them).
``segmentation`` is the mask at the true mask's own size and ``segmentation_480`` the mask at 480 × 480, on which the
``rmsin`` protocol scores; both are COCO run-length masks (`rrsis.data.rle`). One of the two is enough, the same one for
all expressions:

* ``native`` scores ``segmentation``;
* ``rmsin`` scores ``segmentation_480``; where the file has none, ``segmentation`` is resized to 480 × 480 by nearest
  neighbour, as that protocol resizes the true mask. That is not what the model would have given at 480 × 480: only
  files with ``segmentation_480`` give back the figures of ``python -m rrsis.evaluate`` exactly.

``dataset``, ``split``, ``expression`` and ``score`` may be left out; what is there is held against the data set.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rrsis.data.rle import checked_runs, decode_mask, encode_mask
from rrsis.io import atomic_write
from rrsis.metrics import RMSIN_SIZE

FORMAT = "rrsis-predictions-1"
"""What a file's entry "format" says."""

OWN_SIZE, SQUARE = "segmentation", "segmentation_480"
"""Names of the two masks of a prediction."""


@dataclass(frozen=True)
class PredictedMask:
    """One prediction of a file; its masks stay encoded until they are asked for.

    Attributes:
        sample_id: The data set's name of the expression.
        segmentation: Run-length mask at the true mask's own size, or None.
        segmentation_480: Run-length mask at 480 × 480, or None.
        expression: The expression, or None where the file does not say.
        score: How sure the system is, or None. Models of this package give the mean probability inside the mask.
    """

    sample_id: str
    segmentation: Mapping[str, Any] | None = None
    segmentation_480: Mapping[str, Any] | None = None
    expression: str | None = None
    score: float | None = None

    @staticmethod
    def of_masks(
        sample_id: str, own_size: np.ndarray, square: np.ndarray | None, expression: str, score: float
    ) -> PredictedMask:
        """Encodes masks: bool (H, W) at its own size, and bool (480, 480) or None."""
        encoded = None if square is None else encode_mask(square)
        return PredictedMask(sample_id, encode_mask(own_size), encoded, expression, score)

    def own_size_mask(self) -> np.ndarray | None:
        """Decodes `segmentation`: bool (H, W), or None."""
        return None if self.segmentation is None else decode_mask(self.segmentation)

    def square_mask(self) -> np.ndarray | None:
        """Decodes `segmentation_480`: bool (480, 480), or None."""
        return None if self.segmentation_480 is None else decode_mask(self.segmentation_480)


@dataclass(frozen=True)
class PredictionFile:
    """A checked file of predictions.

    Attributes:
        path: Where it was read from.
        predictions: Its predictions by sample_id, in the file's order.
        masks: Which masks every one of them has, out of `OWN_SIZE` and `SQUARE`.
        dataset: The data set that it says it is about, or None.
        split: The split, or None.
    """

    path: Path
    predictions: dict[str, PredictedMask]
    masks: frozenset[str]
    dataset: str | None = None
    split: str | None = None


def write_predictions(
    path: str | os.PathLike[str], predictions: Iterable[PredictedMask], dataset: str, split: str
) -> None:
    """Writes a file of predictions, whole or not at all, one prediction a line.

    Args:
        path: Where to.
        predictions: What to write.
        dataset: Name of the data set.
        split: Its split.
    """
    head = json.dumps({"format": FORMAT, "dataset": dataset, "split": split})
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.write(head[:-1] + ', "predictions": [')
        for number, prediction in enumerate(predictions):
            entry = {name: value for name, value in vars(prediction).items() if value is not None}
            stream.write((",\n" if number else "\n") + json.dumps(entry, ensure_ascii=False, allow_nan=False))
        stream.write("\n]}\n")


def read_predictions(path: str | os.PathLike[str]) -> PredictionFile:
    """Reads a file of predictions and checks everything that can be checked without the data set.

    Args:
        path: The file.

    Returns:
        Its content.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such file, lacks something, holds an id twice or a broken mask; the message names the
            file, the prediction and what was due.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"predictions: no file {str(path)!r}; expected one as python -m rrsis.evaluate writes it"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"predictions: {path} is not JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise ValueError(f'predictions: {path} has "format" {found!r}, expected {FORMAT!r}')
    entries = content.get("predictions")
    if not isinstance(entries, list) or not entries:
        raise ValueError(f'predictions: {path} has no list "predictions", expected one with at least one entry')
    predictions: dict[str, PredictedMask] = {}
    for number, entry in enumerate(entries):
        try:
            prediction = _checked(entry)
        except ValueError as error:
            name = entry.get("sample_id") if isinstance(entry, dict) else None
            raise ValueError(f"predictions: {path}, entry {number} (sample_id {name!r}): {error}") from error
        if prediction.sample_id in predictions:
            raise ValueError(f"predictions: {path} has sample_id {prediction.sample_id!r} twice, expected once")
        predictions[prediction.sample_id] = prediction
    masks = {
        frozenset(name for name in (OWN_SIZE, SQUARE) if getattr(prediction, name) is not None)
        for prediction in predictions.values()
    }
    if len(masks) > 1:
        raise ValueError(
            f"predictions: {path} has {OWN_SIZE} or {SQUARE} for some entries only, expected for all or none"
        )
    return PredictionFile(path, predictions, masks.pop(), content.get("dataset"), content.get("split"))


def _checked(entry: Any) -> PredictedMask:
    if not isinstance(entry, dict):
        raise ValueError(f"got {type(entry).__name__}, expected an object with sample_id and {OWN_SIZE}")
    known = PredictedMask.__dataclass_fields__
    prediction = PredictedMask(**{name: entry.get(name) for name in known})
    if not isinstance(prediction.sample_id, str):
        raise ValueError(f"sample_id: got {prediction.sample_id!r}, expected a string")
    if prediction.expression is not None and not isinstance(prediction.expression, str):
        raise ValueError(f"expression: got {prediction.expression!r}, expected a string")
    score = prediction.score
    if score is not None and not (isinstance(score, int | float) and math.isfinite(score)):
        raise ValueError(f"score: got {score!r}, expected a finite number")
    if prediction.segmentation is None and prediction.segmentation_480 is None:
        raise ValueError(f"got no mask, expected {OWN_SIZE} or {SQUARE}")
    for name in (OWN_SIZE, SQUARE):
        if getattr(prediction, name) is not None:
            try:
                size, _ = checked_runs(getattr(prediction, name))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
            if name == SQUARE and size != (RMSIN_SIZE, RMSIN_SIZE):
                raise ValueError(f"{name}: got size {list(size)}, expected [{RMSIN_SIZE}, {RMSIN_SIZE}]")
    return prediction
