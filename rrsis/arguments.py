"""The command line of `python -m rrsis.train`: what to train, on what, how."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch
from transformers import HfArgumentParser, TrainingArguments

from rrsis.config import PRESETS
from rrsis.data import DATASETS
from rrsis.data.augment import FLIPS
from rrsis.data.synthetic.config import CONFIGS
from rrsis.pretrained import TEXT_MODEL
from rrsis.recipes import read_recipe, unknown_option
from rrsis.validation import check_validation_split

PRESET_ARGUMENTS: dict[str, dict[str, Any]] = {
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


@dataclass
class DataArguments:
    """What to train on."""

    dataset: str = field(default="synthetic", metadata={"choices": DATASETS, "help": "The data set."})
    data_root: str | None = field(
        default=None, metadata={"help": "Folder of the data set, as published; not for the synthetic one."}
    )
    flip: str = field(
        default="off",
        metadata={"choices": list(FLIPS), "help": "Flip training pictures, and rewrite what is said about them."},
    )
    validation_split: str = field(
        default="val", metadata={"help": "Split that chooses the best weights: val or train, never test."}
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

    config: str | None = field(
        default=None, metadata={"help": "A recipe: YAML file of options. The command line has the last word."}
    )
    preset: str = field(default="tiny", metadata={"choices": list(PRESETS), "help": "Size of the model."})
    config_overrides: str = field(
        default="{}", metadata={"help": "JSON of BTDNetConfig fields to set, as '{\"use_gate\": false}'."}
    )
    text_model: str | None = field(
        default=None,
        metadata={
            "help": f"Folder with a BERT and its tokenizer, to start the text encoder from. The preset base looks for "
            f"{TEXT_MODEL} when none is given: in pretrained_weights/, here, and in the Hugging Face cache."
        },
    )
    backbone_weights: str | None = field(
        default=None,
        metadata={
            "help": "File to start the backbone from: timm's weights or the original ones, .safetensors or .pth. The "
            "preset base looks for Swin-B's when none is given: in pretrained_weights/, here, and in the caches of "
            "torch and Hugging Face."
        },
    )
    from_scratch: bool = field(
        default=False,
        metadata={
            "help": "Start from random weights what --text_model and --backbone_weights do not give; always so for the "
            "preset tiny."
        },
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
    encoder_lr_factor: float = field(
        default=1.0, metadata={"help": "Learning rate of the encoders' last layers, as a share of --learning_rate."}
    )
    layer_lr_decay: float = field(
        default=1.0, metadata={"help": "Learning rate of each encoder layer, as a share of that of the layer above."}
    )
    ema_decay: float = field(
        default=0.0,
        metadata={"help": "Evaluate and save an average of the weights that forgets at this rate, as 0.999; 0: none."},
    )
    profile: bool = field(
        default=False,
        metadata={"help": "Print what time and memory each part of the model takes in a few steps; no run is left."},
    )
    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "Start anew in a run folder that holds an older run, whose checkpoints go."}
    )

    def __post_init__(self) -> None:
        """Takes `fsdp: true` of a recipe and `--fsdp True` for what TrainingArguments writes as a bare `--fsdp`."""
        if isinstance(self.fsdp, str) and self.fsdp.lower() in ("true", "false"):
            self.fsdp = True if self.fsdp.lower() == "true" else None
        super().__post_init__()


def gpu_has_bf16() -> bool:
    """Whether there is a GPU whose matrix units multiply bfloat16: what decides on mixed precision by default."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


class _Parser(HfArgumentParser):
    """A parser that leaves it to the command to say what is wrong, in one line."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def parse_arguments(argv: Sequence[str] | None = None) -> tuple[ModelArguments, DataArguments, RunArguments]:
    """Reads the command line; defaults come from the file of `--config`, then from the preset.

    Raises:
        ValueError: when an option does not exist or its value does not hold, the run folder holds another run, or the
            data set's folder is missing.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = _Parser((ModelArguments, DataArguments, RunArguments), prog="python -m rrsis.train", allow_abbrev=False)
    argv = _with_recipe(parser, argv)
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--preset", default="tiny")
    early.add_argument("--dataset", default="synthetic")
    early.add_argument("--seed", default="42")
    known = early.parse_known_args(argv)[0]
    default_run = f"runs/{known.dataset}-{known.preset}-seed{known.seed}"
    otherwise = {"--fp16", "--use_cpu"} & {word.partition("=")[0] for word in argv}
    # Not a field's default factory: HfArgumentParser takes no notice of that of a bool.
    bf16 = gpu_has_bf16() and not otherwise
    parser.set_defaults(output_dir=default_run, bf16=bf16, **PRESET_ARGUMENTS.get(known.preset, {}))
    *parsed, unknown = parser.parse_args_into_dataclasses(args=argv, return_remaining_strings=True)
    if unknown:
        raise ValueError(unknown_option(unknown[0].lstrip("-").partition("=")[0], _options(parser)))
    model_arguments, data_arguments, run_arguments = parsed
    _check_rates(run_arguments)
    check_validation_split(data_arguments.validation_split)
    if data_arguments.dataset != "synthetic" and data_arguments.data_root is None:
        raise ValueError(f"--data_root must name the folder of {data_arguments.dataset}; got nothing")
    if run_arguments.process_index == 0:
        run_arguments.output_dir = _free_run_folder(run_arguments, is_default=run_arguments.output_dir == default_run)
    return model_arguments, data_arguments, run_arguments


def _check_rates(arguments: RunArguments) -> None:
    for name in ("encoder_lr_factor", "layer_lr_decay"):
        if not 0 < getattr(arguments, name) <= 1:
            raise ValueError(f"--{name} must be above 0 and at most 1; got {getattr(arguments, name)}")
    if not 0 <= arguments.ema_decay < 1:
        raise ValueError(f"--ema_decay must be at least 0 and below 1; got {arguments.ema_decay}")


def _options(parser: argparse.ArgumentParser) -> list[str]:
    return [action.dest for action in parser._actions if action.dest != "help"]


def _with_recipe(parser: argparse.ArgumentParser, argv: list[str]) -> list[str]:
    """The command line with the words of its `--config` file before it, so that it has the last word."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--config")
    config = early.parse_known_args(argv)[0].config
    if config is None:
        return argv
    recipe = read_recipe(config, [name for name in _options(parser) if name != "config"])
    try:
        parser.parse_known_args(recipe)
    except ValueError as error:
        raise ValueError(f"--config {config}: {error}") from error
    return [*recipe, *argv]


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
