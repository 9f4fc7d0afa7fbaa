"""Grounding DINO as transformers ships it and with our fusion layer: time, peak memory, and how far the outputs differ.

    python examples/grounding_dino.py --model FOLDER --image scene.jpg --text "a ship. a bridge."

FOLDER has weights and processor as `save_pretrained` writes them, of a Grounding DINO or an MM-Grounding-DINO; nothing
is downloaded. Without weights at hand, ``--random full`` or ``--random small`` makes a model of random ones. It needs a
clone of the repository (`pip install -e .`), whose benchmarks/ knows how to measure memory, and it runs on the CPU.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.memory import Peak, peak_extra_mib
from rrsis.inputs import load_image
from rrsis_kernels.integrations.transformers import accelerate, restore

VARIANTS = {"transformers": restore, "rrsis_kernels": accelerate}
"""What puts the model into which form."""


class Result(NamedTuple):
    """What one form of the model gave.

    Attributes:
        seconds: of each round.
        cpu_seconds: of each round, over all threads; other work on the machine hardly changes them.
        peak: extra memory of one call, the weights not among it.
        logits: (queries, text places) float32; -inf where the text has no token.
        boxes: (queries, 4) float32: centre, width, height as shares of the image.
    """

    seconds: list[float]
    cpu_seconds: list[float]
    peak: Peak
    logits: Tensor
    boxes: Tensor


def load(folder: Path, image: Path, text: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """The model of a folder in evaluation mode, and its inputs for one image and one text.

    Raises:
        ValueError: the folder is none, or its model has no layer to swap.
    """
    from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

    if not folder.is_dir():
        raise ValueError(f"--model: {folder} is no folder; due is one with config.json, weights and processor")
    pixels = Image.fromarray(load_image(image))
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    model = AutoModelForZeroShotObjectDetection.from_pretrained(folder, local_files_only=True).eval()
    if not accelerate(model):
        raise ValueError(f"--model: {folder} has a {type(model).__name__}, which has no Grounding DINO layer to swap")
    restore(model)
    return model, processor(images=pixels, text=text, return_tensors="pt")


def compare(model: nn.Module, inputs: dict[str, Tensor], rounds: int) -> dict[str, Result]:
    """Runs both forms of one model.

    The forms take turns, so that other work on the machine meets both alike. The first call of each is not timed.

    Args:
        model: as `load` gives it; ends as transformers ships it.
        inputs: its inputs.
        rounds: how many timed calls each form gets.

    Returns:
        By the names of `VARIANTS`.
    """
    call = functools.partial(model, **inputs)
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    outputs, peaks = {}, {}
    with torch.inference_mode():
        for name, switch in VARIANTS.items():
            switch(model)
            outputs[name] = call()
            peaks[name] = peak_extra_mib(torch.inference_mode()(call))  # it calls in another thread
        for _ in tqdm(range(rounds), desc="rounds", file=sys.stderr):
            for name, switch in VARIANTS.items():
                switch(model)
                start, cpu_start = time.perf_counter(), time.process_time()
                call()
                seconds[name].append(time.perf_counter() - start)
                cpu_seconds[name].append(time.process_time() - cpu_start)
    restore(model)
    return {
        name: Result(
            seconds[name], cpu_seconds[name], peaks[name], outputs[name].logits[0], outputs[name].pred_boxes[0]
        )
        for name in VARIANTS
    }


def largest_difference(one: Tensor, other: Tensor) -> float:
    """Over the numbers that are finite in both; infinite where only one of them is."""
    finite = one.isfinite()
    if not torch.equal(finite, other.isfinite()):
        return float("inf")
    return (one[finite] - other[finite]).abs().max().item()


def report(model: nn.Module, inputs: dict[str, Tensor], results: dict[str, Result]) -> str:
    """The results as text."""
    height, width = inputs["pixel_values"].shape[-2:]
    weights = (
        "RANDOM weights: it detects nothing"
        if getattr(model.config, "random_weights", False)
        else "the folder's weights"
    )
    lines = [
        f"{type(model).__name__}, {weights}; image {height} x {width}, {inputs['input_ids'].shape[1]} tokens, fp32, "
        f"{torch.get_num_threads()} thread(s)",
        f"{'':<14}{'median ms':>12}{'least ms':>12}{'CPU ms':>12}{'rounds':>8}{'peak extra MiB':>16}",
    ]
    for name, result in results.items():
        memory = f"{result.peak.mib:.0f}" if result.peak.mib is not None else "unknown"
        times = statistics.median(result.seconds), min(result.seconds), statistics.median(result.cpu_seconds)
        columns = "".join(f"{1e3 * each:>12.1f}" for each in times)
        lines.append(f"{name:<14}{columns}{len(result.seconds):>8}{memory:>16}")
    lines += {result.peak.reason for result in results.values() if result.peak.mib is None}
    shipped, ours = results.values()
    span = shipped.logits[shipped.logits.isfinite()].abs().max().item()
    lines.append(
        f"largest difference: logits {largest_difference(shipped.logits, ours.logits):.1e} "
        f"(largest logit {span:.1f}), boxes {largest_difference(shipped.boxes, ours.boxes):.1e} of the image"
    )
    return "\n".join(lines)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, due is a number from 1 on")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    from random_grounding_dino import SIZES

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", type=Path, help="folder of a model, as save_pretrained writes it")
    source.add_argument("--random", choices=SIZES, help="a model of random weights instead")
    parser.add_argument("--image", type=Path, required=True, help="an image file")
    parser.add_argument("--text", required=True, help='phrases with a full stop after each: "a ship. a bridge."')
    parser.add_argument("--rounds", type=_positive, default=20, help="timed calls of each form")
    return parser


def main() -> None:
    """Reads the command line, compares and prints."""
    parser = _parser()
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.model
        try:
            if folder is None:
                from random_grounding_dino import write

                folder = Path(scratch) / "random"
                write(folder, arguments.random)
            model, inputs = load(folder, arguments.image, arguments.text)
        except (OSError, ValueError) as error:
            parser.error(str(error))
    print(report(model, inputs, compare(model, inputs, arguments.rounds)))


if __name__ == "__main__":
    main()
