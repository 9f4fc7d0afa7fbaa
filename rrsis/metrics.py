"""Metrics of referring segmentation: oIoU, mIoU and Pr@X under a named protocol.

A figure without its protocol cannot be compared with another one, so the protocol is part of every result here. Two are
known:

``native`` (the default)
    A mask is scored at its own size. A soft prediction (probabilities or logits, at any size) is resized bilinearly
    (``align_corners=False``) to that size and thresholded there. The IoU of two empty masks is 1.

``rmsin``
    What the published code of RMSIN, and of the work that follows it, does: the mask is resized to 480 x 480 by
    Pillow's nearest neighbour, the prediction is taken at 480 x 480, and an expression whose union is empty counts as
    IoU 0.

In both, a pixel belongs to the prediction when its probability is *strictly greater* than 0.5 (its logit than 0), and
Pr@X is the share of expressions with IoU *greater than or equal to* X.

    oIoU = sum of intersections / sum of unions      (large objects weigh more)
    mIoU = mean over expressions of I / U            (every expression weighs the same)

An overall IoU whose unions are all empty is 1 under ``native`` and 0 under ``rmsin``, as the IoU of one expression is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from rrsis.confidence import Bootstrap
from rrsis.object_size import SIZE_NAMES, size_of

PROTOCOLS: tuple[str, ...] = ("native", "rmsin")
"""Names of the protocols that `ReferringMetrics` knows."""

PRECISION_THRESHOLDS: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8, 0.9)
"""IoU thresholds X of Pr@X."""

RMSIN_SIZE: int = 480
"""Side of the square on which the ``rmsin`` protocol scores."""

METRIC_NAMES: tuple[str, ...] = ("oIoU", "mIoU", *(f"Pr@{threshold}" for threshold in PRECISION_THRESHOLDS))
"""Names of the figures, in the order in which tables show them."""


def check_protocol(protocol: str) -> str:
    """Returns ``protocol`` if it is a known one.

    Raises:
        ValueError: If it is not one of `PROTOCOLS`.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol: got {protocol!r}, expected one of {', '.join(map(repr, PROTOCOLS))}")
    return protocol


@dataclass(frozen=True)
class ExpressionScore:
    """Pixel counts of one scored expression.

    Attributes:
        intersection: Pixels that are in both the predicted and the true mask.
        union: Pixels that are in at least one of them.
        category: The object's category, where the data set has one.
        kind: The kind of expression ("class", "colour", "relation", ...), where the data set has one.
        size: The true mask's bin of `rrsis.object_size`, where the mask was at hand.
        image_id: The image that the expression is about; without one it counts as an image of its own.
    """

    intersection: int
    union: int
    category: str | None = None
    kind: str | None = None
    size: str | None = None
    image_id: str | None = None


def intersection_over_union(intersection: int, union: int, protocol: str = "native") -> float:
    """IoU of one expression: I / U, and for an empty union what the protocol says (native 1, rmsin 0)."""
    if union == 0:
        return 1.0 if protocol == "native" else 0.0
    return intersection / union


def summarize(scores: Sequence[ExpressionScore], protocol: str, bootstrap: Bootstrap | None = None) -> dict[str, Any]:
    """oIoU, mIoU and Pr@X (fractions from 0 to 1) of a number of scored expressions, ready for JSON.

    Args:
        scores: At least one scored expression.
        protocol: The protocol under which they were scored.
        bootstrap: How to make confidence intervals, if any.

    Returns:
        ``{"oIoU": ..., "mIoU": ..., "Pr@0.5": ..., ..., "num_expressions": ..., "protocol": ...}``, and with a
        bootstrap ``"intervals"``, as `rrsis.confidence.Bootstrap.ratio_intervals` gives them over images.

    Raises:
        ValueError: If there is nothing to summarise or the protocol is unknown.
    """
    check_protocol(protocol)
    if not scores:
        raise ValueError("scores: got none, expected at least one scored expression")
    ious = [intersection_over_union(score.intersection, score.union, protocol) for score in scores]
    result: dict[str, Any] = {
        "oIoU": intersection_over_union(
            sum(score.intersection for score in scores), sum(score.union for score in scores), protocol
        ),
        # fsum: the mean must not depend on the order in which shards or batches arrive.
        "mIoU": math.fsum(ious) / len(ious),
    }
    for threshold in PRECISION_THRESHOLDS:
        result[f"Pr@{threshold}"] = sum(iou >= threshold for iou in ious) / len(ious)
    result |= {"num_expressions": len(ious), "protocol": protocol}
    if bootstrap is not None:
        result["intervals"] = _intervals(scores, np.asarray(ious), protocol, bootstrap)
    return result


def _intervals(
    scores: Sequence[ExpressionScore], ious: np.ndarray, protocol: str, bootstrap: Bootstrap
) -> dict[str, Any]:
    ones = np.ones_like(ious)
    ratios = {"oIoU": (np.asarray([s.intersection for s in scores]), np.asarray([s.union for s in scores]))}
    ratios["mIoU"] = (ious, ones)
    ratios |= {f"Pr@{threshold}": (ious >= threshold, ones) for threshold in PRECISION_THRESHOLDS}
    # An expression without an image is a cluster of its own; no name of an image is an integer.
    clusters = [index if score.image_id is None else score.image_id for index, score in enumerate(scores)]
    return bootstrap.ratio_intervals(clusters, ratios, intersection_over_union(0, 0, protocol))


class ReferringMetrics:
    """Collects predictions expression by expression and computes the metrics under one protocol.

    Example:
        >>> metrics = ReferringMetrics("native")
        >>> metrics.update(np.array([[0.9, 0.1]]), np.array([[True, False]]), category="ship")
        1.0
        >>> metrics.compute()["mIoU"]
        1.0

    Args:
        protocol: "native" or "rmsin"; see the module's text.

    Raises:
        ValueError: If the protocol is unknown.
    """

    def __init__(self, protocol: str = "native") -> None:
        self.protocol = check_protocol(protocol)
        self.scores: list[ExpressionScore] = []

    def __len__(self) -> int:
        return len(self.scores)

    def reset(self) -> None:
        """Forgets everything that was collected."""
        self.scores.clear()

    def update(
        self,
        prediction: torch.Tensor | np.ndarray,
        mask: torch.Tensor | np.ndarray,
        category: str | None = None,
        *,
        kind: str | None = None,
        image_id: str | None = None,
        from_logits: bool = False,
    ) -> float:
        """Scores one expression.

        Args:
            prediction: ``(h, w)``. Floating: probabilities in [0, 1], or logits with ``from_logits=True``, at any
                size; resized bilinearly to the size on which the protocol scores, then thresholded strictly above 0.5
                (logits: above 0). Boolean: a finished mask; under "native" it must have the true mask's size, under
                "rmsin" it is resized as the true mask is.
            mask: ``(H, W)`` bool, the true mask at its own size.
            category: The object's category, for `by_category`.
            kind: The kind of expression, for `by_kind`.
            image_id: The image that the expression is about, for confidence intervals.
            from_logits: Whether a floating ``prediction`` holds logits instead of probabilities.

        Returns:
            The expression's IoU under this protocol.

        Raises:
            TypeError: If ``mask`` is not boolean or ``prediction`` is neither floating nor boolean.
            ValueError: If a shape is wrong, a value is NaN, or a probability lies outside [0, 1].
        """
        truth = _mask_array(mask)
        size_name = size_of(truth)
        size = (RMSIN_SIZE, RMSIN_SIZE) if self.protocol == "rmsin" else truth.shape
        predicted = binarize(prediction, size, from_logits=from_logits, resize_masks=self.protocol == "rmsin")
        if self.protocol == "rmsin":
            truth = resize_mask_nearest(truth, size)
        intersection = int(np.count_nonzero(predicted & truth))
        union = int(np.count_nonzero(predicted | truth))
        return self.add_counts(intersection, union, category, kind=kind, size=size_name, image_id=image_id)

    def add_counts(
        self,
        intersection: int,
        union: int,
        category: str | None = None,
        *,
        kind: str | None = None,
        size: str | None = None,
        image_id: str | None = None,
    ) -> float:
        """Adds an expression whose pixels were counted elsewhere; the counts must follow this object's protocol.

        Returns:
            The expression's IoU under this protocol.

        Raises:
            ValueError: If the counts are not integers with ``0 <= intersection <= union``.
        """
        inter, uni = int(intersection), int(union)
        if inter != intersection or uni != union or not 0 <= inter <= uni:
            raise ValueError(
                f"intersection, union: got {intersection!r}, {union!r}, "
                "expected integers with 0 <= intersection <= union"
            )
        self.scores.append(ExpressionScore(inter, uni, category, kind, size, image_id))
        return intersection_over_union(inter, uni, self.protocol)

    def merge(self, other: ReferringMetrics) -> ReferringMetrics:
        """Adds what another shard collected under the same protocol; returns this object.

        Raises:
            ValueError: If the other one follows another protocol.
        """
        if other.protocol != self.protocol:
            raise ValueError(f"other: got protocol {other.protocol!r}, expected {self.protocol!r}")
        self.scores.extend(other.scores)
        return self

    def compute(self, bootstrap: Bootstrap | None = None) -> dict[str, Any]:
        """Metrics over all expressions; see `summarize`.

        Raises:
            ValueError: If no expression was added.
        """
        return summarize(self.scores, self.protocol, bootstrap)

    def by_category(self, bootstrap: Bootstrap | None = None) -> dict[str, dict[str, Any]]:
        """Metrics of each category, by name; expressions without a category are left out."""
        return self._by(lambda score: score.category, bootstrap)

    def by_kind(self, bootstrap: Bootstrap | None = None) -> dict[str, dict[str, Any]]:
        """Metrics of each kind of expression, by name; expressions without a kind are left out."""
        return self._by(lambda score: score.kind, bootstrap)

    def by_size(self, bootstrap: Bootstrap | None = None) -> dict[str, dict[str, Any]]:
        """Metrics by the true mask's share of its image, from small to large, in the bins of `rrsis.object_size`."""
        groups = self._by(lambda score: score.size, bootstrap)
        return {name: groups[name] for name in SIZE_NAMES if name in groups}

    def table(self) -> str:
        """A text table: all expressions, then each category, kind and size, the protocol in every line."""
        return format_table(table_rows(self.compute(), self.by_category(), self.by_kind(), self.by_size()))

    def _by(
        self, group_of: Callable[[ExpressionScore], str | None], bootstrap: Bootstrap | None
    ) -> dict[str, dict[str, Any]]:
        groups: dict[str, list[ExpressionScore]] = {}
        for score in self.scores:
            name = group_of(score)
            if name is not None:
                groups.setdefault(name, []).append(score)
        return {name: summarize(groups[name], self.protocol, bootstrap) for name in sorted(groups)}


def binarize(
    prediction: torch.Tensor | np.ndarray,
    size: tuple[int, int],
    *,
    from_logits: bool = False,
    resize_masks: bool = False,
) -> np.ndarray:
    """Turns a prediction into a boolean mask of a given size.

    Args:
        prediction: ``(h, w)``, floating (probabilities or logits) or boolean.
        size: ``(H, W)`` due.
        from_logits: Whether a floating ``prediction`` holds logits (threshold 0) or probabilities (threshold 0.5).
        resize_masks: Whether a boolean prediction of another size is resized (nearest) or refused.

    Returns:
        ``(H, W)`` bool.

    Raises:
        TypeError: If ``prediction`` is neither floating nor boolean.
        ValueError: If it is not a non-empty matrix, holds NaN or impossible probabilities, or has another size and is
            boolean while ``resize_masks`` is False.
    """
    tensor = torch.as_tensor(prediction).detach().cpu()
    if tensor.ndim != 2 or tensor.numel() == 0:
        raise ValueError(f"prediction: got shape {tuple(tensor.shape)}, expected (height, width), both at least 1")
    if tensor.dtype == torch.bool:
        array = tensor.numpy()
        if array.shape == tuple(size):
            return array
        if not resize_masks:
            raise ValueError(
                f"prediction: got a boolean mask of shape {array.shape}, expected the true mask's shape {tuple(size)}; "
                "pass probabilities or logits to have them resized"
            )
        return resize_mask_nearest(array, size)
    if not tensor.is_floating_point():
        raise TypeError(f"prediction: got dtype {tensor.dtype}, expected a floating dtype or bool")
    tensor = tensor.to(torch.float64 if tensor.dtype == torch.float64 else torch.float32)
    low, high = (float(bound) for bound in torch.aminmax(tensor))
    if math.isnan(low) or math.isnan(high):
        raise ValueError("prediction: got NaN, expected finite values")
    if not from_logits and (low < 0.0 or high > 1.0):
        raise ValueError(
            f"prediction: got values from {low:g} to {high:g}, expected probabilities in [0, 1]; "
            "logits need from_logits=True"
        )
    if tuple(tensor.shape) != tuple(size):
        tensor = F.interpolate(tensor[None, None], size=tuple(size), mode="bilinear", align_corners=False)[0, 0]
    return (tensor > (0.0 if from_logits else 0.5)).numpy()


def resize_mask_nearest(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes a boolean ``(h, w)`` mask to ``size`` = (H, W) by Pillow's nearest neighbour.

    Pillow and not index arithmetic, because that is what the published ``rmsin`` evaluation runs: the two may differ
    where a sampling point falls on the border of two pixels (512 -> 480 has such points).
    """
    height, width = size
    image = Image.fromarray(mask.astype(np.uint8))
    return np.asarray(image.resize((width, height), Image.Resampling.NEAREST)) != 0


def table_rows(
    overall: Mapping[str, Any],
    by_category: Mapping[str, Mapping[str, Any]] | None = None,
    by_kind: Mapping[str, Mapping[str, Any]] | None = None,
    by_size: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[tuple[str, Mapping[str, Any]]]:
    """Rows for `format_table`: all expressions first, then the categories, the kinds and the sizes."""
    rows: list[tuple[str, Mapping[str, Any]]] = [("all", overall)]
    for group, members in (("category", by_category), ("kind", by_kind), ("size", by_size)):
        rows += [(f"{group}: {name}", figures) for name, figures in (members or {}).items()]
    return rows


def format_table(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """Renders figures as a text table, in per cent, with the protocol in every line.

    Args:
        rows: Pairs of a label and a dictionary as `summarize` returns it. Where one has intervals, those of oIoU and
            mIoU are shown, "-" for an interval that there is none of.

    Returns:
        Lines joined by newlines, without one at the end.
    """
    rows = list(rows)
    header = ["expressions", "protocol", "n", *METRIC_NAMES]
    levels = {figures["intervals"]["level"] for _, figures in rows if "intervals" in figures}
    shown = ("oIoU", "mIoU") if levels else ()
    header += [f"{name} {100 * min(levels):g}%" for name in shown]
    cells = [
        [
            label,
            figures["protocol"],
            str(figures["num_expressions"]),
            *(f"{100 * figures[m]:.2f}" for m in METRIC_NAMES),
            *(_interval_text(figures.get("intervals", {}).get(name)) for name in shown),
        ]
        for label, figures in rows
    ]
    widths = [max(len(row[i]) for row in [header, *cells]) for i in range(len(header))]
    rule = "  ".join("-" * width for width in widths)

    def line(row: Sequence[str]) -> str:
        text, numbers = row[:2], row[2:]
        parts = [cell.ljust(width) for cell, width in zip(text, widths[:2], strict=True)]
        parts += [cell.rjust(width) for cell, width in zip(numbers, widths[2:], strict=True)]
        return "  ".join(parts).rstrip()

    return "\n".join([line(header), rule, *map(line, cells)])


def _interval_text(interval: Sequence[float] | None) -> str:
    return "-" if interval is None else f"{100 * interval[0]:.2f} to {100 * interval[1]:.2f}"


def _mask_array(mask: torch.Tensor | np.ndarray) -> np.ndarray:
    array = mask.detach().cpu().numpy() if isinstance(mask, torch.Tensor) else np.asarray(mask)
    if array.dtype != np.bool_:
        raise TypeError(f"mask: got dtype {array.dtype}, expected bool")
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"mask: got shape {array.shape}, expected (height, width), both at least 1")
    return array
