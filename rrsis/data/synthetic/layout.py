"""Which objects a scene has and where they stand. Nothing is rendered here."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .catalogue import CATEGORIES, COLOURS, UNITS
from .config import SynthConfig
from .draws import Draws
from .scene import Decor, SceneObject, half_box
from .shapes import RGB, TEMPLATES
from .terrain import Site, Terrain, Zone, make_terrain

POSES, SPOTS = 5, 5
"""How many directions are tried for an object, and how many spots for each."""

LONG_BRIDGE = 48.0
"""From what length on a bridge counts as large."""

GAP = 2.0
"""Least distance between the boxes of two objects."""

# A box (x, y, half width, half height).
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Layout:
    """A scene before rendering: landscape, objects, and what fills the rest."""

    terrain: Terrain
    objects: tuple[SceneObject, ...]
    decor: tuple[Decor, ...]


def _free(boxes: list[Box], x: float, y: float, half_w: float, half_h: float, gap: float) -> bool:
    reach_w, reach_h = half_w + gap, half_h + gap
    # A loop and no all(...): most of a layout's time goes by here.
    for bx, by, bw, bh in boxes:  # noqa: SIM110
        if abs(x - bx) <= reach_w + bw and abs(y - by) <= reach_h + bh:
            return False
    return True


def _inside(x: float, y: float, half_w: float, half_h: float) -> bool:
    return half_w + 1.0 <= x <= UNITS - half_w - 1.0 and half_h + 1.0 <= y <= UNITS - half_h - 1.0


def _paint(draws: Draws, base: RGB, spread: float) -> RGB:
    light = draws.uniform(-spread, spread)
    return tuple(int(min(255, max(0, channel + light + draws.uniform(-6, 6)))) for channel in base)  # type: ignore[return-value]


class _Builder:
    """Places objects one after the other."""

    def __init__(self, draws: Draws, config: SynthConfig) -> None:
        self.draws, self.config = draws, config
        self.terrain = make_terrain(draws)
        self.boxes: list[Box] = []
        self.objects: list[SceneObject] = []
        self.first_colours: dict[str, str | None] = {}

    def _colour(self, category: str) -> str | None:
        colours = CATEGORIES[category].colours
        if not colours:
            return None
        if category in self.first_colours and self.draws.chance(self.config.lookalike):
            return self.first_colours[category]
        return self.draws.choice(colours)

    def _length(self, category: str, large: bool, half: tuple[float, float], stretch: float) -> float:
        kind = CATEGORIES[category]
        length = self.draws.uniform(*(kind.large if large else kind.small)) * self.config.object_scale
        short = 2.0 * min(half[0], half[1] * stretch)
        return max(length, self.config.min_side / short)

    def _angle(self, category: str, zone_angle: float) -> float:
        draws = self.draws
        if category == "chimney":
            return -math.pi / 2.0 + draws.uniform(-0.25, 0.25)
        if category in ("storage tank", "windmill", "baseball field"):
            return draws.angle()
        if category == "ship":
            return draws.angle() if draws.chance(0.6) else zone_angle + math.pi * draws.integer(0, 1)
        if category == "airplane":
            return zone_angle + math.pi / 4.0 * draws.integer(0, 7) + draws.uniform(-0.1, 0.1)
        quarter = math.pi / 2.0 * draws.integer(0, 3)
        if category == "vehicle":
            quarter = math.pi * draws.integer(0, 1)
        return zone_angle + quarter + draws.uniform(-0.06, 0.06)

    def _spot(self, zone: Zone, half_w: float, half_h: float) -> tuple[float, float]:
        draws = self.draws
        if zone.lane is None:
            x, y = draws.random(), draws.random()
            return 1 + half_w + x * (UNITS - 2 - 2 * half_w), 1 + half_h + y * (UNITS - 2 - 2 * half_h)
        x, y, width = zone.lane
        along, across = draws.uniform(-85.0, 85.0), draws.choice((-0.25, 0.25)) * width
        c, s = math.cos(zone.angle), math.sin(zone.angle)
        return x + c * along - s * across, y + s * along + c * across

    def place(self, category: str) -> bool:
        """Tries to place one object of the category; says whether there was room."""
        draws = self.draws
        large = draws.chance(0.45)
        variant = draws.integer(0, len(TEMPLATES[category, large]) - 1)
        template = TEMPLATES[category, large][variant]
        stretch = draws.uniform(0.93, 1.07)
        length = self._length(category, large, template.half, stretch)
        zones = [zone for zone in self.terrain.zones if zone.surface in CATEGORIES[category].surfaces]
        if not zones:
            return False
        for _ in range(POSES):
            zone = draws.choice(zones)
            angle = self._angle(category, zone.angle)
            half_w, half_h = half_box(template, length, stretch, angle)
            if 2.0 * max(half_w, half_h) > UNITS - 3.0:
                continue
            for _ in range(SPOTS):
                x, y = self._spot(zone, half_w, half_h)
                if self._fits(zone, x, y, half_w, half_h):
                    self._add(
                        SceneObject(category, *self._looks(category), large, variant, (x, y), length, stretch, angle)
                    )
                    return True
        return False

    def place_at(self, site: Site) -> bool:
        """Places what a site prescribes, if it lies in the image and nothing is in its way."""
        draws = self.draws
        large = site.length > LONG_BRIDGE if site.length else draws.chance(0.45)
        template = TEMPLATES[site.category, large][0]
        length = site.length or self._length(site.category, large, template.half, site.stretch)
        half_w, half_h = half_box(template, length, site.stretch, site.angle)
        if not (_inside(*site.center, half_w, half_h) and _free(self.boxes, *site.center, half_w, half_h, GAP)):
            return False
        looks = self._looks(site.category)
        self._add(SceneObject(site.category, *looks, large, 0, site.center, length, site.stretch, site.angle))
        return True

    def _fits(self, zone: Zone, x: float, y: float, half_w: float, half_h: float) -> bool:
        if not (_inside(x, y, half_w, half_h) and _free(self.boxes, x, y, half_w, half_h, GAP)):
            return False
        # A lane sees to it that things stand on the road; the upright box of a slanting one would not fit on it.
        return zone.clear_of_holes(x, y, half_w, half_h) if zone.lane else zone.holds(x, y, half_w, half_h)

    def _looks(self, category: str) -> tuple[str | None, RGB]:
        """Name of a colour, and the very colour."""
        colour = self._colour(category)
        self.first_colours.setdefault(category, colour)
        return colour, _paint(self.draws, COLOURS[colour] if colour else (200, 196, 188), 10.0)

    def _add(self, item: SceneObject) -> None:
        self.objects.append(item)
        self.boxes.append((*item.center, *item.half_box))

    def fill(self) -> None:
        """Places the prescribed objects, a group of one class, and others, up to the number that was drawn."""
        draws, config = self.draws, self.config
        count = draws.integer(*config.objects)
        weights = self.terrain.weights
        names = list(weights)
        for site in self.terrain.sites:
            if site.category == "bridge" or draws.chance(0.5):
                self.place_at(site)
        focus = draws.weighted(names, [weights[name] for name in names])
        wanted = [focus] * (1 + draws.integer(*config.distractors))
        room = max(count - len(self.objects), 1)
        wanted = wanted[:room]
        while len(wanted) < room:
            wanted.append(draws.weighted(names, [weights[name] for name in names]))
        wanted.sort(key=lambda name: -CATEGORIES[name].large[1])
        for name in wanted:
            self.place(name)
        # Whoever found no room is replaced by something else, mostly by what needs little room.
        for _ in range(12):
            if len(self.objects) >= count:
                break
            self.place(draws.weighted(names, [weights[name] / CATEGORIES[name].large[1] ** 0.5 for name in names]))

    def decorate(self) -> tuple[Decor, ...]:
        """Buildings and trees on what ground is left."""
        draws = self.draws
        zones = [zone for zone in self.terrain.zones if zone.surface in ("grass", "field", "concrete")]
        if not zones:
            return ()
        things = []
        for _ in range(draws.integer(self.config.clutter // 2, self.config.clutter)):
            zone = draws.choice(zones)
            roof = draws.chance(0.25 if zone.surface == "field" else 0.75 if zone.surface == "concrete" else 0.5)
            size = (draws.uniform(11.0, 24.0), draws.uniform(8.0, 14.0)) if roof else (draws.uniform(4.0, 8.0),) * 2
            angle = zone.angle + math.pi / 2.0 * draws.integer(0, 1)
            c, s = abs(math.cos(angle)), abs(math.sin(angle))
            half_w, half_h = (c * size[0] + s * size[1]) / 2, (s * size[0] + c * size[1]) / 2
            x, y = draws.uniform(-4.0, UNITS + 4.0), draws.uniform(-4.0, UNITS + 4.0)
            if not (zone.holds(x, y, half_w, half_h) and _free(self.boxes, x, y, half_w, half_h, 2.5)):
                continue
            self.boxes.append((x, y, half_w, half_h))
            if roof:
                paint = _paint(
                    draws, draws.choice(((150, 112, 98), (128, 128, 130), (172, 164, 150), (120, 98, 92))), 12
                )
                things.append(Decor("building", (x, y), size, angle, paint))
                continue
            for _ in range(draws.integer(1, 5)):
                tx, ty = x + draws.uniform(-1, 1) * size[0] / 2, y + draws.uniform(-1, 1) * size[0] / 2
                width = draws.uniform(3.5, 6.5)
                if _free(self.boxes[:-1], tx, ty, width / 2, width / 2, 1.0):
                    things.append(Decor("tree", (tx, ty), (width, width), 0.0, _paint(draws, (52, 88, 50), 12)))
        return tuple(things)


def make_layout(draws: Draws, config: SynthConfig) -> Layout:
    """Draws a scene's landscape, objects and fillings."""
    builder = _Builder(draws, config)
    builder.fill()
    objects = tuple(builder.objects)
    return Layout(builder.terrain, objects, builder.decorate())
