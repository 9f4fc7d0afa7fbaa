"""transformers' Trainer, taught to score referring segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import EvalPrediction, Trainer

from rrsis.metrics import ReferringMetrics

LOSS_PARTS = ("segmentation_loss", "correlation_loss", "reconstruction_loss")


class ReferringTrainer(Trainer):
    """A Trainer whose evaluation returns each sample's intersection and union instead of its logits.

    Masks are scored at their own size (protocol "native"), which differs between images; two integers a sample are all
    that has to be gathered between processes.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, compute_metrics=summarize_counts, **kwargs)
        self._part_sums: dict[str, Tensor] = {}
        self._part_steps = 0

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any
    ) -> Tensor | tuple[Tensor, Any]:
        """The model's own loss; its parts are kept for the log."""
        inputs = {name: value for name, value in inputs.items() if name != "truths"}
        outputs = model(**inputs)
        if model.training:
            self._part_steps += 1
            for name in LOSS_PARTS:
                if getattr(outputs, name) is not None:
                    previous = self._part_sums.get(name, 0.0)
                    self._part_sums[name] = previous + getattr(outputs, name).detach()
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds the means of the loss's parts since the last training log."""
        if "loss" in logs and self._part_steps:
            logs.update({name: (total / self._part_steps).item() for name, total in self._part_sums.items()})
            self._part_sums, self._part_steps = {}, 0
        super().log(logs, *args, **kwargs)

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Scores a batch: (loss, counts, counts) with counts (B, 2) = intersection and union."""
        truths = inputs["truths"]
        inputs = self._prepare_inputs({name: value for name, value in inputs.items() if name != "truths"})
        with torch.no_grad(), self.compute_loss_context_manager():
            outputs = model(**inputs)
        counts = native_counts(outputs.logits, truths)
        return outputs.loss.detach(), counts, counts


def native_counts(logits: Tensor, truths: Sequence[np.ndarray]) -> Tensor:
    """Intersection and union of each mask at its own size.

    Args:
        logits: (B, h, w) joint logits.
        truths: B bool arrays (H, W).

    Returns:
        (B, 2) int64 on the logits' device.
    """
    counts = []
    for logit, truth in zip(logits, truths, strict=True):
        resized = F.interpolate(logit[None, None].float(), size=truth.shape, mode="bilinear", align_corners=False)
        predicted = resized[0, 0] > 0
        truth_mask = torch.from_numpy(truth).to(predicted.device)
        counts.append(torch.stack([(predicted & truth_mask).sum(), (predicted | truth_mask).sum()]))
    return torch.stack(counts)


def summarize_counts(prediction: EvalPrediction) -> dict[str, float]:
    """oIoU, mIoU and Pr@X over (N, 2) counts of intersection and union, by the "native" protocol."""
    metrics = ReferringMetrics(protocol="native")
    for intersection, union in np.asarray(prediction.predictions):
        metrics.add_counts(int(intersection), int(union))
    return {name: value for name, value in metrics.compute().items() if isinstance(value, float)}
