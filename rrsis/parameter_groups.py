"""Learning rates by layer: the encoders below the rate of the rest, their first layers below their last ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import Any

from torch import nn

from rrsis.model import BTDNetForReferringSegmentation


def parameter_groups(
    model: BTDNetForReferringSegmentation,
    decayed: Collection[str],
    *,
    learning_rate: float,
    weight_decay: float,
    encoder_factor: float,
    layer_decay: float,
) -> list[dict[str, Any]]:
    """Groups a model's parameters for an optimizer.

    Args:
        model: the model.
        decayed: names of the parameters with weight decay.
        learning_rate: of everything but the encoders.
        weight_decay: of the parameters in `decayed`; the others have none.
        encoder_factor: the encoders' last layers learn at this share of `learning_rate`.
        layer_decay: and each layer below at this share of the layer above it.

    Returns:
        The groups, that of the highest rate first: what is logged as the learning rate is the first group's.
    """
    depths = encoder_depths(model)
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            share = encoder_factor * layer_decay ** depths[name] if name in depths else 1.0
            groups[share, weight_decay if name in decayed else 0.0].append(parameter)
    ordered = sorted(groups.items(), key=lambda item: (-item[0][0], -item[0][1]))
    return [
        {"params": parameters, "lr": share * learning_rate, "weight_decay": decay}
        for (share, decay), parameters in ordered
    ]


def encoder_depths(model: BTDNetForReferringSegmentation) -> dict[str, int]:
    """How many layers lie between a parameter of an encoder and the encoder's end: 0 for its last layer.

    A layer of a backbone is a block; what a stage does before its blocks counts with the first one. What comes before
    the layers, the stem and the embeddings, counts as a layer of its own.
    """
    image, text = model.encoder.image, model.encoder.text
    layers: list[list[nn.Module]] = [[image.stem]]
    for stage in image.stages:
        blocks = getattr(stage, "blocks", stage)
        children = list(blocks.children()) or [stage]
        layers += [[block] for block in children]
        if blocks is not stage:
            layers[-len(children)] += [module for module in stage.children() if module is not blocks]
    text_layers = [[text.embeddings], *([layer] for layer in text.encoder.layer)]
    return {**_depths(model, layers), **_depths(model, text_layers)}


def _depths(model: nn.Module, layers: list[list[nn.Module]]) -> dict[str, int]:
    owner = {
        id(parameter): len(layers) - 1 - index
        for index, modules in enumerate(layers)
        for module in modules
        for parameter in module.parameters()
    }
    return {name: owner[id(parameter)] for name, parameter in model.named_parameters() if id(parameter) in owner}
