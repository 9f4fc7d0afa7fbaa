"""Segments a georeferenced scene of any size, window by window.

The windows go through the model in batches and their logits to disk (`rrsis.window_logits`); then each expression's
mask is blended tile by tile. Memory is that of a batch of windows and a few tiles, whatever the scene's size. An
interrupted run leaves the finished windows in the output folder, and the same call goes on from there.

What several expressions share is computed once: the text encoder's output for each expression, for all scenes; the
part of the image encoder that no word has touched (`FusedEncoder.before_words`), for each window. In BTDNet that is the
first stage alone, because its features are fused with the words before the second one reads them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from torch import Tensor
from tqdm.auto import tqdm

from rrsis.evaluate import load_run
from rrsis.geo_io import NO_DATA, PERCENTILES, TILE, Scene, environment, raster_profile, read_box, tiles, write_box
from rrsis.inputs import check_expressions
from rrsis.io import atomic_write, numbered_paths
from rrsis.polygon_files import check_suffix, write_polygons
from rrsis.polygons import PROBABILITY_STEPS
from rrsis.tiling import WindowGrid
from rrsis.visualization import overlay, save_image
from rrsis.window_logits import Blend, WindowLogits

MODEL_FILES = ("*.safetensors", "*config.json", "tokenizer*", "vocab*")
"""Files of a run folder that decide what a model predicts."""


@dataclass(frozen=True)
class SceneOptions:
    """What to segment, and how.

    Attributes:
        expressions: What to segment.
        threshold: A pixel belongs to the mask when its probability is above this.
        window: Side of the windows in the scene's pixels; None for the model's own input size.
        overlap: Least number of pixels that neighbouring windows share; None for a quarter of the window.
        bands: See `rrsis.geo_io.Scene`.
        percentiles: See `rrsis.geo_io.Scene`.
        batch_size: Windows per forward pass.
        overlay_size: Longest side of the overlay picture in pixels.
        min_pixels: Objects of fewer pixels get no polygon.
        polygons: Name of the file of polygons; its ending, .geojson or .gpkg, chooses the format.

    Raises:
        ValueError: If a value is not valid.
    """

    expressions: tuple[str, ...]
    threshold: float = 0.5
    window: int | None = None
    overlap: int | None = None
    bands: tuple[int, ...] | None = None
    percentiles: tuple[float, float] = PERCENTILES
    batch_size: int = 8
    overlay_size: int = 2048
    min_pixels: int = 1
    polygons: str = "polygons.geojson"

    def __post_init__(self) -> None:
        object.__setattr__(self, "expressions", tuple(check_expressions(self.expressions)))
        if not 0.0 < self.threshold < 1.0:
            raise ValueError(f"threshold: got {self.threshold}, expected a number between 0 and 1")
        for name in ("window", "batch_size", "overlay_size", "min_pixels"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: got {value}, expected at least 1")
        if self.overlap is not None and self.overlap < 0:
            raise ValueError(f"overlap: got {self.overlap}, expected at least 0")
        low, high = self.percentiles
        if not 0.0 <= low < high <= 100.0:
            raise ValueError(f"percentiles: got {low} and {high}, expected two rising numbers from 0 to 100")
        check_suffix(self.polygons)
        if Path(self.polygons).name != self.polygons:
            raise ValueError(f"polygons: got {self.polygons!r}, expected a name without a folder; out names the folder")

    def resolve(self, input_size: int) -> SceneOptions:
        """Fills in what depends on the model.

        Args:
            input_size: Side of the model's input.

        Raises:
            ValueError: If windows would overlap by more than half, where a third one would reach into the ramps of two.
        """
        window = self.window or input_size
        overlap = window // 4 if self.overlap is None else self.overlap
        if overlap > window // 2:
            raise ValueError(f"overlap: got {overlap}, expected at most half of window, {window // 2}")
        return dataclasses.replace(self, window=window, overlap=overlap)


@dataclass(frozen=True)
class ExpressionResult:
    """What was found for one expression in one scene.

    Attributes:
        expression: The expression.
        mask: The mask's GeoTIFF.
        polygons: The polygons' GeoJSON or GeoPackage.
        overlay: The picture.
        objects: How many polygons there are.
        area_px: Their pixels.
        area_m2: Their area on the ground; None without a CRS.
        score: Mean probability of their pixels.
    """

    expression: str
    mask: str
    polygons: str
    overlay: str
    objects: int
    area_px: int
    area_m2: float | None
    score: float


@dataclass(frozen=True)
class SceneResult:
    """What was done for one scene.

    Attributes:
        scene: The file.
        key: Names inputs, options and model; the same key means the same outputs.
        windows: How many windows the scene has.
        computed: How many of them this run computed; the rest had been computed before an interruption.
        notes: What a reader of the outputs has to know about the scene's georeference.
        expressions: One for each expression, in their order.
    """

    scene: str
    key: str
    windows: int
    computed: int
    notes: list[str]
    expressions: list[ExpressionResult]

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> SceneResult:
        """Undoes `dataclasses.asdict`."""
        return cls(**{**facts, "expressions": [ExpressionResult(**found) for found in facts["expressions"]]})


class SceneSegmenter:
    """A model with its expressions encoded, ready for any number of scenes.

    Args:
        model: A `rrsis.model.ReferringModel` in evaluation mode; runs where its parameters are.
        processor: Its `rrsis.processing.BTDNetProcessor`.
        options: What to do.
        fingerprint: Names the model's weights and settings; a run goes on only with the same model.

    Raises:
        ValueError: If options and model do not fit.
    """

    def __init__(self, model: Any, processor: Any, options: SceneOptions, fingerprint: str) -> None:
        self.model = model
        self.processor = processor
        self.options = options.resolve(processor.image_processor.size["height"])
        self.fingerprint = fingerprint
        self.device = next(model.parameters()).device
        # One by one: padding to the longest would let one expression touch the last bits of another's result.
        self._words = [self._encode(expression) for expression in self.options.expressions]

    @classmethod
    def from_run(cls, folder: str | os.PathLike[str], options: SceneOptions, device: str = "auto") -> SceneSegmenter:
        """Loads the model of a run folder.

        Args:
            folder: As `rrsis.train` leaves it.
            options: What to do.
            device: A torch device, or "auto" for the GPU where there is one.

        Raises:
            FileNotFoundError: If the folder or one of its files is not there.
            ValueError: If the device does not exist here, or options and model do not fit.
        """
        model, processor = load_run(folder, device)
        digest = hashlib.sha256()
        for path in sorted({path for pattern in MODEL_FILES for path in Path(folder).glob(pattern)}):
            digest.update(path.name.encode())
            with path.open("rb") as stream:
                while piece := stream.read(1 << 20):
                    digest.update(piece)
        return cls(model, processor, options, digest.hexdigest())

    def __call__(
        self, path: str | os.PathLike[str], folder: str | os.PathLike[str], *, progress: bool = True
    ) -> SceneResult:
        """Segments one scene; outputs that are there already, made of the same inputs, are left as they are.

        Args:
            path: The scene.
            folder: Where mask, polygons, overlay and ``summary.json`` go; with several expressions the first three are
                numbered.
            progress: Whether to show progress bars.

        Returns:
            What was found.

        Raises:
            FileNotFoundError: If there is no such scene.
            ValueError: If the scene cannot be used; the message says why.
        """
        folder = Path(folder)
        with environment(), Scene(path, self.options.bands, self.options.percentiles) as scene:
            key = self._key(scene, outputs=True)
            finished = _read_finished(folder, key)
            if finished is not None:
                return finished
            grid = WindowGrid(scene.box.height, scene.box.width, self.options.window, self.options.overlap)
            work = folder / f".work-{self._key(scene, outputs=False)[:16]}"
            logits = WindowLogits(work, grid, self.options.batch_size)
            computed = self._compute(scene, logits, progress)
            names = [
                numbered_paths(folder / name, len(self._words))
                for name in ("mask.tif", self.options.polygons, "overlay.png")
            ]
            expressions = [
                self._write(scene, Blend(logits, self.processor, number), paths, work, progress)
                for number, paths in enumerate(zip(*names, strict=True))
            ]
            result = SceneResult(str(path), key, len(grid), computed, _notes(scene), expressions)
        with atomic_write(folder / "summary.json") as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(result), indent=2, ensure_ascii=False), encoding="utf-8")
        # Those of other options too: what they were for is overwritten now.
        for old in folder.glob(".work-*"):
            shutil.rmtree(old, ignore_errors=True)
        return result

    @torch.inference_mode()
    def _encode(self, expression: str) -> tuple[Tensor, Tensor]:
        batch = self.processor.prepare_expressions([expression])
        mask = batch["attention_mask"].bool().to(self.device)
        return self.model.encoder.words(batch["input_ids"].to(self.device), mask), mask

    def _compute(self, scene: Scene, logits: WindowLogits, progress: bool) -> int:
        """Computes the groups of windows that are missing; returns how many windows that were."""
        computed = 0
        with tqdm(total=len(logits.grid), desc=scene.path.name, unit="window", disable=not progress) as bar:
            for group in range(logits.num_groups):
                members = logits.members(group)
                if not logits.has(group):
                    read = [scene.read(logits.grid[index]) for index in members]
                    empty = not any(valid.any() for _, valid in read)
                    nothing = np.zeros((0, len(self._words), 0, 0), dtype=np.float32)
                    logits.put(group, nothing if empty else self._forward([image for image, _ in read]))
                    computed += len(members)
                bar.update(len(members))
        return computed

    @torch.inference_mode()
    def _forward(self, images: list[np.ndarray]) -> np.ndarray:
        """Logits (windows, expressions, h, w) of windows (h, w, 3) uint8."""
        pixel_values = self.processor.prepare_images(images).to(self.device)
        shared = self.model.encoder.before_words(pixel_values)
        results = []
        for tokens, mask in self._words:
            mask = mask.expand(len(images), -1)
            # Lists are copied: the encoder may hand its inputs on, and the next expression needs them as they are.
            encoded = self.model.encoder.join(list(shared), tokens.expand(len(images), -1, -1), mask)
            results.append(self.model.decode(pixel_values, encoded, mask)[0].logits.float().cpu())
        return torch.stack(results, dim=1).numpy()

    def _write(
        self, scene: Scene, blend: Blend, paths: tuple[Path, Path, Path], work: Path, progress: bool
    ) -> ExpressionResult:
        """Writes mask, polygons and overlay of one expression."""
        mask_path, polygon_path, overlay_path = paths
        expression = self.options.expressions[blend.expression]
        probability_path = work / "probability.tif"
        with (
            atomic_write(mask_path) as temporary,
            rasterio.open(temporary, "w", **raster_profile(scene, "uint8", NO_DATA)) as mask,
            rasterio.open(probability_path, "w", **raster_profile(scene, "uint16")) as probability,
        ):
            total = math.ceil(scene.box.height / TILE) * math.ceil(scene.box.width / TILE)
            for tile in tqdm(tiles(scene.box), desc=mask_path.name, total=total, unit="tile", disable=not progress):
                values, valid = blend(tile), scene.read_valid(tile)
                write_box(mask, tile, np.where(valid, values > self.options.threshold, np.uint8(NO_DATA)))
                write_box(probability, tile, np.rint(values * PROBABILITY_STEPS).astype(np.uint16))
        totals = write_polygons(polygon_path, mask_path, probability_path, expression, self.options.min_pixels)
        save_image(overlay_path, _picture(scene, mask_path, self.options.overlay_size))
        names = [str(path) for path in paths]
        return ExpressionResult(expression, *names, **dataclasses.asdict(totals))

    def _key(self, scene: Scene, *, outputs: bool) -> str:
        """Names what the windows' logits depend on; with `outputs`, what the written files depend on."""
        options = dataclasses.asdict(self.options)
        if not outputs:
            for name in ("threshold", "overlay_size", "min_pixels", "polygons"):
                del options[name]
        # Reading a scene to name it would cost as much as half of the work: size and time of change stand for it.
        status = scene.path.stat()
        file = [str(scene.path.resolve()), status.st_size, status.st_mtime_ns]
        facts = [options, file, self.fingerprint, self.device.type, str(torch.__version__)]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _picture(scene: Scene, mask_path: Path, side: int) -> np.ndarray:
    """The scene, decimated, with its mask: a small object still gives a pixel."""
    image = scene.thumbnail(side)
    marked = np.zeros(image.shape[:2], dtype=bool)
    with rasterio.open(mask_path) as mask:
        for tile in tiles(scene.box):
            rows, columns = np.nonzero(read_box(mask, tile) == 1)
            rows = (rows + tile.top) * marked.shape[0] // scene.box.height
            marked[rows, (columns + tile.left) * marked.shape[1] // scene.box.width] = True
    return overlay(image, marked)


def _notes(scene: Scene) -> list[str]:
    """What a reader of the outputs has to know about the scene's georeference."""
    dataset, notes = scene.dataset, []
    if dataset.crs is None:
        points = " (ground control points alone do not count: run gdalwarp first)" if dataset.gcps[0] else ""
        place = "pixels" if dataset.transform.is_identity else "the file's own"
        notes.append(f"no CRS{points}: polygons have {place} coordinates and no area in m²")
    elif not dataset.transform.is_rectilinear:
        notes.append("the grid is rotated or sheared: the mask keeps it, polygons and areas take it into account")
    return notes


def _read_finished(folder: Path, key: str) -> SceneResult | None:
    """The result of an earlier run with this key, if all its files are still there."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        result = SceneResult.from_facts(json.loads((folder / "summary.json").read_text(encoding="utf-8")))
        if result.key == key and all(Path(name).is_file() for name in _files(result)):
            return dataclasses.replace(result, computed=0)
    return None


def _files(result: SceneResult) -> Iterator[str]:
    for expression in result.expressions:
        yield from (expression.mask, expression.polygons, expression.overlay)
