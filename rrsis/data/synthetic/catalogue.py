"""The objects that SynthRRSIS knows: categories of RRSIS-D, their words, sizes, colours and grounds."""

from __future__ import annotations

from dataclasses import dataclass

UNITS = 128.0
"""The image side in layout units: all positions and lengths of a scene are in units of 1/128 of the side."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "white": (236, 236, 232),
    "red": (198, 48, 42),
    "blue": (46, 92, 188),
    "yellow": (228, 192, 52),
    "black": (40, 42, 46),
    "green": (44, 146, 84),
}
"""Colours of man-made things (RGB). Single objects vary around them."""


@dataclass(frozen=True)
class Category:
    """One category.

    Attributes:
        name: As in RRSIS-D.
        nouns: What expressions call it.
        small: Shortest and longest length of a small one, in units.
        large: The same of a large one.
        colours: Colours that it comes in; empty where colour does not tell one from another.
        surfaces: Ground that it stands on.
    """

    name: str
    nouns: tuple[str, ...]
    small: tuple[float, float]
    large: tuple[float, float]
    colours: tuple[str, ...]
    surfaces: tuple[str, ...]


_ALL = (
    Category(
        "vehicle",
        ("vehicle", "vehicle", "car"),
        (10.0, 12.0),
        (19.0, 23.0),
        ("white", "red", "blue", "yellow", "black", "green"),
        ("road", "concrete"),
    ),
    Category(
        "ship",
        ("ship", "ship", "boat"),
        (15.0, 19.0),
        (28.0, 40.0),
        ("white", "red", "blue", "yellow", "black", "green"),
        ("water",),
    ),
    Category(
        "airplane",
        ("airplane", "airplane", "plane"),
        (19.0, 23.0),
        (32.0, 42.0),
        ("white", "red", "blue", "yellow", "black"),
        ("apron",),
    ),
    Category(
        "storage tank",
        ("storage tank", "storage tank", "tank"),
        (10.0, 13.0),
        (19.0, 27.0),
        ("white", "red", "blue", "yellow", "green"),
        ("concrete", "grass", "field"),
    ),
    Category("tennis court", ("tennis court",), (18.0, 22.0), (28.0, 34.0), ("blue", "green", "red"), ("grass",)),
    Category(
        "basketball court",
        ("basketball court",),
        (16.0, 20.0),
        (26.0, 32.0),
        ("red", "blue", "yellow", "green"),
        ("grass", "concrete"),
    ),
    Category("baseball field", ("baseball field",), (24.0, 28.0), (36.0, 44.0), (), ("grass", "field")),
    Category("ground track field", ("ground track field",), (34.0, 40.0), (52.0, 62.0), ("red", "blue"), ("grass",)),
    Category("stadium", ("stadium",), (32.0, 38.0), (50.0, 60.0), ("white", "red", "blue"), ("grass",)),
    Category("windmill", ("windmill", "windmill", "wind turbine"), (21.0, 25.0), (32.0, 38.0), (), ("field", "grass")),
    Category("chimney", ("chimney",), (16.0, 19.0), (25.0, 31.0), (), ("concrete", "field")),
    Category("bridge", ("bridge",), (28.0, 40.0), (48.0, 64.0), (), ()),
    Category("harbor", ("harbor", "harbor", "dock"), (22.0, 27.0), (35.0, 42.0), (), ()),
)

CATEGORIES: dict[str, Category] = {category.name: category for category in _ALL}
"""All categories by name."""

NOUNS: dict[str, str] = {noun: category.name for category in _ALL for noun in category.nouns}
"""Which category a noun stands for."""
