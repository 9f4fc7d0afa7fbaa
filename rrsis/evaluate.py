"""Scores a trained model on a data set: ``python -m rrsis.evaluate --model RUN --dataset synthetic --split test``.

One pass over the data gives both protocols (see `rrsis.metrics`), by category, kind of expression and size of the
object, with bootstrap intervals; the calibration of the probabilities; the masks as a file; and pictures of the worst
cases. Masks are made by the processor's post-processing, so what is scored here is what ``rrsis.predict`` writes.

``python -m rrsis.evaluate --predictions FILE`` scores the masks of such a file (`rrsis.predictions`) without a model.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from rrsis.confidence import DEFAULT_BOOTSTRAP, Bootstrap
from rrsis.data import build_dataset
from rrsis.data.types import ReferringDataset
from rrsis.metrics import PROTOCOLS, RMSIN_SIZE
from rrsis.predictions import read_predictions
from rrsis.rescoring import score_predictions
from rrsis.run_folders import check_run_folder, runs_here
from rrsis.scoring import EvaluationResult, Scorer

MODEL_INPUTS = ("pixel_values", "input_ids", "attention_mask")
"""What the model needs of the processor's output to predict."""


@torch.inference_mode()
def evaluate_model(
    model: torch.nn.Module,
    processor: Any,
    dataset: Dataset[Any],
    *,
    batch_size: int = 16,
    protocols: Sequence[str] = PROTOCOLS,
    num_worst: int = 16,
    limit: int | None = None,
    num_workers: int = 0,
    autocast_dtype: torch.dtype | None = None,
    bootstrap: Bootstrap | None = DEFAULT_BOOTSTRAP,
    keep_predictions: bool = True,
    progress: bool = True,
) -> EvaluationResult:
    """Predicts and scores every expression of a data set.

    Args:
        model: A `rrsis.model.BTDNetForReferringSegmentation`; runs where its parameters are, in evaluation mode, and is
            given back in the mode in which it came.
        processor: Its `rrsis.processing.BTDNetProcessor`.
        dataset: Map-style, of `rrsis.data.types.ReferringSample`.
        batch_size: Expressions per forward pass.
        protocols: Names out of `rrsis.metrics.PROTOCOLS`; the first one orders the worst cases.
        num_worst: How many of the worst cases to keep with their pictures.
        limit: Score only the first so many expressions.
        num_workers: Processes that load and prepare batches; 0 does it in this one.
        autocast_dtype: Run the model under autocast in this dtype.
        bootstrap: How to make confidence intervals; None for none.
        keep_predictions: Whether to keep the masks, run-length encoded, for ``predictions.json``.
        progress: Whether to show a progress bar.

    Returns:
        The figures, the single scores, the masks and the worst cases.

    Raises:
        ValueError: If a number or a protocol is not valid, or the data set is empty.
    """
    _check_numbers(batch_size=batch_size, num_worst=num_worst, limit=limit, num_workers=num_workers)
    if not protocols:
        raise ValueError(f"protocols: got none, expected some of {', '.join(PROTOCOLS)}")
    count = len(dataset) if limit is None else min(limit, len(dataset))
    if count == 0:
        raise ValueError("dataset: got no expressions, expected at least one")
    scorer = Scorer(dataset, protocols, num_worst, bootstrap, keep_predictions)
    loader = DataLoader(
        _Indexed(dataset), batch_size, sampler=range(count), num_workers=num_workers, collate_fn=_Collator(processor)
    )
    device = next(model.parameters()).device
    autocast = torch.autocast(device.type, autocast_dtype) if autocast_dtype is not None else contextlib.nullcontext()
    start = time.perf_counter()
    with _evaluation_mode(model), tqdm(total=count, desc="evaluate", unit="expr", disable=not progress) as bar:
        for batch, indexed_samples in loader:
            with autocast:
                outputs = model(**{name: batch[name].to(device, non_blocking=True) for name in MODEL_INPUTS})
            _score_batch(scorer, processor, outputs, indexed_samples)
            bar.update(len(indexed_samples))
    return scorer.finish(time.perf_counter() - start)


def provenance(seed: int | None = None) -> dict[str, Any]:
    """Where figures come from: seed, commit, versions, machine.

    Args:
        seed: The seed of the run or of the data, whichever the figures depend on.

    Returns:
        A dictionary ready for JSON; ``commit`` is None where the package does not run from a git checkout.
    """
    packages = ("rrsis", "transformers", "timm", "numpy")
    versions = {name: _version(name) for name in packages}
    return {
        "seed": seed,
        "commit": source_commit(),
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__), **versions},
        "machine": {
            "platform": platform.platform(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "threads": torch.get_num_threads(),
        },
        "kernels_backend": os.environ.get("RRSIS_KERNELS_BACKEND", "automatic"),
    }


def source_commit() -> str | None:
    """The commit of the checkout from which this package runs, with "-dirty" when tracked files differ from it.

    None without git, and where the package is merely installed somewhere below another project's checkout.
    """
    here = Path(__file__).resolve()

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)
        commit = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("-dirty" if changed else "")


class _Indexed(Dataset[tuple[int, Any]]):
    """A data set whose items know their index."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> tuple[int, Any]:
        return index, self.dataset[index]


class _Collator:
    """Turns samples into the model's input and keeps the samples beside it."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, items: list[tuple[int, Any]]) -> tuple[Any, list[tuple[int, Any]]]:
        samples = [sample for _, sample in items]
        batch = self.processor(
            images=[sample.image for sample in samples], expressions=[sample.expression for sample in samples]
        )
        return batch, items


def _score_batch(scorer: Scorer, processor: Any, outputs: Any, indexed_samples: Sequence[tuple[int, Any]]) -> None:
    own_size = processor.post_process_probabilities(outputs, [sample.mask.shape for _, sample in indexed_samples])
    squares: Sequence[torch.Tensor | None] = [None] * len(own_size)
    if "rmsin" in scorer.result.metrics:
        squares = processor.post_process_probabilities(outputs, [(RMSIN_SIZE, RMSIN_SIZE)] * len(own_size))
    for (index, sample), probabilities, square in zip(indexed_samples, own_size, squares, strict=True):
        scorer.add_probabilities(index, sample, probabilities, square)


@contextlib.contextmanager
def _evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _check_numbers(*, limit: int | None, **numbers: int) -> None:
    for name, value in numbers.items():
        least = 1 if name == "batch_size" else 0
        if value < least:
            raise ValueError(f"{name}: got {value}, expected at least {least}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit: got {limit}, expected at least 1 or None")


def _training_facts(run_folder: str) -> dict[str, Any] | None:
    """Seed, commit and steps of the run that made the model, from its metrics.json; None where it has none."""
    try:
        written = json.loads((Path(run_folder) / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return {name: written.get(name) for name in ("seed", "commit", "steps")}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@dataclass
class EvaluationArguments:
    """Command line of ``python -m rrsis.evaluate``."""

    model: str | None = field(
        default=None, metadata={"help": "Run folder of rrsis.train, or another folder written by save_pretrained."}
    )
    predictions: str | None = field(
        default=None, metadata={"help": "Instead of --model: score the masks of this predictions.json."}
    )
    dataset: str = field(default="synthetic", metadata={"help": "synthetic, refsegrs, rrsisd or risbench."})
    split: str = field(default="test", metadata={"help": "train, val or test."})
    data_root: str | None = field(default=None, metadata={"help": "Folder of the data set; synthetic needs none."})
    protocol: str = field(default="both", metadata={"help": "native, rmsin or both."})
    out: str | None = field(
        default=None,
        metadata={
            "help": "Folder for the results; by default evaluation-DATASET-SPLIT in the model's, or "
            "rescored-DATASET-SPLIT beside the predictions."
        },
    )
    batch_size: int = field(default=16, metadata={"help": "Expressions per forward pass."})
    num_worst: int = field(default=16, metadata={"help": "How many of the worst cases to draw; 0 for none."})
    limit: int | None = field(default=None, metadata={"help": "Score only the first so many expressions."})
    num_workers: int = field(default=0, metadata={"help": "Processes that load data; 0 loads in this one."})
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda, cuda:1, ..."})
    bf16: bool = field(default=False, metadata={"help": "Run the model under bfloat16 autocast."})
    bootstrap: int = field(default=1000, metadata={"help": "Resamples of images for 95% intervals; 0 for none."})
    bootstrap_seed: int = field(default=0, metadata={"help": "Seed of the resamples."})


def load_run(folder: str | os.PathLike[str] | None, device: str = "auto") -> tuple[Any, Any]:
    """Loads model and processor from a run folder.

    Args:
        folder: A folder with the files that ``save_pretrained`` of both writes; None, for what a user left out, is
            refused with the runs that are there.
        device: A torch device, or "auto" for the GPU where there is one.

    Returns:
        The model in evaluation mode on that device, and the processor.

    Raises:
        FileNotFoundError: If the folder or one of the files is not there.
        ValueError: If no folder was given, or the device does not exist here.
    """
    from rrsis.architectures import load_model
    from rrsis.processing import BTDNetProcessor

    path = check_run_folder(folder)
    name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device: got {device!r}, which cannot be used here ({str(error).splitlines()[0]})") from error
    model = load_model(path).to(name).eval()
    return model, BTDNetProcessor.from_pretrained(path)


def parse_protocols(protocol: str) -> tuple[str, ...]:
    """Protocol names of the command line's "native", "rmsin" or "both".

    Raises:
        ValueError: If it is another word.
    """
    if protocol == "both":
        return PROTOCOLS
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol: got {protocol!r}, expected native, rmsin or both")
    return (protocol,)


def run(arguments: EvaluationArguments) -> EvaluationResult:
    """Does what the command line asks for and writes the results.

    Raises:
        FileNotFoundError: If the model, the predictions or the data are not there.
        ValueError: If an argument is not valid, or the predictions do not fit the data.
    """
    if (arguments.model is None) == (arguments.predictions is None):
        got, hint = ("neither", f"; {runs_here()}") if arguments.model is None else ("both", "")
        raise ValueError(f"model, predictions: got {got}, expected --model RUN or --predictions FILE{hint}")
    protocols = parse_protocols(arguments.protocol)
    _check_numbers(
        batch_size=arguments.batch_size,
        num_worst=arguments.num_worst,
        limit=arguments.limit,
        num_workers=arguments.num_workers,
        bootstrap=arguments.bootstrap,
        bootstrap_seed=arguments.bootstrap_seed,
    )
    dataset = build_dataset(arguments.dataset, arguments.split, root=arguments.data_root)
    first = "" if arguments.limit is None else f", of which the first {min(arguments.limit, len(dataset))} are scored"
    print(dataset.describe() + first, flush=True)
    bootstrap = Bootstrap(arguments.bootstrap, arguments.bootstrap_seed) if arguments.bootstrap else None
    if arguments.predictions is not None:
        result, source = _score_file(arguments, dataset, protocols, bootstrap)
        folder, default = Path(arguments.predictions).parent, "rescored"
    else:
        result, source = _score_model(arguments, dataset, protocols, bootstrap)
        folder, default = Path(arguments.model), "evaluation"
    out = arguments.out or folder / f"{default}-{arguments.dataset}-{arguments.split}"
    details = {**source, "arguments": vars(arguments)}
    paths = result.save(out, {**details, **provenance(getattr(dataset, "seed", None))})
    print(result.table())
    print(result.notes())
    for path in paths:
        print(f"wrote {path}")
    return result


def _score_model(
    arguments: EvaluationArguments, dataset: ReferringDataset, protocols: Sequence[str], bootstrap: Bootstrap | None
) -> tuple[EvaluationResult, dict[str, Any]]:
    model, processor = load_run(arguments.model, arguments.device)
    result = evaluate_model(
        model,
        processor,
        dataset,
        batch_size=arguments.batch_size,
        protocols=protocols,
        num_worst=arguments.num_worst,
        limit=arguments.limit,
        num_workers=arguments.num_workers,
        autocast_dtype=torch.bfloat16 if arguments.bf16 else None,
        bootstrap=bootstrap,
    )
    return result, {"model": str(arguments.model), "trained": _training_facts(arguments.model)}


def _score_file(
    arguments: EvaluationArguments, dataset: ReferringDataset, protocols: Sequence[str], bootstrap: Bootstrap | None
) -> tuple[EvaluationResult, dict[str, Any]]:
    file = read_predictions(arguments.predictions)
    result = score_predictions(
        file,
        dataset,
        protocols=protocols,
        num_worst=arguments.num_worst,
        limit=arguments.limit,
        bootstrap=bootstrap,
    )
    digest = hashlib.sha256(file.path.read_bytes()).hexdigest()
    return result, {"predictions": {"file": str(file.path), "sha256": digest, "masks": sorted(file.masks)}}


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status (2 for bad input)."""
    from transformers import HfArgumentParser

    parser = HfArgumentParser(EvaluationArguments, prog="python -m rrsis.evaluate", description=__doc__.split("\n")[0])
    (arguments,) = parser.parse_args_into_dataclasses(args=list(argv) if argv is not None else None)
    try:
        run(arguments)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
