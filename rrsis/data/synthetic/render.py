"""From a layout to pixels: ground with texture, shadows, fillings, objects, sensor.

Everything with edges is drawn with Pillow at twice the size and averaged down; texture is added at the final size. A
pixel belongs to an object when at least two of its four sub-pixels do.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .catalogue import UNITS
from .config import SynthConfig
from .draws import Draws
from .layout import Layout
from .scene import Decor, SceneObject
from .shapes import RGB

Polygon = list[tuple[float, float]]
Shape = tuple[list[Polygon], list[Polygon]]

SCALE = 2
"""Sub-pixels per pixel and direction."""

SURFACES: dict[str, tuple[tuple[RGB, ...], int]] = {
    "water": (((48, 84, 108), (58, 96, 104), (40, 72, 92)), 22),
    "shallow": (((96, 134, 134),), 16),
    "sand": (((206, 190, 150),), 22),
    "grass": (((104, 126, 76), (116, 132, 84), (92, 116, 70)), 52),
    "meadow": (((122, 138, 82), (132, 140, 92)), 50),
    "crop": (((150, 148, 92), (140, 152, 84)), 44),
    "crop2": (((98, 124, 66), (86, 118, 70)), 44),
    "crop3": (((176, 162, 110), (168, 156, 100)), 44),
    "soil": (((156, 126, 98), (146, 118, 92)), 40),
    "concrete": (((166, 164, 158), (156, 156, 152), (174, 170, 160)), 24),
    "concrete2": (((148, 146, 142), (182, 178, 168)), 24),
    "road": (((112, 112, 114), (122, 120, 116)), 18),
    "verge": (((150, 146, 128),), 24),
}
"""Colours to choose from and the strength of the texture of each surface."""

CROP_TEXTURE = 44
"""Strength of texture that says: rows of plants."""

STRIPES: dict[str, RGB] = {"line": (214, 212, 204), "joint": (136, 134, 130)}


def _scaled(points: list[tuple[float, float]], scale: float) -> list[tuple[float, float]]:
    return [(x * scale - 0.5, y * scale - 0.5) for x, y in points]


def _ground(layout: Layout, draws: Draws, size: int) -> tuple[Image.Image, Image.Image]:
    """Flat-coloured ground at double size, and the strength of its texture at the final size."""
    terrain = layout.terrain
    scale = SCALE * size / UNITS
    colours = {name: draws.choice(choices) for name, (choices, _) in SURFACES.items()}
    image = Image.new("RGB", (SCALE * size,) * 2, colours[terrain.base])
    texture = Image.new("L", (size, size), SURFACES[terrain.base][1])
    paint, grain = ImageDraw.Draw(image), ImageDraw.Draw(texture)
    for surface, points in terrain.patches:
        paint.polygon(_scaled(points, scale), fill=colours[surface])
        grain.polygon(_scaled(points, scale / SCALE), fill=SURFACES[surface][1])
    for name, points, width in terrain.stripes:
        paint.line(_scaled(points, scale), fill=STRIPES[name], width=max(1, round(width * scale)))
    return image, texture


def _smooth_noise(draws: Draws, cells: int, size: int) -> Image.Image:
    noise = Image.fromarray(draws.noise(cells, cells))
    return noise.resize((size, size), Image.Resampling.BICUBIC)


def _texture(layout: Layout, draws: Draws, size: int, strength: np.ndarray, config: SynthConfig) -> np.ndarray:
    """What is added to the ground, int16 (size, size): coarse, middle and fine noise, and rows where fields are."""
    coarse = np.asarray(_smooth_noise(draws, 7, size), dtype=np.int16)
    middle = np.asarray(_smooth_noise(draws, 30, size), dtype=np.int16)
    fine = draws.noise(128, 128)
    if size != 128:
        fine = np.asarray(Image.fromarray(fine).resize((size, size), Image.Resampling.BILINEAR))
    total = coarse * 2 + middle * 2 + fine.astype(np.int16) - 5 * 128
    rows = strength == CROP_TEXTURE
    if rows.any():
        axis = np.arange(size, dtype=np.float32) * (UNITS / size)
        angle, turn = layout.terrain.angle, 2.0 * math.pi / draws.uniform(2.6, 4.0)
        # sin(a + b) from the sines of columns and rows: no sine per pixel.
        across, down = axis * np.float32(math.cos(angle) * turn), axis * np.float32(math.sin(angle) * turn)
        wave = np.outer(np.cos(down), np.sin(across)) + np.outer(np.sin(down), np.cos(across))
        total += (wave * 110.0).astype(np.int16) * rows
    return (total * (strength * np.float32(config.texture / 640.0))).astype(np.int16)


def _decor_polygons(thing: Decor, scale: float) -> list[list[tuple[float, float]]]:
    (x, y), (length, width) = thing.center, thing.size
    c, s = math.cos(thing.angle), math.sin(thing.angle)

    def place(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
        return _scaled([(x + c * u - s * v, y + s * u + c * v) for u, v in points], scale)

    a, b = length / 2, width / 2
    if thing.kind == "tree":
        ring = [
            (a * math.cos(k * 0.7) * (0.86, 1.0)[k % 2], a * math.sin(k * 0.7) * (1.0, 0.86)[k % 2]) for k in range(9)
        ]
        return [place(ring), place([(u * 0.55 - a * 0.15, v * 0.55 - a * 0.15) for u, v in ring])]
    outline = [(-a, -b), (a, -b), (a, b), (-a, b)]
    return [place(outline), place([(-a, -b), (a, -b), (a, 0.0), (-a, 0.0)])]


def _tone(colour: RGB, factor: float) -> RGB:
    return tuple(min(255, int(channel * factor)) for channel in colour)  # type: ignore[return-value]


SHADOW = 110
"""Opacity of shadows, of 255."""


def _object_shadow(item: SceneObject, silhouette: list[Polygon], dx: float, dy: float, scale: float) -> list[Polygon]:
    """Where an object's shadow falls, the sun's direction being (dx, dy) pixels per unit of height."""
    if item.category == "chimney":
        # It stands up from its foot, which is all that the shadow starts from.
        (x, y), foot, half = item.position, 0.4 * item.length, 0.12 * item.length
        x, y = (x - math.cos(item.angle) * foot) * scale, (y - math.sin(item.angle) * foot) * scale
        reach = 0.9 * item.length
        return [
            [
                (x - dy * half, y + dx * half),
                (x + dy * half, y - dx * half),
                (x + dx * reach + dy * half * 0.7, y + dy * reach - dx * half * 0.7),
                (x + dx * reach - dy * half * 0.7, y + dy * reach + dx * half * 0.7),
            ]
        ]
    reach = item.template.height * item.length
    if reach <= 0.0:
        return []
    if item.category == "bridge":
        # Both ends lie on the banks and throw no shadow.
        (x, y), shrink = item.position, 0.84
        silhouette = [
            [(x * scale + (u - x * scale) * shrink, y * scale + (v - y * scale) * shrink) for u, v in silhouette[0]]
        ]
    return [[(u + dx * reach, v + dy * reach) for u, v in polygon] for polygon in silhouette]


def _shadow_mask(layout: Layout, shapes: list[Shape], sun: float, scale: float, size: int) -> Image.Image:
    """Where the ground lies in shadow, "L" at the final size."""
    image = Image.new("L", (SCALE * size,) * 2)
    draw = ImageDraw.Draw(image)
    dx, dy = math.cos(sun) * scale, math.sin(sun) * scale
    for item, (_, silhouette) in zip(layout.objects, shapes, strict=True):
        for polygon in _object_shadow(item, silhouette, dx, dy, scale):
            draw.polygon(polygon, fill=SHADOW)
    for thing in layout.decor:
        reach = 2.5 if thing.kind == "building" else 1.5
        outline = _decor_polygons(thing, scale)[0]
        draw.polygon([(x + dx * reach, y + dy * reach) for x, y in outline], fill=SHADOW)
    return image.reduce(SCALE)


def _halve_labels(labels: np.ndarray) -> np.ndarray:
    """Label of each 2×2 block: the second largest of the four, i.e. an object that has two sub-pixels or more."""
    a, b, c, d = labels[::2, ::2], labels[::2, 1::2], labels[1::2, ::2], labels[1::2, 1::2]
    high1, low1, high2, low2 = np.maximum(a, b), np.minimum(a, b), np.maximum(c, d), np.minimum(c, d)
    return np.maximum(np.minimum(high1, high2), np.maximum(low1, low2))


def render(layout: Layout, draws: Draws, config: SynthConfig) -> tuple[np.ndarray, np.ndarray]:
    """Renders a layout.

    Returns:
        The image, uint8 (S, S, 3), and the label map, uint8 (S, S): k + 1 where object k is seen.
    """
    size = config.image_size
    scale = SCALE * size / UNITS
    flat, strength = _ground(layout, draws, size)
    ground = np.asarray(flat.reduce(SCALE), dtype=np.int16)
    ground = ground + _texture(layout, draws, size, np.asarray(strength), config)[:, :, None]
    picture = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8))
    shapes = [item.polygons(scale) for item in layout.objects]
    picture.paste((22, 26, 30), mask=_shadow_mask(layout, shapes, draws.uniform(0.3, 1.2), scale, size))
    picture = picture.resize((SCALE * size,) * 2, Image.Resampling.NEAREST)
    labels = Image.new("L", picture.size)
    paint, mark = ImageDraw.Draw(picture), ImageDraw.Draw(labels)
    for thing in layout.decor:
        for polygon, factor in zip(_decor_polygons(thing, scale), (0.84, 1.1), strict=True):
            paint.polygon(polygon, fill=_tone(thing.paint, factor))
    for number, (item, (parts, silhouette)) in enumerate(zip(layout.objects, shapes, strict=True), start=1):
        for (colour, _), polygon in zip(item.template.parts, parts, strict=True):
            paint.polygon(polygon, fill=colour if isinstance(colour, tuple) else _tone(item.paint, colour))
        for polygon in silhouette:
            mark.polygon(polygon, fill=number)
    picture = picture.reduce(SCALE)
    if config.blur > 0.0:
        picture = picture.filter(ImageFilter.GaussianBlur(config.blur * size / UNITS))
    return _expose(np.asarray(picture), draws, config), _halve_labels(np.asarray(labels))


def _expose(image: np.ndarray, draws: Draws, config: SynthConfig) -> np.ndarray:
    """Exposure, a slight tint, and sensor noise."""
    gain = draws.uniform(0.88, 1.1)
    # In 1/128: whole numbers, so that every machine rounds alike.
    tint = np.array([round(128 * gain * draws.uniform(0.97, 1.03)) for _ in range(3)], dtype=np.uint16)
    values = (image * tint >> 7).astype(np.int16)
    if config.noise > 0.0:
        # Uniform noise of the standard deviation asked for: 255/√12 ≈ 73.6 is that of a byte.
        noise = draws.noise(image.shape[0], image.shape[1]).astype(np.int16) - 127
        values += (noise * round(config.noise / 73.6 * 256) >> 8)[:, :, None]
    return np.clip(values, 0, 255, out=values).astype(np.uint8)
