"""Makes a file that runs without Python: ``python -m rrsis.export --model RUN --out model.pt2`` (or ``model.onnx``).

torch.export traces the model in evaluation mode and AOTInductor compiles the graph into one file, which C++ loads with
``torch::inductor::AOTIModelPackageLoader`` (docs/serving.md, examples/serve_cpp). One package serves expressions of any
length and images of any size within the bounds given here; the batch is fixed at one image with one expression. With a
name that ends in .onnx the graph is written as ONNX instead (`rrsis.export_onnx`), for a batch of any size.

The package takes ``pixel_values`` (1, 3, H, W) float32, ``input_ids`` and ``attention_mask`` (1, L) int64, and returns
the joint logits (1, h, w) that `rrsis.processing` turns into a mask. What a server has to know beside that is in the
package's metadata, as text (`describe`). A package is written only if it gives the model's own logits.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rrsis import export_onnx
from rrsis.evaluate import load_run, provenance
from rrsis.io import atomic_write
from rrsis.windows import windows_of_any_size
from rrsis_kernels import nn as kernel_nn
from rrsis_kernels import use_backend
from rrsis_kernels.library import NAMESPACE

SIZE_MULTIPLE = 32
"""Sides of images are multiples of this, the stride of the coarsest stage."""

MIN_SIZE = 2 * SIZE_MULTIPLE
"""Smallest side: with a single pixel in the coarsest stage the graph would be another one."""

FORMATS = (".pt2", ".onnx")
"""Endings of the files that can be written."""

MIN_TOKENS = 2
"""Shortest expression, [CLS] and [SEP] included; one of length 1 would be another graph, too."""

TOLERANCE = 1e-3
"""Largest difference between the logits of package and model, as a share of the largest logit (of 1 at least)."""


class PackageDisagreesError(RuntimeError):
    """The compiled package does not give the model's logits."""


@dataclass(frozen=True)
class Bounds:
    """What a package accepts.

    Attributes:
        min_size: shortest side of an image, in pixels.
        max_size: longest side of an image, in pixels.
        max_tokens: longest expression, in tokens.
    """

    min_size: int
    max_size: int
    max_tokens: int


class _Served(nn.Module):
    """The model as the package calls it: tensors in, one tensor out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        # Taking all pixels changes nothing but how the sizes are written: as multiples, so that halving them stage by
        # stage simplifies. Without it, tracing takes many times longer and specialises.
        for dim in (2, 3):
            length = pixel_values.shape[dim] // SIZE_MULTIPLE * SIZE_MULTIPLE
            pixel_values = pixel_values.index_select(dim, torch.arange(length, device=pixel_values.device))
        return self.model(pixel_values, input_ids, attention_mask).logits


def check_bounds(
    model: nn.Module,
    processor: Any,
    min_size: int | None = None,
    max_size: int | None = None,
    max_tokens: int | None = None,
) -> Bounds:
    """Fills in what was left open and checks the rest against the model.

    Args:
        model: a `rrsis.model.BTDNetForReferringSegmentation`.
        processor: its processor.
        min_size: shortest side of an image; 64 when not given.
        max_size: longest side of an image; twice the processor's larger side when not given.
        max_tokens: longest expression; the processor's when not given.

    Raises:
        ValueError: when a bound is not possible; the message names it.
    """
    own = (processor.image_processor.size["height"], processor.image_processor.size["width"])
    bounds = Bounds(
        MIN_SIZE if min_size is None else min_size,
        2 * max(own) if max_size is None else max_size,
        processor.max_tokens if max_tokens is None else max_tokens,
    )
    for name in ("min_size", "max_size"):
        size = getattr(bounds, name)
        if size % SIZE_MULTIPLE or size < MIN_SIZE:
            raise ValueError(f"{name}: got {size}, expected a multiple of {SIZE_MULTIPLE}, at least {MIN_SIZE}")
    if not bounds.min_size <= min(own) <= max(own) <= bounds.max_size or bounds.min_size == bounds.max_size:
        raise ValueError(
            f"min_size, max_size: got {bounds.min_size} and {bounds.max_size}, expected a range around the processor's "
            f"{own[0]} x {own[1]}"
        )
    longest = model.config.text_config.max_position_embeddings
    if not MIN_TOKENS < bounds.max_tokens <= longest:
        raise ValueError(
            f"max_tokens: got {bounds.max_tokens}, expected {MIN_TOKENS + 1} to {longest}, the text model's positions"
        )
    return bounds


def describe(model: nn.Module, processor: Any, bounds: Bounds, threshold: float) -> dict[str, str]:
    """What a server has to know, as text: numbers are separated by blanks, names begin with ``rrsis.``.

    Raises:
        ValueError: when the processor prepares images in a way that no server here knows.
    """
    image = processor.image_processor
    for name, due in (("do_resize", True), ("do_rescale", True), ("do_normalize", True), ("resample", 2)):
        if getattr(image, name) != due:
            raise ValueError(f"model: its image processor has {name}={getattr(image, name)}, expected {due}")
    facts = provenance()
    versions = [f"{name}={version}" for name, version in facts["versions"].items() if name != "python"]
    values = {
        "format": [1],
        "device": [next(model.parameters()).device.type],
        "image_size": [image.size["height"], image.size["width"]],
        "size_bounds": [bounds.min_size, bounds.max_size],
        "size_multiple": [SIZE_MULTIPLE],
        "token_bounds": [MIN_TOKENS, bounds.max_tokens],
        "vocabulary_size": [model.config.text_config.vocab_size],
        "rescale_factor": [image.rescale_factor],
        "image_mean": image.image_mean,
        "image_std": image.image_std,
        "threshold": [threshold],
        "versions": [*versions, f"commit={facts['commit']}"],
    }
    described = {f"rrsis.{name}": " ".join(map(str, entries)) for name, entries in values.items()}
    # The whole tokenizer, for any library that reads the tokenizers format.
    return described | {"rrsis.tokenizer": processor.tokenizer.backend_tokenizer.to_str()}


@contextlib.contextmanager
def _traceable(model: nn.Module, bounds: Bounds) -> Iterator[None]:
    """Takes out of the model what would decide by the size of an input while the block runs."""
    layers = [layer for layer in model.modules() if isinstance(layer, kernel_nn.BidirectionalSpatialCorrelation)]
    orders = [layer.order for layer in layers]
    for layer in layers:
        if layer.order == "auto":
            # One order for all lengths: the one that is cheaper where the cost is highest.
            layer.order = kernel_nn.cheaper_order(layer.pixel_dim, layer.embed_dim, layer.num_heads, bounds.max_tokens)
    try:
        with windows_of_any_size(model):
            yield
    finally:
        for layer, order in zip(layers, orders, strict=True):
            layer.order = order


def trace(model: nn.Module, bounds: Bounds, max_batch: int = 1) -> torch.export.ExportedProgram:
    """Exports the model's inference as one graph for all sizes within the bounds.

    Args:
        model: a `rrsis.model.BTDNetForReferringSegmentation` that takes any image size.
        bounds: from `check_bounds`.
        max_batch: most images, each with an expression; the graph is for a single one where it is 1.

    Raises:
        ValueError: when the graph calls operators that only Python has.
    """
    from torch.fx.experimental import _config as symbols

    height, width = (
        SIZE_MULTIPLE
        * torch.export.Dim(name, min=bounds.min_size // SIZE_MULTIPLE, max=bounds.max_size // SIZE_MULTIPLE)
        for name in ("height", "width")
    )
    tokens = torch.export.Dim("tokens", min=MIN_TOKENS, max=bounds.max_tokens)
    batch = {0: torch.export.Dim("batch", min=1, max=max_batch)} if max_batch > 1 else {}
    shapes = ({**batch, 2: height, 3: width}, {**batch, 1: tokens}, {**batch, 1: tokens})
    example = _example(model, (bounds.max_size, bounds.min_size), bounds.max_tokens, batch=1 + len(batch))
    # Oblivious: a graph traced where a stage has several windows has to hold where it has one.
    with torch.no_grad(), _traceable(model, bounds), symbols.patch(backed_size_oblivious=True):
        program = torch.export.export(_Served(model), example, dynamic_shapes=shapes, strict=False)
    foreign = sorted(name for name in _operators(program) if name.split("::")[0] not in ("aten", "prims", NAMESPACE))
    if foreign:
        raise ValueError(f"model: its graph calls {', '.join(foreign)}, which C++ does not have")
    return program


def _operators(program: torch.export.ExportedProgram) -> set[str]:
    """Names of the torch operators in a graph."""
    targets = {node.target for node in program.graph.nodes if node.op == "call_function"}
    return {target.name().split(".")[0] for target in targets if isinstance(target, torch._ops.OpOverload)}


def _example(model: nn.Module, size: tuple[int, int], tokens: int, batch: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs of one size, the same whenever they are asked for; a quarter of a longer expression is padding."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn((batch, 3, *size), generator=generator)
    words = torch.randint(model.config.text_config.vocab_size, (batch, tokens), generator=generator)
    mask = torch.ones_like(words)
    mask[-1, tokens - tokens // 4 :] = 0
    device = next(model.parameters()).device
    return pixels.to(device), words.to(device), mask.to(device)


def check_package(path: str | os.PathLike[str], model: nn.Module, bounds: Bounds) -> float:
    """Compares a package with the model, at the bounds and at the configured size.

    Args:
        path: a file of one of `FORMATS`.
        model: what it was made of.
        bounds: what it shall take.

    Returns:
        The largest difference of a logit, as a share of the largest logit (of 1 at least).

    Raises:
        PackageDisagreesError: when that is more than `TOLERANCE`, or the shapes differ.
    """
    any_batch = Path(path).suffix == ".onnx"
    package = export_onnx.load(path) if any_batch else torch._inductor.aoti_load_package(str(path))
    sides = sorted({bounds.min_size, model.config.image_size, bounds.max_size})
    worst = 0.0
    lengths = itertools.cycle((bounds.max_tokens, MIN_TOKENS, (MIN_TOKENS + bounds.max_tokens) // 2))
    batches = itertools.cycle((2, 1) if any_batch else (1,))
    for size in itertools.product(sides, sides):
        tokens, batch = next(lengths), next(batches)
        inputs = _example(model, size, tokens, batch)
        with torch.no_grad():
            due, got = model(*inputs).logits, package(*inputs)
        where = f"{batch} of {size[0]} x {size[1]} pixels and {tokens} tokens"
        if got.shape != due.shape:
            raise PackageDisagreesError(f"{where}: got logits {tuple(got.shape)}, expected {tuple(due.shape)}")
        difference = float((got - due).abs().max() / due.abs().max().clamp(min=1))
        if not difference <= TOLERANCE:
            raise PackageDisagreesError(f"{where}: logits differ by {difference:.1e}, allowed is {TOLERANCE:.0e}")
        worst = max(worst, difference)
    return worst


def export_model(
    model: nn.Module,
    processor: Any,
    out: str | os.PathLike[str],
    bounds: Bounds,
    *,
    threshold: float = 0.5,
) -> dict[str, str]:
    """Writes a package: ONNX, or compiled for the device and the kind of processor that this runs on.

    Args:
        model: a `rrsis.model.BTDNetForReferringSegmentation` in evaluation mode; it takes any image size afterwards.
        processor: its processor.
        out: the file to write, of one of `FORMATS`.
        bounds: from `check_bounds`.
        threshold: probability above which a pixel belongs to the mask.

    Returns:
        The package's metadata.

    Raises:
        PackageDisagreesError: when the compiled package does not give the model's logits; nothing is written then.
        ValueError: when model or processor cannot be served.
    """
    metadata = describe(model, processor, bounds, threshold)
    model.encoder.image.accept_any_size()
    onnx = Path(out).suffix == ".onnx"
    # ONNX knows nothing of our operators; there they are written out in its own.
    with _said("traced"), use_backend("reference") if onnx else contextlib.nullcontext():
        program = trace(model, bounds, export_onnx.MAX_BATCH if onnx else 1)
    metadata["rrsis.operators"] = " ".join(sorted(name for name in _operators(program) if name.startswith(NAMESPACE)))
    # Under its own name, which the archive repeats inside, but elsewhere until it is known to agree.
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder, Path(out).name)
        if onnx:
            with _said("translated"):
                export_onnx.write(program, package, metadata)
        else:
            with _said("compiled"):
                options = {"aot_inductor.metadata": metadata}
                torch._inductor.aoti_compile_and_package(program, package_path=str(package), inductor_configs=options)
        with _said("compared with the model"):
            difference = check_package(package, model, bounds)
        with atomic_write(out) as path:
            shutil.copyfile(package, path)
    print(f"logits differ by {difference:.1e} of the largest at most")
    return metadata


@contextlib.contextmanager
def _said(what: str) -> Iterator[None]:
    """Says that a step is done and how long it took."""
    start = time.perf_counter()
    yield
    print(f"{what} in {time.perf_counter() - start:.0f} s", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rrsis.export", description=__doc__.split("\n")[0])
    parser.add_argument("--model", metavar="RUN", help="run folder of rrsis.train (required)")
    parser.add_argument(
        "--out", type=Path, default=Path("model.pt2"), help="file to write, .pt2 or .onnx (default: model.pt2)"
    )
    parser.add_argument("--device", default="cpu", help="where the package shall run: cpu or cuda (default: cpu)")
    parser.add_argument("--min_size", type=int, help=f"shortest side of an image in pixels (default: {MIN_SIZE})")
    parser.add_argument("--max_size", type=int, help="longest side of an image (default: twice the model's)")
    parser.add_argument("--max_tokens", type=int, help="longest expression in tokens (default: the model's)")
    parser.add_argument("--threshold", type=float, default=0.5, help="probability above which a pixel belongs (0.5)")
    return parser


def _check_compiler() -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise ValueError("no C++ compiler found, which AOTInductor needs (CXX names one)") from error


def run(arguments: argparse.Namespace) -> dict[str, str]:
    """Does what the command line asks for; nothing is written unless every input is valid.

    Raises:
        FileNotFoundError: If the model is not there.
        PackageDisagreesError: If the package does not give the model's logits.
        ValueError: If an argument is not valid.
    """
    if arguments.out.suffix not in FORMATS:
        raise ValueError(f"out: got {str(arguments.out)!r}, expected a name that ends in {' or '.join(FORMATS)}")
    if arguments.out.is_dir():
        raise ValueError(f"out: {str(arguments.out)!r} is a folder, expected a file name")
    if not 0.0 < arguments.threshold < 1.0:
        raise ValueError(f"threshold: got {arguments.threshold}, expected a number between 0 and 1")
    if arguments.out.suffix == ".onnx":
        export_onnx.check_installed()
        if arguments.device != "cpu":
            raise ValueError(
                f"device: got {arguments.device!r}, expected cpu for .onnx, which runs where its runtime does"
            )
    else:
        _check_compiler()
    model, processor = load_run(arguments.model, arguments.device)
    bounds = check_bounds(model, processor, arguments.min_size, arguments.max_size, arguments.max_tokens)
    metadata = export_model(model, processor, arguments.out, bounds, threshold=arguments.threshold)
    print(
        f"wrote {arguments.out}: images of {bounds.min_size} to {bounds.max_size} pixels a side, "
        f"expressions of {MIN_TOKENS} to {bounds.max_tokens} tokens, on {metadata['rrsis.device']}"
    )
    return metadata


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status (2 for bad input, 1 for a package that does not agree)."""
    arguments = _parser().parse_args(argv)
    try:
        run(arguments)
    except PackageDisagreesError as error:
        print(f"error: the package is not written: {error}", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
