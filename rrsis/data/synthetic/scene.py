"""A scene in words and numbers: what stands where. Lengths are in units of 1/128 of the image side, y points down."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .catalogue import UNITS
from .shapes import RGB, TEMPLATES, Template


@dataclass(frozen=True, eq=False)
class SceneObject:
    """One object that expressions can refer to.

    Attributes:
        category: Name of its category.
        colour: Name of its colour; None where its category has no telling colour.
        paint: The RGB colour that it has, near its named colour.
        large: Whether it is one of the large ones of its category.
        variant: Which of the category's templates draws it.
        position: Where its template's origin lies (x, y).
        length: Its longer side.
        stretch: Factor on its width.
        angle: Where it points, in radians from +x towards +y.
    """

    category: str
    colour: str | None
    paint: RGB
    large: bool
    variant: int
    position: tuple[float, float]
    length: float
    stretch: float
    angle: float

    @property
    def template(self) -> Template:
        """How it is drawn."""
        return TEMPLATES[self.category, self.large][self.variant]

    @cached_property
    def area(self) -> float:
        """Area of its silhouette in square units."""
        return self.template.area * self.stretch * self.length**2

    @property
    def size(self) -> float:
        """Square root of the area."""
        return math.sqrt(self.area)

    @cached_property
    def box(self) -> tuple[float, float, float, float]:
        """The upright box around its silhouette: left, top, right, bottom."""
        first = self.template.ends[len(self.template.parts) - 1]
        points = self.template.vertices[first:] @ self._turn(1.0)
        (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        x, y = self.position
        return left + x, top + y, right + x, bottom + y

    @cached_property
    def center(self) -> tuple[float, float]:
        """Middle of its box (x, y): what expressions go by."""
        left, top, right, bottom = self.box
        return (left + right) / 2.0, (top + bottom) / 2.0

    @cached_property
    def half_box(self) -> tuple[float, float]:
        """Half width and half height of its box."""
        left, top, right, bottom = self.box
        return (right - left) / 2.0, (bottom - top) / 2.0

    def _turn(self, scale: float) -> np.ndarray:
        c, s = math.cos(self.angle) * self.length * scale, math.sin(self.angle) * self.length * scale
        return np.array([[c, s], [-s * self.stretch, c * self.stretch]])

    def polygons(self, scale: float) -> tuple[list[list[tuple[float, float]]], list[list[tuple[float, float]]]]:
        """Its parts and its silhouette, placed in the picture.

        Args:
            scale: Pixels per unit.

        Returns:
            Polygons of the parts and polygons of the silhouette, as lists of (x, y) in pixels.
        """
        # Half a pixel less: PIL's integer coordinates are the centres of pixels.
        shift = np.array(self.position) * scale - 0.5
        points = list(map(tuple, (self.template.vertices @ self._turn(scale) + shift).tolist()))
        placed, start = [], 0
        for end in self.template.ends:
            placed.append(points[start:end])
            start = end
        count = len(self.template.parts)
        return placed[:count], placed[count:]


def half_box(template: Template, length: float, stretch: float, angle: float) -> tuple[float, float]:
    """Half width and half height of the upright box around a placed template's own box."""
    c, s = abs(math.cos(angle)), abs(math.sin(angle))
    along, across = template.half[0] * length, template.half[1] * length * stretch
    return c * along + s * across, s * along + c * across


@dataclass(frozen=True)
class Decor:
    """Something that fills the scene and is never spoken of: a building or a tree.

    Attributes:
        kind: "building" or "tree".
        center: Its middle.
        size: Length and width.
        angle: Its direction.
        paint: Its RGB colour.
    """

    kind: str
    center: tuple[float, float]
    size: tuple[float, float]
    angle: float
    paint: RGB


@dataclass(frozen=True)
class Statement:
    """An expression, what kind it is, and the index of the one object that it refers to."""

    text: str
    kind: str
    referent: int


@dataclass(frozen=True, eq=False)
class Scene:
    """One scene, rendered.

    Attributes:
        scene_id: Its name within the data set.
        theme: Name of the landscape.
        objects: The objects, in the order of their numbers in the label map.
        statements: The expressions about it.
        image: uint8 (S, S, 3).
        label_map: uint8 (S, S), 0 for the ground and k + 1 for object k.
    """

    scene_id: str
    theme: str
    objects: tuple[SceneObject, ...]
    statements: tuple[Statement, ...]
    image: np.ndarray
    label_map: np.ndarray

    def mask(self, index: int) -> np.ndarray:
        """Visible pixels of object `index`, bool (S, S)."""
        if not 0 <= index < len(self.objects):
            raise IndexError(f"index: got {index}, the scene has {len(self.objects)} objects")
        return self.label_map == index + 1

    @property
    def masks(self) -> np.ndarray:
        """Visible pixels of all objects, bool (objects, S, S)."""
        numbers = np.arange(1, len(self.objects) + 1, dtype=np.uint8)
        return self.label_map[None] == numbers[:, None, None]

    @property
    def unit(self) -> float:
        """Pixels per layout unit."""
        return self.image.shape[0] / UNITS
