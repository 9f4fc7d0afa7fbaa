"""`python -m rrsis.train`: trains BTDNet, scores it on held-out data, and leaves a run folder that shows what came."""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import set_seed

from rrsis.architectures import load_model, make_model
from rrsis.arguments import DataArguments, ModelArguments, RunArguments, parse_arguments
from rrsis.averaging import check_averaging
from rrsis.card import write_card
from rrsis.checkpoints import CheckpointError, find_checkpoint
from rrsis.collate import ReferringCollator
from rrsis.config import BTDNetConfig, make_config
from rrsis.data import build_dataset
from rrsis.data.augment import EpochCallback, FlippedDataset
from rrsis.data.types import ReferringDataset, ReferringSample
from rrsis.evaluate import evaluate_model, provenance
from rrsis.model import ReferringModel
from rrsis.pretrained import (
    find_weights,
    load_backbone_weights,
    load_text_model,
    load_tokenizer,
)
from rrsis.processes import on_first_process
from rrsis.processing import BTDNetProcessor, build_processor, build_tokenizer
from rrsis.profiling import PROFILE_STEPS, ComponentProfile
from rrsis.trainer import ReferringTrainer, check_sharding
from rrsis.validation import check_apart_from_test
from rrsis.visualization import SampleRow, save_curves, save_sample_grid

NUM_SAMPLES = 12
"""How many held-out samples samples.png shows."""

PRETRAINED_PRESETS = ("base",)
"""Presets that start from pretrained weights unless told to start from scratch."""


def build_model(arguments: ModelArguments, expressions: Sequence[str]) -> tuple[ReferringModel, BTDNetProcessor]:
    """Makes the model and its processor from a preset and from weights at hand.

    Raises:
        ValueError: when the overrides or the weights do not fit.
        MissingWeightsError: when the preset wants pretrained weights that are neither given nor found.
    """
    try:
        overrides = json.loads(arguments.config_overrides)
    except ValueError as error:
        raise ValueError(f"--config_overrides must be JSON; got {arguments.config_overrides!r}") from error
    config: BTDNetConfig = make_config(arguments.preset, **overrides)
    text_model, backbone_weights = arguments.text_model, arguments.backbone_weights
    if arguments.preset in PRETRAINED_PRESETS and not arguments.from_scratch:
        text_model, backbone_weights = find_weights(config, text_model, backbone_weights)
    text = None if text_model is None else load_text_model(text_model)
    if text is None:
        tokenizer = build_tokenizer(expressions, config.max_tokens)
    else:
        tokenizer = load_tokenizer(text_model)
        config.text_config = text.config
    config.text_config.vocab_size = len(tokenizer)
    config.text_config.pad_token_id = tokenizer.pad_token_id
    model = make_model(config)
    if text is not None:
        model.encoder.text.load_state_dict(text.state_dict())
    if backbone_weights is not None:
        load_backbone_weights(model.encoder.image, config, backbone_weights)
    return model, build_processor(tokenizer, config.image_size, config.max_tokens)


def _build_splits(arguments: DataArguments) -> dict[str, ReferringDataset]:
    scenes = {"train": arguments.train_scenes, "val": arguments.val_scenes, "test": arguments.test_scenes}
    if arguments.dataset != "synthetic":
        check_apart_from_test(arguments.dataset, arguments.data_root, arguments.validation_split)
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
    wanted = run_arguments.resume_from_checkpoint
    run_arguments.resume_from_checkpoint = on_first_process(lambda: find_checkpoint(wanted, run_arguments.output_dir))
    check_averaging(run_arguments.ema_decay, run_arguments.resume_from_checkpoint)
    set_seed(run_arguments.seed)
    splits = _build_splits(data_arguments)
    train_data = FlippedDataset(splits["train"], data_arguments.flip, seed=run_arguments.seed)
    model, processor = build_model(model_arguments, train_data.possible_expressions)
    trainer = ReferringTrainer(
        model=model,
        args=run_arguments,
        train_dataset=train_data,
        eval_dataset=splits[data_arguments.validation_split],
        # One length, one graph: each other length would be compiled for, minutes each, and where the length is a symbol
        # Inductor 2.14 keeps the first one in the strides of an attention mask, and stops at the next batch.
        data_collator=ReferringCollator(processor, padding="max_length" if run_arguments.torch_compile else True),
        processing_class=processor,
        callbacks=[EpochCallback(train_data)],
    )
    check_sharding(trainer)
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


def profile_training(trainer: ReferringTrainer) -> str:
    """Takes a few steps of training, and says what they cost; nothing is left of them but this.

    Returns:
        A table in Markdown.
    """
    arguments, callback = trainer.args, ComponentProfile(trainer.model)
    arguments.max_steps, arguments.load_best_model_at_end = PROFILE_STEPS, False
    arguments.eval_strategy, arguments.save_strategy, arguments.logging_strategy = "no", "no", "no"
    trainer.add_callback(callback)
    trainer.train()
    return callback.table()


def profile_alone(model_arguments: ModelArguments, data_arguments: DataArguments, run_arguments: RunArguments) -> str:
    """`--profile`: what a run with these arguments would cost, in a folder that goes.

    Raises:
        ValueError: when there are several processes, or the model is compiled, which has no parts left.
    """
    if run_arguments.world_size > 1 or run_arguments.torch_compile:
        raise ValueError("--profile needs one process and a model that is not compiled")
    with tempfile.TemporaryDirectory(prefix="rrsis-profile-") as folder:
        run_arguments.output_dir = folder
        trainer, _ = prepare(model_arguments, data_arguments, run_arguments)
        return profile_training(trainer)


def _report(trainer: ReferringTrainer, held_out: ReferringDataset, run: Path, facts: dict[str, Any]) -> str:
    """Scores the saved weights on the held-out split, writes what came, and returns the table.

    Read from the run folder, the model is whole also where training had sharded it over processes.
    """
    arguments, processor = trainer.args, trainer.processing_class
    model = load_model(run).to(arguments.device)
    evaluation = evaluate_model(
        model,
        processor,
        held_out,
        batch_size=arguments.per_device_eval_batch_size,
        num_workers=arguments.dataloader_num_workers,
        autocast_dtype=torch.bfloat16 if arguments.bf16 else None,
    )
    evaluation.save(run, facts)
    write_card(run, model.config)  # the card that came with the weights has no figures
    # Evenly spaced, so that the grid shows what is usual and not what is best.
    indices = [round(index) for index in torch.linspace(0, len(held_out) - 1, NUM_SAMPLES).tolist()]
    samples = [held_out[index] for index in sorted(set(indices))]
    predictions = predict_samples(model, processor, samples)
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
        if arguments[2].profile:
            print(profile_alone(*arguments))
            return
        trainer, splits = prepare(*arguments)
    except (ValueError, OSError) as error:
        sys.exit(f"rrsis.train: {error}")
    try:
        run = train(trainer, splits["test"], *arguments)
    except CheckpointError as error:
        sys.exit(f"rrsis.train: {error}")
    print(f"run folder: {run}")


if __name__ == "__main__":
    main()
