"""What the oracle takes words to mean, on scenes made by hand."""

import pytest

from rrsis.data.synthetic.oracle import ExpressionError, Fact, resolve

SHIPS = [
    Fact("ship", "red", 0.10, 0.10, 0.010),
    Fact("ship", "blue", 0.90, 0.15, 0.020),
    Fact("ship", "red", 0.50, 0.50, 0.040),
    Fact("vehicle", "white", 0.50, 0.90, 0.002),
    Fact("storage tank", None, 0.80, 0.50, 0.010),
]


@pytest.mark.parametrize(
    ("expression", "meant"),
    [
        ("the vehicle", [3]),
        ("the car", [3]),
        ("the ship", [0, 1, 2]),
        ("the blue boat", [1]),
        ("the red ship", [0, 2]),
        ("the white ship", []),
        ("the airplane", []),
        ("the small ship", [0]),
        ("the smallest ship", [0]),
        ("the biggest boat", [2]),
        ("the small red ship", [0]),
        ("the large red ship", [2]),
        ("the leftmost ship", [0]),
        ("the rightmost ship", [1]),
        ("the rightmost red ship", [2]),
        ("the topmost ship", [0]),
        ("the lowest red ship", [2]),
        ("the ship in the upper left", [0]),
        ("the ship at the top right", [1]),
        ("the ship at the top of the image", [0, 1]),
        ("the ship in the middle", [2]),
        ("the ship in the center", [2]),
        ("the ship on the left side", [0]),
        ("the red ship on the left", [0]),
        ("the ship at the bottom", []),
        ("the ship above the vehicle", [0, 1, 2]),
        ("the ship to the left of the tank", [0, 2]),
        ("the ship left of the blue ship", [0, 2]),
        ("the ship nearest to the storage tank", [2]),
        ("the ship next to the blue ship", [2]),
        ("the storage tank below the car", []),
        ("the ship right of the vehicle", []),
        ("the ship right of the storage tank", []),
        ("the vehicle below the storage tank", [3]),
        ("the small ship above the vehicle", [0]),
    ],
)
def test_meaning(expression, meant):
    assert resolve(expression, SHIPS) == meant


@pytest.mark.parametrize(("x", "meant"), [(0.25, [1]), (0.15, [])])
def test_just_left_of_ends_a_quarter_of_the_image_away(x, meant):
    # Boxes count and not their middles: 0.24 from edge to edge are too far, 0.14 are not.
    anchor = Fact("bridge", None, 0.6, 0.5, 0.02, width=0.3, height=0.1)
    ship = Fact("ship", None, x, 0.5, 0.01, width=0.12, height=0.1)
    assert resolve("the ship left of the bridge", [anchor, ship]) == [1]
    assert resolve("the ship just to the left of the bridge", [anchor, ship]) == meant


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "ship",
        "a ship",
        "the shop",
        "the red",
        "the ship in the sea",
        "the ship left of",
        "the ship ",
        "The ship",
        "the ship just nearest to the car",
    ],
)
def test_other_texts_are_refused(expression):
    with pytest.raises(ExpressionError, match="cannot read"):
        resolve(expression, SHIPS)


def test_the_object_leant_on_must_be_one():
    with pytest.raises(ExpressionError, match="leans on 2 objects"):
        resolve("the vehicle left of the red ship", SHIPS)
    with pytest.raises(ExpressionError, match="leans on 0 objects"):
        resolve("the vehicle left of the bridge", SHIPS)
