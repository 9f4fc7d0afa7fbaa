"""What the page shows of one image and one expression; nothing here knows of the page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib import colormaps
from torch import Tensor
from torch.nn import functional as F

from rrsis.encoders import CORRELATION_HEAD
from rrsis.evaluate import MODEL_INPUTS
from rrsis.explain import StageScores, merge_tokens, word_scores
from rrsis.inputs import check_expressions
from rrsis.model import BTDNetOutput, ReferringModel
from rrsis.processing import BTDNetProcessor

ALL_WORDS = "all tokens"
"""Caption of the correlation map itself."""

_MAP_SIDE = 256  # a word's map has at most 1/4 of the model's input: more pixels would show nothing more


@dataclass(frozen=True)
class Analysis:
    """One forward pass, ready to be drawn.

    Attributes:
        image: (H, W, 3) uint8.
        expression: the expression.
        probability: (H, W) float32, of the referred object.
        streams: (h, w) float32, σ(z_t) and σ(z_b) at the size of the logits; none for a model without two streams.
        words: of each stage, fine to coarse, the map (h, w) float32 of each word, behind that of all tokens.
    """

    image: np.ndarray
    expression: str
    probability: np.ndarray
    streams: dict[str, np.ndarray]
    words: list[list[tuple[str, np.ndarray]]]

    def mask(self, threshold: float) -> np.ndarray:
        """(H, W) bool, True where the probability is above the threshold."""
        return self.probability > threshold

    def summary(self, threshold: float) -> str:
        """The result in a line."""
        mask = self.mask(threshold)
        if not mask.any():
            highest = self.probability.max()
            return f"“{self.expression}”: nothing is above {threshold:g}; the highest probability is {highest:.3f}."
        score = self.probability[mask].mean()
        return f"“{self.expression}”: {mask.mean():.2%} of the image, mean probability inside the mask {score:.3f}."


def analyse(model: ReferringModel, processor: BTDNetProcessor, image: np.ndarray, expression: str) -> Analysis:
    """Runs the model on one image and one expression.

    Args:
        model: in evaluation mode; runs where its parameters are.
        processor: the model's.
        image: (H, W, 3) uint8.
        expression: what to segment.

    Raises:
        ValueError: the expression holds no letter or digit.
    """
    (expression,) = check_expressions([expression])
    batch = processor(image, expression)
    output, stages = word_scores(model, {name: batch[name].to(model.device) for name in MODEL_INPUTS})
    (probability,) = processor.post_process_probabilities(output, [image.shape[:2]])
    return Analysis(
        image,
        expression,
        probability.cpu().numpy(),
        _streams(output),
        [_word_maps(stage, expression, processor) for stage in stages],
    )


def _streams(output: BTDNetOutput) -> dict[str, np.ndarray]:
    named = {"target σ(z_t)": output.target_logits, "background σ(z_b)": output.background_logits}
    return {name: logits[0].float().sigmoid().cpu().numpy() for name, logits in named.items() if logits is not None}


def _word_maps(stage: StageScores, expression: str, processor: BTDNetProcessor) -> list[tuple[str, np.ndarray]]:
    encoding = processor.tokenizer(expression, truncation=True, max_length=processor.max_tokens)
    names = {}
    for token, word in enumerate(encoding.word_ids()):
        if word is not None:
            span = encoding.word_to_chars(word)
            known = encoding.input_ids[token] != processor.tokenizer.unk_token_id
            names[word] = expression[span.start : span.end] + ("" if known else " (unknown to the model)")
    scores = stage.scores[0].float()
    maps = {ALL_WORDS: stage.pixel_lse[0, CORRELATION_HEAD].float()}
    words = [(names[word], map_) for word, map_ in merge_tokens(scores, encoding.word_ids()).items()]
    return [(name, map_.cpu().numpy()) for name, map_ in [*maps.items(), *words]]


def paint_map(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """(h, w) in false colours (viridis) from `low` to `high`, enlarged to be looked at: uint8 (H, W, 3)."""
    scale = max(1, _MAP_SIDE // max(values.shape))
    enlarged: Tensor = F.interpolate(torch.from_numpy(values)[None, None], scale_factor=scale, mode="nearest")[0, 0]
    shares = ((enlarged - low) / max(high - low, 1e-6)).clamp(0, 1).numpy()
    return (colormaps["viridis"](shares)[..., :3] * 255).round().astype(np.uint8)


def paint_words(words: list[tuple[str, np.ndarray]]) -> list[tuple[np.ndarray, str]]:
    """Pictures and captions of one stage's maps, each stretched by itself: scores of words differ in their level."""
    return [
        (paint_map(values, values.min(), values.max()), f"{name}: {values.min():.1f} … {values.max():.1f}")
        for name, values in words
    ]
