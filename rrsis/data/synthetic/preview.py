"""A picture of what SynthRRSIS looks like: a grid of scenes, each with one expression and its object outlined."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .dataset import SynthRRSIS

OUTLINE = (255, 0, 200)
LINE_HEIGHT = 15


def _outline(mask: np.ndarray) -> np.ndarray:
    """Pixels just outside a mask, bool (H, W)."""
    padded = np.pad(mask, 1)
    near = padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return near & ~mask


def _wrap(text: str, letters: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > letters:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines[:2]


def preview(dataset: SynthRRSIS, rows: int = 4, columns: int = 4, side: int = 256) -> Image.Image:
    """A grid of scenes, of each the expression whose number is that of the scene modulo the expressions of a scene.

    Args:
        dataset: What to show.
        rows: Scenes downwards.
        columns: Scenes across.
        side: Side of each picture in pixels.

    Raises:
        ValueError: The data set has fewer scenes than the grid has places.
    """
    if dataset.num_scenes < rows * columns:
        raise ValueError(f"rows, columns: got {rows} x {columns}, the data set has {dataset.num_scenes} scenes")
    height = side + 2 * LINE_HEIGHT + 6
    sheet = Image.new("RGB", (columns * (side + 4), rows * height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for place in range(rows * columns):
        scene = dataset.scene(place)
        statement = scene.statements[place % len(scene.statements)]
        factor = max(1, side // scene.image.shape[0])
        image = scene.image.repeat(factor, axis=0).repeat(factor, axis=1)
        mask = scene.mask(statement.referent).repeat(factor, axis=0).repeat(factor, axis=1)
        image[_outline(mask)] = OUTLINE
        left, top = place % columns * (side + 4), place // columns * height
        sheet.paste(Image.fromarray(image).resize((side, side)), (left, top))
        for number, line in enumerate(_wrap(statement.text, side // 6)):
            draw.text((left + 2, top + side + 2 + number * LINE_HEIGHT), line, fill="black", font=font)
    return sheet
