"""BTDNet's presets with random weights on synthetic scenes: what the model's benchmarks and its profile run."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

import rrsis._torchvision  # noqa: F401 (transformers imports torchvision, which may need its help to load)
from benchmarks.measure import OURS, Call, require_extension
from rrsis.arguments import PRESET_ARGUMENTS
from rrsis.collate import ReferringCollator
from rrsis.config import make_config
from rrsis.data import build_dataset
from rrsis.model import BTDNetForReferringSegmentation
from rrsis.processing import build_processor, build_tokenizer
from rrsis_kernels import nn as kernel_nn
from rrsis_kernels import use_backend


class Variant(NamedTuple):
    """How the model runs its token-pixel layers.

    Attributes:
        backend: of the operators.
        order: in which the layers multiply; "auto" absorbs the projections wherever that is cheaper.
    """

    backend: str
    order: str


VARIANTS = {
    OURS: Variant("cpu", "auto"),
    "reference ops": Variant("reference", "auto"),
    "projected form": Variant("cpu", "projected"),
}
REFERENCE = "reference ops"
"""The variant with which the others are compared."""

Prepare = Callable[[nn.Module], None]

TRAINING, INFERENCE = "training", "inference"


@lru_cache(maxsize=1)
def _model(preset: str) -> BTDNetForReferringSegmentation:
    torch.manual_seed(0)
    config = make_config(preset)
    if preset == "tiny":
        # Trained from scratch it knows the data's words alone; `base` keeps BERT's vocabulary.
        config.text_config.vocab_size = len(_tokenizer(config.max_tokens))
    return BTDNetForReferringSegmentation(config)


@lru_cache
def _scenes():
    return build_dataset("synthetic", "train", num_scenes=16)


@lru_cache
def _tokenizer(max_tokens: int):
    return build_tokenizer(_scenes().expressions, max_tokens)


def make_model(preset: str, variant: str) -> BTDNetForReferringSegmentation:
    """A new copy of the preset's model with the same random weights, set to a variant's order."""
    model = copy.deepcopy(_model(preset))
    for module in model.modules():
        if isinstance(module, (kernel_nn.BidirectionalSpatialCorrelation, kernel_nn.TwinStreamAttention)):
            module.order = VARIANTS[variant].order
    return model


def make_batch(preset: str, size: int) -> dict[str, Tensor]:
    """The model's inputs for the first scenes, labels among them."""
    config = _model(preset).config
    collate = ReferringCollator(build_processor(_tokenizer(config.max_tokens), config.image_size, config.max_tokens))
    batch = collate([_scenes()[index] for index in range(size)])
    return {name: value for name, value in batch.items() if isinstance(value, Tensor)}


def _nothing(model: nn.Module) -> None:
    pass


def _require(variant: str) -> str:
    if VARIANTS[variant].backend == "cpu":
        require_extension()
    return VARIANTS[variant].backend


def inference(preset: str, variant: str, size: int, prepare: Prepare = _nothing) -> Call:
    """Returns a call that segments a batch: joint, target and background logits.

    Args:
        preset: of the configuration.
        variant: one of `VARIANTS`.
        size: of the batch.
        prepare: is given the model before it runs.
    """
    backend, model, batch = _require(variant), make_model(preset, variant).eval(), make_batch(preset, size)
    del batch["labels"]
    prepare(model)

    def call() -> list[Tensor]:
        with torch.inference_mode(), use_backend(backend):
            output = model(**batch)
        return [output.logits, output.target_logits, output.background_logits]

    return call


def training(preset: str, variant: str, size: int, prepare: Prepare = _nothing) -> Call:
    """Returns a call that makes one step as the Trainer does: the loss and the norm of the gradients before it.

    Arguments as of `inference`.
    """
    backend, model, batch = _require(variant), make_model(preset, variant).train(), make_batch(preset, size)
    prepare(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PRESET_ARGUMENTS[preset]["learning_rate"], fused=True)

    def call() -> list[Tensor]:
        torch.manual_seed(0)  # D-MOLS and dropout draw the same in every variant
        optimizer.zero_grad()
        with use_backend(backend):
            loss = model(**batch).loss
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return [loss.detach(), norm.detach()]

    return call


MODES: dict[str, Callable[..., Call]] = {TRAINING: training, INFERENCE: inference}


def image_size(preset: str) -> int:
    """Side of the preset's input."""
    return make_config(preset).image_size
