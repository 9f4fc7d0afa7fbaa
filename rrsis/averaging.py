"""An exponential moving average of the weights: what is evaluated and saved, while training goes on from its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
)
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from rrsis.io import atomic_write

TRAINING_WEIGHTS = "training_weights.safetensors"
"""File in a checkpoint with the weights that training goes on from; model.safetensors holds their average."""


class WeightAverage(TrainerCallback):
    """Keeps average ← d·average + (1 − d)·weights after each step, with d = min(decay, (1 + n)/(10 + n)) at step n.

    The smaller d at the start lets the average forget the random weights it starts from. Of weights that FSDP2 has
    sharded, each process averages its own share.

    Args:
        model: the model in training; its present weights are the first average.
        decay: d in the long run, in [0, 1).
        steps: steps already taken.
    """

    def __init__(self, model: nn.Module, decay: float, steps: int = 0) -> None:
        self.decay = decay
        self.steps = steps
        self._model = model
        self._average = [weight.clone() for weight in self._weights()]

    @torch.no_grad()
    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Takes the weights after an optimizer step into the average."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self._average, self._weights(), 1 - decay)
        self.steps += 1

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges the model's weights and the average."""
        weights = self._weights()
        kept = [weight.clone() for weight in weights]
        torch._foreach_copy_(weights, self._average)
        torch._foreach_copy_(self._average, kept)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the averaged weights inside this block."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def _weights(self) -> list[Tensor]:
        """This process's share of the trained weights, as views."""
        for module in self._model.modules():
            if isinstance(module, FSDPModule):
                # After a forward without backward the outermost module still holds whole, unsharded copies.
                module.reshard()
        weights = (weight.detach() for weight in self._model.parameters() if weight.requires_grad)
        return [weight.to_local() if isinstance(weight, DTensor) else weight for weight in weights]


def check_averaging(decay: float, checkpoint: str | None) -> None:
    """Raises a ValueError when a run that averages its weights would continue as one that does not, or the reverse."""
    if checkpoint is not None and (Path(checkpoint) / TRAINING_WEIGHTS).is_file() != bool(decay):
        had = "has no averaged weights" if decay else "has averaged weights"
        raise ValueError(f"--ema_decay must be as in the run that is continued: {checkpoint} {had}; got {decay}")


def save_training_weights(model: nn.Module, folder: Path, is_writer: bool) -> None:
    """Writes the weights that training goes on from; every process must call it.

    Args:
        model: the model in training, with its own weights.
        folder: where to.
        is_writer: whether this process writes the file.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights = get_model_state_dict(model, options=options)
    if is_writer:
        with atomic_write(folder / TRAINING_WEIGHTS) as temporary:
            save_file({name: weight.contiguous() for name, weight in weights.items()}, temporary)


def load_training_weights(model: nn.Module, folder: Path) -> None:
    """Loads what `save_training_weights` wrote; every process must call it."""
    # Each process reads the file: that is one file for all of a node, and asks nothing of the back end.
    weights = load_file(folder / TRAINING_WEIGHTS)
    set_model_state_dict(model, weights, options=StateDictOptions(full_state_dict=True))
