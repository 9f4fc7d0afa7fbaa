"""Tokens, images and masks on their way in and out."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from rrsis.processing import BTDNetProcessor, build_processor, build_tokenizer

EXPRESSIONS = ["the white storage tank", "the white ship left of the storage tank", "Ship!"]


@pytest.fixture
def processor():
    return build_processor(build_tokenizer(EXPRESSIONS, max_tokens=10), image_size=64, max_tokens=10)


def test_tokenizer_knows_its_words_and_no_others():
    tokenizer = build_tokenizer(EXPRESSIONS)
    assert tokenizer.tokenize("the WHITE ship") == ["the", "white", "ship"]
    assert tokenizer.convert_ids_to_tokens(tokenizer("ship zeppelin").input_ids) == ["[CLS]", "ship", "[UNK]", "[SEP]"]


def test_tokenizer_does_not_depend_on_the_order_of_expressions():
    assert build_tokenizer(EXPRESSIONS).get_vocab() == build_tokenizer(EXPRESSIONS[::-1]).get_vocab()


def test_tokenizer_needs_words():
    with pytest.raises(ValueError, match="expressions must hold at least one word"):
        build_tokenizer([" ", ""])


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 9, 3), (3, 9, 3), (9, 3, 3), (3, 3, 3)])
def test_images_a_few_pixels_wide_are_not_taken_for_channels(processor, shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    batch = processor([image, Image.fromarray(image)], EXPRESSIONS[:2])
    assert batch["pixel_values"].shape == (2, 3, 64, 64)
    assert torch.equal(batch["pixel_values"][0], batch["pixel_values"][1])


def test_batch(processor):
    images = [np.zeros((64, 64, 3), np.uint8), Image.new("RGB", (100, 50), (255, 255, 255))]
    masks = [np.ones((64, 64), bool), np.zeros((50, 100), bool)]
    masks[1][:, :50] = True
    batch = processor(images, EXPRESSIONS[:2], masks, categories=["storage tank", "ship"])
    assert batch["pixel_values"].shape == (2, 3, 64, 64)
    assert batch["pixel_values"].dtype == torch.float32
    np.testing.assert_allclose(
        batch["pixel_values"][1, :, 0, 0], (1 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225], rtol=1e-5
    )
    assert batch["labels"].dtype == torch.uint8
    assert batch["labels"][1].sum() == 64 * 32
    assert (batch["labels"][1][:, :32] == 1).all()
    tokens = [processor.tokenizer.convert_ids_to_tokens(ids) for ids in batch["input_ids"]]
    marked = [
        [t for t, m in zip(row, mask, strict=True) if m] for row, mask in zip(tokens, batch["noun_mask"], strict=True)
    ]
    assert marked == [["storage", "tank"], ["ship"]]


@pytest.mark.parametrize("category", [None, "airplane", "tan"])
def test_no_noun_is_marked_where_the_category_is_not_named(processor, category):
    batch = processor(np.zeros((64, 64, 3), np.uint8), "the white storage tank", categories=[category])
    assert not batch["noun_mask"].any()


def test_padding_to_the_longest_that_may_come(processor):
    images = [np.zeros((8, 8, 3), np.uint8)] * 2
    batch = processor(images, ["the ship", "the white ship"], categories=["ship", None], padding="max_length")
    assert batch["input_ids"].shape == batch["noun_mask"].shape == (2, 10)
    assert batch["attention_mask"].sum(1).tolist() == [4, 5]
    assert batch["noun_mask"].sum(1).tolist() == [1, 0]


def test_long_expressions_are_cut(processor):
    batch = processor(np.zeros((64, 64, 3), np.uint8), " ".join(["ship"] * 50))
    assert batch["input_ids"].shape == (1, 10)


def test_masks_come_back_at_the_images_own_size(processor):
    logits = torch.full((2, 16, 16), -5.0)
    logits[0, :8] = 5.0
    outputs = SimpleNamespace(logits=logits)
    masks = processor.post_process_segmentation(outputs, [(100, 60), (7, 9)])
    assert [tuple(mask.shape) for mask in masks] == [(100, 60), (7, 9)]
    assert masks[0][:49].all()
    assert not masks[0][51:].any()
    assert not masks[1].any()
    probabilities = processor.post_process_probabilities(outputs, [(16, 16), (16, 16)])
    torch.testing.assert_close(probabilities[0], logits[0].sigmoid())
    assert processor.post_process_segmentation(outputs, [(16, 16)] * 2, threshold=0.001)[1].all()


def test_round_trip(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    loaded = BTDNetProcessor.from_pretrained(tmp_path)
    assert loaded.max_tokens == processor.max_tokens
    image = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)
    expected, got = processor(image, EXPRESSIONS[1]), loaded(image, EXPRESSIONS[1])
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"expressions": ["a", "b"]}, "expressions must have one entry an image; got 2 for 1 images"),
        ({"expressions": "  "}, r"expressions\[0\] must hold at least one word"),
        (
            {"expressions": "ship", "masks": [np.zeros((8, 8), bool)]},
            r"masks\[0\] must have its image's size \(64, 64\)",
        ),
        ({"expressions": "ship", "categories": []}, "categories must have one entry an image"),
    ],
)
def test_bad_input_is_named(processor, arguments, message):
    with pytest.raises(ValueError, match=message):
        processor(np.zeros((64, 64, 3), np.uint8), **arguments)


def test_number_of_target_sizes_is_checked(processor):
    with pytest.raises(ValueError, match="target_sizes must have 2 entries; got 1"):
        processor.post_process_segmentation(SimpleNamespace(logits=torch.zeros(2, 4, 4)), [(4, 4)])
