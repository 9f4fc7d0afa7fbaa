"""Scores predictions from a file, without a model: any system's masks by the same code (`rrsis.predictions`)."""

from __future__ import annotations

import time
from collections.abc import Sequence

from tqdm.auto import tqdm

from rrsis.confidence import Bootstrap
from rrsis.data.types import ReferringDataset, ReferringSample
from rrsis.metrics import PROTOCOLS
from rrsis.predictions import OWN_SIZE, PredictedMask, PredictionFile
from rrsis.scoring import EvaluationResult, Scorer


def score_predictions(
    file: PredictionFile,
    dataset: ReferringDataset,
    *,
    protocols: Sequence[str] = PROTOCOLS,
    num_worst: int = 16,
    limit: int | None = None,
    bootstrap: Bootstrap | None = None,
    progress: bool = True,
) -> EvaluationResult:
    """Scores every expression of a data set by the masks of a file.

    Args:
        file: From `rrsis.predictions.read_predictions`.
        dataset: The data set that it is about.
        protocols: Names out of `rrsis.metrics.PROTOCOLS`.
        num_worst: How many of the worst cases to keep with their pictures.
        limit: Score only the first so many expressions; what the file has of the others is not looked at.
        bootstrap: How to make confidence intervals, if any.
        progress: Whether to show a progress bar.

    Returns:
        The figures, the single scores and the worst cases.

    Raises:
        ValueError: If the file is about something else, lacks an expression or holds an unknown one, or a mask has
            another size than the true mask.
    """
    count = len(dataset) if limit is None else min(limit, len(dataset))
    _check_fit(file, dataset, count, protocols)
    scorer = Scorer(dataset, protocols, num_worst, bootstrap, keep_predictions=False)
    start = time.perf_counter()
    for index in tqdm(range(count), desc="score", unit="expr", disable=not progress):
        sample = dataset[index]
        prediction = file.predictions[sample.sample_id]
        _check_sample(file, prediction, sample)
        scorer.add_masks(index, sample, prediction.own_size_mask(), prediction.square_mask())
    return scorer.finish(time.perf_counter() - start)


def _check_fit(file: PredictionFile, dataset: ReferringDataset, count: int, protocols: Sequence[str]) -> None:
    """Everything that is known before a mask is opened."""
    for name, said, due in (("dataset", file.dataset, dataset.name), ("split", file.split, dataset.split)):
        if said is not None and said != due:
            raise ValueError(f"predictions: {file.path} is about {name} {said!r}, expected {due!r}")
    if "native" in protocols and OWN_SIZE not in file.masks:
        raise ValueError(
            f"predictions: {file.path} has no {OWN_SIZE}, which protocol native needs; use --protocol rmsin"
        )
    sample_ids = list(dataset.sample_ids)
    known = set(sample_ids)
    if len(known) < len(sample_ids):
        raise ValueError(
            f"dataset: {dataset.name} {dataset.split} has a sample id twice; see python -m rrsis.data.check"
        )
    unknown = [name for name in file.predictions if name not in known]
    missing = [name for name in sample_ids[:count] if name not in file.predictions]
    for names, fault, due in (
        (unknown, "which the data set does not have", "its own only"),
        (missing, "without a prediction", f"one for each of {count}"),
    ):
        if names:
            some = ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")
            raise ValueError(f"predictions: {file.path}: {len(names)} sample ids {fault} ({some}), expected {due}")


def _check_sample(file: PredictionFile, prediction: PredictedMask, sample: ReferringSample) -> None:
    where = f"predictions: {file.path}, sample_id {sample.sample_id!r}"
    if prediction.expression is not None and prediction.expression != sample.expression:
        raise ValueError(f"{where}: got expression {prediction.expression!r}, expected {sample.expression!r}")
    if prediction.segmentation is not None and tuple(prediction.segmentation["size"]) != sample.mask.shape:
        got = list(prediction.segmentation["size"])
        raise ValueError(f"{where}: {OWN_SIZE} has size {got}, expected the true mask's {list(sample.mask.shape)}")
