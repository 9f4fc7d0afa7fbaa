"""What is kept of scored expressions, and the files that come of it.

`Scorer` takes predictions one expression at a time, from a model (`rrsis.evaluate`) or from a file (`rrsis.rescoring`),
and keeps counts, run-length masks and the pictures of the worst cases, but no probabilities.
"""

from __future__ import annotations

import heapq
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rrsis.calibration import Reliability
from rrsis.confidence import Bootstrap
from rrsis.data.types import ReferringSample
from rrsis.io import atomic_write
from rrsis.metrics import ReferringMetrics, binarize, check_protocol, format_table, table_rows
from rrsis.predictions import PredictedMask, write_predictions
from rrsis.visualization import SampleRow, save_sample_grid


@dataclass(frozen=True)
class ScoredExpression:
    """One line of ``per_expression.jsonl``.

    Attributes:
        index: Position in the data set.
        sample_id: The data set's name for the triplet.
        image_id: The data set's name for the image.
        expression: The referring expression.
        category: The object's category or None.
        kind: The kind of expression or None.
        scores: For each protocol the intersection, the union and the IoU.
    """

    index: int
    sample_id: str
    image_id: str
    expression: str
    category: str | None
    kind: str | None
    scores: dict[str, dict[str, float]]


@dataclass
class EvaluationResult:
    """What a pass over a data set found.

    Attributes:
        dataset: The data set's name.
        split: Its split.
        metrics: The collected metrics of each protocol.
        expressions: Every scored expression, in the data set's order.
        worst: The expressions with the lowest IoU under the first protocol, worst first, with their pictures.
        predictions: The predicted masks, where they were kept.
        reliability: Calibration of the pixel probabilities; None where there were finished masks only.
        bootstrap: How confidence intervals are made; None for none.
        seconds: How long the pass took.
    """

    dataset: str
    split: str
    metrics: dict[str, ReferringMetrics]
    expressions: list[ScoredExpression] = field(default_factory=list)
    worst: list[SampleRow] = field(default_factory=list)
    predictions: list[PredictedMask] = field(default_factory=list)
    reliability: Reliability | None = None
    bootstrap: Bootstrap | None = None
    seconds: float = 0.0

    def overall(self, protocol: str | None = None) -> dict[str, Any]:
        """Figures over all expressions under ``protocol`` (default: the first one that was asked for)."""
        return self.metrics[protocol or next(iter(self.metrics))].compute()

    @cached_property
    def figures(self) -> dict[str, dict[str, Any]]:
        """All figures of each protocol, with intervals: made once, when the pass is over."""
        return {
            name: {
                "overall": metrics.compute(self.bootstrap),
                "by_category": metrics.by_category(self.bootstrap),
                "by_kind": metrics.by_kind(self.bootstrap),
                "by_size": metrics.by_size(self.bootstrap),
            }
            for name, metrics in self.metrics.items()
        }

    def table(self) -> str:
        """A text table of all figures, the protocol in every line."""
        return format_table([row for figures in self.figures.values() for row in table_rows(*figures.values())])

    def notes(self) -> str:
        """What stands below the table: how the intervals were made, and the calibration."""
        lines = []
        if self.bootstrap is not None:
            lines.append(f"intervals: {self.bootstrap.resamples} resamples of images, seed {self.bootstrap.seed}")
        if self.reliability is not None:
            found = self.reliability.to_dict()
            lines.append(f"calibration of all pixels: ECE {found['ece']:.4f}, Brier {found['brier']:.4f}")
            if found["predicted"]:
                inside = found["predicted"]
                lines.append(
                    f"calibration of predicted pixels: mean probability {100 * inside['mean_probability']:.2f}%, "
                    f"true {100 * inside['share_true']:.2f}%"
                )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the single expressions, masks and pictures, ready for JSON."""
        bootstrap = None if self.bootstrap is None else {**vars(self.bootstrap), "resampled": "images"}
        return {
            "dataset": self.dataset,
            "split": self.split,
            "num_expressions": len(self.expressions),
            "seconds": round(self.seconds, 3),
            "bootstrap": bootstrap,
            "protocols": self.figures,
            "calibration": None if self.reliability is None else self.reliability.to_dict(),
        }

    def save(self, folder: str | os.PathLike[str], provenance: Mapping[str, Any] | None = None) -> list[Path]:
        """Writes ``metrics.json`` and ``per_expression.jsonl``, and further files where there is what they show.

        These are ``predictions.json``, ``reliability.png`` and ``worst.png``.

        Args:
            folder: Where to; made if it is not there.
            provenance: Further entries for ``metrics.json``; see `rrsis.evaluate.provenance`.

        Returns:
            The paths of the written files.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / "metrics.json", folder / "per_expression.jsonl"]
        with atomic_write(paths[0]) as temporary:
            content = json.dumps({**self.to_dict(), **(provenance or {})}, indent=2, allow_nan=False)
            temporary.write_text(content + "\n", encoding="utf-8")
        with atomic_write(paths[1]) as temporary, temporary.open("w", encoding="utf-8") as stream:
            for scored in self.expressions:
                stream.write(json.dumps(vars(scored), ensure_ascii=False) + "\n")
        if self.predictions:
            paths.append(folder / "predictions.json")
            write_predictions(paths[-1], self.predictions, self.dataset, self.split)
        if self.reliability is not None:
            paths.append(folder / "reliability.png")
            self.reliability.save_diagram(paths[-1], f"reliability of pixels, {self.dataset} {self.split}")
        if self.worst:
            paths.append(folder / "worst.png")
            title = f"worst of {len(self.expressions)} expressions, {self.dataset} {self.split}"
            save_sample_grid(paths[-1], self.worst, columns=2, title=title)
        return paths


class Scorer:
    """Scores predictions one at a time.

    Args:
        dataset: The data set, for its name and split.
        protocols: Names out of `rrsis.metrics.PROTOCOLS`; the first one orders the worst cases.
        num_worst: How many of the worst cases to keep with their pictures.
        bootstrap: How to make confidence intervals, if any.
        keep_predictions: Whether to keep the masks for ``predictions.json``.

    Raises:
        ValueError: If a protocol is unknown.
    """

    def __init__(
        self,
        dataset: Any,
        protocols: Sequence[str],
        num_worst: int,
        bootstrap: Bootstrap | None,
        keep_predictions: bool,
    ) -> None:
        self.result = EvaluationResult(
            dataset=str(getattr(dataset, "name", type(dataset).__name__)),
            split=str(getattr(dataset, "split", "")),
            metrics={check_protocol(name): ReferringMetrics(name) for name in protocols},
            bootstrap=bootstrap,
        )
        self.keep_predictions = keep_predictions
        self._worst = _WorstCases(num_worst)

    def add_probabilities(
        self, index: int, sample: ReferringSample, own_size: torch.Tensor, square: torch.Tensor | None
    ) -> None:
        """Scores a model's prediction.

        Args:
            index: The sample's position in the data set.
            sample: The sample.
            own_size: Probabilities (H, W) at the true mask's size.
            square: Probabilities (480, 480), for the rmsin protocol.

        Raises:
            ValueError: If a size is wrong or a value is no probability.
        """
        mask = binarize(own_size, sample.mask.shape)
        square_mask = None if square is None else binarize(square, tuple(square.shape))
        values = own_size.detach().float().cpu().numpy()
        if self.result.reliability is None:
            self.result.reliability = Reliability()
        self.result.reliability.update(values, sample.mask)
        if self.keep_predictions:
            score = float(values[mask].mean()) if mask.any() else 0.0
            self.result.predictions.append(
                PredictedMask.of_masks(sample.sample_id, mask, square_mask, sample.expression, score)
            )
        self.add_masks(index, sample, mask, square_mask)

    def add_masks(
        self, index: int, sample: ReferringSample, own_size: np.ndarray | None, square: np.ndarray | None
    ) -> None:
        """Scores finished masks.

        Args:
            index: The sample's position in the data set.
            sample: The sample.
            own_size: bool (H, W) at the true mask's size; None only where "native" is not asked for.
            square: bool (480, 480), which "rmsin" scores; where it is None, that protocol resizes ``own_size``.

        Raises:
            ValueError: If ``own_size`` has another size than the true mask.
        """
        scores = {}
        for protocol, metrics in self.result.metrics.items():
            mask = square if protocol == "rmsin" and square is not None else own_size
            iou = metrics.update(mask, sample.mask, sample.category, kind=sample.kind, image_id=sample.image_id)
            counts = metrics.scores[-1]
            scores[protocol] = {"intersection": counts.intersection, "union": counts.union, "iou": iou}
        self.result.expressions.append(
            ScoredExpression(
                index, sample.sample_id, sample.image_id, sample.expression, sample.category, sample.kind, scores
            )
        )
        first = next(iter(self.result.metrics))
        shown = own_size if own_size is not None else binarize(square, sample.mask.shape, resize_masks=True)
        self._worst.add(scores[first]["iou"], index, sample, shown)

    def finish(self, seconds: float) -> EvaluationResult:
        """Returns what was found."""
        self.result.worst = self._worst.rows()
        self.result.seconds = seconds
        return self.result


class _WorstCases:
    """Keeps the rows with the lowest IoU; of equal ones those that came first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._heap: list[tuple[float, int, SampleRow]] = []

    def add(self, iou: float, index: int, sample: ReferringSample, prediction: np.ndarray) -> None:
        if len(self._heap) == self.limit and (not self.limit or (-iou, -index) <= self._heap[0][:2]):
            return
        row = SampleRow(sample.image, sample.expression, sample.mask, prediction, note=f"IoU {iou:.2f}")
        if len(self._heap) < self.limit:
            heapq.heappush(self._heap, (-iou, -index, row))
        else:
            heapq.heapreplace(self._heap, (-iou, -index, row))

    def rows(self) -> list[SampleRow]:
        return [row for _, _, row in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]
