"""Words of direction turned round, and left alone where they may mean something else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrsis.data.directions import _ACROSS, _DOWN, is_free_of_directions, is_free_of_turning, rewrite

SAME = object()


@pytest.mark.parametrize(
    ("expression", "across", "down"),
    [
        ("the red ship", SAME, SAME),
        ("the ship on the left", "the ship on the right", SAME),
        ("the ship on the left side of the harbor", "the ship on the right side of the harbor", SAME),
        ("the car in the upper left corner", "the car in the upper right corner", "the car in the lower left corner"),
        ("the car at the bottom right", "the car at the bottom left", "the car at the top right"),
        ("the left-hand court", "the right-hand court", SAME),
        ("Left Hand Court", "Right Hand Court", SAME),
        ("the leftmost, not the topmost", "the rightmost, not the topmost", "the leftmost, not the bottommost"),
        ("the uppermost tank", SAME, "the lowest tank"),
        ("the northwest runway", "the northeast runway", "the southwest runway"),
        ("the north-western runway", "the north-eastern runway", "the south-western runway"),
        ("the easternmost windmill", "the westernmost windmill", SAME),
        ("THE TOPLEFT COURT", "THE TOPRIGHT COURT", "THE BOTTOMLEFT COURT"),
        ("an upper tank above a lower one", SAME, "a lower tank below an upper one"),
        ("An eastern tank", "A western tank", SAME),
        ("the ship left of the ship right of the dock", "the ship right of the ship left of the dock", SAME),
        ("the ship is left of the dock", "the ship is right of the dock", SAME),
        ("the road from left to right", "the road from right to left", SAME),
        ("the second ship from the left", "the second ship from the right", SAME),
        ("the second largest ship next to the dock", SAME, SAME),
        ("the court at the top of the image", SAME, "the court at the bottom of the image"),
        ("the bright flowers on the rooftop at the stop", SAME, SAME),
        ("the newest tank, at least", SAME, SAME),
        # What may mean something else stays where it is.
        ("the car right next to the tank", None, SAME),
        ("the car right above the tank", None, "the car right below the tank"),
        ("the ship that left the harbor", None, SAME),
        ("the truck left behind", None, None),
        ("the building with a right angle", None, SAME),
        ("the car with the right of way", None, SAME),
        ("the helipad on top of the building", SAME, None),
        ("the car with a white top", SAME, None),
        ("the top of the chimney", SAME, None),
        ("the plane seen from above", SAME, None),
        ("the car on the upper deck", SAME, None),
        ("the bridge over the river", SAME, None),
        ("the car in front of the hangar", SAME, None),
        ("the lowermost ship", SAME, None),
        ("the second ship", None, None),
        ("the 3rd ship", None, None),
        ("the last ship on the left", None, None),
        ("the ship at 3 o'clock", None, None),
        ("the car driving clockwise", None, None),
        ("the S-shaped road", None, None),
        ("the NE corner", None, None),
        # Words that look like directions and are none that is known.
        ("the leftish ship", None, None),
        ("the stopover", None, None),
    ],
)
def test_both_flips(expression, across, down):
    for flips, due in (({"horizontal": True}, across), ({"vertical": True}, down)):
        assert rewrite(expression, **flips) == (expression if due is SAME else due)


def test_half_a_turn_is_both():
    assert rewrite("the ship in the upper left", horizontal=True, vertical=True) == "the ship in the lower right"
    # Turning goes on in the same sense.
    assert rewrite("the car driving clockwise", horizontal=True, vertical=True) == "the car driving clockwise"
    assert rewrite("the second ship") == "the second ship"


@pytest.mark.parametrize("table", [_ACROSS, _DOWN])
def test_the_tables_are_their_own_inverses(table):
    assert all(table[opposite] == word for word, opposite in table.items())
    assert all(table[word] != word for word in table)


WORDS = sorted({*_ACROSS, *_DOWN}) + [
    *(
        "the",
        "a",
        "an",
        "of",
        "ship",
        "to",
        "on",
        "in",
        "is",
        "at",
        "next",
        "side",
        "image",
        "from",
        "corner",
        "second",
    ),
    *("The", "UPPER", "Left", "right-hand", "over", "front", "clockwise", "Topmost", "A", "An", ",", "."),
]


@given(st.lists(st.sampled_from(WORDS), max_size=8), st.booleans(), st.booleans())
def test_twice_is_as_before(words, horizontal, vertical):
    expression = " ".join(words)
    once = rewrite(expression, horizontal=horizontal, vertical=vertical)
    if once is not None:
        assert rewrite(once, horizontal=horizontal, vertical=vertical) == expression


@given(st.text(max_size=40))
def test_any_text_is_survived(text):
    once = rewrite(text, horizontal=True, vertical=True)
    assert once is None or rewrite(once, horizontal=True, vertical=True) == text


@pytest.mark.parametrize(
    ("expression", "free"),
    [
        ("the red ship nearest to the dock", True),
        ("the largest tank beside the road", True),
        ("the ship on the left", False),
        ("the northern ship", False),
        ("the bridge over the river", False),
        ("the second ship", False),
        ("the vertical road", False),
        ("the bright car", True),
    ],
)
def test_what_may_be_turned_by_a_quarter(expression, free):
    assert is_free_of_directions(expression) is free


def test_what_a_mirror_changes():
    assert is_free_of_turning("the L-shaped dock")
    assert not is_free_of_turning("the Z shaped dock")
    assert not is_free_of_turning("driving counterclockwise")
