"""Rewrites the directions of an English expression so that it stays true when the picture is flipped.

``rewrite("the ship in the upper left", horizontal=True)`` is "the ship in the upper right". Where a word could mean
something else ("right next to", "on top of the building"), or cannot be turned round ("the second ship"), there is no
rewritten expression: None, and the picture must stay as it is. Every rewritten expression gives the first one back when
it is rewritten again; what would not is None too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_COMPASS_ENDS = ("", "ern", "ernmost", "most", "erly", "ward", "wards", "bound", "side")
_RISES, _SIDES = ("top", "bottom", "upper", "lower"), ("left", "right")


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


def _pairs() -> Iterator[tuple[str, str, str]]:
    """(axis, word, opposite); the axis is that along which the two differ."""
    for end in ("", "most", "hand", "side", "ward", "wards"):
        yield "x", f"left{end}", f"right{end}"
    yield from (("y", "top", "bottom"), ("y", "topmost", "bottommost"), ("y", "topside", "bottomside"))
    # "highest" can mean tall, "lowermost" is too rare to have a partner: "uppermost" and "lowest" have each other.
    yield from (("y", "upper", "lower"), ("y", "uppermost", "lowest"), ("y", "above", "below"))
    for end in _COMPASS_ENDS:
        yield "x", f"west{end}", f"east{end}"
        yield "y", f"north{end}", f"south{end}"
        for half in ("north", "south"):
            yield "x", f"{half}west{end}", f"{half}east{end}"
        for half in ("west", "east"):
            yield "y", f"north{half}{end}", f"south{half}{end}"
    for rise in _RISES:
        yield from (("x", f"{rise}left", f"{rise}right"), ("x", f"left{rise}", f"right{rise}"))
    for side in _SIDES:
        for high, low in (("top", "bottom"), ("upper", "lower")):
            yield from (("y", f"{high}{side}", f"{low}{side}"), ("y", f"{side}{high}", f"{side}{low}"))


def _opposites(axis: str) -> dict[str, str]:
    table = {}
    for name, word, opposite in _pairs():
        if name == axis:
            table |= {word: opposite, opposite: word}
    return table


_ACROSS, _DOWN = _opposites("x"), _opposites("y")

_UPRIGHT_ONLY = _set(
    "up down upward upwards downward downwards upside upright highest higher lowermost over under beneath underneath "
    "front rear behind back ahead forward backward backwards"
)
"""Words that can be about up and down in the picture, and have no sure opposite."""
_TURNING = _set("clockwise counterclockwise anticlockwise")
"""Words that a mirror makes untrue and half a turn does not."""
_FIXED = _set("clock oclock ne nw se sw")
"""Words that no flip leaves true."""
_ORDINALS = _set("first second third fourth fifth sixth seventh eighth ninth tenth last penultimate next previous")
"""Words that count in an order which an expression mostly leaves unsaid: from the left, or from the top."""
_LYING = _set("horizontal horizontally vertical vertically landscape portrait")
"""Words that a quarter turn makes untrue."""

_DIRECTION_LIKE = re.compile("left|right|top|bottom|upper|lower|north|south|east|west|above|below|clockwise")
_HARMLESS = _set(
    "bright brighter brightest brightly brightness flower flowers flowerbed flowerbeds sunflower sunflowers "
    "wildflower wildflowers stop stops stopped stopping least beast feast laptop desktop rooftop rooftops treetop "
    "treetops hilltop topped slower shallower yellower newest fewest slowest narrowest shallowest yellowest"
)
"""Words that only look like directions. Where another word looks like one and is in no table, nothing is flipped."""

_AFTER_ADVERB = _set(
    "next beside at in on above below under underneath beneath behind near by after before along alongside across over "
    "outside inside between opposite adjacent there here now through around against up down off out alone for the a an "
    "its angle angled angles angular"
)
"""After "left" or "right" without an article, these make an adverb or a verb of it: right next to, left the harbor."""
_NOUNS_OF = _set("the upper lower top bottom far extreme outer center centre middle")
_VERBS = _set("is was are were been has have had be being gets got all just")
_PARTS = _set(
    "left right corner corners side part edge half area region section portion end row line center centre middle most "
    "hand third quarter border margin"
)
_PICTURE = _set("image picture photo photograph scene frame figure view map screen")
_PLACED = _set("the at in from near to toward towards left right center centre middle")
_STOREYS = _set("deck floor level storey story layer than")


def rewrite(expression: str, *, horizontal: bool = False, vertical: bool = False) -> str | None:
    """The expression for a flipped picture.

    Args:
        expression: English, in any case.
        horizontal: Whether left and right change places.
        vertical: Whether top and bottom do. Both together are half a turn.

    Returns:
        The rewritten expression (the same one where it names no direction), or None where no rewriting is sure to be
        true.
    """
    if not _is_safe(expression, horizontal, vertical):
        return None
    rewritten = _swapped(expression, horizontal, vertical)
    undone = _swapped(rewritten, horizontal, vertical)
    return rewritten if undone == expression and _is_safe(rewritten, horizontal, vertical) else None


def is_free_of_directions(expression: str) -> bool:
    """Whether nothing in the expression depends on how the picture lies, so that it may be turned by a quarter."""
    words = _words(expression)
    tables = _UPRIGHT_ONLY | _FIXED | _LYING
    return not (
        any(word in tables or _looks_like_direction(word) for word in words)
        or _counts_unsaid(expression.lower(), words)
    )


def is_free_of_turning(expression: str) -> bool:
    """Whether an odd number of mirrorings leaves it true as far as turning and handed shapes are concerned."""
    lowered = expression.lower()
    return not (_TURNING & set(_words(expression)) or re.search(r"\b[sz][- ]shape", lowered))


def _words(expression: str) -> list[str]:
    return re.findall("[a-z]+", expression.lower())


def _looks_like_direction(word: str) -> bool:
    return bool(_DIRECTION_LIKE.search(word)) and word not in _HARMLESS


def _is_safe(expression: str, horizontal: bool, vertical: bool) -> bool:
    words = _words(expression)
    if not (horizontal or vertical):
        return True
    if _FIXED & set(words) or _counts_unsaid(expression.lower(), words):
        return False
    if horizontal != vertical and not is_free_of_turning(expression):
        return False
    if vertical and _UPRIGHT_ONLY & set(words):
        return False
    for position, word in enumerate(words):
        if not _looks_like_direction(word) or word in _TURNING:
            continue
        if word in _UPRIGHT_ONLY:
            continue
        if word not in _ACROSS and word not in _DOWN:
            return False
        turned = (horizontal and word in _ACROSS) or (vertical and word in _DOWN)
        if turned and not _is_direction(words, position):
            return False
    return True


def _counts_unsaid(lowered: str, words: Sequence[str]) -> bool:
    """Whether it counts objects ("the second ship") without saying from where, and not by size ("second largest")."""
    if re.search(r"\bfrom (the )?(far )?(left|right|top|bottom|west|east|north|south)", lowered):
        return False
    if re.search(r"\d(st|nd|rd|th)\b", lowered):
        return True
    for position, word in enumerate(words):
        following = words[position + 1] if position + 1 < len(words) else ""
        # "next to" is a neighbourhood and no count.
        if word in _ORDINALS and not following.endswith("est") and (word, following) != ("next", "to"):
            return True
    return False


def _is_direction(words: Sequence[str], position: int) -> bool:
    """Whether the word at a position, which can be a direction, surely is one; the same for both words of a pair."""
    word = words[position]
    before = words[position - 1] if position else ""
    after = words[position + 1] if position + 1 < len(words) else ""
    if word in ("left", "right"):
        if before in _NOUNS_OF:
            return after not in ("angle", "angled", "angles", "angular") and words[position + 1 : position + 3] != [
                "of",
                "way",
            ]
        if before in _VERBS:
            return after in ("of", "hand", "side", "most")
        return after not in _AFTER_ADVERB
    if word in ("top", "bottom"):
        if after == "of":
            return before != "on" and _is_of_picture(words[position + 2 :])
        return after in _PARTS or (before in _PLACED and after not in ("view", "down", "up", "floor", "deck"))
    if word in ("upper", "lower"):
        return after not in _STOREYS
    if word in ("above", "below"):
        return before != "from" and after != "ground"
    return True


def _is_of_picture(words: Sequence[str]) -> bool:
    return next((word for word in words if word not in ("the", "this", "whole", "entire")), "") in _PICTURE


def _swapped(expression: str, horizontal: bool, vertical: bool) -> str:
    pieces = re.split("([A-Za-z]+)", expression)
    for position in range(1, len(pieces), 2):
        old = pieces[position]
        new = old.lower()
        if horizontal:
            new = _ACROSS.get(new, new)
        if vertical:
            new = _DOWN.get(new, new)
        if new == old.lower():
            continue
        pieces[position] = _in_case_of(old, new)
        if position >= 3 and pieces[position - 1].isspace():
            pieces[position - 2] = _article(pieces[position - 2], old.lower(), new)
    return "".join(pieces)


def _in_case_of(old: str, new: str) -> str:
    if old.isupper():
        return new.upper()
    return new.capitalize() if old[0].isupper() else new


def _article(word: str, old: str, new: str) -> str:
    """The article before a word that took another's place, as "an upper" becomes "a lower"."""
    wrong = {True: "a", False: "an"}[new[0] in "aeiou"]
    if word.lower() != wrong or (old[0] in "aeiou") == (new[0] in "aeiou"):
        return word
    return _in_case_of(word, "an" if wrong == "a" else "a") if len(word) > 1 else word + "n"
