"""`python -m rrsis.train`: trains BTDNet, scores it on held-out data, and leaves a run folder that shows what came."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import HfArgumentParser, TrainingArguments, set_seed
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from rrsis.architectures import make_model
from rrsis.collate import ReferringCollator
from rrsis.config import PRESETS, BTDNetConfig, make_config
from rrsis.data import DATASETS, build_dataset
from rrsis.data.synthetic.config import CONFIGS
from rrsis.data.types import ReferringDataset, ReferringSample
from rrsis.evaluate import evaluate_model, provenance
from rrsis.model import ReferringModel
from rrsis.pretrained import load_backbone_weights, load_text_model, load_tokenizer
from rrsis.processing import BTDNetProcessor, build_processor, build_tokenizer
from rrsis.trainer import ReferringTrainer
from rrsis.visualization import SampleRow, save_curves, save_sample_grid

RECIPES: dict[str, dict[str, Any]] = {
    "tiny": {
        "max_steps": 1300,
        # From scratch, many small steps learn faster than few large ones: 16 a step beats 32 at equal samples.
        "per_device_train_batch_size": 16,
        "per_device_eval_batch_size": 50,
        "learning_rate": 1e-3,
        "weight_decay": 0.02,
        "adam_beta2": 0.98,
        "warmup_steps": 0.06,
        "eval_steps": 0.25,
        "save_steps": 0.25,
        "logging_steps": 20,
    },
    "base": {
        "num_train_epochs": 40,
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 8,
        "learning_rate": 3e-5,
        "weight_decay": 1e-2,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "logging_steps": 50,
        "dataloader_num_workers": 2,
    },
}
"""Defaults of each preset's training arguments; every one can be given on the command line."""

NUM_SAMPLES = 12
"""How many held-out samples samples.png shows."""


@dataclass
class DataArguments:
    """What to train on."""

    dataset: str = field(default="synthetic", metadata={"choices": DATASETS, "help": "The data set."})
    data_root: str | None = field(
        default=None, metadata={"help": "Folder of the data set, as published; not for the synthetic one."}
    )
    train_scenes: int = field(default=4000, metadata={"help": "Scenes to train on; synthetic data only."})
    val_scenes: int = field(default=60, metadata={"help": "Scenes that choose the best weights; synthetic data only."})
    test_scenes: int = field(default=250, metadata={"help": "Held-out scenes; synthetic data only."})
    difficulty: str = field(
        default="default", metadata={"choices": list(CONFIGS), "help": "How hard the synthetic data are."}
    )


@dataclass
class ModelArguments:
    """What to train."""

    preset: str = field(default="tiny", metadata={"choices": list(PRESETS), "help": "Size of the model."})
    config_overrides: str = field(
        default="{}", metadata={"help": "JSON of BTDNetConfig fields to set, as '{\"use_gate\": false}'."}
    )
    text_model: str | None = field(
        default=None, metadata={"help": "Folder with a BERT and its tokenizer, to start the text encoder from."}
    )
    backbone_weights: str | None = field(
        default=None, metadata={"help": "File with timm weights (.safetensors or .pth) to start the backbone from."}
    )


@dataclass
class RunArguments(TrainingArguments):
    """transformers' TrainingArguments with this project's defaults."""

    output_dir: str | None = field(
        default=None, metadata={"help": "The run folder; runs/DATASET-PRESET-seedN when not given."}
    )
    adam_beta2: float = field(default=0.999)
    max_grad_norm: float = field(default=1.0)
    lr_scheduler_type: str = field(default="polynomial")
    lr_scheduler_kwargs: dict | str | None = field(default_factory=lambda: {"power": 0.9, "lr_end": 0.0})
    eval_strategy: str = field(default="steps")
    save_strategy: str = field(default="steps")
    save_total_limit: int | None = field(default=2)
    load_best_model_at_end: bool = field(default=True)
    metric_for_best_model: str | None = field(default="oIoU")
    greater_is_better: bool | None = field(default=True)
    remove_unused_columns: bool = field(default=False)
    bf16: bool = field(default_factory=lambda: torch.cuda.is_available() and torch.cuda.is_bf16_supported())
    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "Start anew in a run folder that holds an older run."}
    )


def parse_arguments(argv: Sequence[str] | None = None) -> tuple[ModelArguments, DataArguments, RunArguments]:
    """Reads the command line; the preset's recipe gives the defaults of what is not on it.

    Raises:
        ValueError: when the run folder holds another run, the data set's folder is missing, or overrides are no JSON.
    """
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--preset", default="tiny")
    early.add_argument("--dataset", default="synthetic")
    early.add_argument("--seed", default="42")
    known = early.parse_known_args(argv)[0]
    parser = HfArgumentParser((ModelArguments, DataArguments, RunArguments), prog="python -m rrsis.train")
    default_run = f"runs/{known.dataset}-{known.preset}-seed{known.seed}"
    parser.set_defaults(output_dir=default_run, **RECIPES.get(known.preset, {}))
    model_arguments, data_arguments, run_arguments = parser.parse_args_into_dataclasses(args=argv)
    if data_arguments.dataset != "synthetic" and data_arguments.data_root is None:
        raise ValueError(f"--data_root must name the folder of {data_arguments.dataset}; got nothing")
    if run_arguments.process_index == 0:
        run_arguments.output_dir = _free_run_folder(run_arguments, is_default=run_arguments.output_dir == default_run)
    return model_arguments, data_arguments, run_arguments


def _free_run_folder(arguments: RunArguments, is_default: bool) -> str:
    """The run folder, if nothing is lost by writing there; a default name that is taken gets a number."""
    folder = Path(arguments.output_dir)
    if arguments.resume_from_checkpoint or arguments.overwrite_output_dir:
        return str(folder)
    numbers = iter(range(2, 10_000))
    while folder.exists() and any(folder.iterdir()):
        if not is_default or arguments.world_size > 1:
            raise ValueError(
                f"--output_dir must be empty or new; {folder} holds files. Give another one, continue with "
                "--resume_from_checkpoint last, or start anew with --overwrite_output_dir"
            )
        folder = Path(f"{arguments.output_dir}-{next(numbers)}")
    return str(folder)


def find_checkpoint(value: str | None, output_dir: str) -> str | None:
    """Finds the checkpoint to resume from.

    Args:
        value: None for none; "last" (or "true") for the newest in `output_dir`; or a checkpoint's folder.
        output_dir: the run folder.

    Returns:
        The checkpoint's folder, or None. A checkpoint whose writing was cut off is passed over: its trainer_state.json,
        which is written last, is missing or broken.

    Raises:
        ValueError: when there is no complete checkpoint where one was asked for.
    """
    if value is None:
        return None
    if value.lower() not in ("last", "true"):
        if not _is_complete(Path(value)):
            raise ValueError(f"--resume_from_checkpoint must be a complete checkpoint's folder; got {value}")
        return value
    found = [path for path in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*") if _is_complete(path)]
    if not found:
        raise ValueError(f"--resume_from_checkpoint {value}: {output_dir} holds no complete checkpoint")
    return str(max(found, key=lambda path: int(path.name.rsplit("-", 1)[1])))


def _is_complete(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / "trainer_state.json").read_text())
    except (OSError, ValueError):
        return False
    return True


def build_model(arguments: ModelArguments, expressions: Sequence[str]) -> tuple[ReferringModel, BTDNetProcessor]:
    """Makes the model and its processor from a preset and, where given, from weights at hand."""
    try:
        overrides = json.loads(arguments.config_overrides)
    except ValueError as error:
        raise ValueError(f"--config_overrides must be JSON; got {arguments.config_overrides!r}") from error
    config: BTDNetConfig = make_config(arguments.preset, **overrides)
    if arguments.text_model is None:
        tokenizer = build_tokenizer(expressions, config.max_tokens)
    else:
        tokenizer = load_tokenizer(arguments.text_model)
        config.text_config = load_text_model(arguments.text_model).config
    config.text_config.vocab_size = len(tokenizer)
    config.text_config.pad_token_id = tokenizer.pad_token_id
    model = make_model(config)
    if arguments.text_model is not None:
        model.encoder.text.load_state_dict(load_text_model(arguments.text_model).state_dict())
    if arguments.backbone_weights is not None:
        load_backbone_weights(model.encoder.image, config, arguments.backbone_weights)
    return model, build_processor(tokenizer, config.image_size, config.max_tokens)


def _build_splits(arguments: DataArguments) -> dict[str, ReferringDataset]:
    scenes = {"train": arguments.train_scenes, "val": arguments.val_scenes, "test": arguments.test_scenes}
    return {
        split: build_dataset(
            arguments.dataset,
            split,
            root=arguments.data_root,
            **({"num_scenes": count, "config": arguments.difficulty} if arguments.dataset == "synthetic" else {}),
        )
        for split, count in scenes.items()
    }


def prepare(
    model_arguments: ModelArguments, data_arguments: DataArguments, run_arguments: RunArguments
) -> tuple[ReferringTrainer, dict[str, ReferringDataset]]:
    """Makes everything that training needs, and writes nothing.

    Returns:
        The trainer and the splits "train", "val" and "test".

    Raises:
        ValueError: when an argument does not hold; the message names it.
        OSError: when a file of the data set is missing.
    """
    run_arguments.resume_from_checkpoint = find_checkpoint(
        run_arguments.resume_from_checkpoint, run_arguments.output_dir
    )
    set_seed(run_arguments.seed)
    splits = _build_splits(data_arguments)
    model, processor = build_model(model_arguments, splits["train"].expressions)
    trainer = ReferringTrainer(
        model=model,
        args=run_arguments,
        train_dataset=splits["train"],
        eval_dataset=splits["val"],
        data_collator=ReferringCollator(processor),
        processing_class=processor,
    )
    return trainer, splits


def train(
    trainer: ReferringTrainer,
    held_out: ReferringDataset,
    model_arguments: ModelArguments,
    data_arguments: DataArguments,
    run_arguments: RunArguments,
) -> Path:
    """Trains, keeps the weights with the best validation oIoU, and scores them on the held-out split.

    Args:
        trainer: from `prepare`.
        held_out: what the kept weights are scored on.
        model_arguments: what is trained, for the record.
        data_arguments: what on, for the record.
        run_arguments: how, and where to.

    Returns:
        The run folder.
    """
    result = trainer.train(resume_from_checkpoint=run_arguments.resume_from_checkpoint)
    trainer.save_model()
    run = Path(run_arguments.output_dir)
    if trainer.is_world_process_zero():
        save_curves(run / "curves.png", trainer.state.log_history)
        facts = {
            **provenance(run_arguments.seed),
            "best_validation_oIoU": trainer.state.best_metric,
            "steps": trainer.state.global_step,
            "train_seconds": round(result.metrics["train_runtime"], 1),
            "arguments": {**dataclasses.asdict(model_arguments), **dataclasses.asdict(data_arguments)},
        }
        print(_report(trainer, held_out, run, facts))
    return run


def _report(trainer: ReferringTrainer, held_out: ReferringDataset, run: Path, facts: dict[str, Any]) -> str:
    """Scores the held-out split, writes what came, and returns the table."""
    arguments, processor = trainer.args, trainer.processing_class
    evaluation = evaluate_model(
        trainer.model,
        processor,
        held_out,
        batch_size=arguments.per_device_eval_batch_size,
        num_workers=arguments.dataloader_num_workers,
        autocast_dtype=torch.bfloat16 if arguments.bf16 else None,
    )
    evaluation.save(run, facts)
    # Evenly spaced, so that the grid shows what is usual and not what is best.
    indices = [round(index) for index in torch.linspace(0, len(held_out) - 1, NUM_SAMPLES).tolist()]
    samples = [held_out[index] for index in sorted(set(indices))]
    predictions = predict_samples(trainer.model, processor, samples)
    rows = [
        SampleRow(sample.image, sample.expression, sample.mask, prediction)
        for sample, prediction in zip(samples, predictions, strict=True)
    ]
    save_sample_grid(run / "samples.png", rows, columns=2, title=f"held-out {held_out.name}, evenly spaced")
    return evaluation.table()


@torch.inference_mode()
def predict_samples(
    model: ReferringModel, processor: BTDNetProcessor, samples: Sequence[ReferringSample]
) -> list[np.ndarray]:
    """Masks (H, W) bool of a few samples, at the images' own sizes."""
    model.eval()
    inputs = processor([sample.image for sample in samples], [sample.expression for sample in samples])
    outputs = model(**inputs.to(model.device))
    sizes = [sample.mask.shape for sample in samples]
    return [mask.cpu().numpy() for mask in processor.post_process_segmentation(outputs, sizes)]


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    try:
        arguments = parse_arguments(argv)
        trainer, splits = prepare(*arguments)
    except (ValueError, OSError) as error:
        sys.exit(f"rrsis.train: {error}")
    run = train(trainer, splits["test"], *arguments)
    print(f"run folder: {run}")


if __name__ == "__main__":
    main()
