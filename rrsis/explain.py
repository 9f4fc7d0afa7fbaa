"""What each word says to each pixel: the scores inside BSC, word by word, of a real forward pass.

The model returns of every stage `map_scale · pixel_lse of one head + map_bias`, where pixel_lse is the logsumexp over
the words of the scores S[h,l,n] = <key[h,l], pixel[n]> + bias[h,l]. The operator never stores S. Here it is computed
once more, from the same layer's inputs and weights: its logsumexp over the words is pixel_lse again.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rrsis.encoders import CorrelationStage
from rrsis.model import BTDNetOutput, ReferringModel
from rrsis_kernels.nn import BidirectionalSpatialCorrelation


class StageScores(NamedTuple):
    """BSC of one stage, word by word.

    Attributes:
        scores: (B, H, L, h, w), −inf for tokens that are padding.
        pixel_lse: (B, H, h, w), as the operator returned it.
    """

    scores: Tensor
    pixel_lse: Tensor


@torch.no_grad()
def word_scores(model: ReferringModel, inputs: Mapping[str, Tensor]) -> tuple[BTDNetOutput, list[StageScores]]:
    """Runs the model and keeps what BSC compared.

    Args:
        model: BTDNet; a model without BSC has no scores.
        inputs: its arguments by name, without labels.

    Returns:
        The model's output, and the scores of each stage, fine to coarse; none for a model without BSC.
    """
    flat: list[tuple[Tensor, Tensor]] = []

    def keep(
        layer: BidirectionalSpatialCorrelation, arguments: tuple[Tensor, ...], named: dict[str, Any], output: Any
    ) -> None:
        flat.append((_scores(layer, *arguments, **named), output.pixel_lse))

    with ExitStack() as stack:
        for stage in model.modules():
            if isinstance(stage, CorrelationStage):
                handle = stage.correlation.register_forward_hook(keep, with_kwargs=True)
                stack.callback(handle.remove)
        output = model(**inputs)
    sizes = [map_.shape[-2:] for map_ in output.correlation_maps or ()]
    return output, [
        StageScores(scores.unflatten(-1, size), lse.unflatten(-1, size))
        for (scores, lse), size in zip(flat, sizes, strict=True)
    ]


def _scores(
    layer: BidirectionalSpatialCorrelation, pixels: Tensor, tokens: Tensor, token_mask: Tensor | None = None
) -> Tensor:
    """S (B, H, L, N) as the layer is written down, whatever order the layer multiplies in."""
    keys, queries = (
        projection(features).unflatten(-1, (layer.num_heads, -1)).transpose(1, 2)
        for projection, features in ((layer.token_key, tokens), (layer.pixel_query, pixels))
    )
    scores = layer.scale * keys @ queries.transpose(-1, -2)
    return scores if token_mask is None else scores.masked_fill(~token_mask[:, None, :, None], -torch.inf)


def merge_tokens(scores: Tensor, words: list[int | None]) -> dict[int, Tensor]:
    """Maps of whole words from the scores of their pieces.

    Args:
        scores: (H, L, h, w) of one sample.
        words: the word that each of the L tokens belongs to (`BatchEncoding.word_ids`); None for special tokens.

    Returns:
        For each word, in their order, (h, w): the mean over heads of the logsumexp over its pieces.
    """
    order = sorted({word for word in words if word is not None})
    return {word: scores[:, [word == other for other in words]].logsumexp(1).mean(0) for word in order}
