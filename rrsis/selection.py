"""Selection rate: how often the referred object is the one that the model marks most, of all objects of the scene.

An IoU mixes two questions, which object and how well it is outlined. Where every object's mask is known, as in
SynthRRSIS, the first can be asked alone: the choice is right when the referred object has the highest mean probability.
It is less noisy than mIoU, since it does not depend on edges.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from rrsis.collate import ReferringCollator
from rrsis.data.synthetic import SynthRRSIS
from rrsis.model import ReferringModel
from rrsis.processing import BTDNetProcessor


def chosen_object(logits: Tensor, label_map: Tensor) -> int:
    """The object with the highest mean probability.

    Args:
        logits: (h, w), of any size.
        label_map: (H, W) integers, k + 1 where object k is visible, 0 on the ground.

    Returns:
        k, the first of equals.

    Raises:
        ValueError: there is no object.
    """
    probability = F.interpolate(logits[None, None].float(), size=label_map.shape, mode="bilinear", align_corners=False)
    labels = label_map.flatten().long()
    pixels = torch.bincount(labels)[1:]
    if len(pixels) == 0:
        raise ValueError("label_map: got no object, expected at least one")
    sums = torch.zeros(len(pixels) + 1, dtype=torch.float64).index_add_(
        0, labels, probability.sigmoid().flatten().double()
    )
    return int((sums[1:] / pixels.clamp(min=1)).argmax())


@torch.inference_mode()
def selection_rate(
    model: ReferringModel, processor: BTDNetProcessor, dataset: SynthRRSIS, batch_size: int = 50, progress: bool = True
) -> dict[str, Any]:
    """Scores which object is chosen, over all and by the kind of expression.

    Args:
        model: in evaluation mode.
        processor: its processor.
        dataset: SynthRRSIS, whose scenes know all their objects.
        batch_size: expressions a forward pass.
        progress: whether to show a progress bar.

    Returns:
        "selection_rate" in [0, 1], "by_kind" with one such figure each, and "num_expressions".
    """
    loader = DataLoader(dataset, batch_size=batch_size, collate_fn=ReferringCollator(processor))
    right: dict[str, list[bool]] = defaultdict(list)
    index = 0
    for batch in tqdm(loader, desc="selection", leave=False, disable=not progress):
        inputs = {name: batch[name].to(model.device) for name in ("pixel_values", "input_ids", "attention_mask")}
        for logits in model(**inputs).logits.cpu():
            number, which = dataset.locate(index)
            scene = dataset.scene(number)
            statement = scene.statements[which]
            right[statement.kind].append(chosen_object(logits, torch.from_numpy(scene.label_map)) == statement.referent)
            index += 1
    every = [choice for choices in right.values() for choice in choices]
    return {
        "selection_rate": sum(every) / len(every),
        "by_kind": {kind: sum(choices) / len(choices) for kind, choices in sorted(right.items())},
        "num_expressions": len(every),
    }
