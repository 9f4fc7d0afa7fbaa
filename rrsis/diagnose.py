"""What each moving part of a trained model is worth to it: `python -m rrsis.ablate --diagnose RUN [RUN …]`.

A part that can be zeroed without loss is one that training has learned to go round. Weights stay as they are; one part
at a time is silenced and the same expressions are scored again.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from rrsis.collate import ReferringCollator
from rrsis.data.types import ReferringDataset
from rrsis.evaluate import load_run, provenance
from rrsis.io import atomic_write
from rrsis.model import BTDNetForReferringSegmentation
from rrsis.processing import BTDNetProcessor
from rrsis.staging import STRIDES
from rrsis.trainer import native_counts


@contextlib.contextmanager
def _silenced(modules: Sequence[nn.Module], silence: Callable[[Any], Any]) -> Iterator[None]:
    """Passes the modules' outputs through `silence` while the block runs."""
    hooks = [module.register_forward_hook(lambda _module, _inputs, output: silence(output)) for module in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextlib.contextmanager
def _without_gate(model: BTDNetForReferringSegmentation) -> Iterator[None]:
    before = model.decoder.config.use_gate
    model.decoder.config.use_gate = False
    try:
        yield
    finally:
        model.decoder.config.use_gate = before


def silence(model: BTDNetForReferringSegmentation, part: str) -> contextlib.AbstractContextManager[None]:
    """Silences one part of a model while a block runs.

    Args:
        model: the model.
        part: "twin attention" (queries read nothing from the pixels), "paint-back" (pixels read nothing from the
            queries), "gate" (attention is not gated), "pool direction" (BSC leaves the words as they are), "decoder's
            words" (the decoder's queries read no words) or one of `PAINTS`, as "paint at 1/4" (BSC leaves the pixels of
            that stage as they are).

    Returns:
        A context manager.

    Raises:
        ValueError: when there is no such part.
    """
    layers = model.decoder.layers
    if part == "twin attention":
        return _silenced([layer.pool for layer in layers], lambda out: type(out)(*map(torch.zeros_like, out)))
    if part == "paint-back":
        return _silenced(
            [layer.paint for layer in layers], lambda out: out._replace(painted=torch.zeros_like(out.painted))
        )
    if part == "gate":
        return _without_gate(model)
    if part == "pool direction":
        norms = [fusion.pooled_norm for fusion in model.encoder.fusions if hasattr(fusion, "pooled_norm")]
        return _silenced(norms, torch.zeros_like)
    if part == "decoder's words":
        return _silenced([layer.words for layer in layers] + [model.decoder.sentence], torch.zeros_like)
    if part in PAINTS:
        stage = PAINTS.index(part)
        fusions = model.encoder.fusions[stage : stage + 1]  # none without BSC
        return _silenced([fusion.painted_norm for fusion in fusions], torch.zeros_like)
    raise ValueError(f"part must be one of {PARTS}; got {part!r}")


PAINTS = tuple(f"paint at 1/{stride}" for stride in STRIDES)
"""Where BSC paints; what the words have pooled at one stage can only count where they are read at a later one."""

PARTS = ("twin attention", "paint-back", "gate", "pool direction", "decoder's words", *PAINTS)
"""What `silence` can silence."""


@torch.inference_mode()
def layer_ious(
    model: BTDNetForReferringSegmentation,
    processor: BTDNetProcessor,
    dataset: ReferringDataset,
    batch_size: int = 50,
    description: str = "",
) -> np.ndarray:
    """IoU of every expression after every decoder layer, by the "native" protocol.

    Args:
        model: in evaluation mode.
        processor: its processor.
        dataset: what to score.
        batch_size: expressions a forward pass.
        description: stands before the progress bar.

    Returns:
        float64 (layers, expressions).
    """
    loader = DataLoader(dataset, batch_size=batch_size, collate_fn=ReferringCollator(processor))
    scores: list[Tensor] = []
    for batch in tqdm(loader, desc=description, leave=False):
        inputs = {name: batch[name].to(model.device) for name in ("pixel_values", "input_ids", "attention_mask")}
        outputs = model(**inputs)
        counts = torch.stack([native_counts(logits, batch["truths"]) for logits in outputs.layer_logits]).double()
        # Two empty masks agree: IoU 1, as the protocol has it.
        scores.append(torch.where(counts[..., 1] > 0, counts[..., 0] / counts[..., 1].clamp(min=1), 1.0).cpu())
    return torch.cat(scores, dim=1).numpy()


def diagnose(
    model: BTDNetForReferringSegmentation, processor: BTDNetProcessor, dataset: ReferringDataset, batch_size: int = 50
) -> dict[str, Any]:
    """Scores a model as it is, after each layer, and with each part silenced.

    Args:
        model: in evaluation mode.
        processor: its processor.
        dataset: what to score.
        batch_size: expressions a forward pass.

    Returns:
        "mIoU" of the last layer; "mIoU_after_layer", a list; "mended" and "broken", how many expressions crossed IoU
        0.5 upwards and downwards from the first layer to the last; "cost", the loss of mIoU for each silenced part.
    """
    scores = layer_ious(model, processor, dataset, batch_size, "as trained")
    whole = float(scores[-1].mean())
    right = scores >= 0.5
    cost = {}
    for part in PARTS:
        with silence(model, part):
            cost[part] = whole - float(layer_ious(model, processor, dataset, batch_size, f"without {part}")[-1].mean())
    return {
        "protocol": "native",
        "num_expressions": scores.shape[1],
        "mIoU": whole,
        "mIoU_after_layer": [float(score.mean()) for score in scores],
        "mended": int((~right[0] & right[-1]).sum()),
        "broken": int((right[0] & ~right[-1]).sum()),
        "cost": cost,
    }


def render_diagnoses(diagnoses: Sequence[dict[str, Any]]) -> str:
    """Diagnoses of equal models as one table, in points of mIoU; of several, mean ± sample standard deviation.

    Args:
        diagnoses: from `diagnose`, one or more, of models with as many layers.

    Raises:
        ValueError: when the models differ in their layers.
    """
    layers = [len(diagnosis["mIoU_after_layer"]) for diagnosis in diagnoses]
    if len(set(layers)) > 1:
        raise ValueError(
            f"diagnoses: got models of {', '.join(map(str, layers))} layers, due is one number for a table"
        )

    def points(values: Sequence[float], sign: str = "") -> str:
        mean = f"{100 * np.mean(values):{sign}7.2f}"
        return mean if len(values) == 1 else f"{mean} ± {100 * np.std(values, ddof=1):.2f}"

    def counts(name: str) -> str:
        return ", ".join(str(diagnosis[name]) for diagnosis in diagnoses)

    first = diagnoses[0]
    runs = f"{len(diagnoses)} runs, " if len(diagnoses) > 1 else ""
    lines = [
        f"{runs}{first['num_expressions']} expressions, protocol {first['protocol']}, mIoU in points",
        f"  as trained               {points([diagnosis['mIoU'] for diagnosis in diagnoses])}",
    ]
    after = zip(*(diagnosis["mIoU_after_layer"] for diagnosis in diagnoses), strict=True)
    lines += [f"  after layer {index + 1:<2}           {points(scores)}" for index, scores in enumerate(after)]
    lines += [
        f"  without {part:<17}{points([-diagnosis['cost'][part] for diagnosis in diagnoses], '+')}"
        for part in first["cost"]
    ]
    lines.append(f"  first layer to last: choices mended {counts('mended')}; broken {counts('broken')} (IoU 0.5)")
    return "\n".join(lines)


def trained_difficulty(folder: str | os.PathLike[str]) -> str:
    """The difficulty of SynthRRSIS that a run was trained on, by its metrics.json; "default" where it does not say."""
    path = Path(folder) / "metrics.json"
    facts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return facts.get("arguments", {}).get("difficulty", "default")


def diagnose_run(
    folder: str | os.PathLike[str], dataset: ReferringDataset, batch_size: int = 50, device: str = "auto"
) -> dict[str, Any]:
    """Diagnoses a run folder and writes `diagnosis.json` there.

    Args:
        folder: as rrsis.train leaves it; a BTDNet.
        dataset: what to score.
        batch_size: expressions a forward pass.
        device: a torch device, or "auto".

    Returns:
        What `diagnose` returns.

    Raises:
        FileNotFoundError: the folder or one of its files is not there.
        ValueError: the device does not exist here, or the model is no BTDNet.
    """
    model, processor = load_run(folder, device)
    if not isinstance(model, BTDNetForReferringSegmentation):
        raise ValueError(
            f"--diagnose: due is a BTDNet, whose parts can be silenced; {folder} holds a {type(model).__name__}"
        )
    diagnosis = diagnose(model, processor, dataset, batch_size)
    facts = {"dataset": dataset.name, "split": dataset.split, **diagnosis, **provenance()}
    path = Path(folder) / "diagnosis.json"
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(facts, indent=2) + "\n")
    return diagnosis
