"""Reads an expression and says which objects of a scene it refers to: the check on `expressions.py`.

This is a second, separate account of what the words mean. It works on text and on what can be measured in the label map
(or on any other facts), knows nothing of how an expression came about, and shares neither code nor thresholds with the
generator: where the generator keeps clear of arguable cases by margins, this draws one line through the middle.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .catalogue import UNITS
from .scene import Scene, SceneObject

_CATEGORY_WORDS = {
    "vehicle": "vehicle",
    "car": "vehicle",
    "ship": "ship",
    "boat": "ship",
    "airplane": "airplane",
    "plane": "airplane",
    "storage tank": "storage tank",
    "tank": "storage tank",
    "tennis court": "tennis court",
    "basketball court": "basketball court",
    "baseball field": "baseball field",
    "ground track field": "ground track field",
    "stadium": "stadium",
    "windmill": "windmill",
    "wind turbine": "windmill",
    "chimney": "chimney",
    "bridge": "bridge",
    "harbor": "harbor",
    "dock": "harbor",
}
_COLOUR = "white|red|blue|yellow|black|green"
_NOUN = "|".join(sorted(_CATEGORY_WORDS, key=len, reverse=True))
_SMALL, _LARGE = {"small", "little", "smallest"}, {"large", "big", "largest", "biggest"}
_OUTERMOST = {
    "leftmost": (-1.0, 0.0),
    "rightmost": (1.0, 0.0),
    "topmost": (0.0, -1.0),
    "uppermost": (0.0, -1.0),
    "bottommost": (0.0, 1.0),
    "lowest": (0.0, 1.0),
}
_GRAMMAR = re.compile(
    rf"the (?P<edge>{'|'.join(_OUTERMOST)})? ?(?P<size>{'|'.join(sorted(_SMALL | _LARGE, key=len, reverse=True))})? ?"
    rf"(?P<colour>{_COLOUR})? ?(?P<noun>{_NOUN})"
    rf"(?: (?P<relation>(?:just )?(?:(?:to the |on the )?(?:left|right) of|above|below)|nearest to|closest to|next to)"
    rf" the (?:(?P<anchor_colour>{_COLOUR}) )?(?P<anchor>{_NOUN}))?"
    r"(?: (?:in|at|on) the (?P<place>(?:upper|top|lower|bottom) (?:left|right)(?: corner)?"
    r"|(?:left|right)(?: side)?|(?:top|bottom|middle|center)(?: of the image)?))?"
)


class ExpressionError(ValueError):
    """The text is not an expression of SynthRRSIS, or leans on an object that is not unique."""


@dataclass(frozen=True)
class Fact:
    """What is known of one object.

    Attributes:
        category: Its category.
        colour: Its colour's name, if any.
        x: Middle of its box, as a share of the image's width from the left.
        y: The same from the top.
        area: Its share of the image's area.
        width: Width of its box, as a share of the image's.
        height: The same of its height.
    """

    category: str
    colour: str | None
    x: float
    y: float
    area: float
    width: float = 0.0
    height: float = 0.0

    @classmethod
    def of_box(cls, item: SceneObject, box: tuple[float, float, float, float], area: float) -> Fact:
        """The fact of an object whose box (left, top, right, bottom) and area are shares of the image."""
        left, top, right, bottom = box
        middle = ((left + right) / 2.0, (top + bottom) / 2.0)
        return cls(item.category, item.colour, *middle, area, right - left, bottom - top)


def facts_from_pixels(scene: Scene) -> list[Fact]:
    """Facts measured in the rendered label map (names of categories and colours are taken as given).

    Raises:
        ValueError: An object has no visible pixel.
    """
    facts = []
    height, width = scene.label_map.shape
    for index, item in enumerate(scene.objects):
        rows, columns = np.nonzero(scene.mask(index))
        if rows.size == 0:
            raise ValueError(f"scene {scene.scene_id}: object {index} ({item.category}) is not visible")
        left, right = float(columns.min()) / width, (float(columns.max()) + 1.0) / width
        top, bottom = float(rows.min()) / height, (float(rows.max()) + 1.0) / height
        facts.append(Fact.of_box(item, (left, top, right, bottom), rows.size / (height * width)))
    return facts


def facts_from_layout(scene: Scene) -> list[Fact]:
    """Facts as the layout has them."""
    return [Fact.of_box(item, tuple(edge / UNITS for edge in item.box), item.area / UNITS**2) for item in scene.objects]


def resolve(expression: str, facts: Sequence[Fact]) -> list[int]:
    """Indices of all objects that an expression can refer to.

    An adjective of size is read as the smallest (largest) of those that fit everything else said; "small" and
    "smallest" therefore mean the same here.

    Args:
        expression: The text.
        facts: The objects of the scene.

    Raises:
        ExpressionError: The text is no such expression, or the object it leans on is none or several.
    """
    match = _GRAMMAR.fullmatch(expression)
    if match is None:
        raise ExpressionError(f"expression: cannot read {expression!r}")
    said = match.groupdict()
    chosen = _named(said["noun"], said["colour"], facts)
    place, relation = said["place"], said["relation"]
    if place:
        chosen = [index for index in chosen if _lies_in(place, facts[index])]
    if relation:
        anchors = _named(said["anchor"], said["anchor_colour"], facts)
        # In "the ship nearest to the blue ship" the other ship cannot be the one that is meant.
        if len(anchors) != 1:
            raise ExpressionError(f"expression: {expression!r} leans on {len(anchors)} objects")
        chosen = [index for index in chosen if index != anchors[0]]
        chosen = _related(relation, chosen, facts, facts[anchors[0]])
    if said["size"]:
        chosen = _most(chosen, [(-1.0 if said["size"] in _SMALL else 1.0) * fact.area for fact in facts])
    if said["edge"]:
        across, down = _OUTERMOST[said["edge"]]
        chosen = _most(chosen, [across * fact.x + down * fact.y for fact in facts])
    return chosen


def _named(noun: str, colour: str | None, facts: Sequence[Fact]) -> list[int]:
    category = _CATEGORY_WORDS[noun]
    return [k for k, fact in enumerate(facts) if fact.category == category and colour in (None, fact.colour)]


def _most(chosen: list[int], values: Sequence[float]) -> list[int]:
    if not chosen:
        return []
    best = max(values[index] for index in chosen)
    return [index for index in chosen if values[index] == best]


def _lies_in(place: str, fact: Fact) -> bool:
    words = set(place.split())
    if words & {"middle", "center"}:
        return abs(fact.x - 0.5) < 0.18 and abs(fact.y - 0.5) < 0.18
    bound = 0.47 if len(words & {"upper", "top", "lower", "bottom"}) and words & {"left", "right"} else 0.44
    fits = True
    if "left" in words:
        fits = fits and fact.x < bound
    if "right" in words:
        fits = fits and fact.x > 1.0 - bound
    if words & {"upper", "top"}:
        fits = fits and fact.y < bound
    if words & {"lower", "bottom"}:
        fits = fits and fact.y > 1.0 - bound
    return fits


def _related(relation: str, chosen: list[int], facts: Sequence[Fact], anchor: Fact) -> list[int]:
    """Those of the chosen that stand in a relation to the anchor.

    "Left of" is a cone of directions: off up or down by at most 1.35 times the way to the left. "Just left of" ends
    where a quarter of the image, less a little, lies between the two.
    """
    if relation in ("nearest to", "closest to", "next to"):
        return _most(chosen, [-math.hypot(fact.x - anchor.x, fact.y - anchor.y) for fact in facts])
    result = []
    for index in chosen:
        dx, dy = facts[index].x - anchor.x, facts[index].y - anchor.y
        toward = {"left": -dx, "right": dx, "above": -dy, "below": dy}
        word = next(word for word in toward if word in relation.split())
        aside = abs(dy) if word in ("left", "right") else abs(dx)
        near = "just" not in relation.split() or _between(facts[index], anchor) < 0.235
        if toward[word] > 0.02 and aside < 1.35 * toward[word] and near:
            result.append(index)
    return result


def _between(fact: Fact, other: Fact) -> float:
    """How far apart the boxes of two objects are, as a share of the image's side."""
    across = max(0.0, abs(fact.x - other.x) - (fact.width + other.width) / 2.0)
    down = max(0.0, abs(fact.y - other.y) - (fact.height + other.height) / 2.0)
    return math.hypot(across, down)
