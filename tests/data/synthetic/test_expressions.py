"""Every expression of SynthRRSIS refers to exactly one object: re-derived from the text and the pixels."""

import collections
import contextlib
import itertools
import re

import pytest

from rrsis.data.synthetic import KINDS, SynthConfig, SynthRRSIS
from rrsis.data.synthetic.oracle import ExpressionError, facts_from_layout, facts_from_pixels, resolve

SCENES = 150


@pytest.fixture(scope="module", params=["default", "hard", "easy", "relations"])
def dataset(request):
    return SynthRRSIS("test", SCENES, seed=3, config=request.param)


@pytest.fixture(scope="module")
def default():
    return SynthRRSIS("train", 400)


@pytest.mark.parametrize("measure", [facts_from_pixels, facts_from_layout])
def test_every_expression_has_exactly_its_referent(dataset, measure):
    for index in range(SCENES):
        scene = dataset.scene(index)
        facts = measure(scene)
        for statement in scene.statements:
            assert resolve(statement.text, facts) == [statement.referent], (scene.scene_id, statement)


def test_other_sizes_of_image_say_the_same_and_mean_the_same():
    small, large = (SynthRRSIS("val", 12, config=SynthConfig(image_size=size)) for size in (128, 320))
    assert small.expressions == large.expressions
    for index in range(12):
        scene = large.scene(index)
        for statement in scene.statements:
            assert resolve(statement.text, facts_from_pixels(scene)) == [statement.referent]


def test_wrong_words_are_noticed(default):
    # The check above can fail: with a word turned round hardly any expression still means its object.
    swaps = {"left": "right", "leftmost": "rightmost", "smallest": "largest", "above": "below", "topmost": "lowest"}
    swaps.update({value: key for key, value in swaps.items()})
    kept = total = 0
    for index in range(100):
        scene = default.scene(index)
        facts = facts_from_pixels(scene)
        for statement in scene.statements:
            text = " ".join(swaps.get(word, word) for word in statement.text.split())
            if text == statement.text:
                continue
            total += 1
            with contextlib.suppress(ExpressionError):
                kept += resolve(text, facts) == [statement.referent]
    assert total > 80
    assert kept == 0


def test_kinds_need_what_they_say(default):
    for index in range(200):
        layout, statements = default.plan(index)
        for statement in statements:
            me = layout.objects[statement.referent]
            rivals = [item for item in layout.objects if item is not me and item.category == me.category]
            if statement.kind == "class":
                assert not rivals
            else:
                assert rivals, statement
            if statement.kind == "colour":
                assert me.colour in statement.text.split()
            if statement.kind == "combined":
                # Whatever single property the words before the noun name is shared by another of the class.
                words = statement.text.split()
                assert len(words) >= 4
                if me.colour in words and not any(word.endswith(("est", "most")) for word in words):
                    assert any(item.colour == me.colour for item in rivals)


def test_expressions_of_a_scene_differ(default):
    for index in range(200):
        statements = default.plan(index)[1]
        assert len(statements) == default.config.expressions
        assert len({(statement.kind, statement.referent) for statement in statements}) == len(statements)


def test_default_mix(default):
    kinds = collections.Counter(statement.kind for index in range(400) for statement in default.plan(index)[1])
    shares = {kind: kinds[kind] / kinds.total() for kind in KINDS}
    assert set(kinds) == set(KINDS)
    assert 0.12 <= shares["relation"] + shares["combined"] <= 0.32
    assert all(share > 0.03 for share in shares.values())


def test_many_scenes_have_several_of_a_class(default):
    several = sum(
        max(collections.Counter(item.category for item in default.plan(index)[0].objects).values()) >= 3
        for index in range(400)
    )
    assert several > 0.3 * 400


def test_hard_is_hard():
    dataset = SynthRRSIS("train", 150, config="hard")
    kinds = collections.Counter()
    for index in range(150):
        layout, statements = dataset.plan(index)
        assert 4 <= len(layout.objects) <= 9
        for statement in statements:
            kinds[statement.kind] += 1
            category = layout.objects[statement.referent].category
            assert sum(item.category == category for item in layout.objects) >= 3
    assert kinds["class"] == 0
    assert kinds["relation"] + kinds["combined"] >= 0.5 * kinds.total()


def test_relations_are_most_of_relations_and_their_directions_near():
    dataset = SynthRRSIS("train", 150, config="relations")
    statements = [statement for index in range(150) for statement in dataset.plan(index)[1]]
    assert sum(statement.kind == "relation" for statement in statements) >= 0.55 * len(statements)
    directions = [text for text in dataset.expressions if re.search("left of|right of|above|below", text)]
    assert len(directions) >= 0.3 * len(statements)
    assert all("just" in text.split() for text in directions)


def test_vocabulary_is_small_and_shared(default):
    words = set(itertools.chain.from_iterable(text.split() for text in default.expressions))
    assert 50 <= len(words) <= 80
    assert all(word.isascii() and word.isalpha() and word.islower() for word in words)
    unseen = set(itertools.chain.from_iterable(text.split() for text in SynthRRSIS("test").expressions)) - words
    assert not unseen
