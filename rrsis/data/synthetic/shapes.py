"""What the objects look like: flat polygons in each object's own coordinates.

An object points along +x and is one unit long in its longer direction, centred on the origin. The parts are painted in
their order; the silhouette (the mask) is the union of its polygons. Parts outside the silhouette (a ship's wake) are
painted but are not part of the object.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image, ImageDraw

RGB = tuple[int, int, int]
Colour = RGB | float
"""Either a fixed RGB colour, or a factor on the object's own colour."""
Points = list[tuple[float, float]]

WHITE: RGB = (240, 240, 236)
PALE: RGB = (214, 214, 208)
DARK: RGB = (52, 54, 58)
GLASS: RGB = (44, 58, 74)
GRASS: RGB = (104, 148, 78)
LAWN: RGB = (122, 164, 88)
DIRT: RGB = (186, 142, 98)
DECK: RGB = (172, 168, 158)
ASPHALT: RGB = (92, 92, 94)


@dataclass(frozen=True)
class Template:
    """One way to draw a category.

    Attributes:
        parts: Colour and polygon of each part, in painting order.
        silhouette: Polygons whose union is the object.
        height: How high it stands, in parts of its length: sets the length of the shadow.
    """

    parts: tuple[tuple[Colour, Points], ...]
    silhouette: tuple[Points, ...]
    height: float = 0.05

    @cached_property
    def vertices(self) -> np.ndarray:
        """All vertices, first those of the parts, then those of the silhouette: float64 (V, 2)."""
        return np.array([point for points in self._polygons for point in points], dtype=np.float64)

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """Where in `vertices` each polygon ends."""
        return tuple(np.cumsum([len(points) for points in self._polygons]).tolist())

    @property
    def _polygons(self) -> list[Points]:
        return [points for _, points in self.parts] + list(self.silhouette)

    @cached_property
    def half(self) -> tuple[float, float]:
        """Half length and half width of the silhouette."""
        points = np.array([point for polygon in self.silhouette for point in polygon])
        return float(np.abs(points[:, 0]).max()), float(np.abs(points[:, 1]).max())

    @cached_property
    def area(self) -> float:
        """Area of the silhouette of a unit-length object, by counting pixels."""
        side = 512
        image = Image.new("L", (side, side))
        draw = ImageDraw.Draw(image)
        for polygon in self.silhouette:
            draw.polygon([((x + 0.5) * side, (y + 0.5) * side) for x, y in polygon], fill=1)
        return float(np.asarray(image).sum()) / side**2


def box(x0: float, y0: float, x1: float, y1: float) -> Points:
    """A rectangle."""
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def oval(cx: float, cy: float, rx: float, ry: float, count: int = 24) -> Points:
    """An ellipse."""
    turns = [2.0 * math.pi * k / count for k in range(count)]
    return [(cx + rx * math.cos(turn), cy + ry * math.sin(turn)) for turn in turns]


def bar(x0: float, y0: float, x1: float, y1: float, width: float) -> Points:
    """A straight line of some width."""
    length = math.hypot(x1 - x0, y1 - y0)
    dx, dy = (y0 - y1) / length * width / 2.0, (x1 - x0) / length * width / 2.0
    return [(x0 + dx, y0 + dy), (x1 + dx, y1 + dy), (x1 - dx, y1 - dy), (x0 - dx, y0 - dy)]


def capsule(half_length: float, half_width: float, count: int = 13) -> Points:
    """A rectangle with half-round ends."""
    straight = half_length - half_width
    right = [math.pi * (k / (count - 1) - 0.5) for k in range(count)]
    points = [(straight + half_width * math.cos(turn), half_width * math.sin(turn)) for turn in right]
    return points + [(-x, -y) for x, y in points]


def _frame(x0: float, y0: float, x1: float, y1: float, width: float, colour: Colour) -> list[tuple[Colour, Points]]:
    lines = ((x0, y0, x1, y0), (x1, y0, x1, y1), (x1, y1, x0, y1), (x0, y1, x0, y0))
    return [(colour, bar(*line, width)) for line in lines]


def _jet() -> Template:
    fuselage = [
        (0.5, 0.0),
        (0.46, 0.045),
        (0.38, 0.068),
        (-0.3, 0.068),
        (-0.5, 0.02),
        (-0.5, -0.02),
        (-0.3, -0.068),
        (0.38, -0.068),
        (0.46, -0.045),
    ]
    wings, tails, engines = [], [], []
    for side in (1.0, -1.0):
        wings.append([(0.17, 0.05 * side), (-0.09, 0.47 * side), (-0.19, 0.47 * side), (-0.08, 0.05 * side)])
        tails.append([(-0.33, 0.03 * side), (-0.45, 0.19 * side), (-0.5, 0.19 * side), (-0.47, 0.02 * side)])
        engines.append(box(0.0, 0.2 * side - 0.03, 0.13, 0.2 * side + 0.03))
    parts = [(0.62, engine) for engine in engines] + [(0.84, wing) for wing in wings] + [(0.84, t) for t in tails]
    parts += [(1.0, fuselage), (1.12, box(-0.42, -0.02, 0.36, 0.02)), (GLASS, box(0.4, -0.032, 0.44, 0.032))]
    return Template(tuple(parts), (fuselage, *wings, *tails, *engines), 0.09)


def _propeller_plane() -> Template:
    fuselage = [(0.46, 0.04), (0.4, 0.07), (-0.1, 0.06), (-0.46, 0.025)]
    fuselage += [(x, -y) for x, y in reversed(fuselage)]
    wing = [(0.22, -0.46), (0.25, 0.0), (0.22, 0.46), (0.07, 0.46), (0.04, 0.0), (0.07, -0.46)]
    tail = [(-0.33, -0.18), (-0.33, 0.18), (-0.46, 0.18), (-0.46, -0.18)]
    parts = (
        (0.86, wing),
        (0.86, tail),
        (1.0, fuselage),
        (GLASS, box(0.16, -0.04, 0.26, 0.04)),
        (DARK, bar(0.47, -0.11, 0.47, 0.11, 0.02)),
        (1.12, bar(-0.48, 0.0, -0.25, 0.0, 0.03)),
    )
    return Template(parts, (fuselage, wing, tail), 0.07)


_HULL: Points = [
    (0.5, 0.0),
    (0.42, 0.075),
    (0.28, 0.135),
    (0.1, 0.155),
    (-0.46, 0.15),
    (-0.5, 0.12),
    (-0.5, -0.12),
    (-0.46, -0.15),
    (0.1, -0.155),
    (0.28, -0.135),
    (0.42, -0.075),
]


def _boat(wake: bool) -> Template:
    deck = [(x * 0.86 - 0.01, y * 0.66) for x, y in _HULL]
    parts: list[tuple[Colour, Points]] = []
    if wake:
        parts.append(((150, 178, 190), [(-0.48, 0.1), (-0.75, 0.18), (-0.75, -0.18), (-0.48, -0.1)]))
        parts.append(((190, 208, 214), [(-0.48, 0.06), (-0.66, 0.08), (-0.66, -0.08), (-0.48, -0.06)]))
    parts += [(0.78, _HULL), (1.0, deck), (PALE, box(-0.3, -0.08, -0.06, 0.08)), (GLASS, box(-0.06, -0.07, 0.0, 0.07))]
    parts.append((1.15, bar(0.08, 0.0, 0.38, 0.0, 0.03)))
    return Template(tuple(parts), (_HULL,), 0.05)


def _cargo_ship(wake: bool) -> Template:
    hull = [(x, y * 0.82) for x, y in _HULL]
    deck = [(x * 0.95, y * 0.78) for x, y in hull]
    parts: list[tuple[Colour, Points]] = []
    if wake:
        parts.append(((150, 178, 190), [(-0.48, 0.08), (-0.65, 0.13), (-0.65, -0.13), (-0.48, -0.08)]))
    parts += [(0.72, hull), (1.0, deck), (PALE, box(-0.44, -0.09, -0.32, 0.09)), (DARK, box(-0.42, -0.03, -0.37, 0.03))]
    for k in range(4):
        left = -0.26 + 0.14 * k
        parts.append(((1.16, 0.84)[k % 2], box(left, -0.075, left + 0.11, 0.075)))
    return Template(tuple(parts), (hull,), 0.05)


def _car() -> Template:
    body = [(0.47, 0.2), (0.5, 0.12), (0.5, -0.12), (0.47, -0.2), (0.4, -0.275), (-0.44, -0.275)]
    body += [(-0.5, -0.2), (-0.5, 0.2), (-0.44, 0.275), (0.4, 0.275)]
    parts = (
        (0.88, body),
        (1.0, box(-0.46, -0.2, 0.46, 0.2)),
        (GLASS, [(0.2, 0.2), (0.1, 0.16), (0.1, -0.16), (0.2, -0.2)]),
        (GLASS, [(-0.36, 0.18), (-0.28, 0.15), (-0.28, -0.15), (-0.36, -0.18)]),
        (1.12, box(-0.26, -0.14, 0.08, 0.14)),
    )
    return Template(parts, (body,), 0.14)


def _truck() -> Template:
    box_body, cab = box(-0.5, -0.19, 0.24, 0.19), box(0.26, -0.175, 0.5, 0.175)
    link = box(0.2, -0.12, 0.3, 0.12)
    parts = (
        (DARK, link),
        (0.85, box_body),
        (1.05, box(-0.48, -0.155, 0.22, 0.155)),
        (0.92, bar(-0.48, 0.0, 0.22, 0.0, 0.02)),
        (0.95, cab),
        (GLASS, box(0.42, -0.14, 0.47, 0.14)),
    )
    return Template(parts, (box_body, cab, link), 0.12)


def _tank(floating_roof: bool) -> Template:
    rim = oval(0.0, 0.0, 0.5, 0.5, 28)
    parts: list[tuple[Colour, Points]] = [(0.68, rim)]
    if floating_roof:
        parts += [(0.9, oval(0.0, 0.0, 0.43, 0.43)), (1.06, oval(0.06, 0.06, 0.36, 0.36)), (0.8, oval(0, 0, 0.1, 0.1))]
    else:
        parts += [(0.94, oval(0.02, 0.02, 0.44, 0.44)), (1.1, oval(-0.08, -0.08, 0.24, 0.24))]
        parts += [(0.72, bar(0.0, 0.0, 0.42, 0.1, 0.035))]
    return Template(tuple(parts), (rim,), 0.22)


def _tennis() -> Template:
    ground = box(-0.5, -0.28, 0.5, 0.28)
    parts: list[tuple[Colour, Points]] = [(0.72, ground), (1.08, box(-0.38, -0.18, 0.38, 0.18))]
    parts += _frame(-0.38, -0.18, 0.38, 0.18, 0.022, WHITE)
    parts += [(WHITE, bar(-0.38, y, 0.38, y, 0.016)) for y in (-0.13, 0.13)]
    parts += [(WHITE, bar(x, -0.13, x, 0.13, 0.016)) for x in (-0.2, 0.2)]
    parts += [(WHITE, bar(-0.2, 0.0, 0.2, 0.0, 0.016)), (PALE, bar(0.0, -0.24, 0.0, 0.24, 0.03))]
    return Template(tuple(parts), (ground,), 0.0)


def _basketball() -> Template:
    ground = box(-0.5, -0.27, 0.5, 0.27)
    parts: list[tuple[Colour, Points]] = [(1.0, ground)]
    parts += [(0.55, box(x - 0.09, -0.09, x + 0.09, 0.09)) for x in (-0.36, 0.36)]
    parts += [(WHITE, oval(0.0, 0.0, 0.105, 0.105)), (0.55, oval(0.0, 0.0, 0.075, 0.075))]
    parts += _frame(-0.455, -0.225, 0.455, 0.225, 0.022, WHITE)
    parts.append((WHITE, bar(0.0, -0.225, 0.0, 0.225, 0.02)))
    for side in (1.0, -1.0):
        turns = [math.pi * (k / 8.0 - 0.5) for k in range(9)]
        arc = [(side * (0.43 - 0.2 * math.cos(turn)), 0.18 * math.sin(turn)) for turn in turns]
        parts += [(WHITE, bar(*a, *b, 0.018)) for a, b in zip(arc, arc[1:], strict=False)]
        parts.append((DARK, bar(side * 0.44, -0.05, side * 0.44, 0.05, 0.03)))
    return Template(tuple(parts), (ground,), 0.0)


def _baseball() -> Template:
    radius, home = 0.7, -0.35
    turns = [math.pi / 4.0 * (k / 8.0 - 1.0) for k in range(17)]

    def fan(r: float) -> Points:
        return [(home, 0.0)] + [(home + r * math.cos(turn), r * math.sin(turn)) for turn in turns]

    diamond = [(home + 0.05, 0.0), (home + 0.2, 0.15), (home + 0.35, 0.0), (home + 0.2, -0.15)]
    parts: list[tuple[Colour, Points]] = [(DIRT, fan(radius)), (LAWN, fan(radius * 0.93)), (DIRT, fan(radius * 0.62))]
    parts += [(LAWN, diamond), (DIRT, oval(home + 0.2, 0.0, 0.035, 0.035, 12))]
    edge = radius * 0.93 * math.sqrt(0.5)
    parts += [(WHITE, bar(home, 0.0, home + edge, side * edge, 0.012)) for side in (1.0, -1.0)]
    parts += [(WHITE, oval(x, y, 0.018, 0.018, 8)) for x, y in diamond]
    return Template(tuple(parts), (fan(radius),), 0.0)


def _track() -> Template:
    outer = capsule(0.5, 0.28)
    parts: list[tuple[Colour, Points]] = [(1.0, outer)]
    for k in (1, 2):
        lane = 0.028 * k
        parts += [(1.35, capsule(0.5 - lane, 0.28 - lane)), (1.0, capsule(0.5 - lane - 0.008, 0.28 - lane - 0.008))]
    parts += [(GRASS, capsule(0.405, 0.185)), (LAWN, box(-0.24, -0.15, 0.24, 0.15))]
    parts += _frame(-0.24, -0.15, 0.24, 0.15, 0.01, WHITE)
    parts += [
        (WHITE, bar(0.0, -0.15, 0.0, 0.15, 0.01)),
        (WHITE, oval(0, 0, 0.05, 0.05)),
        (LAWN, oval(0, 0, 0.04, 0.04)),
    ]
    return Template(tuple(parts), (outer,), 0.0)


def _stadium() -> Template:
    outer = oval(0.0, 0.0, 0.5, 0.41, 32)
    parts: list[tuple[Colour, Points]] = [(0.7, outer), (1.0, oval(0.0, 0.0, 0.475, 0.385, 32))]
    for k in range(16):
        turn = 2.0 * math.pi * (k + 0.5) / 16
        c, s = math.cos(turn), math.sin(turn)
        parts.append((0.78, bar(0.33 * c, 0.26 * s, 0.47 * c, 0.38 * s, 0.012)))
    parts += [(0.6, oval(0.0, 0.0, 0.36, 0.27)), (0.88, oval(0.0, 0.0, 0.335, 0.245)), (GRASS, capsule(0.29, 0.185))]
    parts += [(LAWN, box(-0.22, -0.13, 0.22, 0.13))]
    parts += _frame(-0.22, -0.13, 0.22, 0.13, 0.012, WHITE)
    parts.append((WHITE, bar(0.0, -0.13, 0.0, 0.13, 0.012)))
    return Template(tuple(parts), (outer,), 0.1)


def _windmill() -> Template:
    blades, parts = [], []
    for k in range(3):
        turn = 2.0 * math.pi * k / 3.0
        c, s = math.cos(turn), math.sin(turn)
        outline = [(0.0, 0.035), (0.12, 0.06), (0.5, 0.025), (0.5, -0.02), (0.12, -0.045), (0.0, -0.035)]
        blade = [(x * c - y * s, x * s + y * c) for x, y in outline]
        blades.append(blade)
        parts.append((((238, 238, 236), (226, 228, 228), (246, 246, 244))[k], blade))
    hub = oval(0.0, 0.0, 0.085, 0.085, 14)
    parts += [((206, 208, 210), hub), ((250, 250, 250), oval(-0.015, -0.015, 0.045, 0.045, 10))]
    # The rotor reaches 0.5 forwards and 0.25 backwards: move it so that its box is centred.
    shift = -0.12
    moved = [[(x + shift, y) for x, y in polygon] for polygon in (*blades, hub)]
    painted = tuple((colour, [(x + shift, y) for x, y in polygon]) for colour, polygon in parts)
    return Template(painted, tuple(moved), 0.3)


def _chimney() -> Template:
    body = [(-0.42, 0.15), (0.4, 0.11), (0.4, -0.11), (-0.42, -0.15)]
    foot, top = oval(-0.38, 0.0, 0.1, 0.15, 16), oval(0.4, 0.0, 0.1, 0.115, 16)
    parts: list[tuple[Colour, Points]] = [((150, 140, 130), foot)]
    for k in range(5):
        a, b = -0.4 + 0.16 * k, -0.4 + 0.16 * (k + 1)
        wa, wb = 0.15 - 0.04 * k / 5.0, 0.15 - 0.04 * (k + 1) / 5.0
        band = [(a, wa), (b, wb), (b, -wb), (a, -wa)]
        shade = [(a, wa), (b, wb), (b, wb * 0.35), (a, wa * 0.35)]
        parts.append((((222, 214, 206), (190, 62, 50))[k % 2], band))
        parts.append((((182, 174, 168), (146, 44, 38))[k % 2], shade))
    parts += [((176, 66, 54), top), ((34, 32, 32), oval(0.41, 0.0, 0.062, 0.078, 14))]
    return Template(tuple(parts), (body, foot, top), 0.0)


def _bridge() -> Template:
    deck = box(-0.5, -0.1, 0.5, 0.1)
    parts: list[tuple[Colour, Points]] = [(DECK, deck), (ASPHALT, box(-0.5, -0.066, 0.5, 0.066))]
    parts += [(WHITE, bar(-0.46 + 0.1 * k, 0.0, -0.4 + 0.1 * k, 0.0, 0.012)) for k in range(10)]
    parts += [((222, 218, 206), bar(-0.5, y, 0.5, y, 0.026)) for y in (-0.088, 0.088)]
    parts += [((120, 118, 112), box(x - 0.012, -0.1, x + 0.012, 0.1)) for x in (-0.25, 0.25)]
    return Template(tuple(parts), (deck,), 0.12)


def _harbor(piers: int) -> Template:
    """A quay along y with piers along +x."""
    quay = box(-0.36, -0.5, -0.18, 0.5)
    width = 0.12
    spots = [-0.5 + width / 2 + (1.0 - width) * k / (piers - 1) for k in range(piers)]
    arms = [box(-0.2, y - width / 2, 0.36, y + width / 2) for y in spots]
    parts: list[tuple[Colour, Points]] = [((176, 170, 156), quay)] + [((192, 184, 166), arm) for arm in arms]
    parts += [((132, 124, 112), bar(-0.18, y, 0.34, y, 0.016)) for y in spots]
    parts += [((148, 142, 132), bar(-0.27, -0.48, -0.27, 0.48, 0.03))]
    return Template(tuple(parts), (quay, *arms), 0.03)


TEMPLATES: dict[tuple[str, bool], tuple[Template, ...]] = {}
"""Templates by category and whether the object is a large one."""


def _register(category: str, small: tuple[Template, ...], large: tuple[Template, ...] | None = None) -> None:
    TEMPLATES[category, False], TEMPLATES[category, True] = small, large or small


_register("airplane", (_jet(), _propeller_plane()), (_jet(),))
_register("ship", (_boat(False), _boat(True)), (_cargo_ship(False), _cargo_ship(True)))
_register("vehicle", (_car(),), (_truck(),))
_register("storage tank", (_tank(False), _tank(True)))
_register("tennis court", (_tennis(),))
_register("basketball court", (_basketball(),))
_register("baseball field", (_baseball(),))
_register("ground track field", (_track(),))
_register("stadium", (_stadium(),))
_register("windmill", (_windmill(),))
_register("chimney", (_chimney(),))
_register("bridge", (_bridge(),))
_register("harbor", (_harbor(4),), (_harbor(5),))
