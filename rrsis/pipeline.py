"""``transformers.pipeline("referring-segmentation", model=RUN)``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from transformers import Pipeline

from rrsis.inputs import check_expressions, load_image, to_rgb
from rrsis.model import BTDNetOutput

TASK = "referring-segmentation"
"""The task's name in transformers' registry."""


class ReferringSegmentationPipeline(Pipeline):
    """Images and expressions in, masks out.

    ``pipe(image, "the red ship")`` gives one dictionary, ``pipe(image, ["the red ship", "the bridge"])`` a list. Many
    images: a list, a generator or a data set of ``{"image": …, "expression": …}``, with ``batch_size=``. An image is a
    path, a Pillow image or uint8 (H, W, 3); it becomes RGB by the rules of `rrsis.inputs`.

    A result has `label` (the expression), `mask` (a Pillow image of mode "L" and the image's own size, 0 and 255) and
    `score` (mean probability inside the mask, 0 where it is empty).
    """

    _load_processor = True
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Batches are padded with it.
        self.tokenizer = self.processor.tokenizer

    def __call__(self, image: Any, expression: str | Sequence[str] | None = None, **kwargs: Any) -> Any:
        """Segments; see the class.

        Args:
            image: an image, or, without `expression`, one or many {"image", "expression"}.
            expression: one or several about this image.
            **kwargs: `threshold` (0.5), `batch_size`, `num_workers`.

        Raises:
            FileNotFoundError: there is no such image.
            ValueError: an image, an expression or the threshold is not valid.
        """
        if expression is None:
            return super().__call__(image, **kwargs)
        if isinstance(expression, str):
            return super().__call__({"image": image, "expression": expression}, **kwargs)
        pixels = _to_pixels(image)  # decoded once for all
        return super().__call__([{"image": pixels, "expression": each} for each in expression], **kwargs)

    def _sanitize_parameters(self, threshold: float | None = None) -> tuple[dict[str, Any], ...]:
        if threshold is not None and not 0.0 < threshold < 1.0:
            raise ValueError(f"threshold: got {threshold}, expected a number between 0 and 1")
        return {}, {}, {} if threshold is None else {"threshold": threshold}

    def preprocess(self, input_: Mapping[str, Any]) -> dict[str, Any]:
        """One {"image", "expression"} → the model's inputs, a batch of one."""
        (expression,) = check_expressions([input_["expression"]])
        pixels = _to_pixels(input_["image"])
        return {**self.processor(pixels, expression), "size": pixels.shape[:2], "expression": expression}

    def _forward(self, input_tensors: dict[str, Any]) -> dict[str, Any]:
        sizes, expressions = input_tensors.pop("size"), input_tensors.pop("expression")
        return {"logits": self.model(**input_tensors).logits, "size": sizes, "expression": expressions}

    def postprocess(self, model_outputs: dict[str, Any], threshold: float = 0.5) -> dict[str, Any]:
        """Logits of one expression → its result."""
        output = BTDNetOutput(logits=model_outputs["logits"])
        (probability,) = self.processor.post_process_probabilities(output, [model_outputs["size"]])
        mask = probability > threshold
        return {
            "label": model_outputs["expression"],
            "score": probability[mask].mean().item() if mask.any() else 0.0,
            "mask": Image.fromarray(mask.cpu().numpy().astype(np.uint8) * np.uint8(255)),
        }


def _to_pixels(image: Any) -> np.ndarray:
    if isinstance(image, str | os.PathLike):
        return load_image(image)
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError("image: expected a path, a Pillow image or a uint8 array (height, width, 3)")
    return image
