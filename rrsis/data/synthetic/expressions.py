"""What is said about a scene: expressions that refer to exactly one object, with room to spare.

Each property is judged three-valued for each object: clearly so (1), clearly not (-1), or arguable (0). An expression
is used only when its properties are all clearly so for its referent and each other object clearly lacks one of them.
`oracle.py` reads the finished text and judges it by rules of its own; it shares no code with this file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from .catalogue import CATEGORIES, UNITS
from .config import KINDS, SynthConfig
from .draws import Draws
from .scene import SceneObject, Statement

Judge = Callable[[SceneObject], int]

PLACES: dict[str, tuple[str, ...]] = {
    "upper left": ("in the upper left", "in the upper left corner", "at the top left"),
    "upper right": ("in the upper right", "in the upper right corner", "at the top right"),
    "lower left": ("in the lower left", "in the lower left corner", "at the bottom left"),
    "lower right": ("in the lower right", "in the lower right corner", "at the bottom right"),
    "left": ("on the left", "on the left side"),
    "right": ("on the right", "on the right side"),
    "top": ("at the top", "at the top of the image"),
    "bottom": ("at the bottom", "at the bottom of the image"),
    "middle": ("in the middle", "in the center", "in the middle of the image"),
}
EDGES: dict[str, tuple[str, ...]] = {
    "left": ("leftmost",),
    "right": ("rightmost",),
    "above": ("topmost", "uppermost"),
    "below": ("bottommost", "lowest"),
}
OUTWARD = {"left": (0, -1), "right": (0, 1), "above": (1, -1), "below": (1, 1)}
"""Axis and sign by which coordinates grow in each direction."""
RELATIONS: dict[str, tuple[str, ...]] = {
    "left": ("left of", "to the left of", "on the left of"),
    "right": ("right of", "to the right of", "on the right of"),
    "above": ("above", "above"),
    "below": ("below", "below"),
    "near": ("nearest to", "closest to", "next to"),
}
CLOSE_RELATIONS: dict[str, tuple[str, ...]] = {
    "left": ("just left of", "just to the left of"),
    "right": ("just right of", "just to the right of"),
    "above": ("just above",),
    "below": ("just below",),
}
SIZES: dict[str, tuple[str, ...]] = {"small": ("small", "small", "little"), "large": ("large", "large", "big")}
EXTREMES: dict[str, tuple[str, ...]] = {"small": ("smallest",), "large": ("largest", "largest", "biggest")}

EDGE_MARGIN = 9.0
"""By how many units the outermost object must lie beyond the next."""
SIZE_MARGIN = 1.25
"""By what factor of side length the largest (smallest) object must differ from the next."""
NEAR_MARGIN = 0.6
"""The nearest object must be at most this part of the next one's distance away."""
OUTERMOST_CHANCE = 0.4
"""How often "just left of" may be said of the leftmost, so that this is meant no more often than any other is."""
CLOSE, FAR = 24.0, 36.0
"""Up to what gap an object is "just left of" another, and from what gap on it clearly is not."""


def judge_place(place: str, item: SceneObject) -> int:
    """Whether an object's centre lies in a part of the image."""
    x, y = item.center
    if place == "middle":
        off = max(abs(x - UNITS / 2), abs(y - UNITS / 2))
        return 1 if off < 0.12 * UNITS else -1 if off > 0.24 * UNITS else 0
    # A corner is wider than a side: it is bounded twice.
    inner, outer = (0.40 * UNITS, 0.54 * UNITS) if " " in place else (0.36 * UNITS, 0.52 * UNITS)
    worst = 0.0
    if "left" in place:
        worst = x
    elif "right" in place:
        worst = UNITS - x
    if "top" in place or "upper" in place:
        worst = max(worst, y)
    elif "bottom" in place or "lower" in place:
        worst = max(worst, UNITS - y)
    return 1 if worst < inner else -1 if worst > outer else 0


def judge_direction(direction: str, item: SceneObject, anchor: SceneObject) -> int:
    """Whether an object lies left of, right of, above or below another."""
    ahead, aside = item.center[0] - anchor.center[0], item.center[1] - anchor.center[1]
    if direction in ("above", "below"):
        ahead, aside = aside, ahead
    if direction in ("left", "above"):
        ahead = -ahead
    if ahead > 9.0 and abs(aside) < 0.75 * ahead:
        return 1
    return -1 if ahead < -4.0 or abs(aside) > 2.2 * abs(ahead) + 4.0 else 0


def judge_close_direction(direction: str, item: SceneObject, anchor: SceneObject) -> int:
    """Whether an object lies just left of, just right of, just above or just below another."""
    gap = _gap(item, anchor)
    close = 1 if gap < CLOSE else -1 if gap > FAR else 0
    return min(judge_direction(direction, item, anchor), close)


def _gap(a: SceneObject, b: SceneObject) -> float:
    """Distance between two upright boxes."""
    dx = abs(a.center[0] - b.center[0]) - a.half_box[0] - b.half_box[0]
    dy = abs(a.center[1] - b.center[1]) - a.half_box[1] - b.half_box[1]
    return math.hypot(max(dx, 0.0), max(dy, 0.0))


def _distance(a: SceneObject, b: SceneObject) -> float:
    return math.hypot(a.center[0] - b.center[0], a.center[1] - b.center[1])


@dataclass(frozen=True)
class _Claim:
    """An expression in the making: words before and after the noun, and what they claim.

    Attributes:
        before: Words between "the" and the noun.
        after: Words after the noun.
        judges: Three-valued properties, besides the class.
        parts: How many properties it names besides the class.
        anchor: Index of the object that it leans on, which is not meant itself.
    """

    before: str = ""
    after: str = ""
    judges: tuple[Judge, ...] = ()
    parts: int = 0
    anchor: int | None = None


class _Speaker:
    """Makes expressions about one scene."""

    def __init__(self, objects: Sequence[SceneObject], config: SynthConfig, draws: Draws) -> None:
        self.objects, self.config, self.draws = objects, config, draws
        self.classes: dict[str, list[int]] = {}
        for index, item in enumerate(objects):
            self.classes.setdefault(item.category, []).append(index)
        self.eligible = [
            index for index, item in enumerate(objects) if len(self.classes[item.category]) > config.same_class
        ]

    # -- the judgement -------------------------------------------------------------------------------------------

    def _unique(self, referent: int, claim: _Claim) -> bool:
        """Whether the claim is clearly so of the referent and clearly not so of the others of its class."""
        for index in self.classes[self.objects[referent].category]:
            if index == claim.anchor:
                continue
            item = self.objects[index]
            verdict = min((judge(item) for judge in claim.judges), default=1)
            if verdict != (1 if index == referent else -1):
                return False
        return True

    def _outermost(self, referent: int, value: Callable[[SceneObject], float], pool: list[int]) -> float | None:
        """How far the referent's value exceeds the next of the pool; None where it has no rival."""
        others = [value(self.objects[index]) for index in pool if index != referent]
        return value(self.objects[referent]) - max(others) if others else None

    # -- single properties ---------------------------------------------------------------------------------------

    def _colour(self, referent: int) -> _Claim | None:
        colour = self.objects[referent].colour
        if colour is None:
            return None
        return _Claim(before=colour, judges=(lambda item: 1 if item.colour == colour else -1,), parts=1)

    def _size(self, referent: int) -> _Claim:
        large = self.objects[referent].large
        word = self.draws.choice(SIZES["large" if large else "small"])
        return _Claim(before=word, judges=(lambda item: 1 if item.large == large else -1,), parts=1)

    def _places(self, referent: int) -> Iterator[_Claim]:
        me = self.objects[referent]
        for place, wordings in PLACES.items():
            if judge_place(place, me) == 1:
                words = self.draws.choice(wordings)
                yield _Claim(after=words, judges=(partial(judge_place, place),), parts=1)

    def _anchors(self, referent: int) -> Iterator[tuple[int, str]]:
        """Other objects that can be named in few words, and these words."""
        for index in self.draws.shuffled(range(len(self.objects))):
            item = self.objects[index]
            if index == referent:
                continue
            alike = self.classes[item.category]
            noun = self.draws.choice(CATEGORIES[item.category].nouns)
            if len(alike) == 1:
                yield index, f"the {noun}"
            elif item.colour and sum(self.objects[other].colour == item.colour for other in alike) == 1:
                yield index, f"the {item.colour} {noun}"

    def _relations(self, referent: int) -> Iterator[_Claim]:
        me = self.objects[referent]
        for anchor, words in self._anchors(referent):
            target = self.objects[anchor]
            found: list[_Claim] = []
            # Without close directions nothing is drawn here: other settings say what they always said.
            close = self.config.close_directions > 0 and self.draws.chance(self.config.close_directions)
            judge, links = (judge_close_direction, CLOSE_RELATIONS) if close else (judge_direction, RELATIONS)
            for direction in OUTWARD:
                if judge(direction, me, target) != 1 or (close and self._gives_away(direction, referent)):
                    continue
                judges = (partial(judge, direction, anchor=target),)
                link = self.draws.choice(links[direction])
                found.append(_Claim(after=f"{link} {words}", judges=judges, parts=1, anchor=anchor))
            link = self.draws.choice(RELATIONS["near"])
            if self._is_nearest(referent, anchor, link):
                found.append(_Claim(after=f"{link} {words}", judges=(self._only(referent),), parts=1, anchor=anchor))
            yield from self.draws.shuffled(found)

    def _gives_away(self, direction: str, referent: int) -> bool:
        """Whether to leave a direction out, as the outermost of the class is found without the anchor."""
        axis, sign = OUTWARD[direction]
        lead = self._outermost(referent, lambda item: sign * item.center[axis], self._pool(referent, None))
        return lead is not None and lead > 0.0 and not self.draws.chance(OUTERMOST_CHANCE)

    def _only(self, referent: int) -> Judge:
        chosen = self.objects[referent]
        return lambda item: 1 if item is chosen else -1

    def _is_nearest(self, referent: int, anchor: int, link: str) -> bool:
        """Clearly the nearest of its class to the anchor, by centres and by edges."""
        me, target = self.objects[referent], self.objects[anchor]
        if link == "next to" and _gap(me, target) > 16.0:
            return False
        pool = [self.objects[k] for k in self.classes[me.category] if k not in (referent, anchor)]
        centre, edge = _distance(me, target), _gap(me, target)
        return all(
            centre < NEAR_MARGIN * _distance(other, target) and edge + 6.0 < _gap(other, target) for other in pool
        )

    # -- the kinds -----------------------------------------------------------------------------------------------

    def claims(self, kind: str, referent: int) -> Iterator[_Claim]:
        """Claims of one kind that hold for the referent; whether they hold for it alone is still to be seen."""
        yield from getattr(self, f"_of_{kind}")(referent)

    def _of_class(self, referent: int) -> Iterator[_Claim]:
        yield _Claim()

    def _of_colour(self, referent: int) -> Iterator[_Claim]:
        claim = self._colour(referent)
        if claim:
            yield claim

    def _of_size(self, referent: int) -> Iterator[_Claim]:
        options = [self._size(referent), *self._extreme_size(referent, None)]
        yield from self.draws.shuffled(options)

    def _extreme_size(self, referent: int, colour: str | None) -> Iterator[_Claim]:
        pool = self._pool(referent, colour)
        for name, sign in (("small", -1.0), ("large", 1.0)):
            lead = self._outermost(referent, lambda item, sign=sign: sign * math.log(item.size), pool)
            if lead is not None and lead > math.log(SIZE_MARGIN):
                yield self._superlative(referent, self.draws.choice(EXTREMES[name]), colour)

    def _extreme_place(self, referent: int, colour: str | None) -> Iterator[_Claim]:
        pool = self._pool(referent, colour)
        for name, (axis, sign) in OUTWARD.items():
            lead = self._outermost(referent, lambda item, a=axis, s=sign: s * item.center[a], pool)
            if lead is not None and lead > EDGE_MARGIN:
                yield self._superlative(referent, self.draws.choice(EDGES[name]), colour)

    def _pool(self, referent: int, colour: str | None) -> list[int]:
        alike = self.classes[self.objects[referent].category]
        return [index for index in alike if colour is None or self.objects[index].colour == colour]

    def _superlative(self, referent: int, word: str, colour: str | None) -> _Claim:
        before = f"{word} {colour}" if colour else word
        return _Claim(before=before, judges=(self._only(referent),), parts=2 if colour else 1)

    def _of_place(self, referent: int) -> Iterator[_Claim]:
        yield from self.draws.shuffled([*self._places(referent), *self._extreme_place(referent, None)])

    def _of_relation(self, referent: int) -> Iterator[_Claim]:
        yield from self._relations(referent)

    def _of_combined(self, referent: int) -> Iterator[_Claim]:
        """Two or three properties together, none of which is enough for itself."""
        colour = self._colour(referent)
        fronts = [self._size(referent)] + ([colour] if colour else [])
        if colour:
            fronts.append(_join(fronts[0], colour))
        backs = [*self._places(referent), *self._relations(referent)]
        options = [front for front in fronts if front.parts > 1]
        options += [_join(front, back) for front in fronts for back in self.draws.shuffled(backs)[:2]]
        if colour:
            options += [*self._extreme_size(referent, colour.before), *self._extreme_place(referent, colour.before)]
        yield from self.draws.shuffled(options)

    # -- choosing ------------------------------------------------------------------------------------------------

    def _needed(self, referent: int, claim: _Claim, kind: str) -> bool:
        """For kinds but "class" the class alone must not be enough, for "combined" no single property."""
        if kind == "class":
            return True
        rivals = self.classes[self.objects[referent].category]
        if len([index for index in rivals if index != claim.anchor]) < 2:
            return False
        if kind != "combined":
            return True
        if len(claim.judges) == 1:
            # A superlative among those of one colour: there must be others of the class.
            return len(self._pool(referent, claim.before.split()[-1])) < len(rivals)
        singles = [_Claim(judges=(judge,), anchor=claim.anchor) for judge in claim.judges]
        return not any(self._unique(referent, single) for single in singles)

    def say(self, kind: str, taken: set[tuple[str, int]]) -> Statement | None:
        """An expression of the kind about an object that has none of this kind yet, or None."""
        for referent in self.draws.shuffled(self.eligible):
            alone = len(self.classes[self.objects[referent].category]) == 1
            if (kind, referent) in taken or alone != (kind == "class"):
                # The class is enough where there is no other of it, and only there.
                continue
            for claim in self.claims(kind, referent):
                if self._unique(referent, claim) and self._needed(referent, claim, kind):
                    noun = self.draws.choice(CATEGORIES[self.objects[referent].category].nouns)
                    words = ("the", claim.before, noun, claim.after)
                    return Statement(" ".join(word for word in words if word), kind, referent)
        return None


def _join(front: _Claim, back: _Claim) -> _Claim:
    before = " ".join(word for word in (front.before, back.before) if word)
    anchor = front.anchor if back.anchor is None else back.anchor
    return _Claim(before, back.after or front.after, front.judges + back.judges, front.parts + back.parts, anchor)


def make_statements(objects: Sequence[SceneObject], config: SynthConfig, draws: Draws) -> tuple[Statement, ...] | None:
    """Draws the expressions of a scene.

    Returns:
        `config.expressions` different expressions, or None where the scene does not have that many.
    """
    speaker = _Speaker(objects, config, draws)
    statements: list[Statement] = []
    taken: set[tuple[str, int]] = set()
    while len(statements) < config.expressions:
        shares = dict(zip(KINDS, config.kinds, strict=True))
        if config.same_class:
            shares["class"] = 0.0
        found = None
        while found is None and sum(shares.values()) > 0.0:
            kind = draws.weighted(list(shares), list(shares.values()))
            found = speaker.say(kind, taken)
            shares[kind] = 0.0
        if found is None:
            return None
        statements.append(found)
        taken.add((found.kind, found.referent))
    return tuple(statements)
