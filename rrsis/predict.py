"""Segments what expressions refer to: ``python -m rrsis.predict --model RUN --image FILE --expression "the red ship"``.

``python -m rrsis.predict scene.tif --model RUN --expression "the red ship"`` does the same for georeferenced scenes of
any size (`rrsis.scenes`). The rest of this text is about ``--image``.

One expression writes ``--out`` and ``--overlay`` as named; several write one file each, numbered before the suffix
(``mask-1.png``, ``mask-2.png``, ...). Every mask has the image's own size, 0 outside and 255 on the object. Images
of any kind become 8-bit RGB by the rules in `rrsis.inputs`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from rrsis.evaluate import MODEL_INPUTS, load_run
from rrsis.inputs import check_expressions, load_image, to_rgb
from rrsis.io import numbered_paths
from rrsis.visualization import overlay, save_image

if TYPE_CHECKING:
    from rrsis.scene_engines import Outcome  # needs the packages of the extra [geo]


@dataclass(frozen=True)
class Prediction:
    """What the model says about one expression.

    Attributes:
        expression: The expression.
        mask: ``(H, W)`` bool, the image's own size.
        probability: ``(H, W)`` float32 in [0, 1].
        score: Mean probability inside the mask; 0 where the mask is empty.
        area_share: Share of the image that the mask covers, from 0 to 1.
    """

    expression: str
    mask: np.ndarray
    probability: np.ndarray
    score: float
    area_share: float


@torch.inference_mode()
def predict(
    model: torch.nn.Module,
    processor: Any,
    image: np.ndarray | Image.Image,
    expressions: str | Sequence[str],
    *,
    threshold: float = 0.5,
    batch_size: int = 8,
) -> list[Prediction]:
    """Segments what each expression refers to in one image.

    Args:
        model: A `rrsis.model.BTDNetForReferringSegmentation`; runs where its parameters are. Its mode is left alone:
            call ``model.eval()`` before.
        processor: Its `rrsis.processing.BTDNetProcessor`.
        image: ``(H, W, 3)`` uint8, or a Pillow image, which is converted by the rules in `rrsis.inputs`.
        expressions: One expression or several.
        threshold: A pixel belongs to the mask when its probability is above this.
        batch_size: Expressions per forward pass.

    Returns:
        One `Prediction` for each expression, in their order.

    Raises:
        TypeError: If the image is not uint8.
        ValueError: If the image's shape, an expression, ``threshold`` or ``batch_size`` is not valid.
    """
    expressions = check_expressions([expressions] if isinstance(expressions, str) else expressions)
    if not 0.0 < threshold < 1.0:
        raise ValueError(f"threshold: got {threshold}, expected a number between 0 and 1")
    if batch_size < 1:
        raise ValueError(f"batch_size: got {batch_size}, expected at least 1")
    pixels = to_rgb(image) if isinstance(image, Image.Image) else image
    if pixels.dtype != np.uint8:
        raise TypeError(f"image: got dtype {pixels.dtype}, expected uint8")
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise ValueError(f"image: got shape {pixels.shape}, expected (height, width, 3)")
    device = next(model.parameters()).device
    predictions = []
    for start in range(0, len(expressions), batch_size):
        chunk = expressions[start : start + batch_size]
        batch = processor(images=[pixels] * len(chunk), expressions=list(chunk))
        outputs = model(**{name: batch[name].to(device) for name in MODEL_INPUTS})
        probabilities = processor.post_process_probabilities(outputs, [pixels.shape[:2]] * len(chunk))
        predictions += [
            _prediction(expression, probability.float().cpu().numpy(), threshold)
            for expression, probability in zip(chunk, probabilities, strict=True)
        ]
    return predictions


def _prediction(expression: str, probability: np.ndarray, threshold: float) -> Prediction:
    mask = probability > threshold
    score = float(probability[mask].mean()) if mask.any() else 0.0
    return Prediction(expression, mask, probability, score, float(mask.mean()))


def _check_outputs(image: Path, paths: Sequence[Path]) -> None:
    """Refuses outputs that cannot be written or would overwrite the image or each other."""
    seen = {image.resolve()}
    for path in paths:
        if path.suffix.lower() != ".png":
            raise ValueError(f"out, overlay: got {str(path)!r}, expected a name that ends in .png")
        if path.is_dir():
            raise ValueError(f"out, overlay: {str(path)!r} is a folder, expected a file name")
        if path.resolve() in seen:
            raise ValueError(f"out, overlay: {str(path)!r} would overwrite the image or another output")
        seen.add(path.resolve())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rrsis.predict", description=__doc__.split("\n")[0])
    parser.add_argument("--model", metavar="RUN", help="run folder of rrsis.train (required)")
    parser.add_argument("scenes", nargs="*", type=Path, metavar="SCENE", help="GeoTIFF of any size; or use --image")
    parser.add_argument("--image", type=Path, help="image file that fits into memory and needs no georeference")
    parser.add_argument(
        "--expression", required=True, action="append", metavar="TEXT", help="what to segment; may be given repeatedly"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="of an image: mask PNG, 0 and 255 (default: mask.png); of scenes: folder with one folder each (segmented)",
    )
    parser.add_argument("--overlay", type=Path, help="of an image: PNG with the mask drawn on it (default: none)")
    parser.add_argument("--threshold", type=float, default=0.5, help="probability above which a pixel belongs (0.5)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    scenes = parser.add_argument_group("scenes alone")
    # No defaults here: what was given is told apart from what was not, and SceneOptions has them.
    scenes.add_argument("--window", type=int, help="side of a window in pixels (the model's input size)")
    scenes.add_argument("--overlap", type=int, help="pixels that windows share at least (a quarter of the window)")
    scenes.add_argument("--bands", type=int, nargs="+", help="one or three band numbers from 1 (the file's RGB)")
    scenes.add_argument("--percentiles", type=float, nargs=2, help="stretch of bands other than 8-bit (2 98)")
    scenes.add_argument("--batch_size", type=int, help="windows per forward pass (8)")
    scenes.add_argument("--overlay_size", type=int, help="longest side of the overlay in pixels (2048)")
    scenes.add_argument("--min_pixels", type=int, help="smallest object that gets a polygon (1)")
    scenes.add_argument("--polygons", metavar="NAME", help="name that ends in .geojson or .gpkg (polygons.geojson)")
    scenes.add_argument("--engine", choices=["local", "ray"], help="one scene after the other, or Ray Data (local)")
    scenes.add_argument("--workers", type=int, help="with ray: scenes at a time (one a GPU)")
    scenes.add_argument("--ray_address", help="with ray: the cluster (RAY_ADDRESS, or one on this machine)")
    return parser


SCENE_OPTIONS = ("window", "overlap", "bands", "percentiles", "batch_size", "overlay_size", "min_pixels", "polygons")
"""Arguments that are fields of `rrsis.scenes.SceneOptions`."""

ENGINE_OPTIONS = ("engine", "workers", "ray_address")
"""Arguments that say where scenes run."""


def run(arguments: argparse.Namespace) -> list[Prediction]:
    """Does what the command line asks for one image; nothing is written unless every input is valid.

    Raises:
        FileNotFoundError: If the model or the image is not there.
        ValueError: If an argument or the image is not valid.
    """
    expressions = check_expressions(arguments.expression)
    masks = numbered_paths(arguments.out or Path("mask.png"), len(expressions))
    overlays = numbered_paths(arguments.overlay, len(expressions)) if arguments.overlay else []
    _check_outputs(arguments.image, [*masks, *overlays])
    image = load_image(arguments.image)
    model, processor = load_run(arguments.model, arguments.device)
    predictions = predict(model, processor, image, expressions, threshold=arguments.threshold)
    for index, prediction in enumerate(predictions):
        save_image(masks[index], prediction.mask)
        print(f"{prediction.expression}: {prediction.area_share:.2%} of the image, score {prediction.score:.3f}")
        print(f"  wrote {masks[index]}")
        if overlays:
            save_image(overlays[index], overlay(image, prediction.mask))
            print(f"  wrote {overlays[index]}")
    return predictions


def run_scenes(arguments: argparse.Namespace) -> int:
    """Does what the command line asks for scenes; returns how many of them failed.

    Raises:
        FileNotFoundError: If the model is not there.
        ImportError: If a package that scenes need is not installed.
        ValueError: If an argument is not valid.
    """
    try:
        from rrsis.scene_engines import plan, run_local, run_ray
        from rrsis.scenes import SceneOptions
    except ImportError as error:
        raise ImportError(f"scenes need packages that are not here ({error}): pip install 'rrsis[geo]'") from error
    given = {name: value for name in SCENE_OPTIONS if (value := getattr(arguments, name)) is not None}
    given |= {name: tuple(given[name]) for name in ("bands", "percentiles") if name in given}
    options = SceneOptions(tuple(arguments.expression), arguments.threshold, **given)
    jobs = plan(arguments.scenes, arguments.out or Path("segmented"))
    if arguments.engine == "ray":
        cluster = {"workers": arguments.workers, "address": arguments.ray_address}
        outcomes = run_ray(jobs, arguments.model, options, arguments.device, **cluster)
    else:
        outcomes = run_local(jobs, arguments.model, options, arguments.device)
    failed = 0
    for outcome in outcomes:
        failed += outcome.error is not None
        _report(outcome)
    return failed


def _report(outcome: Outcome) -> None:
    """Prints what became of a scene: results to the output, what is wrong to the errors."""
    if outcome.result is None:
        print(f"error: {outcome.scene}: {outcome.error}", file=sys.stderr)
        return
    for note in outcome.result.notes:
        print(f"note: {outcome.scene}: {note}", file=sys.stderr)
    for found in outcome.result.expressions:
        area = "area unknown" if found.area_m2 is None else f"{found.area_m2:.1f} m²"
        print(f"{outcome.scene}: {found.expression}: {found.objects} objects, {area}, score {found.score:.3f}")
        print(f"  wrote {found.mask}, {found.polygons}, {found.overlay}")


def _check_mode(arguments: argparse.Namespace) -> None:
    """Refuses options that would have no effect."""
    if bool(arguments.scenes) == (arguments.image is not None):
        raise ValueError(
            f"image: got {'it and scenes' if arguments.scenes else 'no input'}, expected --image or scenes"
        )
    alien = ("overlay",) if arguments.scenes else (*SCENE_OPTIONS, *ENGINE_OPTIONS)
    if arguments.engine != "ray":
        alien += ("workers", "ray_address")
    for name in alien:
        if getattr(arguments, name) is not None:
            raise ValueError(f"{name}: got {getattr(arguments, name)}, expected it only with {_home(name)}")
    if arguments.workers is not None and arguments.workers < 1:
        raise ValueError(f"workers: got {arguments.workers}, expected at least 1")


def _home(name: str) -> str:
    """Where an option belongs."""
    if name == "overlay":
        return "--image (scenes always get one)"
    return "--engine ray" if name in ("workers", "ray_address") else "scenes"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status: 1 if a scene failed, 2 for bad input."""
    arguments = _parser().parse_intermixed_args(argv)
    try:
        _check_mode(arguments)
        if arguments.scenes:
            return 1 if run_scenes(arguments) else 0
        run(arguments)
    except (OSError, ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
