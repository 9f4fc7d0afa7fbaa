"""Landscapes: which ground lies where, which objects belong on it, and where bridges and harbours can be.

A zone is a convex piece of one kind of ground, given by half-planes (nx, ny, c): a point lies inside where
nx·x + ny·y + c >= 0 for all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from .catalogue import UNITS
from .draws import Draws

Plane = tuple[float, float, float]
Points = list[tuple[float, float]]
FAR = 2.0 * UNITS


@dataclass(frozen=True)
class Zone:
    """A convex piece of ground.

    Attributes:
        surface: "water", "road", "concrete", "apron", "grass" or "field".
        planes: Its half-planes.
        angle: Direction that things on it keep to.
        lane: For roads: middle (x, y) and width; things stand in its lanes.
        holes: Convex pieces that are not part of it.
    """

    surface: str
    planes: tuple[Plane, ...]
    angle: float
    lane: tuple[float, float, float] | None = None
    holes: tuple[tuple[Plane, ...], ...] = ()

    def holds(self, x: float, y: float, half_w: float, half_h: float) -> bool:
        """Whether an upright box lies in it."""
        for nx, ny, c in self.planes:
            if nx * x + ny * y + c < abs(nx) * half_w + abs(ny) * half_h:
                return False
        return self.clear_of_holes(x, y, half_w, half_h)

    def clear_of_holes(self, x: float, y: float, half_w: float, half_h: float) -> bool:
        """Whether an upright box touches none of the holes."""
        for hole in self.holes:
            # A box is apart from a convex piece when one edge of the piece has all of it on the outer side.
            for nx, ny, c in hole:
                if nx * x + ny * y + c < -(abs(nx) * half_w + abs(ny) * half_h):
                    break
            else:
                return False
        return True


@dataclass(frozen=True)
class Site:
    """A place for an object that the landscape itself prescribes (a bridge over the river)."""

    category: str
    center: tuple[float, float]
    angle: float
    length: float | None = None
    stretch: float = 1.0


@dataclass
class Terrain:
    """A landscape.

    Attributes:
        theme: Its name.
        base: Surface that fills the image.
        patches: Surface and polygon of what is painted over it, in order.
        stripes: Polylines painted last: colour name, points, width.
        zones: Where objects can stand.
        sites: Prescribed places.
        weights: How often each category is drawn.
        angle: Main direction.
    """

    theme: str
    base: str
    weights: dict[str, float]
    angle: float
    patches: list[tuple[str, Points]] = field(default_factory=list)
    stripes: list[tuple[str, Points, float]] = field(default_factory=list)
    zones: list[Zone] = field(default_factory=list)
    sites: list[Site] = field(default_factory=list)


def rectangle(x: float, y: float, angle: float, length: float, width: float) -> tuple[tuple[Plane, ...], Points]:
    """Half-planes and corners of a rotated rectangle."""
    c, s = math.cos(angle), math.sin(angle)
    along, across = length / 2.0, width / 2.0
    planes = (
        (c, s, along - c * x - s * y),
        (-c, -s, along + c * x + s * y),
        (-s, c, across + s * x - c * y),
        (s, -c, across - s * x + c * y),
    )
    corners = [(x + c * u - s * v, y + s * u + c * v) for u, v in ((along, across), (along, -across))]
    corners += [(x + c * u - s * v, y + s * u + c * v) for u, v in ((-along, -across), (-along, across))]
    return planes, corners


def _wavy_half_plane(draws: Draws, x: float, y: float, angle: float, swing: float) -> Points:
    """Polygon of everything on the side of direction `angle` from a wavy line through (x, y)."""
    nx, ny = math.cos(angle), math.sin(angle)
    phases = (draws.angle(), draws.angle())
    line = []
    for k in range(-24, 25):
        t = 6.0 * k
        wave = swing * (0.6 * math.sin(t / 17.0 + phases[0]) + 0.4 * math.sin(t / 7.0 + phases[1]))
        line.append((x - ny * t + nx * wave, y + nx * t + ny * wave))
    far = [(px + nx * FAR, py + ny * FAR) for px, py in (line[-1], line[0])]
    return line + far


def _add_road(terrain: Terrain, x: float, y: float, angle: float, width: float) -> tuple[Plane, ...]:
    """Adds a straight road through (x, y) and returns its half-planes."""
    planes, corners = rectangle(x, y, angle, 2.0 * FAR, width)
    terrain.patches.append(("verge", rectangle(x, y, angle, 2.0 * FAR, width + 3.0)[1]))
    terrain.patches.append(("road", corners))
    c, s = math.cos(angle), math.sin(angle)
    first = 8.0 * ((x + y) % 1.0)
    # Start at the point of the road that is nearest to the image's middle: 11 dashes each way reach its edges.
    first += 9.0 * round((c * (64.0 - x) + s * (64.0 - y)) / 9.0)
    for k in range(-11, 11):
        a, b = first + 9.0 * k, first + 9.0 * k + 4.5
        terrain.stripes.append(("line", [(x + c * a, y + s * a), (x + c * b, y + s * b)], 0.9))
    terrain.zones.append(Zone("road", planes[2:], angle, (x, y, width)))
    return planes[2:]


def _fields(draws: Draws, terrain: Terrain, angle: float) -> None:
    """A patchwork of crops over the whole image."""
    c, s = math.cos(angle), math.sin(angle)
    u = -96.0
    while u < 96.0:
        wide = draws.uniform(26.0, 52.0)
        v = -96.0 - draws.uniform(0.0, 30.0)
        while v < 96.0:
            high = draws.uniform(24.0, 60.0)
            x, y = 64.0 + c * (u + wide / 2) - s * (v + high / 2), 64.0 + s * (u + wide / 2) + c * (v + high / 2)
            crop = ("crop", "crop2", "crop3", "soil", "meadow")[draws.integer(0, 4)]
            terrain.patches.append((crop, rectangle(x, y, angle, wide - 0.8, high - 0.8)[1]))
            v += high
        u += wide


def _coast(draws: Draws) -> Terrain:
    angle = draws.angle()
    nx, ny = math.cos(angle), math.sin(angle)
    x, y = 64.0 + nx * draws.uniform(-4.0, 20.0), 64.0 + ny * draws.uniform(-4.0, 20.0)
    weights = {
        "ship": 5.0,
        "vehicle": 1.6,
        "storage tank": 2.5,
        "chimney": 0.7,
        "tennis court": 0.7,
        "basketball court": 0.7,
        "windmill": 0.5,
    }
    terrain = Terrain("coast", "water", weights, angle)
    quay = draws.chance(0.55)
    swing = 0.0 if quay else 3.0
    shore = _wavy_half_plane(draws, x, y, angle, swing)
    if not quay:
        terrain.patches.append(("shallow", [(px - 4.0 * nx, py - 4.0 * ny) for px, py in shore]))
        terrain.patches.append(("sand", shore))
        terrain.patches.append(("grass", [(px + 5.0 * nx, py + 5.0 * ny) for px, py in shore]))
    else:
        terrain.patches.append(("grass", shore))
    terrain.zones.append(Zone("water", ((-nx, -ny, nx * x + ny * y - swing - 3.0),), angle + math.pi / 2.0))
    deep = 7.0
    if quay:
        deep = draws.uniform(22.0, 34.0)
        planes, corners = rectangle(x + nx * deep / 2, y + ny * deep / 2, angle + math.pi / 2.0, 2.0 * FAR, deep)
        terrain.patches.append(("concrete", corners))
        terrain.zones.append(Zone("concrete", planes, angle + math.pi / 2.0))
    holes: tuple[tuple[Plane, ...], ...] = ()
    if draws.chance(0.85):
        off = deep + draws.uniform(10.0, 16.0)
        holes = (_add_road(terrain, x + nx * off, y + ny * off, angle + math.pi / 2.0, 15.0),)
    terrain.zones.append(Zone("grass", ((nx, ny, -nx * x - ny * y - deep - 1.0),), angle, holes=holes))
    for _ in range(2):
        t = draws.uniform(-50.0, 50.0)
        px, py = x - ny * t, y + nx * t
        # The quay lies along the shore, the piers point at the water.
        terrain.sites.append(Site("harbor", (px - nx * 4.0, py - ny * 4.0), angle + math.pi))
    return terrain


def _river(draws: Draws) -> Terrain:
    angle = draws.angle()
    c, s = math.cos(angle), math.sin(angle)
    off = draws.uniform(-14.0, 14.0)
    x, y = 64.0 - s * off, 64.0 + c * off
    width = draws.uniform(34.0, 46.0)
    weights = {
        "ship": 3.5,
        "vehicle": 1.8,
        "storage tank": 2.0,
        "windmill": 1.2,
        "baseball field": 0.7,
        "tennis court": 0.8,
        "chimney": 0.5,
    }
    terrain = Terrain("river", "grass", weights, angle)
    if draws.chance(0.5):
        _fields(draws, terrain, angle)
    across = angle + math.pi / 2.0
    roads = []
    spots = [draws.uniform(-40.0, -16.0), draws.uniform(16.0, 40.0)]
    for t in spots if draws.chance(0.45) else [draws.choice(spots)]:
        px, py = x + c * t, y + s * t
        roads.append((_add_road(terrain, px, py, across, 14.0), px, py))
    for name, extra, phase in (("sand", 2.5, 0.0), ("water", 0.0, 0.0)):
        bank = rectangle(x, y, angle, 2.0 * FAR, width + 2.0 * extra)[1]
        terrain.patches.append((name, [(px, py + phase) for px, py in bank]))
    planes = rectangle(x, y, angle, 2.0 * FAR, width)[0]
    decks = tuple(rectangle(px, py, across, FAR, 16.0)[0][2:] for _, px, py in roads)
    terrain.zones.append(Zone("water", planes[2:], angle, holes=decks))
    bank = rectangle(x, y, angle, 2.0 * FAR, width + 8.0)[0][2:]
    road_planes = tuple(road[0] for road in roads)
    terrain.zones.append(Zone("grass", (), angle, holes=(bank, *road_planes)))
    # Vehicles stand on the land part of the roads only: the bridges are objects of their own.
    terrain.zones = [
        Zone("road", zone.planes, zone.angle, zone.lane, (bank,)) if zone.surface == "road" else zone
        for zone in terrain.zones
    ]
    for _, px, py in roads:
        terrain.sites.append(Site("bridge", (px, py), across, width + 7.0, 14.5 / (0.2 * (width + 7.0))))
    return terrain


def _airport(draws: Draws) -> Terrain:
    angle = draws.angle()
    c, s = math.cos(angle), math.sin(angle)
    side = draws.choice((-1.0, 1.0))
    weights = {"airplane": 6.0, "vehicle": 1.6, "storage tank": 1.5, "stadium": 0.3, "tennis court": 0.6}
    terrain = Terrain("airport", "grass", weights, angle)

    def at(u: float, v: float) -> tuple[float, float]:
        return 64.0 + c * u - s * v * side, 64.0 + s * u + c * v * side

    deep = draws.uniform(62.0, 84.0)
    apron_middle = draws.uniform(-12.0, 8.0)
    planes, corners = rectangle(*at(0.0, apron_middle), angle, 2.0 * FAR, deep)
    terrain.patches.append(("concrete", corners))
    for k in range(-5, 6):
        a, b = at(24.0 * k, apron_middle - deep / 2), at(24.0 * k, apron_middle + deep / 2)
        terrain.stripes.append(("joint", [a, b], 0.5))
    for k in range(4):
        v = apron_middle - deep / 2 + deep * k / 4
        terrain.stripes.append(("joint", [at(-140.0, v), at(140.0, v)], 0.5))
    terrain.zones.append(Zone("apron", planes[2:], angle))
    terrain.zones.append(Zone("concrete", planes[2:], angle))
    runway = apron_middle + deep / 2 + draws.uniform(20.0, 26.0)
    terrain.patches.append(("road", rectangle(*at(0.0, runway), angle, 2.0 * FAR, 20.0)[1]))
    for k in range(-9, 9):
        terrain.stripes.append(("line", [at(16.0 * k, runway), at(16.0 * k + 9.0, runway)], 1.4))
    for v in (runway - 8.6, runway + 8.6):
        terrain.stripes.append(("line", [at(-140.0, v), at(140.0, v)], 0.9))
    strip = rectangle(*at(0.0, runway), angle, 2.0 * FAR, 22.0)[0][2:]
    terrain.zones.append(Zone("apron", strip, angle))
    holes: tuple[tuple[Plane, ...], ...] = (planes[2:], strip)
    if draws.chance(0.5):
        holes += (_add_road(terrain, *at(0.0, apron_middle - deep / 2 - 10.0), angle, 14.0),)
    terrain.zones.append(Zone("grass", (), angle, holes=holes))
    return terrain


def _industrial(draws: Draws) -> Terrain:
    angle = draws.angle()
    c, s = math.cos(angle), math.sin(angle)
    weights = {"storage tank": 5.0, "vehicle": 2.2, "chimney": 2.4, "basketball court": 0.8}
    terrain = Terrain("industrial", "concrete", weights, angle)
    for _ in range(draws.integer(1, 3)):
        u, v = draws.uniform(-60.0, 60.0), draws.uniform(-60.0, 60.0)
        spot = rectangle(64 + c * u - s * v, 64 + s * u + c * v, angle, draws.uniform(30, 60), draws.uniform(20, 40))
        terrain.patches.append((draws.choice(("soil", "meadow", "concrete2", "concrete2")), spot[1]))
    holes = [_add_road(terrain, 64.0 - s * (v := draws.uniform(-36.0, 36.0)), 64.0 + c * v, angle, 15.0)]
    if draws.chance(0.5):
        u = draws.uniform(-30.0, 30.0)
        holes.append(_add_road(terrain, 64.0 + c * u, 64.0 + s * u, angle + math.pi / 2.0, 15.0))
    terrain.zones.append(Zone("concrete", (), angle, holes=tuple(holes)))
    return terrain


def _sports(draws: Draws) -> Terrain:
    angle = draws.angle()
    c, s = math.cos(angle), math.sin(angle)
    weights = {
        "tennis court": 2.6,
        "basketball court": 2.0,
        "ground track field": 2.6,
        "baseball field": 2.2,
        "stadium": 2.2,
        "vehicle": 1.8,
    }
    terrain = Terrain("sports", "grass", weights, angle)
    v = draws.choice((-1.0, 1.0)) * draws.uniform(26.0, 50.0)
    holes = [_add_road(terrain, 64.0 - s * v, 64.0 + c * v, angle, 15.0)]
    if draws.chance(0.4):
        u = draws.choice((-1.0, 1.0)) * draws.uniform(30.0, 50.0)
        holes.append(_add_road(terrain, 64.0 + c * u, 64.0 + s * u, angle + math.pi / 2.0, 15.0))
    terrain.zones.append(Zone("grass", (), angle, holes=tuple(holes)))
    return terrain


def _rural(draws: Draws) -> Terrain:
    angle = draws.angle()
    c, s = math.cos(angle), math.sin(angle)
    weights = {"windmill": 3.5, "vehicle": 1.8, "storage tank": 2.0, "baseball field": 1.0, "chimney": 1.0}
    terrain = Terrain("rural", "meadow", weights, angle)
    _fields(draws, terrain, angle)
    v = draws.uniform(-40.0, 40.0)
    holes = [_add_road(terrain, 64.0 - s * v, 64.0 + c * v, angle, 14.0)]
    terrain.zones.append(Zone("field", (), angle, holes=tuple(holes)))
    return terrain


THEMES = {
    "coast": (_coast, 1.3),
    "river": (_river, 1.1),
    "airport": (_airport, 1.2),
    "industrial": (_industrial, 1.0),
    "sports": (_sports, 1.2),
    "rural": (_rural, 0.9),
}
"""How to make each landscape and how often it comes."""


def make_terrain(draws: Draws) -> Terrain:
    """Draws a landscape."""
    names = list(THEMES)
    name = draws.weighted(names, [THEMES[name][1] for name in names])
    return THEMES[name][0](draws)
