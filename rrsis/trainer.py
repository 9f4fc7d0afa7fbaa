"""transformers' Trainer, taught to score referring segmentation."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import EvalPrediction, Trainer
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import TrainOutput, rotate_checkpoints

from rrsis.averaging import WeightAverage, load_training_weights, save_training_weights
from rrsis.checkpoints import (
    UNFINISHED,
    CheckpointError,
    checkpoint_path,
    clear_before_training,
    describe_failure,
    publish,
)
from rrsis.io import sync_files
from rrsis.metrics import ReferringMetrics
from rrsis.parameter_groups import parameter_groups

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
        self._checkpoint_folder: Path | None = None
        self._average: WeightAverage | None = None

    def train(self, resume_from_checkpoint: str | None = None, **kwargs: Any) -> TrainOutput:
        """Trains, after clearing away what an earlier run left broken."""
        if self.is_world_process_zero():
            overwrite = getattr(self.args, "overwrite_output_dir", False)
            clear_before_training(self.args.output_dir, resume_from_checkpoint, overwrite)
        self.accelerator.wait_for_everyone()
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Writes a checkpoint beside its place and gives it its name when it is whole."""
        step = self.state.global_step
        try:
            with self._writing_elsewhere() as folder:
                written = checkpoint_path(folder, step)
                with self._averaged():
                    super()._save_checkpoint(model, trial)
                if self._average is not None:
                    save_training_weights(self.model, written, self.args.should_save)
                self._name_best()
                self.accelerator.wait_for_everyone()  # each process writes its own random state
                if self.args.should_save:
                    self.state.save_to_json(str(written / TRAINER_STATE_NAME))
                    publish(written, checkpoint_path(self.args.output_dir, step))
        except Exception as error:
            import traceback

            traceback.print_exc()
            raise CheckpointError(describe_failure(self.args.output_dir, step, error)) from error
        if self.args.should_save:
            best = self.state.best_model_checkpoint
            rotate_checkpoints(self.args.output_dir, self.args.save_total_limit, best, use_mtime=True)
        self.accelerator.wait_for_everyone()

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: Any) -> Any:
        """Starts averaging once the weights are where they stay; a checkpoint's model.safetensors is the average."""
        prepared = super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        if self.args.ema_decay:
            self._average = WeightAverage(self.model, self.args.ema_decay, self.state.global_step)
            self.add_callback(self._average)
            if resume_from_checkpoint is not None:
                load_training_weights(self.model, Path(resume_from_checkpoint))
        return prepared

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """A finished run that is continued has no step to take; Trainer would take one more."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def _finalize_training(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """From here on the model has the averaged weights, unless Trainer loads the best ones."""
        if self._average is not None:
            self._average.swap()
            self.remove_callback(self._average)
            self._average = None
        return super()._finalize_training(*args, **kwargs)

    def _averaged(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self._average is None else self._average.in_place()

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluates the averaged weights where there are any."""
        with self._averaged():
            return super().evaluate(*args, **kwargs)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Norms, biases and gains have no weight decay, whatever their names."""
        vectors = {name for name, parameter in model.named_parameters() if parameter.ndim < 2}
        return [name for name in super().get_decay_parameter_names(model) if name not in vectors]

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Trainer's, with learning rates by layer where they were asked for."""
        args, model = self.args, self.model if model is None else model
        if self.optimizer is None and (args.encoder_lr_factor, args.layer_lr_decay) != (1, 1):
            groups = parameter_groups(
                model,
                set(self.get_decay_parameter_names(model)),
                learning_rate=args.learning_rate,
                weight_decay=args.weight_decay,
                encoder_factor=args.encoder_lr_factor,
                layer_decay=args.layer_lr_decay,
            )
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(args, model)
            self.optimizer = optimizer_class(groups, **options)
        return super().create_optimizer(model)

    def _name_best(self) -> None:
        """The best checkpoint by its final name, wherever it was when Trainer looked."""
        best = self.state.best_global_step
        if best:
            path = checkpoint_path(self.args.output_dir, best)
            exists = best == self.state.global_step or path.is_dir()
            self.state.best_model_checkpoint = str(path) if exists else None

    @contextlib.contextmanager
    def _writing_elsewhere(self) -> Iterator[Path]:
        """Lets Trainer write its checkpoints to a folder that is no checkpoint's, and removes that folder."""
        self._checkpoint_folder = Path(self.args.output_dir) / UNFINISHED
        try:
            yield self._checkpoint_folder
        finally:
            if self.args.should_save:
                shutil.rmtree(self._checkpoint_folder, ignore_errors=True)
            self._checkpoint_folder = None

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._checkpoint_folder or super()._get_output_dir(trial))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Saves the model; into the run folder file by file, each there whole or not at all."""
        if output_dir is not None:
            super().save_model(output_dir, _internal_call)
            return
        with self._writing_elsewhere() as folder:
            super().save_model(str(folder), _internal_call)
            if self.args.should_save:
                sync_files(folder)
                for path in folder.iterdir():
                    path.replace(Path(self.args.output_dir) / path.name)

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


def check_sharding(trainer: Trainer) -> None:
    """Raises a ValueError when `--fsdp` would not shard, or would leave a run folder without weights."""
    if not trainer.args.fsdp:
        return
    if not trainer.is_fsdp_enabled:
        raise ValueError(
            f"--fsdp needs accelerators: on {trainer.args.device} accelerate would train with DDP and say nothing"
        )
    kind = trainer.accelerator.state.fsdp_plugin.state_dict_type.name
    if kind != "FULL_STATE_DICT":
        raise ValueError(
            f"--fsdp_config must leave state_dict_type at FULL_STATE_DICT; got {kind}, which saves no model"
        )


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
