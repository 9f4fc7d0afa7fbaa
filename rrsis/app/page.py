"""The page itself, in Gradio: what stands where, and what happens on which event."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from rrsis.app.analysis import Analysis, analyse, paint_map, paint_words
from rrsis.app.upload import UploadError, read_upload
from rrsis.data import ReferringSample
from rrsis.io import atomic_write
from rrsis.model import ReferringModel
from rrsis.polygon_files import pixel_collection
from rrsis.processing import BTDNetProcessor
from rrsis.visualization import overlay, save_image

STYLE = """
#image img, #overlay img, #mask img {width: 100%; height: 100%; object-fit: contain; image-rendering: pixelated}
#examples .grid-wrap, #streams .grid-wrap, #words .grid-wrap {height: auto; min-height: 0; max-height: none}
#examples, #streams, #words {height: auto !important; min-height: 0 !important}
"""
"""Small images are enlarged, pixel by pixel, to the size of their frames; galleries are as high as what they hold."""

SESSION_SECONDS = 3600
"""After so long without use, a visitor's image and files are dropped."""

STAGES = ("1/4", "1/8", "1/16", "1/32")
"""The scales of the four BSC stages."""


@dataclass(frozen=True)
class Limits:
    """What a visitor may send.

    Attributes:
        max_bytes: largest file.
        max_pixels: most pixels of an image.
    """

    max_bytes: int
    max_pixels: int


@dataclass
class View:
    """The components that show a result, in the order in which `Actions.draw` fills them."""

    status: gr.HTML
    overlay: gr.Image
    mask: gr.Image
    streams: gr.Gallery
    words: gr.Gallery
    png: gr.DownloadButton
    geojson: gr.DownloadButton

    def all(self) -> list[Any]:
        """The components as Gradio's `outputs`."""
        return list(vars(self).values())


class Actions:
    """What the page's events do.

    Args:
        model: in evaluation mode.
        processor: the model's.
        limits: what may be sent.
        folder: where downloads are written.
        examples: samples that can be chosen in the place of an upload.
    """

    def __init__(
        self,
        model: ReferringModel,
        processor: BTDNetProcessor,
        limits: Limits,
        folder: Path,
        examples: Sequence[ReferringSample],
    ) -> None:
        self.model, self.processor, self.limits, self.folder, self.examples = model, processor, limits, folder, examples

    def receive(self, path: str | None) -> tuple[np.ndarray | None, np.ndarray | None, None, str]:
        """An upload → the image to work on and to show, no analysis yet, and what to say."""
        if path is None:
            return None, None, None, say("Drop an image or choose an example.")
        try:
            image = read_upload(path, max_bytes=self.limits.max_bytes, max_pixels=self.limits.max_pixels)
        except UploadError as error:
            return None, None, None, say(str(error), error=True)
        height, width = image.shape[:2]
        return image, image, None, say(f"{width} × {height} pixels. Say what to look for.")

    def choose(self, event: gr.SelectData) -> tuple[np.ndarray, np.ndarray, str]:
        """An example → the image to work on and to show, and its expression."""
        sample = self.examples[event.index]
        return sample.image, sample.image, sample.expression

    def segment(self, image: np.ndarray | None, expression: str) -> tuple[Analysis | None, str]:
        """Runs the model once; sliders then draw from what it said."""
        if image is None:
            return None, say("There is no image yet: drop one or choose an example.", error=True)
        try:
            return analyse(self.model, self.processor, image, expression), say("Drawing …")
        except ValueError:
            return None, say("The expression needs at least one word.", error=True)

    def draw(self, analysis: Analysis | None, opacity: float, threshold: float, stage: str, status: str) -> list[Any]:
        """Draws an analysis, in the order of `View`; without one, what was there goes away and the status stays."""
        if analysis is None:
            return [status, None, None, None, None, *[gr.DownloadButton(value=None, interactive=False)] * 2]
        mask = analysis.mask(threshold)
        png, geojson = self._write(analysis, mask, threshold)
        words = analysis.words[STAGES.index(stage)] if analysis.words else []
        return [
            say(analysis.summary(threshold)),
            overlay(analysis.image, mask, alpha=opacity),
            mask.astype(np.uint8) * 255,
            [(paint_map(values, 0.0, 1.0), name) for name, values in analysis.streams.items()],
            paint_words(words),
            gr.DownloadButton(value=png, interactive=True),
            gr.DownloadButton(value=geojson, interactive=True),
        ]

    def _write(self, analysis: Analysis, mask: np.ndarray, threshold: float) -> tuple[str, str]:
        # A name that nobody can guess: a download's path is all that it takes to fetch it.
        folder = self.folder / uuid.uuid4().hex
        png, geojson = folder / "mask.png", folder / "mask.geojson"
        save_image(png, mask)
        collection = pixel_collection(analysis.probability, threshold, analysis.expression)
        with atomic_write(geojson) as temporary:
            temporary.write_text(json.dumps(collection), encoding="utf-8")
        return str(png), str(geojson)


def say(text: str, error: bool = False) -> str:
    """The status line, read aloud by screen readers; what visitors typed is shown as text, never as markup."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f'<p role="{"alert" if error else "status"}">{"<b>Error.</b> " if error else ""}{escaped}</p>'


def build_page(actions: Actions, title: str) -> gr.Blocks:
    """Lays the page out and wires its events.

    Args:
        actions: what the events do.
        title: stands above the page.
    """
    with gr.Blocks(title="rrsis", analytics_enabled=False, delete_cache=(600, SESSION_SECONDS)) as page:
        gr.Markdown(f"## {title}")
        image = gr.State(time_to_live=SESSION_SECONDS)
        analysis = gr.State(time_to_live=SESSION_SECONDS)
        with gr.Row():
            with gr.Column(scale=1):
                upload = gr.File(
                    label=f"Image (at most {actions.limits.max_bytes // 10**6} MB)", elem_id="upload", height=120
                )
                shown = gr.Image(
                    label="Image", interactive=False, format="png", buttons=[], height=240, elem_id="image"
                )
                expression = gr.Textbox(
                    label="Expression", placeholder="the small tennis court at the bottom", elem_id="expression"
                )
                run = gr.Button("Segment", variant="primary", elem_id="run")
                pictures = [(sample.image, sample.expression) for sample in actions.examples]
                gallery = gr.Gallery(
                    pictures,
                    label="Examples (generated scenes, held-out split)",
                    columns=3,
                    height="auto",
                    allow_preview=False,
                    interactive=False,
                    buttons=[],
                    elem_id="examples",
                )
            with gr.Column(scale=2):
                view, sliders = _results()
        reading = {
            "outputs": [image, shown, analysis, view.status],
            "show_progress": "hidden",
            "api_visibility": "private",
        }
        upload.change(actions.receive, upload, **reading).then(
            actions.draw, [analysis, *sliders, view.status], view.all(), api_visibility="private"
        )
        chosen = gallery.select(actions.choose, None, [image, shown, expression], api_visibility="private")
        for event in (chosen.then, run.click, expression.submit):
            event(actions.segment, [image, expression], [analysis, view.status], api_visibility="private").then(
                actions.draw, [analysis, *sliders, view.status], view.all(), api_visibility="private"
            )
        for control in sliders:
            moved = control.change if control is sliders[-1] else control.release
            moved(
                actions.draw,
                [analysis, *sliders, view.status],
                view.all(),
                show_progress="hidden",
                api_visibility="private",
            )
    # One model: one visitor at a time, a few wait, the rest is told to come back.
    return page.queue(default_concurrency_limit=1, max_size=16)


def _results() -> tuple[View, list[Any]]:
    """The right-hand side: the result's components, and the controls that redraw it (opacity, threshold, stage)."""
    status = gr.HTML(say("Drop an image or choose an example."), elem_id="status")
    with gr.Row():
        drawn = gr.Image(
            label="Overlay", interactive=False, format="png", buttons=["fullscreen"], height=320, elem_id="overlay"
        )
        mask = gr.Image(
            label="Mask", interactive=False, format="png", buttons=["fullscreen"], height=320, elem_id="mask"
        )
    with gr.Row():
        opacity = gr.Slider(0, 1, 0.5, step=0.05, label="Opacity", elem_id="opacity")
        threshold = gr.Slider(0.01, 0.99, 0.5, step=0.01, label="Threshold", elem_id="threshold")
    with gr.Row():
        png = gr.DownloadButton("Mask as PNG", interactive=False, elem_id="png")
        geojson = gr.DownloadButton("Polygons as GeoJSON (pixels)", interactive=False, elem_id="geojson")
    streams = gr.Gallery(
        label="Both streams, probability 0 … 1",
        columns=3,
        height="auto",
        interactive=False,
        buttons=[],
        elem_id="streams",
    )
    stage = gr.Radio(STAGES, value="1/8", label="Correlation map of each word, at this scale", elem_id="stage")
    words = gr.Gallery(
        label="Mean score over heads, dark to bright from the lowest to the highest of each map",
        columns=5,
        height="auto",
        interactive=False,
        buttons=[],
        elem_id="words",
    )
    return View(status, drawn, mask, streams, words, png, geojson), [opacity, threshold, stage]
