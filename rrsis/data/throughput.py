"""Is loading the bottleneck? ``python -m rrsis.data.throughput --dataset rrsisd --data_root DIR --preset base``.

Measured are the samples a second that the loader prepares (reading, resizing, normalising, tokenising, batching) with
each number of worker processes, and those that a training step of the model takes on this device, one after the other.
Where the model runs on the CPU too, the two share it in training, and each gets less than it has here.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm.auto import tqdm

from ..collate import ReferringCollator
from ..config import PRESETS, make_config
from ..evaluate import provenance
from ..io import atomic_write
from ..model import BTDNetForReferringSegmentation
from ..processing import BTDNetProcessor, build_processor, build_tokenizer
from .augment import FLIPS, FlippedDataset
from .build import DATASETS, build_dataset

WARM_UP_STEPS = 2
"""Training steps before the clock starts: allocation, autotuning, compilation."""


def build_model(preset: str, expressions: Sequence[str]) -> tuple[BTDNetForReferringSegmentation, BTDNetProcessor]:
    """A preset with random weights, which are as fast as any, and its processor.

    Args:
        preset: Out of `rrsis.config.PRESETS`.
        expressions: What the tokenizer is made from.

    Raises:
        ValueError: The preset is unknown.
    """
    config = make_config(preset)
    tokenizer = build_tokenizer(expressions, config.max_tokens)
    config.text_config.vocab_size = len(tokenizer)
    config.text_config.pad_token_id = tokenizer.pad_token_id
    return BTDNetForReferringSegmentation(config), build_processor(tokenizer, config.image_size, config.max_tokens)


def loader_rates(
    dataset: Dataset[Any], collate: ReferringCollator, batch_size: int, num_workers: int, passes: int = 2
) -> list[float]:
    """Samples a second of a loader, for each pass over the data.

    The start of the workers is part of a pass, as it is in training. A data set that keeps what it has made, such as
    SynthRRSIS, is slower the first time; workers start without what those of the pass before them had made.

    Args:
        dataset: What to load, in random order.
        collate: Makes the batches.
        batch_size: Samples of a batch.
        num_workers: Worker processes; 0 loads in this one.
        passes: How many passes.

    Returns:
        One rate a pass.
    """
    generator = torch.Generator().manual_seed(0)
    loader = DataLoader(
        dataset, batch_size, shuffle=True, num_workers=num_workers, collate_fn=collate, generator=generator
    )
    rates = []
    for _ in range(passes):
        start, count = time.perf_counter(), 0
        for batch in loader:
            count += len(batch["pixel_values"])
        rates.append(count / (time.perf_counter() - start))
    return rates


def training_rate(
    model: BTDNetForReferringSegmentation, batch: dict[str, Any], seconds: float, bf16: bool = False
) -> float:
    """Samples a second of training steps (forward, backward, AdamW) over one batch that is there already.

    Args:
        model: The model, on its device.
        batch: From the collator.
        seconds: How long to measure; three steps are measured at least.
        bf16: Whether to run under bfloat16 autocast.

    Returns:
        Samples a second of the median step.
    """
    device = next(model.parameters()).device
    inputs = {name: value.to(device) for name, value in batch.items() if isinstance(value, torch.Tensor)}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    model.train()
    times: list[float] = []
    while len(times) < WARM_UP_STEPS + 3 or sum(times[WARM_UP_STEPS:]) < seconds:
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = model(**inputs).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return len(inputs["pixel_values"]) / statistics.median(times[WARM_UP_STEPS:])


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Does what the command line asks for.

    Returns:
        The rates and where they come from, ready for JSON.

    Raises:
        ValueError: An option does not hold; the message names it.
        OSError: A file of the data set is not there.
    """
    for name, least in (("batch_size", 1), ("samples", options.batch_size), ("seconds", 0)):
        if getattr(options, name) < least:
            raise ValueError(f"{name}: got {getattr(options, name)}, due is at least {least}")
    if min(options.num_workers) < 0:
        raise ValueError(f"num_workers: got {min(options.num_workers)}, due is 0 or more")
    data = _build_data(options)
    print(data.describe(), flush=True)
    model, processor = build_model(options.preset, data.possible_expressions)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device: got {device!r}, which cannot be used ({str(error).splitlines()[0]})") from error
    collate = ReferringCollator(processor)
    size = min(options.batch_size, len(data))
    places = range(min(options.samples, len(data)))
    taken = training_rate(model, collate([data[k] for k in range(size)]), options.seconds, options.bf16)
    loaders = []
    for count in tqdm(options.num_workers, "loaders"):
        # A new data set each time: none shall profit from what another made and kept.
        rates = loader_rates(Subset(_build_data(options), places), collate, options.batch_size, count)
        loaders.append({"num_workers": count, "samples_per_second": rates})
    return {
        "arguments": vars(options),
        "device": str(device),
        "num_samples": len(places),
        "model_samples_per_second": taken,
        "loaders": loaders,
        **provenance(),
    }


def _build_data(options: argparse.Namespace) -> FlippedDataset:
    return FlippedDataset(build_dataset(options.dataset, options.split, root=options.data_root), options.flip)


def waiting_share(num_workers: int, given: float, taken: float) -> float:
    """The share of the time in which the model waits for data, from 0 to 1.

    Args:
        num_workers: With 0, loading and training take turns; with more, they go on side by side.
        given: Samples a second of the loader.
        taken: Samples a second of the model.
    """
    return taken / (given + taken) if num_workers == 0 else max(0.0, 1.0 - given / taken)


def text(result: dict[str, Any]) -> str:
    """The measurement for people, with what matters: how much of the time the model waits."""
    taken = result["model_samples_per_second"]
    lines = [
        f"a training step takes {taken:.1f} samples/s ({result['arguments']['preset']} on {result['device']}, "
        f"{result['machine']['threads']} threads)",
        "workers  first pass, samples/s  later passes  later passes : model  model waits",
    ]
    waits = {}
    for loader in result["loaders"]:
        count, (first, later) = loader["num_workers"], loader["samples_per_second"]
        waits[count] = waiting_share(count, later, taken)
        lines.append(f"{count:7d}  {first:21.1f}  {later:12.1f}  {later / taken:20.2f}  {waits[count]:11.1%}")
    best = min(waits, key=lambda count: waits[count])
    verdict = "the bottleneck" if waits[best] > 0.5 else "not the bottleneck"
    lines.append(f"loading is {verdict}: with {best} workers the model waits {waits[best]:.1%} of the time")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rrsis.data.throughput", description="Measures the loader against a training step."
    )
    parser.add_argument("--dataset", default="synthetic", choices=list(DATASETS), help="what to load")
    parser.add_argument("--data_root", help="its folder; synthetic needs none")
    parser.add_argument("--split", default="train", help="train, val or test (default: %(default)s)")
    parser.add_argument("--preset", default="tiny", choices=list(PRESETS), help="the model (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=16, help="samples of a batch (default: %(default)s)")
    parser.add_argument("--num_workers", type=int, nargs="+", default=[0, 1, 2], help="numbers of workers to try")
    parser.add_argument("--samples", type=int, default=1024, help="samples of a pass (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long to train (default: %(default)s)")
    parser.add_argument("--flip", default="off", choices=FLIPS, help="flip pictures (default: %(default)s)")
    parser.add_argument("--device", help="a torch device (default: the GPU where there is one)")
    parser.add_argument("--bf16", action="store_true", help="train under bfloat16 autocast")
    parser.add_argument("--report", metavar="FILE", help="write the measurement as JSON")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    try:
        result = measure(options)
        if options.report:
            with atomic_write(options.report) as path:
                path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(text(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
