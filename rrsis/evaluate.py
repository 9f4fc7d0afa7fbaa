"""Scores a trained model on a data set: ``python -m rrsis.evaluate --model RUN --dataset synthetic --split test``.

One pass over the data gives both protocols (see `rrsis.metrics`), by category and by kind of expression, and keeps the
worst cases as pictures. Masks are made by the processor's post-processing, so what is scored here is what
``rrsis.predict`` writes.
"""

from __future__ import annotations

import contextlib
import heapq
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from rrsis.io import atomic_write
from rrsis.metrics import PROTOCOLS, RMSIN_SIZE, ReferringMetrics, check_protocol, format_table, table_rows
from rrsis.visualization import SampleRow, save_sample_grid

MODEL_INPUTS = ("pixel_values", "input_ids", "attention_mask")
"""What the model needs of the processor's output to predict."""


@dataclass(frozen=True)
class ScoredExpression:
    """One line of ``per_expression.jsonl``.

    Attributes:
        index: Position in the data set.
        sample_id: The data set's name for the triplet.
        image_id: The data set's name for the image.
        expression: The referring expression.
        category: The object's category or None.
        kind: The kind of expression or None.
        scores: For each protocol the intersection, the union and the IoU.
    """

    index: int
    sample_id: str
    image_id: str
    expression: str
    category: str | None
    kind: str | None
    scores: dict[str, dict[str, float]]


@dataclass
class EvaluationResult:
    """What `evaluate_model` found.

    Attributes:
        dataset: The data set's name.
        split: Its split.
        metrics: The collected metrics of each protocol.
        expressions: Every scored expression, in the data set's order.
        worst: The expressions with the lowest IoU under the first protocol, worst first, with their pictures.
        seconds: How long the pass took.
    """

    dataset: str
    split: str
    metrics: dict[str, ReferringMetrics]
    expressions: list[ScoredExpression] = field(default_factory=list)
    worst: list[SampleRow] = field(default_factory=list)
    seconds: float = 0.0

    def overall(self, protocol: str | None = None) -> dict[str, Any]:
        """Figures over all expressions under ``protocol`` (default: the first one that was asked for)."""
        return self.metrics[protocol or next(iter(self.metrics))].compute()

    def table(self) -> str:
        """A text table of all figures, the protocol in every line."""
        rows = []
        for metrics in self.metrics.values():
            rows += table_rows(metrics.compute(), metrics.by_category(), metrics.by_kind())
        return format_table(rows)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the single expressions and pictures, ready for JSON."""
        protocols = {
            name: {
                "overall": metrics.compute(),
                "by_category": metrics.by_category(),
                "by_kind": metrics.by_kind(),
            }
            for name, metrics in self.metrics.items()
        }
        return {
            "dataset": self.dataset,
            "split": self.split,
            "num_expressions": len(self.expressions),
            "seconds": round(self.seconds, 3),
            "protocols": protocols,
        }

    def save(self, folder: str | os.PathLike[str], provenance: Mapping[str, Any] | None = None) -> list[Path]:
        """Writes ``metrics.json``, ``per_expression.jsonl`` and, where there are worst cases, ``worst.png``.

        Args:
            folder: Where to; made if it is not there.
            provenance: Further entries for ``metrics.json``; see `provenance`.

        Returns:
            The paths of the written files.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / "metrics.json", folder / "per_expression.jsonl"]
        with atomic_write(paths[0]) as temporary:
            content = json.dumps({**self.to_dict(), **(provenance or {})}, indent=2, allow_nan=False)
            temporary.write_text(content + "\n", encoding="utf-8")
        with atomic_write(paths[1]) as temporary, temporary.open("w", encoding="utf-8") as stream:
            for scored in self.expressions:
                stream.write(json.dumps(vars(scored), ensure_ascii=False) + "\n")
        if self.worst:
            paths.append(folder / "worst.png")
            title = f"worst of {len(self.expressions)} expressions, {self.dataset} {self.split}"
            save_sample_grid(paths[-1], self.worst, columns=2, title=title)
        return paths


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
        progress: Whether to show a progress bar.

    Returns:
        The figures, the single scores and the worst cases.

    Raises:
        ValueError: If a number or a protocol is not valid, or the data set is empty.
    """
    _check_numbers(batch_size=batch_size, num_worst=num_worst, limit=limit, num_workers=num_workers)
    if not protocols:
        raise ValueError(f"protocols: got none, expected some of {', '.join(PROTOCOLS)}")
    count = len(dataset) if limit is None else min(limit, len(dataset))
    if count == 0:
        raise ValueError("dataset: got no expressions, expected at least one")
    result = EvaluationResult(
        dataset=str(getattr(dataset, "name", type(dataset).__name__)),
        split=str(getattr(dataset, "split", "")),
        metrics={check_protocol(name): ReferringMetrics(name) for name in protocols},
    )
    loader = DataLoader(
        _Indexed(dataset), batch_size, sampler=range(count), num_workers=num_workers, collate_fn=_Collator(processor)
    )
    worst = _WorstCases(num_worst)
    device = next(model.parameters()).device
    autocast = torch.autocast(device.type, autocast_dtype) if autocast_dtype is not None else contextlib.nullcontext()
    start = time.perf_counter()
    with _evaluation_mode(model), tqdm(total=count, desc="evaluate", unit="expr", disable=not progress) as bar:
        for batch, indexed_samples in loader:
            with autocast:
                outputs = model(**{name: batch[name].to(device, non_blocking=True) for name in MODEL_INPUTS})
            _score_batch(result, worst, processor, outputs, indexed_samples)
            bar.update(len(indexed_samples))
    result.worst = worst.rows()
    result.seconds = time.perf_counter() - start
    return result


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


class _WorstCases:
    """Keeps the rows with the lowest IoU; of equal ones those that came first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._heap: list[tuple[float, int, SampleRow]] = []

    def add(self, iou: float, index: int, sample: Any, prediction: Any) -> None:
        if len(self._heap) == self.limit and (not self.limit or (-iou, -index) <= self._heap[0][:2]):
            return
        row = SampleRow(sample.image, sample.expression, sample.mask, prediction, note=f"IoU {iou:.2f}")
        if len(self._heap) < self.limit:
            heapq.heappush(self._heap, (-iou, -index, row))
        else:
            heapq.heapreplace(self._heap, (-iou, -index, row))

    def rows(self) -> list[SampleRow]:
        return [row for _, _, row in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]


def _score_batch(
    result: EvaluationResult,
    worst: _WorstCases,
    processor: Any,
    outputs: Any,
    indexed_samples: Sequence[tuple[int, Any]],
) -> None:
    own_sizes = [sample.mask.shape for _, sample in indexed_samples]
    probabilities = {}
    for protocol in result.metrics:
        sizes = [(RMSIN_SIZE, RMSIN_SIZE)] * len(own_sizes) if protocol == "rmsin" else own_sizes
        probabilities[protocol] = processor.post_process_probabilities(outputs, sizes)
    first = next(iter(result.metrics))
    for position, (index, sample) in enumerate(indexed_samples):
        scores = {}
        for protocol, metrics in result.metrics.items():
            probability = probabilities[protocol][position]
            iou = metrics.update(probability, sample.mask, sample.category, kind=sample.kind)
            counts = metrics.scores[-1]
            scores[protocol] = {"intersection": counts.intersection, "union": counts.union, "iou": iou}
        result.expressions.append(
            ScoredExpression(
                index, sample.sample_id, sample.image_id, sample.expression, sample.category, sample.kind, scores
            )
        )
        if worst.limit:
            prediction = _at_own_size(processor, outputs, probabilities, position, own_sizes)
            worst.add(scores[first]["iou"], index, sample, prediction)


def _at_own_size(processor: Any, outputs: Any, probabilities: dict[str, Any], position: int, sizes: Any) -> Any:
    if "native" not in probabilities:
        probabilities["native"] = processor.post_process_probabilities(outputs, sizes)
    return (probabilities["native"][position] > 0.5).cpu().numpy()


@contextlib.contextmanager
def _evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _check_numbers(*, batch_size: int, num_worst: int, limit: int | None, num_workers: int) -> None:
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("num_worst", num_worst, 0),
        ("num_workers", num_workers, 0),
    ):
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

    model: str = field(metadata={"help": "Run folder of rrsis.train, or another folder written by save_pretrained."})
    dataset: str = field(default="synthetic", metadata={"help": "synthetic, refsegrs, rrsisd or risbench."})
    split: str = field(default="test", metadata={"help": "train, val or test."})
    data_root: str | None = field(default=None, metadata={"help": "Folder of the data set; synthetic needs none."})
    protocol: str = field(default="both", metadata={"help": "native, rmsin or both."})
    out: str | None = field(
        default=None, metadata={"help": "Folder for the results; by default evaluation-DATASET-SPLIT in the model's."}
    )
    batch_size: int = field(default=16, metadata={"help": "Expressions per forward pass."})
    num_worst: int = field(default=16, metadata={"help": "How many of the worst cases to draw; 0 for none."})
    limit: int | None = field(default=None, metadata={"help": "Score only the first so many expressions."})
    num_workers: int = field(default=0, metadata={"help": "Processes that load data; 0 loads in this one."})
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda, cuda:1, ..."})
    bf16: bool = field(default=False, metadata={"help": "Run the model under bfloat16 autocast."})


def load_run(folder: str | os.PathLike[str], device: str = "auto") -> tuple[Any, Any]:
    """Loads model and processor from a run folder.

    Args:
        folder: A folder with the files that ``save_pretrained`` of both writes.
        device: A torch device, or "auto" for the GPU where there is one.

    Returns:
        The model in evaluation mode on that device, and the processor.

    Raises:
        FileNotFoundError: If the folder or one of the files is not there.
        ValueError: If the device does not exist here.
    """
    from rrsis.architectures import load_model
    from rrsis.processing import BTDNetProcessor

    path = Path(folder)
    if not path.is_dir():
        raise FileNotFoundError(f"model: no folder {str(path)!r}; expected a run folder as rrsis.train leaves it")
    if not (path / "config.json").is_file():
        raise FileNotFoundError(
            f"model: {str(path)!r} holds no config.json; expected a run folder as rrsis.train leaves it"
        )
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
        FileNotFoundError: If the model or the data are not there.
        ValueError: If an argument is not valid.
    """
    from rrsis.data import build_dataset

    protocols = parse_protocols(arguments.protocol)
    _check_numbers(
        batch_size=arguments.batch_size,
        num_worst=arguments.num_worst,
        limit=arguments.limit,
        num_workers=arguments.num_workers,
    )
    dataset = build_dataset(arguments.dataset, arguments.split, root=arguments.data_root)
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
    )
    out = arguments.out or Path(arguments.model) / f"evaluation-{arguments.dataset}-{arguments.split}"
    details = {"model": str(arguments.model), "trained": _training_facts(arguments.model), "arguments": vars(arguments)}
    paths = result.save(out, {**details, **provenance(getattr(dataset, "seed", None))})
    print(result.table())
    for path in paths:
        print(f"wrote {path}")
    return result


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
